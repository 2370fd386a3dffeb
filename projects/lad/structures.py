"""The tensors that the parts of the project exchange.

Shape letters, the same everywhere: N images in the batch, R anchors over all pyramid levels, K
classes, G objects in the whole batch, P candidates in the whole batch, L pyramid levels, D
regression outputs per anchor. Boxes are xyxy in pixels of the (augmented, padded) input. Objects
and candidates are flat over the batch, each with the index of its image.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from detectron2.structures import BitMasks, Boxes, Instances
from torch import Tensor

logger = logging.getLogger(__name__)

IMAGE_MULTIPLE = 32  # anchors are valid up to the image's own size rounded up to this


class BoxCoder(Protocol):
    """Translates between boxes and the regression outputs of a head.

    Attributes:
        num_outputs: D, the regression outputs of an anchor.
    """

    num_outputs: int

    def decode(self, anchors: Tensor, regression: Tensor) -> Tensor:
        """Returns the (..., 4) boxes that (..., D) outputs mean at (..., 4) anchors."""

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Returns the regression targets of (..., 4) boxes at (..., 4) anchors."""


class Grid(NamedTuple):
    """A pyramid level with one square anchor per cell.

    Attributes:
        height: rows of cells.
        width: columns of cells.
        stride: pixels between the centers of neighboring cells.
        side: of the anchors in pixels.
        offset: x and y of the first cell's center in pixels.
    """

    height: int
    width: int
    stride: int
    side: float
    offset: float = 0.0


class Anchors(NamedTuple):
    """The anchors of all pyramid levels, level after level.

    Attributes:
        boxes: (R, 4) xyxy. A point detector's cells are boxes of one stride.
        num_per_level: anchors of each level; their sum is R.
        strides: pixels between neighboring cells of each level.
        grids: the layout of levels with one square anchor per cell, for fast paths; None for other
            anchors.
    """

    boxes: Tensor
    num_per_level: tuple[int, ...]
    strides: tuple[int, ...]
    grids: tuple[Grid, ...] | None = None

    def valid(self, image_sizes: Tensor) -> Tensor:
        """Returns (N, R) bool: the anchor's center lies inside the image padded to multiples of 32.

        Args:
            image_sizes: (N, 2) heights and widths in pixels before padding.
        """
        # Centers are multiples of a quarter pixel, up to rounding: compare in eighths.
        limits = pad_sizes(image_sizes) * 8 - 1
        x, y = (self.boxes[:, :2] + self.boxes[:, 2:]).t() * 4
        return (y < limits[:, :1]) & (x < limits[:, 1:])

    def per_anchor(self, values: Sequence[int] | Tensor) -> Tensor:
        """Returns (R,): the value of each anchor's level."""
        device = self.boxes.device
        counts = torch.tensor(self.num_per_level, device=device)
        values = torch.as_tensor(values, device=device)
        return values.repeat_interleave(counts, output_size=len(self.boxes))


def pad_sizes(image_sizes: Tensor) -> Tensor:
    """Returns sizes rounded up to the multiple that images are padded to."""
    return (image_sizes + IMAGE_MULTIPLE - 1) // IMAGE_MULTIPLE * IMAGE_MULTIPLE


