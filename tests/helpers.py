"""Small scenes and networks that several tests share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import FPN
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.fcos import FCOSHead
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import EventStorage
from torch import nn

from lad.assignment.assigners import LabelAssigner
from lad.assignment.costs import PAACost, QualityFocalCost
from lad.assignment.paa import PAAAssigner
from lad.modeling.anchor_generator import AnchorGenerator
from lad.modeling.backbones.resnet import build_resnet
from lad.modeling.detectron2 import FCOS, RetinaNet
from lad.modeling.distill_losses.lgd import LGD, LabelGuidedTeacher
from lad.modeling.distillation import DistillLoss
from lad.modeling.heads import GFLHead, PAAHead
from lad.modeling.losses import DetectionLosses, GFLLosses
from lad.modeling.one_stage import OneStageDetector
from lad.modeling.postprocess import PostProcessor
from lad.ops.coders import DeltaCoder, DistributionCoder
from lad.structures import Anchors, Assignment, Candidates, DensePredictions, Targets

LEVELS = ["p3", "p4", "p5"]
STRIDES = (8, 16, 32)
CHANNELS = 32
HARDLY_TRAINED = 0.2  # scores of a detector after a few iterations that count as detections


def make_anchors(
    height: int = 96, width: int = 128, strides: Sequence[int] = STRIDES, scale: float = 8.0
) -> Anchors:
    """Square anchors of side scale x stride over an image."""
    shapes = [(-(-height // s), -(-width // s)) for s in strides]
    return AnchorGenerator(strides=strides, scale=scale)(shapes)


def generic(anchors: Anchors) -> Anchors:
    """The same anchors without their regular layout: assigners take the path for any anchors."""
    return anchors._replace(grids=None)


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
        scores=draw(*shape, num_classes),
        activation="sigmoid",
        regression=draw(*shape, 4),
        quality=draw(*shape) if quality else None,
        anchors=anchors,
        coder=DeltaCoder(),
    )


def make_distributions(
    num_images: int, anchors: Anchors, num_classes: int = 3, seed: int = 0
) -> DensePredictions:
    """Random predictions of a GFL head with 17 bins of a stride, leaves of the graph."""
    generator = torch.Generator().manual_seed(seed)
    shape = num_images, len(anchors.boxes)
    return DensePredictions(
        torch.randn(*shape, num_classes, generator=generator).requires_grad_(),
        "sigmoid",
        torch.randn(*shape, 68, generator=generator).requires_grad_(),
        None,
        anchors,
        DistributionCoder(),
    )


def make_candidates(gt: list[int], level: list[int], image: list[int] | None = None) -> Candidates:
    """Candidates of these objects on the first anchors, in order; by default of one image."""
    columns = [image or [0] * len(gt), list(range(len(gt))), gt, level]
    return Candidates(*(torch.tensor(x, dtype=torch.int64) for x in columns))


def random_boxes(count: int, height: int, width: int, seed: int = 0) -> list[list[float]]:
    """Boxes with an area inside an image."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values
    corners = corners * torch.tensor([width - 2.0, height - 2.0])
    corners[:, 1] += 2
    return corners.flatten(1).tolist()


def matrix_owners(anchors: Anchors, targets: Targets, min_iou: float = 0.1) -> torch.Tensor:
    """The rule of `iou_candidates` from each image's whole IoU matrix.

    Returns:
        (N, R) int64: the object that each anchor is a candidate of, -1 for none.
    """
    valid = anchors.valid(targets.image_sizes)
    owner = torch.full(valid.shape, -1)
    for image in range(len(valid)):
        objects = (targets.image == image).nonzero()[:, 0]
        if not len(objects):
            continue
        iou = pairwise_iou(Boxes(targets.boxes[objects]), Boxes(anchors.boxes))
        iou = iou.masked_fill(~valid[image], -1)
        best, which = iou.max(dim=0)
        owner[image] = torch.where(best >= min_iou, objects[which], -1)
        for row, highest in enumerate(iou.amax(dim=1)):
            owner[image, iou[row] == highest] = objects[row]
    return owner


def make_assignment(
    anchors: Anchors, targets: Targets, positives: dict[tuple[int, int], int], ignored: int = 0
) -> Assignment:
    """Labels with the given (image, anchor) -> object; the last anchors ignored; 3 classes."""
    labels = torch.full((len(targets.image_sizes), len(anchors.boxes)), 3)
    gt = torch.full_like(labels, -1)
    if ignored:
        labels[:, -ignored:] = -1
    for at, index in positives.items():
        gt[at], labels[at] = index, targets.classes[index]
    return Assignment(labels, gt)


def train_step(model: nn.Module, batch: list[dict]) -> dict[str, torch.Tensor]:
    """Losses of a step, which are finite, after its backward pass."""
    with EventStorage():
        losses = model.train()(batch)
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    return losses


def make_fpn() -> FPN:
    """P3 to P5 of a tiny ResNet, no batch norm."""
    bottom_up = build_resnet(depth=10, width=8, norm="", freeze_at=0)
    return FPN(bottom_up, ["res3", "res4", "res5"], CHANNELS)


