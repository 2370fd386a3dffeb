"""ATSS: positives by the statistics of their overlaps, without predictions (arXiv 1912.02424)."""

from __future__ import annotations

import torch
from torch import Tensor

from lad.assignment.assigners import LabelAssigner, resolve_conflicts
from lad.assignment.candidates import centers, nearest_candidates
from lad.assignment.costs import NoCost
from lad.ops.boxes import paired_iou
from lad.structures import Anchors, CandidateCosts, Candidates, Targets


class ATSSAssigner(LabelAssigner):
    """Adaptive training sample selection (ATSS, arXiv 1912.02424, section 3.2, algorithm 1).

    The candidates are the anchors nearest to the object's center on each level. A candidate is
    positive if its center lies inside the box and its IoU is at least mean + standard deviation
    (unbiased; 0 for one candidate) of the object's candidates. An anchor that several objects claim
    goes to the highest IoU. An object too small to contain a center has no positives. The
    assignment is static: a teacher cannot change it.

    Args:
        num_classes: K, the background's label.
        topk: candidates of each object and level; fewer where a level has fewer valid anchors.

    Raises:
        ValueError: when topk < 1.
    """

    def __init__(self, *, num_classes: int, topk: int = 9):
        if topk < 1:
            raise ValueError(f"topk={topk}: at least one candidate per level is needed")
        super().__init__(cost=NoCost(), num_classes=num_classes)
        self.topk = topk

    def candidates(self, anchors: Anchors, targets: Targets) -> Candidates:
        """Returns the anchors nearest to each object's center."""
        return nearest_candidates(anchors, targets, topk=self.topk)

    def choose(
        self, costs: CandidateCosts, candidates: Candidates, anchors: Anchors, targets: Targets
    ) -> tuple[Tensor, Tensor]:
        """Returns all candidates, (P,), and the mask of positives; the costs are unused."""
        gt, boxes = candidates.gt, targets.boxes[candidates.gt]
        iou = paired_iou(anchors.boxes[candidates.anchor], boxes)
        enough = iou >= overlap_threshold(iou.double(), gt, len(targets.boxes))[gt]
        center = centers(anchors)[candidates.anchor]
        inside = ((boxes[:, :2] < center) & (center < boxes[:, 2:])).all(dim=1)
        chosen = torch.arange(len(gt), device=gt.device)
        return chosen, resolve_conflicts(
            enough & inside, chosen, -iou, candidates, anchors, targets
        )


def overlap_threshold(iou: Tensor, gt: Tensor, num_objects: int) -> Tensor:
    """Returns (G,) mean + standard deviation of each object's IoUs, from (P,) float64 and gt."""

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(num_objects).index_add_(0, gt, values)

    count = total(torch.ones_like(iou))
    mean = total(iou) / count.clamp(min=1)
    variance = total((iou - mean[gt]) ** 2) / (count - 1).clamp(min=1)
    return mean + variance.sqrt()