class DensePredictions(NamedTuple):
    """A dense head's predictions for every anchor.

    Attributes:
        scores: (N, R, K) class scores.
        activation: "sigmoid" if the scores are logits, "none" if they are probabilities, as from
            heads that fuse objectness.
        regression: (N, R, D) outputs that ``coder`` turns into boxes.
        quality: (N, R) logits of the predicted IoU or centerness, None for heads without.
        anchors: R anchors.
        coder: decodes the regression.
    """

    scores: Tensor
    activation: str
    regression: Tensor
    quality: Tensor | None
    anchors: Anchors
    coder: BoxCoder

    def boxes(self, at: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Returns the predicted boxes, float32 and not clipped to the image.

        Args:
            at: (P,) image and anchor indices; None for all.

        Returns:
            (P, 4), or (N, R, 4) for all.
        """
        if at is None:
            return self.coder.decode(self.anchors.boxes, self.regression.float())
        regression = self.take(self.regression, at).float()
        return self.coder.decode(self.anchors.boxes.t().index_select(1, at[1]).t(), regression)

    @staticmethod
    def take(values: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
        """Returns the (P, ...) rows of (N, R, ...) values at (P,) image and anchor indices."""
        image, anchor = at
        # Indexing by two tensors takes three times as long on a CPU.
        return values.flatten(0, 1).index_select(0, image * values.shape[1] + anchor)

    def class_probabilities(self, at: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Returns float32 class probabilities, (N, R, K), or (P, K) of the anchors ``at``."""
        scores = (self.scores if at is None else self.take(self.scores, at)).float()
        return scores.sigmoid() if self.activation == "sigmoid" else scores

    def detection_scores(self) -> Tensor:
        """Returns (N, R, K) float32: class probabilities, with a quality their geometric mean."""
        scores = self.class_probabilities()
        if self.quality is None:
            return scores
        return (scores * self.quality.float().sigmoid()[..., None]).sqrt()

    def detach(self) -> DensePredictions:
        """Returns the same predictions outside the autograd graph."""
        return self._map(Tensor.detach)

    def first(self, number: int) -> DensePredictions:
        """Returns the predictions for the first images."""
        return self._map(lambda x: x[:number])

    def float(self) -> DensePredictions:
        """Returns the same predictions in float32, as losses and costs need them."""
        return self._map(Tensor.float)

    def _map(self, function: Callable[[Tensor], Tensor]) -> DensePredictions:
        return self._replace(
            scores=function(self.scores),
            regression=function(self.regression),
            quality=None if self.quality is None else function(self.quality),
        )


def _to(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copies to a GPU without waiting, to the CPU with waiting."""
    return tensor.to(device, non_blocking=torch.device(device).type != "cpu")


class Targets(NamedTuple):
    """The ground truth of a batch, flat.

    Attributes:
        boxes: (G, 4) float32 xyxy in pixels.
        classes: (G,) int64, 0..K-1.
        image: (G,) int64 index of the object's image, ascending.
        image_sizes: (N, 2) int64 height and width of each image before padding.
        masks: (G, H, W) bool instance masks in images of the largest height and width; None
            without.
        labeled: (N,) bool, False for images whose objects are not known; None if all are.
    """

    boxes: Tensor
    classes: Tensor
    image: Tensor
    image_sizes: Tensor
    masks: Tensor | None = None
    labeled: Tensor | None = None

    @classmethod
    def from_instances(cls, instances: list[Instances]) -> Targets:
        """Flattens one Instances per image, with gt_boxes, gt_classes and perhaps gt_masks.

        On the CPU, objects without area are dropped with a warning. Polygons are no masks.
        """
        boxes = torch.cat([x.gt_boxes.tensor for x in instances]).float()
        classes = torch.cat([x.gt_classes for x in instances])
        counts = torch.tensor([len(x) for x in instances])
        image = torch.repeat_interleave(torch.arange(len(instances)), counts).to(boxes.device)
        sizes = torch.tensor([x.image_size for x in instances], device=boxes.device)
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        if boxes.device.type == "cpu" and not has_area.all():  # no wait for a GPU
            logger.warning("Dropped %d ground-truth boxes without area.", int((~has_area).sum()))
            kept = has_area.split(counts.tolist())
            instances = [x[keep] for x, keep in zip(instances, kept, strict=True)]
            boxes, classes, image = boxes[has_area], classes[has_area], image[has_area]
        return cls(boxes, classes, image, sizes, _stack_masks(instances))

    def to(self, device: torch.device | str) -> Targets:
        """Returns the same targets on another device."""
        boxes, classes, image, sizes = (_to(x, device) for x in self[:4])
        masks, labeled = (x if x is None else _to(x, device) for x in self[4:])
        return Targets(boxes, classes, image, sizes, masks, labeled)

    def of_classes(self, known: Tensor) -> Targets:
        """Returns the objects of the classes that are True in (K,) bool."""
        kept = known[self.classes]
        boxes, classes, image = (x[kept] for x in self[:3])
        masks = None if self.masks is None else self.masks[kept]
        return self._replace(boxes=boxes, classes=classes, image=image, masks=masks)

    def with_unlabeled(self, sizes: Sequence[tuple[int, int]]) -> Targets:
        """Returns the same targets with further images, of these heights and widths."""
        if not sizes:
            return self
        further = self.image_sizes.new_tensor(sizes)
        image_sizes = torch.cat([self.image_sizes, further])
        labeled = torch.arange(len(image_sizes), device=further.device) < len(self.image_sizes)
        return self._replace(image_sizes=image_sizes, labeled=labeled)

    def to_instances(self) -> list[Instances]:
        """Returns one Instances per image, as Detectron2's detectors take them."""
        result = []
        for index, (height, width) in enumerate(self.image_sizes.tolist()):
            own = self.image == index
            instances = Instances((height, width))
            instances.gt_boxes, instances.gt_classes = Boxes(self.boxes[own]), self.classes[own]
            if self.masks is not None:
                instances.gt_masks = BitMasks(self.masks[own, :height, :width])
            result.append(instances)
        return result


def _stack_masks(instances: list[Instances]) -> Tensor | None:
    """Returns the (G, H, W) masks, None unless all images with objects have bit masks."""
    height, width = (max(sizes) for sizes in zip(*(x.image_size for x in instances), strict=True))
    masks = [torch.zeros(0, height, width, dtype=torch.bool, device=instances[0].gt_classes.device)]
    for image in instances:
        if not len(image):  # Detectron2's mapper gives it no masks
            continue
        if not (image.has("gt_masks") and isinstance(image.gt_masks, BitMasks)):
            return None
        right, bottom = width - image.image_size[1], height - image.image_size[0]
        masks.append(F.pad(image.gt_masks.tensor, (0, right, 0, bottom)))
    return torch.cat(masks)


class Candidates(NamedTuple):
    """The anchors that each object may claim, by object, then anchor: this order breaks ties.

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

    def slot(self, num_anchors: int) -> Tensor:
        """Returns the (P,) positions of the candidates in flattened (N, R) tensors."""
        return self.image * num_anchors + self.anchor

    def to(self, device: torch.device | str) -> Candidates:
        """Returns the same candidates on another device."""
        return Candidates(*(_to(x, device) for x in self))


class CandidateCosts(NamedTuple):
    """One network's costs of the candidates.

    Attributes:
        cost: (P,) float32; lower is better.
        iou: (P,) float32 IoU of the predicted box with its object, for assigners that use it.
    """

    cost: Tensor
    iou: Tensor | None = None

    def where(self, mask: Tensor, other: CandidateCosts) -> CandidateCosts:
        """Returns these costs and IoUs where the (P,) mask is True, else the other's."""
        iou = None
        if self.iou is not None and other.iou is not None:
            iou = torch.where(mask, self.iou, other.iou)
        return CandidateCosts(torch.where(mask, self.cost, other.cost), iou)


class Assignment(NamedTuple):
    """The labels of all anchors.

    Attributes:
        labels: (N, R) int64: 0..K-1 foreground class, K background, -1 ignored.
        gt: (N, R) int64: index of the matched object (0..G-1) where foreground, else -1.
        cost: (P,) float32 costs, a teacher's if there is one; None for a static rule.
        distilled: whether the labels may come from another network's costs.
    """

    labels: Tensor
    gt: Tensor
    cost: Tensor | None = None
    distilled: bool = False
