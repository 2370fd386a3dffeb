"""SimOTA: each object takes its k cheapest anchors, k by their IoUs (arXiv 2107.08430)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lad.assignment.assigners import LabelAssigner, cheapest_per_object, resolve_conflicts
from lad.assignment.candidates import center_candidates
from lad.assignment.costs import AssignmentCost
from lad.ops.boxes import paired_iou
from lad.structures import Anchors, CandidateCosts, Candidates, Targets

_EPS = 1e-8


class SimOTACost(AssignmentCost):
    """Cross-entropy of all classes plus a multiple of -log IoU.

    The IoU is clamped to at least 1e-8, logarithms of probabilities to at least -100.

    Args:
        iou_weight: of -log IoU.
    """

    def __init__(self, *, iou_weight: float = 3.0):
        self.iou_weight = iou_weight

    def cost(
        self, scores: Tensor, activation: str, classes: Tensor, boxes: Tensor, gt_boxes: Tensor
    ) -> CandidateCosts:
        """Returns costs and IoUs."""
        own = scores.gather(1, classes[:, None])[:, 0]
        if activation == "sigmoid":
            negative = F.softplus(scores)
            log_odds = own
        else:
            negative = -(-scores).log1p().clamp(min=-100)
            log_odds = own.log().clamp(min=-100) - (-own).log1p().clamp(min=-100)
        iou = paired_iou(boxes, gt_boxes)
        entropy = negative.sum(dim=1) - log_odds
        return CandidateCosts(entropy - self.iou_weight * iou.clamp(min=_EPS).log(), iou)


class SimOTAAssigner(LabelAssigner):
    """Simplified optimal transport assignment (SimOTA: YOLOX, arXiv 2107.08430, section 2.1).

    Candidates are the anchors whose center lies inside the box or near the box's center. An object
    takes its k cheapest; k is the sum of its best IoUs, rounded down, at least 1. An anchor that
    several objects take goes to the one with the lowest cost: an object may keep fewer than k.

    Args:
        num_classes: K, the background's label.
        iou_weight: of -log IoU in the cost.
        radius: in strides, how close to the box's center an anchor outside the box may be.
        topk: number of IoUs in the sum.

    Raises:
        ValueError: when radius is negative or topk < 1.
    """

    def __init__(
        self, *, num_classes: int, iou_weight: float = 3.0, radius: float = 2.5, topk: int = 10
    ):
        if radius < 0:
            raise ValueError(f"radius={radius}: it has to be 0 or more strides")
        if topk < 1:
            raise ValueError(f"topk={topk}: k is the sum of at least one IoU")
        super().__init__(cost=SimOTACost(iou_weight=iou_weight), num_classes=num_classes)
        self.radius = radius
        self.topk = topk

    def candidates(self, anchors: Anchors, targets: Targets) -> Candidates:
        """Returns the anchors in and around each object's box."""
        return center_candidates(anchors, targets, radius=self.radius)

    def choose(
        self, costs: CandidateCosts, candidates: Candidates, anchors: Anchors, targets: Targets
    ) -> tuple[Tensor, Tensor]:
        """Returns the cheapest candidates, (G, topk), and the mask of positives."""
        cost, iou = costs
        assert iou is not None
        num_objects = len(targets.boxes)
        best = cheapest_per_object(-iou, candidates, num_objects, self.topk)
        chosen = cheapest_per_object(cost, candidates, num_objects, self.topk)
        rank = torch.arange(self.topk, device=cost.device)
        positive = (chosen >= 0) & (rank < self.number(iou, best)[:, None])
        return chosen, resolve_conflicts(positive, chosen, cost, candidates, anchors, targets)

    def number(self, iou: Tensor, best: Tensor) -> Tensor:
        """Returns the (G,) float64 k of each object, whose ``best`` are (G, topk) candidates."""
        padded = torch.cat([iou.double(), iou.new_zeros(1).double()])  # index -1: no candidate
        return padded[best].sum(dim=1).floor().clamp(min=1)
