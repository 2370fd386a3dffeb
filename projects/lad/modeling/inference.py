"""From predictions to detections: selection, NMS and score voting (PAA section 3.4)."""

from __future__ import annotations

import torch
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor

from lad.boxes import clip_boxes, decode_boxes
from lad.structures import Anchors, DensePredictions

_VOTE_IOU = 0.01
_VOTE_SIGMA = 0.025


class Detector:
    """Picks the detections of each image out of dense predictions."""

    def __init__(
        self,
        *,
        score_thresh: float = 0.05,
        topk_candidates: int = 1000,
        nms_thresh: float = 0.6,
        max_detections: int = 100,
        score_voting: bool = True,
    ):
        """Keeps the parts and settings.

        Args:
            score_thresh: detections score above this.
            topk_candidates: anchors kept per level before thresholding.
            nms_thresh: IoU of class-wise non-maximum suppression.
            max_detections: per image.
            score_voting: move each kept box to the weighted mean of the boxes around it.
        """
        self.score_thresh = score_thresh
        self.topk_candidates = topk_candidates
        self.nms_thresh = nms_thresh
        self.max_detections = max_detections
        self.score_voting = score_voting

    @torch.no_grad()
    def __call__(
        self,
        predictions: DensePredictions,
        anchors: Anchors,
        image_sizes: Tensor,
        output_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Returns the detections of each image, best first, in coordinates of its output size.

        Args:
            predictions: of N images.
            anchors: R anchors.
            image_sizes: (N, 2) heights and widths before padding.
            output_sizes: (height, width) that each image's boxes are scaled to, before NMS.
        """
        scores = predictions.class_probabilities()
        if predictions.quality is not None:
            scores = (scores * predictions.quality.float().sigmoid()[..., None]).sqrt()
        keep = self._best_per_level(scores.amax(dim=-1), anchors.num_per_level)
        scores = scores.gather(1, keep[..., None].expand(-1, -1, scores.shape[-1]))
        deltas = predictions.deltas.float().gather(1, keep[..., None].expand(-1, -1, 4))
        boxes = clip_boxes(decode_boxes(anchors.boxes[keep], deltas), image_sizes)
        output = torch.tensor(output_sizes, device=boxes.device, dtype=boxes.dtype)
        boxes = boxes * (output / image_sizes).flip(-1).repeat(1, 2)[:, None]
        return [self._detect(*image) for image in zip(scores, boxes, output_sizes, strict=True)]

    def _best_per_level(self, best: Tensor, num_per_level: list[int]) -> Tensor:
        """Indices (N, M) of the anchors with the highest scores of each level."""
        keep, start = [], 0
        for level in best.split(num_per_level, dim=1):
            count = min(self.topk_candidates, level.shape[1])
            keep.append(level.topk(count, dim=1).indices + start)
            start += level.shape[1]
        return torch.cat(keep, dim=1)

    def _detect(self, scores: Tensor, boxes: Tensor, output_size: tuple[int, int]) -> Instances:
        """Detections of one image from (M, K) scores and (M, 4) boxes."""
        anchor, classes = (scores > self.score_thresh).nonzero(as_tuple=True)
        scores, boxes = scores[anchor, classes], boxes[anchor]
        keep = batched_nms(boxes, scores, classes, self.nms_thresh)[: self.max_detections]
        kept = boxes[keep]
        if self.score_voting:
            kept = vote(kept, classes[keep], boxes, scores, classes)
        instances = Instances(output_size)
        instances.pred_boxes = Boxes(kept)
        instances.scores = scores[keep]
        instances.pred_classes = classes[keep]
        return instances


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
        (D, 4) boxes. One that no box overlaps, not even itself, stays.
    """
    iou = pairwise_iou(Boxes(kept), Boxes(boxes))
    votes = (iou > _VOTE_IOU) & (kept_classes[:, None] == classes)
    weights = scores * torch.exp(-((1 - iou) ** 2) / _VOTE_SIGMA) * votes
    total = weights.sum(dim=1, keepdim=True)
    return torch.where(total > 0, weights @ boxes / total.clamp(min=1e-12), kept)