def _one_stage(
    seed: int,
    head: type[PAAHead],
    *,
    width: int,
    num_classes: int,
    channels: int = CHANNELS,
    head_options: dict,
    **parts,
) -> OneStageDetector:
    """A tiny detector with random weights and no batch statistics."""
    torch.manual_seed(seed)
    bottom_up = build_resnet(depth=10, width=width, norm="", freeze_at=0)
    return OneStageDetector(
        backbone=FPN(bottom_up, ["res3", "res4", "res5"], channels),
        head=head(
            in_channels=channels,
            num_classes=num_classes,
            num_levels=len(LEVELS),
            channels=channels,
            **{"num_convs": 1, **head_options},
        ),
        head_in_features=LEVELS,
        anchor_generator=AnchorGenerator(strides=STRIDES, scale=4),
        pixel_mean=[120.0, 120.0, 120.0],
        pixel_std=[60.0, 60.0, 60.0],
        **parts,
    )


def make_paa(
    seed: int = 0,
    *,
    width: int = 8,
    num_classes: int = 3,
    losses: DetectionLosses | None = None,
    assigner: LabelAssigner | None = None,
    channels: int = CHANNELS,
    **head,
) -> OneStageDetector:
    """A tiny PAA detector with random weights and no batch statistics."""
    return _one_stage(
        seed,
        PAAHead,
        width=width,
        num_classes=num_classes,
        channels=channels,
        head_options=head,
        assigner=assigner or PAAAssigner(cost=PAACost(), num_classes=num_classes),
        losses=losses or DetectionLosses(),
        postprocessor=PostProcessor(),
    )


def make_gfl(
    seed: int = 0,
    *,
    width: int = 8,
    num_classes: int = 3,
    num_bins: int = 17,
    assigner: LabelAssigner | None = None,
    **head,
) -> OneStageDetector:
    """A tiny GFL detector with `make_paa`'s anchors."""
    return _one_stage(
        seed,
        GFLHead,
        width=width,
        num_classes=num_classes,
        head_options={"num_bins": num_bins, **head},
        assigner=assigner or PAAAssigner(cost=QualityFocalCost(), num_classes=num_classes),
        losses=GFLLosses(),
        postprocessor=PostProcessor(score_voting=False),
        coder=DistributionCoder(num_bins=num_bins, units_per_side=4.0),
    )


def make_retinanet(
    seed: int = 0,
    *,
    assigner: LabelAssigner | None = None,
    num_anchors: int = 9,
    num_classes: int = 3,
    offset: float = 0.0,
    num_convs: int = 1,
) -> RetinaNet:
    """A tiny RetinaNet with nine anchors per cell, or the one square anchor of `make_paa`."""
    torch.manual_seed(seed)
    octaves = [1.0, 2 ** (1 / 3), 2 ** (2 / 3)] if num_anchors == 9 else [1.0]
    return RetinaNet(
        backbone=make_fpn(),
        head=RetinaNetHead(
            input_shape=[ShapeSpec(channels=CHANNELS)] * len(LEVELS),
            num_classes=num_classes,
            conv_dims=[CHANNELS] * num_convs,
            num_anchors=num_anchors,
        ),
        head_in_features=LEVELS,
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[4.0 * stride * octave for octave in octaves] for stride in STRIDES],
            aspect_ratios=[0.5, 1.0, 2.0] if num_anchors == 9 else [1.0],
            strides=STRIDES,
            offset=offset,
        ),
        box2box_transform=Box2BoxTransform(weights=[1.0, 1.0, 1.0, 1.0]),
        anchor_matcher=Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
        num_classes=num_classes,
        pixel_mean=[120.0, 120.0, 120.0],
        pixel_std=[60.0, 60.0, 60.0],
        assigner=assigner,
    )


def make_fcos(
    seed: int = 0,
    *,
    assigner: LabelAssigner | None = None,
    num_classes: int = 3,
    num_convs: int = 1,
) -> FCOS:
    """A tiny FCOS."""
    torch.manual_seed(seed)
    return FCOS(
        backbone=make_fpn(),
        head=FCOSHead(
            input_shape=[ShapeSpec(channels=CHANNELS)] * len(LEVELS),
            num_classes=num_classes,
            conv_dims=[CHANNELS] * num_convs,
        ),
        head_in_features=LEVELS,
        num_classes=num_classes,
        pixel_mean=[120.0, 120.0, 120.0],
        pixel_std=[60.0, 60.0, 60.0],
        assigner=assigner,
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


def make_lgd(channels: int = CHANNELS, *, num_classes: int = 3, loss=(), **teacher) -> LGD:
    """LGD with a small label encoder; ``loss`` are its own options, the others its teacher's."""
    torch.manual_seed(0)
    options = {"channels": channels, "num_classes": num_classes, "label_width": 4} | teacher
    return LGD(teacher=LabelGuidedTeacher(**options), **dict(loss))


class ToyLoss(DistillLoss):
    """Mean squared difference of features and of the class tower, the student's through a conv."""

    def intermediates(self, network):
        return ("head.class_tower",)

    def __init__(self, channels: int = 32, **schedule: float):
        super().__init__(**schedule)
        self.adapter = nn.Conv2d(channels, channels, 1)

    def forward(self, student, teacher, targets, assignment):
        """Returns the loss on the finest level."""
        assert teacher is not None and not teacher.features[0].requires_grad
        tower, other = (x.intermediates["head.class_tower"][0] for x in (student, teacher))
        difference = self.adapter(student.features[0]) - teacher.features[0]
        return {"loss_toy": difference.square().mean() + (tower - other).square().mean()}
