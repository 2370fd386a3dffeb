"""The cost of giving a candidate anchor to its object: one number per candidate."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lad.ops.boxes import paired_giou, paired_iou, take_boxes
from lad.ops.focal import focal_negative, focal_negative_sum, focal_positive, quality_focal
from lad.structures import CandidateCosts, Candidates, DensePredictions, Targets


class AssignmentCost(ABC):
    """Scores every candidate from a network's predictions; lower is better."""

    @torch.no_grad()
    def __call__(
        self, predictions: DensePredictions, targets: Targets, candidates: Candidates
    ) -> CandidateCosts:
        """Returns the costs of P candidates, computed in float32 also under autocast.

        The predictions may be any network's with the same anchors and classes. Targets and
        candidates are on their device.
        """
        with torch.autocast(predictions.scores.device.type, enabled=False):
            at = candidates.image, candidates.anchor
            return self.cost(
                predictions.take(predictions.scores, at).float(),
                predictions.activation,
                targets.classes.index_select(0, candidates.gt),
                predictions.boxes(at),
                take_boxes(targets.boxes, candidates.gt),
            )

    @abstractmethod
    def cost(
        self, scores: Tensor, activation: str, classes: Tensor, boxes: Tensor, gt_boxes: Tensor
    ) -> CandidateCosts:
        """Returns the costs of P pairs of a prediction and an object.

        Args:
            scores: (P, K).
            activation: of the scores, see `DensePredictions`.
            classes: (P,) of the objects.
            boxes: (P, 4) predicted.
            gt_boxes: (P, 4) of the objects.
        """


class NoCost(AssignmentCost):
    """Zeros, for static assigners: they use no predictions, so no teacher can change them."""

    def cost(
        self, scores: Tensor, activation: str, classes: Tensor, boxes: Tensor, gt_boxes: Tensor
    ) -> CandidateCosts:
        """Returns zeros."""
        return CandidateCosts(scores.new_zeros(len(classes)))


class PAACost(AssignmentCost):
    """Focal loss of all classes plus box loss (PAA, and LAD paper equation 2).

    The released code adds 1.3 x GIoU loss, our default; the paper's equation is
    ``PAACost(box_cost="iou", box_weight=1.0)``.

    Args:
        box_cost: "giou" or "iou".
        box_weight: of 1 - GIoU or 1 - IoU.
        alpha: of the focal loss.
        gamma: of the focal loss.

    Raises:
        ValueError: for another box_cost.
    """

    def __init__(
        self,
        *,
        box_cost: str = "giou",
        box_weight: float = 1.3,
        alpha: float = 0.25,
        gamma: float = 2.0,
    ):
        overlaps = {"giou": paired_giou, "iou": paired_iou}
        if box_cost not in overlaps:
            raise ValueError(f"box_cost={box_cost!r}: choose 'giou' or 'iou'")
        self.overlap = overlaps[box_cost]
        self.box_weight = box_weight
        self.focal = (alpha, gamma)

    def cost(
        self, scores: Tensor, activation: str, classes: Tensor, boxes: Tensor, gt_boxes: Tensor
    ) -> CandidateCosts:
        """Returns the costs, without IoU."""
        own = scores.gather(1, classes[:, None])[:, 0]
        class_cost = (
            focal_negative_sum(scores, activation, *self.focal)
            - focal_negative(own, activation, *self.focal)
            + focal_positive(own, activation, *self.focal)
        )
        return CandidateCosts(class_cost + self.box_weight * (1 - self.overlap(boxes, gt_boxes)))


class QualityFocalCost(AssignmentCost):
    """Quality focal loss of all classes plus box loss: for scores that hold the quality, as GFL's.

    PAA's cost asks of an object's class the score 1. GFL's scores estimate the IoU of the predicted
    box with the object, so here the score asked for is this IoU (as in RTMDet's assigner, arXiv
    2212.07784), and the cost is GFL's own loss for the pair:

        sum over classes of |y - p|^beta BCE(p, y) + 2 (1 - GIoU)

    with y the IoU for the object's class and 0 for the others. Works with any network's
    predictions.

    Args:
        box_weight: of 1 - GIoU.
        beta: of the quality focal loss.
    """

    def __init__(self, *, box_weight: float = 2.0, beta: float = 2.0):
        self.box_weight = box_weight
        self.beta = beta

    def cost(
        self, scores: Tensor, activation: str, classes: Tensor, boxes: Tensor, gt_boxes: Tensor
    ) -> CandidateCosts:
        """Returns costs and IoUs."""
        own = scores.gather(1, classes[:, None])[:, 0]
        iou = paired_iou(boxes, gt_boxes)
        class_cost = (
            focal_negative_sum(scores, activation, 0.0, self.beta)
            - focal_negative(own, activation, 0.0, self.beta)
            + quality_focal(own, activation, iou, self.beta)
        )
        box_cost = self.box_weight * (1 - paired_giou(boxes, gt_boxes))
        return CandidateCosts(class_cost + box_cost, iou)
