"""From predictions to detections: selection, NMS and score voting (PAA section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor

from lad.ops.boxes import clip_boxes
from lad.structures import DensePredictions

_VOTE_IOU = 0.01
_VOTE_SIGMA = 0.025


class SelectedBoxes(NamedTuple):
    """The boxes that NMS starts from: a fixed number B for each of N images.

    Attributes:
        boxes: (N, B, 4) xyxy in pixels of the input.
        scores: (N, B).
        classes: (N, B) int64.
        anchors: (N, B) int64 index of the anchor, level after level.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    anchors: Tensor


class NMSSettings(NamedTuple):
    """How detections are made of `SelectedBoxes`; the names are those of `PostProcessor`."""

    score_thresh: float
    nms_thresh: float
    max_detections: int
    score_voting: bool


class PostProcessor:
    """Makes detections from dense predictions.

    `select` has tensor operations of fixed shapes only, for export; `detect` works per image.

    Args:
        score_thresh: detections score above this.
        topk_candidates: anchors kept per level before thresholding.
        nms_thresh: IoU of class-wise non-maximum suppression.
        max_detections: per image.
        score_voting: move each kept box to the weighted mean of the boxes around it.
    """

    def __init__(
        self,
        *,
        score_thresh: float = 0.05,
        topk_candidates: int = 1000,
        nms_thresh: float = 0.6,
        max_detections: int = 100,
        score_voting: bool = True,
    ):
        self.score_thresh = score_thresh
        self.topk_candidates = topk_candidates
        self.nms_thresh = nms_thresh
        self.max_detections = max_detections
        self.score_voting = score_voting

    @torch.no_grad()
    def __call__(
        self, predictions: DensePredictions, image_sizes: list[tuple[int, int]]
    ) -> list[Instances]:
        """Returns the detections of each image, best first, in pixels of the input.

        ``image_sizes`` are N heights and widths before padding.
        """
        sizes = torch.tensor(image_sizes, device=predictions.scores.device)
        scores, boxes = self.select(predictions, sizes)
        return [self.detect(*image) for image in zip(scores, boxes, image_sizes, strict=True)]

    def select(self, predictions: DensePredictions, image_sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Selects the M best anchors, at most `topk_candidates` per level.

        Args:
            predictions: of N images.
            image_sizes: (N, 2) heights and widths before padding.

        Returns:
            (N, M, K) scores and (N, M, 4) boxes, clipped to the image.
        """
        return self._select(predictions, image_sizes)[:2]

    def _select(
        self, predictions: DensePredictions, image_sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what `select` does and the (N, M) anchors."""
        scores = predictions.detection_scores()
        levels = scores.amax(dim=-1).split(predictions.anchors.num_per_level, dim=1)
        anchor = topk_per_level(levels, self.topk_candidates)
        image = torch.arange(len(anchor), device=anchor.device)[:, None].expand_as(anchor)
        at = image.flatten(), anchor.flatten()
        boxes = predictions.boxes(at).unflatten(0, anchor.shape)
        return (
            predictions.take(scores, at).unflatten(0, anchor.shape),
            clip_boxes(boxes, image_sizes[:, None]),
            anchor,
        )

    def select_boxes(self, predictions: DensePredictions, image_sizes: Tensor) -> SelectedBoxes:
        """Returns what `select` does with a row for each class of each anchor: B = M x K."""
        scores, boxes, anchor = self._select(predictions, image_sizes)
        classes = torch.arange(scores.shape[-1], device=scores.device).expand_as(scores)
        boxes = boxes[:, :, None].expand(-1, -1, scores.shape[-1], -1)
        anchor = anchor[..., None].expand_as(scores)
        parts = scores, classes, anchor
        return SelectedBoxes(boxes.flatten(1, 2), *(x.flatten(1) for x in parts))

    @property
    def nms_settings(self) -> NMSSettings:
        """The settings of `detect`."""
        return NMSSettings(
            self.score_thresh, self.nms_thresh, self.max_detections, self.score_voting
        )

    def detect(self, scores: Tensor, boxes: Tensor, image_size: tuple[int, int]) -> Instances:
        """Returns the detections of one image from (M, K) scores and (M, 4) boxes."""
        anchor, classes = (scores > self.score_thresh).nonzero(as_tuple=True)
        scores, boxes = scores[anchor, classes], boxes[anchor]
        keep = batched_nms(boxes, scores, classes, self.nms_thresh)[: self.max_detections]
        kept = boxes[keep]
        if self.score_voting:
            kept = vote(kept, classes[keep], boxes, scores, classes)
        instances = Instances(image_size)
        instances.pred_boxes = Boxes(kept)
        instances.scores = scores[keep]
        instances.pred_classes = classes[keep]
        return instances


def topk_per_level(levels: Sequence[Tensor], number: int) -> Tensor:
    """Returns (N, M) indices of each level's highest values, best first, level after level.

    Args:
        levels: (N, R_l) values of each level.
        number: taken per level, or all of a smaller level.
    """
    keep, start = [], 0
    for level in levels:
        count = torch.sym_min(number, level.shape[1])  # an export's sizes may be symbols
        keep.append(level.topk(count, dim=1).indices + start)
        start += level.shape[1]
    return torch.cat(keep, dim=1)


def vote(
    kept: Tensor, kept_classes: Tensor, boxes: Tensor, scores: Tensor, classes: Tensor
) -> Tensor:
    """Score voting: the mean of same-class boxes, weighted by score x exp(-(1 - IoU)^2 / 0.025).

    Args:
        kept: (D, 4) boxes after NMS.
        kept_classes: (D,).
        boxes: (M, 4) boxes before NMS; those with IoU above 0.01 vote.
        scores: (M,).
        classes: (M,).

    Returns:
        (D, 4) boxes, unchanged where no box votes.
    """
    iou = pairwise_iou(Boxes(kept), Boxes(boxes))
    votes = (iou > _VOTE_IOU) & (kept_classes[:, None] == classes)
    weights = scores * torch.exp(-((1 - iou) ** 2) / _VOTE_SIGMA) * votes
    total = weights.sum(dim=1, keepdim=True)
    return torch.where(total > 0, weights @ boxes / total.clamp(min=1e-12), kept)
