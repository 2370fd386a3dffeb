"""Small scenes and networks that several tests share."""

from __future__ import annotations

import torch
from detectron2.modeling.backbone import FPN
from detectron2.structures import Boxes, Instances

from lad.assignment.assigners import PAAAssigner
from lad.assignment.costs import PAACost
from lad.boxes import AnchorGenerator
from lad.modeling.backbones.resnet import build_resnet
from lad.modeling.heads import PAAHead
from lad.modeling.inference import Detector
from lad.modeling.losses import DetectionLosses
from lad.modeling.paa import PAA
from lad.structures import Anchors, DensePredictions, Targets


def make_anchors(height: int = 96, width: int = 128, strides=(8, 16, 32)) -> Anchors:
    """Anchors of side 8 x stride over an image."""
    shapes = [(-(-height // s), -(-width // s)) for s in strides]
    return AnchorGenerator(strides=strides)(shapes)


def make_targets(
    boxes: list[list[list[float]]], sizes: list[tuple[int, int]] | None = None, num_classes: int = 3
) -> Targets:
    """Targets from one list of boxes per image; class = index of the object modulo K."""
    flat = [box for image in boxes for box in image]
    image = [index for index, image in enumerate(boxes) for _ in image]
    return Targets(
        torch.tensor(flat, dtype=torch.float32).reshape(-1, 4),
        torch.arange(len(flat)) % num_classes,
        torch.tensor(image, dtype=torch.int64),
        torch.tensor(sizes or [(96, 128)] * len(boxes)),
    )


def make_predictions(
    num_images: int, anchors: Anchors, num_classes: int = 3, seed: int = 0, quality: bool = True
) -> DensePredictions:
    """Random predictions, leaves of the graph."""
    generator = torch.Generator().manual_seed(seed)
    shape = num_images, len(anchors.boxes)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator).requires_grad_()

    return DensePredictions(
        draw(*shape, num_classes), False, draw(*shape, 4), draw(*shape) if quality else None
    )


def random_boxes(count: int, height: int, width: int, seed: int = 0) -> list[list[float]]:
    """Boxes with an area inside an image."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values
    corners = corners * torch.tensor([width - 2.0, height - 2.0])
    corners[:, 1] += 2
    return corners.flatten(1).tolist()


def make_paa(seed: int = 0, *, width: int = 8, num_classes: int = 3, losses=None, **head) -> PAA:
    """A tiny PAA detector with random weights and no batch statistics."""
    torch.manual_seed(seed)
    bottom_up = build_resnet(depth=10, width=width, norm="", freeze_at=0)
    return PAA(
        backbone=FPN(bottom_up, ["res3", "res4", "res5"], 32),
        head=PAAHead(
            in_channels=32, num_classes=num_classes, num_levels=3, channels=32, num_convs=1, **head
        ),
        head_in_features=["p3", "p4", "p5"],
        anchor_generator=AnchorGenerator(strides=(8, 16, 32), scale=4),
        assigner=PAAAssigner(cost=PAACost(), num_classes=num_classes),
        losses=losses or DetectionLosses(),
        detector=Detector(),
        pixel_mean=[120.0, 120.0, 120.0],
        pixel_std=[60.0, 60.0, 60.0],
    )


def make_batch(
    boxes: list[list[list[float]]],
    size: tuple[int, int] = (64, 96),
    num_classes: int = 3,
    seed: int = 0,
) -> list[dict]:
    """Inputs as Detectron2's mapper makes them, random images, classes in turn."""
    generator = torch.Generator().manual_seed(seed)
    batch = []
    for image in boxes:
        instances = Instances(size)
        instances.gt_boxes = Boxes(torch.tensor(image, dtype=torch.float32).reshape(-1, 4))
        instances.gt_classes = torch.arange(len(image)) % num_classes
        pixels = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        batch.append({"image": pixels, "instances": instances, "height": size[0], "width": size[1]})
    return batch
