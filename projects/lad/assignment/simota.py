"""SimOTA: each object takes its cheapest anchors, as many as fit it well (arXiv 2107.08430)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
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

_EPS = 1e-8


class SimOTACost(AssignmentCost):
    """Cross-entropy of all classes plus a multiple of -log IoU; the IoU travels along.

    The IoU is at least 1e-8 in the logarithm, logarithms of probabilities at least -100.
    """

    def __init__(self, *, iou_weight: float = 3.0):
        self.iou_weight = iou_weight

    def cost(
        self, scores: Tensor, probabilities: bool, classes: Tensor, boxes: Tensor, gt_boxes: Tensor
    ) -> Tensor:
        """See `AssignmentCost.cost`: (2, P), the costs and the IoUs."""
        own = scores.gather(1, classes[:, None])[:, 0]
        if probabilities:
            negative = -(-scores).log1p().clamp(min=-100)
            log_odds = own.log().clamp(min=-100) - (-own).log1p().clamp(min=-100)
        else:
            negative = F.softplus(scores)
            log_odds = own
        iou = paired_iou(boxes, gt_boxes)
        entropy = negative.sum(dim=1) - log_odds
        return torch.stack([entropy - self.iou_weight * iou.clamp(min=_EPS).log(), iou])


class SimOTAAssigner(LabelAssigner):
    """Simplified optimal transport assignment (SimOTA: YOLOX, arXiv 2107.08430, section 2.1).

    Candidates are the anchors whose centre lies inside the box or close to the box's centre. An
    object takes its k cheapest, k being the sum of its best IoUs, rounded down, and at least 1. An
    anchor that several objects take goes to the one with the lowest cost, so that an object may
    end with fewer than k.
    """

    def __init__(
        self, *, num_classes: int, iou_weight: float = 3.0, radius: float = 2.5, topk: int = 10
    ):
        """Sets the rule and its cost.

        Args:
            num_classes: K, the background's label.
            iou_weight: of -log IoU in the cost.
            radius: in strides, how close to the box's centre an anchor outside the box may be.
            topk: IoUs that are summed up to k.

        Raises:
            ValueError: when radius is negative or topk < 1.
        """
        if radius < 0:
            raise ValueError(f"radius={radius}: it is a distance in strides, 0 or more")
        if topk < 1:
            raise ValueError(f"topk={topk}: k is the sum of at least one IoU")
        self.cost: SimOTACost = SimOTACost(iou_weight=iou_weight)
        self.num_classes = num_classes
        self.radius = radius
        self.topk = topk

    def candidates(self, anchors: Anchors, targets: Targets) -> Candidates:
        """See `LabelAssigner.candidates`."""
        return centre_candidates(anchors, targets, radius=self.radius)

    @torch.no_grad()
    def assign(
        self, cost: Tensor, candidates: Candidates, anchors: Anchors, targets: Targets
    ) -> Assignment:
        """See `LabelAssigner.assign`; ``cost`` is (2, P), the costs and the IoUs."""
        cost, iou = cost
        cost = torch.where(cost.isfinite(), cost, -math.inf)
        iou = iou.nan_to_num(nan=0.0)
        num_objects = len(targets.boxes)
        best = cheapest_per_object(-iou, candidates, num_objects, self.topk)
        chosen = cheapest_per_object(cost, candidates, num_objects, self.topk)
        rank = torch.arange(self.topk, device=cost.device)
        positive = (chosen >= 0) & (rank < self.number(iou, best)[:, None])
        positive = lowest_claims(positive, chosen, cost, candidates, anchors, targets)
        return label_anchors(positive, chosen, candidates, anchors, targets, self.num_classes)

    def number(self, iou: Tensor, best: Tensor) -> Tensor:
        """Returns the (G,) float64 k of each object, whose ``best`` are (G, topk) candidates."""
        padded = torch.cat([iou.double(), iou.new_zeros(1).double()])  # index -1: no candidate
        return padded[best].sum(dim=1).floor().clamp(min=1)
