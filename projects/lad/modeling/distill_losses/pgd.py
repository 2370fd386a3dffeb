"""PGD: prediction-guided feature distillation (arXiv 2203.05469)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lad.modeling.distill_losses.common import TowerLoss
from lad.modeling.network import NetworkOutput
from lad.ops.boxes import paired_iou
from lad.ops.ranks import mean_over_ranks
from lad.structures import Assignment, DensePredictions, Targets

_OBJECTS = 64  # at a time, which bounds the memory of a crowded batch
_BLUR = 0.05**2 / 3  # px^2: variance of noise of +-0.05 px, so that no Gaussian is singular


class Masks(NamedTuple):
    """Weights of the cells of each level, (N, H, W) each.

    Attributes:
        classes: foreground of the class tower.
        background: of the class tower.
        boxes: foreground of the box tower.
    """

    classes: list[Tensor]
    background: list[Tensor]
    boxes: list[Tensor]


class PGD(TowerLoss):
    """Features after the first block of both towers, weighted by the teacher's predictions.

    The best cells of an object are those of the highest quality: the teacher's score for its class
    to the power of (1 - xi), times the IoU of the teacher's box to the power of xi. A Gaussian of
    these cells weights the squared differences (paper, sections 3.1 to 3.3), along with the
    teacher's attention over positions and channels.

    Each image has its own masks; the authors' code applies the masks of every image to every image
    of a batch. Instead of adding noise to the cells, the variance of that noise is added to the
    Gaussian's. The authors also start the student's neck and head from the teacher's weights.

    Args:
        alpha: weight of the foreground in the class tower; the background has half of it, the box
            tower 1.6 times.
        delta: weight of the attentions' difference.
        temperature: of the attentions.
        class_exponent: xi of the class tower's masks.
        box_exponent: xi of the box tower's mask.
        topk: best cells of an object.
        **schedule: ``start`` and ``until`` of `DistillLoss`.
    """

    block = 0
    place = "after"

    def __init__(
        self,
        *,
        alpha: float = 0.08,
        delta: float = 0.0008,
        temperature: float = 0.8,
        class_exponent: float = 0.8,
        box_exponent: float = 0.6,
        topk: int = 9,
        **schedule: float,
    ):
        super().__init__(**schedule)
        self.alpha = alpha
        self.delta = delta
        self.temperature = temperature
        self.class_exponent = class_exponent
        self.box_exponent = box_exponent
        self.topk = topk

    def forward(
        self,
        student: NetworkOutput,
        teacher: NetworkOutput | None,
        targets: Targets,
        assignment: Assignment | None,
    ) -> dict[str, Tensor]:
        """Returns ``loss_pgd_cls`` and ``loss_pgd_box``."""
        assert teacher is not None
        with torch.autocast(student.predictions.scores.device.type, enabled=False):
            class_pairs, box_pairs = self.pairs(student, teacher)
            features = [y for _, y in class_pairs]
            predictions = teacher.predictions.float()
            masks = self.masks(predictions, targets, features, teacher.known_classes)
            class_loss = torch.stack(
                [
                    self.class_term(x, y, foreground, background, 1 + 0.25 * level)
                    for level, ((x, y), foreground, background) in enumerate(
                        zip(class_pairs, masks.classes, masks.background, strict=True)
                    )
                ]
            )
            return {
                "loss_pgd_cls": class_loss.sum(),
                "loss_pgd_box": self.box_term(box_pairs, masks.boxes),
            }

    def masks(
        self,
        predictions: DensePredictions,
        targets: Targets,
        features: Sequence[Tensor],
        known: Tensor | None = None,
    ) -> Masks:
        """Returns the masks.

        Args:
            predictions: the teacher's.
            targets: the objects.
            features: (N, C, H, W) of each level, whose cells are weighted.
            known: (K,) bool, False for classes whose objects get no foreground; None if there are
                none.
        """
        shapes = [x.shape[-2:] for x in features]
        anchors = predictions.anchors
        cells = [height * width for height, width in shapes]
        centers = torch.cat(
            [
                # All anchors of a cell have one center.
                x.view(number, -1, 4)[:, 0]
                for x, number in zip(anchors.boxes.split(anchors.num_per_level), cells, strict=True)
            ]
        )
        centers = (centers[:, :2] + centers[:, 2:]) / 2
        size = len(features[0]), len(centers)
        weights = {x: centers.new_zeros(size) for x in (self.class_exponent, self.box_exponent)}
        outside = torch.ones(size, dtype=torch.bool, device=centers.device)
        boxes, probabilities = predictions.boxes(), predictions.class_probabilities()
        for part in torch.arange(len(targets.boxes), device=centers.device).split(_OBJECTS):
            image, gt_boxes = targets.image[part], targets.boxes[part]
            inside = ((gt_boxes[:, None, :2] < centers) & (centers < gt_boxes[:, None, 2:])).all(-1)
            outside = outside & ~_any_object(inside, image, size[0])
            classes = targets.classes[part]
            counted = inside if known is None else inside & known[classes][:, None]
            score = probabilities[image, :, classes]
            iou = paired_iou(boxes[image], gt_boxes[:, None])
            for exponent, weight in weights.items():
                quality = score ** (1 - exponent) * iou**exponent
                quality = _best_of_cell(quality, anchors.num_per_level, cells)
                own = gaussian_weights(quality, centers, self.topk) * counted
                rows = image[:, None].expand_as(own)
                weights[exponent] = weight.scatter_reduce(0, rows, own, "amax")
        parts = (weights[self.class_exponent], outside.float(), weights[self.box_exponent])
        return Masks(
            *(
                [y.unflatten(1, shape) for y, shape in zip(x.split(cells, 1), shapes, strict=True)]
                for x in parts
            )
        )

    def class_term(
        self, own: Tensor, other: Tensor, foreground: Tensor, background: Tensor, weight: float
    ) -> Tensor:
        """Returns the loss of a level of the class tower.

        Args:
            own: (N, C, H, W), the student's.
            other: the same of the teacher.
            foreground: (N, H, W) weights.
            background: the same.
            weight: of the level.
        """
        masks = sum(
            factor * mask / (mask > 0).sum(dim=(1, 2), keepdim=True).clamp(min=1)
            for factor, mask in ((self.alpha, foreground), (self.alpha / 2, background))
        )
        space, channels = self.attention(other)
        own_space, own_channels = self.attention(own)
        difference = (channels * (own - other).square()).sum(dim=1)
        number, _, height, width = own.shape
        attention = (own_channels - channels).abs().sum() / (number * height * width)
        attention = attention + (own_space - space).abs().sum() / number
        features = (masks * space * difference).sum() / number
        return weight * features + self.delta * attention

    def box_term(self, pairs: Sequence[tuple[Tensor, Tensor]], masks: Sequence[Tensor]) -> Tensor:
        """Returns the loss of the box tower, over the cells of all levels with a weight.

        Args:
            pairs: (N, C, H, W) of student and teacher, of each level.
            masks: (N, H, W) weights of each level.
        """
        total = pairs[0][0].new_zeros(())
        for (own, other), mask in zip(pairs, masks, strict=True):
            channels, own_channels = (self.attention(x)[1] for x in (other, own))
            feature = mask * (channels * (own - other).square()).mean(dim=1)
            attention = ((own_channels - channels).abs().sum(dim=1) * (mask > 0)).sum()
            total = total + 1.6 * self.alpha * feature.sum() + self.delta * attention
        cells = torch.stack([(mask > 0).sum() for mask in masks]).sum().float()
        return total / mean_over_ranks(cells).clamp(min=1)

    def attention(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the attentions of (N, C, H, W) over positions, (N, H, W), and over channels.

        The first has mean 1 over the positions of an image, the second over the channels.
        """
        magnitude = features.abs() / self.temperature
        space = magnitude.mean(dim=1).flatten(1).softmax(dim=1) * magnitude[0, 0].numel()
        channels = magnitude.softmax(dim=1) * magnitude.shape[1]
        return space.view(len(features), *features.shape[-2:]), channels


