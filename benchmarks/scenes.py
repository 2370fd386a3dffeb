"""Random ground truth and predictions."""

from __future__ import annotations

import argparse
import math

import torch
from detectron2.structures import Boxes, Instances

from lad.modeling.anchor_generator import AnchorGenerator
from lad.ops.coders import DeltaCoder
from lad.structures import Anchors, DensePredictions, Targets

STRIDES = (8, 16, 32, 64, 128)


def parse_size(text: str) -> tuple[int, int]:
    """Returns height and width of "800x1344".

    Raises:
        argparse.ArgumentTypeError: for other text.
    """
    height, by, width = text.partition("x")
    if not (by and height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not height x width, such as 800x1344")
    return int(height), int(width)


def make_anchors(height: int, width: int, device: str = "cpu") -> Anchors:
    """Returns the anchors P3 to P7 of an image."""
    shapes = [(math.ceil(height / s), math.ceil(width / s)) for s in STRIDES]
    return AnchorGenerator(strides=STRIDES)(shapes, device)


def random_instances(
    count: int, height: int, width: int, num_classes: int, generator: torch.Generator
) -> Instances:
    """Returns objects of COCO's sizes at 800 px, anywhere in the image.

    The square root of the area is uniform in the logarithm from 16 px to 350 px: 39 % small, 36 %
    medium, 25 % large (COCO: 41, 34, 24 %), the limits at 53 px and 160 px being COCO's 32 px and
    96 px enlarged by 800/480. Aspect ratios are from 1/2 to 2.
    """
    scale = 16 * (350 / 16) ** torch.rand(count, generator=generator)
    aspect = 2 ** (torch.rand(count, generator=generator) - 0.5)
    limits = torch.tensor([float(width), float(height)])
    side = torch.stack([scale * aspect, scale / aspect], dim=1)
    side = torch.minimum(side, limits - 2)
    corner = torch.rand(count, 2, generator=generator) * (limits - side)
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.cat([corner, corner + side], dim=1))
    instances.gt_classes = torch.randint(num_classes, (count,), generator=generator)
    return instances


def random_batch(
    images: int, count: int, height: int, width: int, *, num_classes: int = 80, seed: int = 0
) -> list[dict]:
    """Returns inputs as Detectron2's mapper makes them: noise with ``count`` objects per image."""
    generator = torch.Generator().manual_seed(seed)
    batch = []
    for _ in range(images):
        pixels = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        instances = random_instances(count, height, width, num_classes, generator)
        batch.append({"image": pixels, "instances": instances, "height": height, "width": width})
    return batch


def random_targets(images: int, count: int, height: int, width: int, seed: int = 0) -> Targets:
    """Returns the ground truth alone, of 80 classes."""
    generator = torch.Generator().manual_seed(seed)
    instances = [random_instances(count, height, width, 80, generator) for _ in range(images)]
    return Targets.from_instances(instances)


def spread_predictions(images: int, anchors: Anchors, seed: int = 0) -> DensePredictions:
    """Returns random predictions of 80 classes whose costs vary as a detector's do.

    Logits and deltas have a deviation of 2: a mixture fit takes 9 iterations on average and at
    most 30.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> torch.Tensor:
        values = torch.randn(images, len(anchors.boxes), *size, generator=generator)
        return values.to(anchors.boxes.device)

    return DensePredictions(
        scores=draw(80) * 2 - 4,
        activation="sigmoid",
        regression=draw(4) * 2,
        quality=draw(),
        anchors=anchors,
        coder=DeltaCoder(),
    )
