"""The cost of giving a candidate anchor to its object: one number per candidate."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lad.boxes import decode_boxes, paired_giou, paired_iou, take_boxes
from lad.focal import focal_negative, focal_negative_sum, focal_positive
from lad.structures import Anchors, Candidates, DensePredictions, Targets


class AssignmentCost(ABC):
    """Scores every candidate from predictions; lower is better. Whose predictions is the method."""

    @torch.no_grad()
    def __call__(
        self,
        predictions: DensePredictions,
        anchors: Anchors,
        targets: Targets,
        candidates: Candidates,
    ) -> Tensor:
        """Returns the float32 costs (see `cost`), computed in float32 also under autocast.

        Args:
            predictions: of any network with these anchors and classes.
            anchors: R anchors.
            targets: the G objects, on the device of the predictions.
            candidates: P candidates, on the device of the predictions.
        """
        with torch.autocast(predictions.scores.device.type, enabled=False):
            # index_select: indexing by two tensors takes three times as long on a CPU.
            row = candidates.image * len(anchors.boxes) + candidates.anchor
            deltas = predictions.deltas.flatten(0, 1).index_select(0, row).float()
            return self.cost(
                predictions.scores.flatten(0, 1).index_select(0, row).float(),
                predictions.probabilities,
                targets.classes.index_select(0, candidates.gt),
                decode_boxes(take_boxes(anchors.boxes, candidates.anchor), deltas),
                take_boxes(targets.boxes, candidates.gt),
            )

    @abstractmethod
    def cost(
        self, scores: Tensor, probabilities: bool, classes: Tensor, boxes: Tensor, gt_boxes: Tensor
    ) -> Tensor:
        """Returns (P,) costs from (P, K) scores, (P,) classes and (P, 4) boxes of each pair.

        Or (1 + E, P): the costs, then E rows of what else the assigner needs of the same
        predictions. A switch looks at the costs; the rows of the network that it takes come along.
        """


class NoCost(AssignmentCost):
    """Zeros: a static assigner asks no predictions, so no network can teach it."""

    def cost(
        self, scores: Tensor, probabilities: bool, classes: Tensor, boxes: Tensor, gt_boxes: Tensor
    ) -> Tensor:
        """See `AssignmentCost.cost`."""
        return scores.new_zeros(len(classes))


class PAACost(AssignmentCost):
    """Focal loss of all classes plus box loss (PAA, and LAD paper equation 2).

    The released code adds 1.3 x GIoU loss, our default; the paper's equation is
    ``PAACost(box_cost="iou", box_weight=1.0)``.
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
        self, scores: Tensor, probabilities: bool, classes: Tensor, boxes: Tensor, gt_boxes: Tensor
    ) -> Tensor:
        """See `AssignmentCost.cost`."""
        own = scores.gather(1, classes[:, None])[:, 0]
        class_cost = (
            focal_negative_sum(scores, probabilities, *self.focal)
            - focal_negative(own, probabilities, *self.focal)
            + focal_positive(own, probabilities, *self.focal)
        )
        return class_cost + self.box_weight * (1 - self.overlap(boxes, gt_boxes))