def gaussian_weights(quality: Tensor, centers: Tensor, topk: int) -> Tensor:
    """Returns (G, R): exp(-d' S^-1 d / 2) of an object's best cells, 0 of others.

    d is the distance to the mean of these cells' centers, S their covariance.

    Args:
        quality: (G, R) of each cell for each object.
        centers: (R, 2) of the cells in pixels.
        topk: cells of an object.
    """
    best = quality.topk(min(topk, quality.shape[1]), dim=1).indices
    distance = centers[best] - centers[best].mean(dim=1, keepdim=True)
    x, y = distance.unbind(dim=-1)
    xx, yy, xy = (x * x).mean(1) + _BLUR, (y * y).mean(1) + _BLUR, (x * y).mean(1)
    xx, yy, xy = (value[:, None] for value in (xx, yy, xy))
    square = (yy * x * x - 2 * xy * x * y + xx * y * y) / (xx * yy - xy * xy)
    return torch.zeros_like(quality).scatter(1, best, (-square / 2).exp())


def _best_of_cell(quality: Tensor, num_per_level: Sequence[int], cells: Sequence[int]) -> Tensor:
    """Returns (G, cells) from the (G, R) qualities of anchors: the best of each cell."""
    parts = quality.split(list(num_per_level), dim=1)
    return torch.cat(
        [x.unflatten(1, (number, -1)).amax(-1) for x, number in zip(parts, cells, strict=True)], 1
    )


def _any_object(inside: Tensor, image: Tensor, num_images: int) -> Tensor:
    """Returns (N, R) bool from (G, R) bool: whether any object of the image has it."""
    counts = inside.new_zeros((num_images, inside.shape[1]), dtype=torch.int32)
    return counts.index_add(0, image, inside.int()) > 0
