"""The tensors that travel between the parts of the project.

Shape letters, the same everywhere: N images in the batch, R anchors over all pyramid levels, K
classes, G objects in the whole batch, P candidates in the whole batch, L pyramid levels. Boxes are
xyxy in pixels of the (augmented, padded) input. Everything is flat over the batch: an object or a
candidate carries the index of its image, so that assignment needs no loop over images.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.structures import Instances
from torch import Tensor

logger = logging.getLogger(__name__)

IMAGE_MULTIPLE = 32  # anchors are valid up to the image's own size rounded up to this


class DensePredictions(NamedTuple):
    """What a dense head predicts for every anchor.

    Attributes:
        scores: (N, R, K) class logits, or class probabilities where the head fuses objectness.
        probabilities: which of the two ``scores`` holds.
        deltas: (N, R, 4) box deltas relative to the anchors.
        quality: (N, R) logits of the predicted IoU, None for heads without the IoU branch.
    """

    scores: Tensor
    probabilities: bool
    deltas: Tensor
    quality: Tensor | None

    def class_probabilities(self) -> Tensor:
        """Returns (N, R, K) float32 class probabilities."""
        scores = self.scores.float()
        return scores if self.probabilities else scores.sigmoid()

    def detach(self) -> DensePredictions:
        """Returns the same predictions outside the autograd graph."""
        return self._map(Tensor.detach)

    def float(self) -> DensePredictions:
        """Returns the same predictions in float32: losses and costs are never computed in half."""
        return self._map(Tensor.float)

    def _map(self, function: Callable[[Tensor], Tensor]) -> DensePredictions:
        quality = None if self.quality is None else function(self.quality)
        return self._replace(
            scores=function(self.scores), deltas=function(self.deltas), quality=quality
        )


class Anchors(NamedTuple):
    """One square anchor per cell of every pyramid level.

    Attributes:
        boxes: (R, 4) xyxy, level after level, row after row.
        shapes: (height, width) in cells of each level.
        strides: pixels between neighbouring cells of each level.
        sizes: side of the anchors of each level in pixels.
    """

    boxes: Tensor
    shapes: tuple[tuple[int, int], ...]
    strides: tuple[int, ...]
    sizes: tuple[float, ...]

    @property
    def num_per_level(self) -> list[int]:
        """Number of anchors of each level; their sum is R."""
        return [height * width for height, width in self.shapes]

    def valid_shapes(self, image_sizes: Tensor) -> np.ndarray:
        """Cells inside each image's own size, rounded up to a multiple of 32 pixels.

        Args:
            image_sizes: (N, 2) heights and widths in pixels before padding, on the CPU.

        Returns:
            (N, L, 2) int64: the number of valid rows and columns of each level.
        """
        padded = _padded(image_sizes.numpy())[:, None]
        return np.minimum(-(-padded // np.array(self.strides)[:, None]), self.shapes)

    def valid(self, image_sizes: Tensor) -> Tensor:
        """Returns (N, R) bool: True where the anchor's cell is valid (see `valid_shapes`).

        That is where the anchor's centre lies inside the padded image, at its right and lower end
        excluded.
        """
        limits = _padded(image_sizes) * 2 - 1  # centres are whole pixels, up to rounding
        twice_x, twice_y = (self.boxes[:, :2] + self.boxes[:, 2:]).t()
        return (twice_y < limits[:, :1]) & (twice_x < limits[:, 1:])


def _padded(image_sizes: Any) -> Any:
    """Sizes rounded up to the multiple that images are padded to."""
    return (image_sizes + IMAGE_MULTIPLE - 1) // IMAGE_MULTIPLE * IMAGE_MULTIPLE


def _to(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copies to a GPU without waiting; back from it with, or what is not yet there is read."""
    return tensor.to(device, non_blocking=torch.device(device).type != "cpu")


class Targets(NamedTuple):
    """The ground truth of a batch, flat.

    Attributes:
        boxes: (G, 4) float32 xyxy in pixels.
        classes: (G,) int64, 0..K-1.
        image: (G,) int64 index of the object's image, ascending.
        image_sizes: (N, 2) int64 height and width of each image before padding.
    """

    boxes: Tensor
    classes: Tensor
    image: Tensor
    image_sizes: Tensor

    @classmethod
    def from_instances(cls, instances: list[Instances]) -> Targets:
        """Flattens Detectron2's per-image ground truth; objects without area are dropped.

        Args:
            instances: one per image, with ``gt_boxes`` and ``gt_classes``.
        """
        boxes = torch.cat([x.gt_boxes.tensor for x in instances]).float()
        classes = torch.cat([x.gt_classes for x in instances])
        counts = torch.tensor([len(x) for x in instances])
        image = torch.repeat_interleave(torch.arange(len(instances)), counts).to(boxes.device)
        sizes = torch.tensor([x.image_size for x in instances], device=boxes.device)
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        if boxes.device.type == "cpu" and not has_area.all():  # on a GPU the test would wait for it
            logger.warning("Dropped %d ground-truth boxes without area.", int((~has_area).sum()))
            boxes, classes, image = boxes[has_area], classes[has_area], image[has_area]
        return cls(boxes, classes, image, sizes)

    def to(self, device: torch.device | str) -> Targets:
        """Returns the same targets on another device."""
        return Targets(*(_to(x, device) for x in self))


class Candidates(NamedTuple):
    """The anchors that each object may claim, flat over the batch.

    Ordered by object, then level, then anchor: equal costs are decided by this order.

    Attributes:
        image: (P,) int64 index of the image.
        anchor: (P,) int64 index of the anchor, 0..R-1.
        gt: (P,) int64 index of the object, 0..G-1.
        level: (P,) int64 pyramid level.
    """

    image: Tensor
    anchor: Tensor
    gt: Tensor
    level: Tensor

    def to(self, device: torch.device | str) -> Candidates:
        """Returns the same candidates on another device."""
        return Candidates(*(_to(x, device) for x in self))


class Assignment(NamedTuple):
    """What every anchor is trained to be.

    Attributes:
        labels: (N, R) int64: 0..K-1 foreground class, K background, -1 ignored.
        gt: (N, R) int64: index of the matched object (0..G-1) where foreground, else -1.
    """

    labels: Tensor
    gt: Tensor
