"""Task alignment learning: anchors that classify and localize well (TOOD, arXiv 2108.07755)."""

from __future__ import annotations

from torch import Tensor

from lad.assignment.assigners import LabelAssigner, cheapest_per_object, resolve_conflicts
from lad.assignment.candidates import center_candidates
from lad.assignment.costs import AssignmentCost
from lad.ops.boxes import paired_iou
from lad.structures import Anchors, CandidateCosts, Candidates, Targets


class AlignmentCost(AssignmentCost):
    """1 - t with the alignment t = score^alpha IoU^beta (equation 5).

    In float32 the cost of an alignment below 3e-8 is 1: such candidates keep their order.

    Args:
        alpha: exponent of the class probability.
        beta: exponent of the IoU.
    """

    def __init__(self, *, alpha: float = 1.0, beta: float = 6.0):
        self.alpha = alpha
        self.beta = beta

    def cost(
        self, scores: Tensor, activation: str, classes: Tensor, boxes: Tensor, gt_boxes: Tensor
    ) -> CandidateCosts:
        """Returns costs and IoUs."""
        score = scores.gather(1, classes[:, None])[:, 0]
        score = score.sigmoid() if activation == "sigmoid" else score
        iou = paired_iou(boxes, gt_boxes)
        return CandidateCosts(1 - score**self.alpha * iou**self.beta, iou)


class TALAssigner(LabelAssigner):
    """Task alignment learning (TAL: TOOD, arXiv 2108.07755, section 3.2).

    Candidates are the anchors whose center lies inside the box; an object takes the best aligned.
    An anchor that several objects take goes to the one that its predicted box overlaps most. Labels
    are hard: the paper's soft targets are not used.

    Args:
        num_classes: K, the background's label.
        alpha: exponent of the class probability.
        beta: exponent of the IoU.
        topk: anchors that an object takes.

    Raises:
        ValueError: when an exponent is negative or topk < 1.
    """

    def __init__(self, *, num_classes: int, alpha: float = 1.0, beta: float = 6.0, topk: int = 13):
        if alpha < 0 or beta < 0:
            raise ValueError(f"alpha={alpha}, beta={beta}: both have to be 0 or more")
        if topk < 1:
            raise ValueError(f"topk={topk}: an object takes at least one anchor")
        super().__init__(cost=AlignmentCost(alpha=alpha, beta=beta), num_classes=num_classes)
        self.topk = topk

    def candidates(self, anchors: Anchors, targets: Targets) -> Candidates:
        """Returns the anchors inside each object's box."""
        return center_candidates(anchors, targets)

    def choose(
        self, costs: CandidateCosts, candidates: Candidates, anchors: Anchors, targets: Targets
    ) -> tuple[Tensor, Tensor]:
        """Returns the best aligned candidates, (G, topk), and the mask of positives."""
        cost, iou = costs
        assert iou is not None
        chosen = cheapest_per_object(cost, candidates, len(targets.boxes), self.topk)
        positive = resolve_conflicts(chosen >= 0, chosen, -iou, candidates, anchors, targets)
        return chosen, positive
