"""Task alignment learning's assignment: the anchors good at both tasks (TOOD, arXiv 2108.07755)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lad.assignment.assigners import (
    LabelAssigner,
    cheapest_per_object,
    label_anchors,
    lowest_claims,
)
from lad.assignment.candidates import centre_candidates
from lad.assignment.costs import AssignmentCost
from lad.boxes import paired_iou
from lad.structures import Anchors, Assignment, Candidates, Targets


class AlignmentCost(AssignmentCost):
    """1 - t with the alignment t = score^alpha IoU^beta (equation 5); the IoU travels along.

    In float32 an alignment below 3e-8 is a cost of 1: such candidates keep their order.
    """

    def __init__(self, *, alpha: float = 1.0, beta: float = 6.0):
        self.alpha = alpha
        self.beta = beta

    def cost(
        self, scores: Tensor, probabilities: bool, classes: Tensor, boxes: Tensor, gt_boxes: Tensor
    ) -> Tensor:
        """See `AssignmentCost.cost`: (2, P), the costs and the IoUs."""
        score = scores.gather(1, classes[:, None])[:, 0]
        score = score if probabilities else score.sigmoid()
        iou = paired_iou(boxes, gt_boxes)
        return torch.stack([1 - score**self.alpha * iou**self.beta, iou])


class TALAssigner(LabelAssigner):
    """Task alignment learning (TAL: TOOD, arXiv 2108.07755, section 3.2).

    Candidates are the anchors whose centre lies inside the box; an object takes the best aligned.
    An anchor that several objects take goes to the one that its box overlaps most.

    Labels are hard: the paper's soft targets, the alignment scaled to the object's highest IoU,
    have no place in an `Assignment`, whose losses are those of every other assigner here.
    """

    def __init__(self, *, num_classes: int, alpha: float = 1.0, beta: float = 6.0, topk: int = 13):
        """Sets the rule and its cost.

        Args:
            num_classes: K, the background's label.
            alpha: exponent of the class probability.
            beta: exponent of the IoU.
            topk: anchors that an object takes.

        Raises:
            ValueError: when an exponent is negative or topk < 1.
        """
        if alpha < 0 or beta < 0:
            raise ValueError(f"alpha={alpha}, beta={beta}: exponents of the alignment, 0 or more")
        if topk < 1:
            raise ValueError(f"topk={topk}: an object takes at least one anchor")
        self.cost: AlignmentCost = AlignmentCost(alpha=alpha, beta=beta)
        self.num_classes = num_classes
        self.topk = topk

    def candidates(self, anchors: Anchors, targets: Targets) -> Candidates:
        """See `LabelAssigner.candidates`."""
        return centre_candidates(anchors, targets)

    @torch.no_grad()
    def assign(
        self, cost: Tensor, candidates: Candidates, anchors: Anchors, targets: Targets
    ) -> Assignment:
        """See `LabelAssigner.assign`; ``cost`` is (2, P), the costs and the IoUs."""
        cost, iou = cost
        cost = torch.where(cost.isfinite(), cost, -math.inf)
        chosen = cheapest_per_object(cost, candidates, len(targets.boxes), self.topk)
        overlap = iou.nan_to_num(nan=0.0)
        positive = lowest_claims(chosen >= 0, chosen, -overlap, candidates, anchors, targets)
        return label_anchors(positive, chosen, candidates, anchors, targets, self.num_classes)
