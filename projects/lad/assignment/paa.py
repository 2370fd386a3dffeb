"""PAA: positives by a two-Gaussian mixture over each object's costs (arXiv 2007.08103)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lad.assignment.assigners import LabelAssigner, cheapest_per_level
from lad.assignment.candidates import iou_candidates
from lad.assignment.costs import AssignmentCost
from lad.assignment.mixture import MixtureFit, fit_mixtures, fit_mixtures_sklearn
from lad.structures import Anchors, CandidateCosts, Candidates, Targets


class PAAAssigner(LabelAssigner):
    """Probabilistic anchor assignment (PAA, arXiv 2007.08103, section 3.2).

    A two-Gaussian mixture is fitted to the costs of each object's `topk` cheapest candidates of
    every level. Positives are the candidates of the lower Gaussian up to the one with the highest
    density (``separation="peak"``, the released code) or up to its mean (``"mean"``, the LAD
    paper's text).

    Args:
        cost: the assignment cost.
        num_classes: K, the background's label.
        min_iou: lowest IoU, above 0, of a candidate that is not its object's best.
        topk: candidates of each object and level that enter the mixture.
        separation: "peak" or "mean".
        single_candidate_positive: an object's only candidate is positive (original PAA); the
            official LAD code makes it negative.
        mixture: "batched", or "sklearn": one scikit-learn fit per object, the slow reference.

    Raises:
        ValueError: for an unknown separation or mixture, min_iou <= 0 or topk < 1.
    """

    def __init__(
        self,
        *,
        cost: AssignmentCost,
        num_classes: int,
        min_iou: float = 0.1,
        topk: int = 9,
        separation: str = "peak",
        single_candidate_positive: bool = True,
        mixture: str = "batched",
    ):
        mixtures = {"batched": fit_mixtures, "sklearn": fit_mixtures_sklearn}
        if separation not in ("peak", "mean"):
            raise ValueError(f"separation={separation!r}: choose 'peak' or 'mean'")
        if mixture not in mixtures:
            raise ValueError(f"mixture={mixture!r}: choose 'batched' or 'sklearn'")
        if min_iou <= 0:
            raise ValueError(f"min_iou={min_iou}: it has to be above 0")
        if topk < 1:
            raise ValueError(f"topk={topk}: at least one candidate per level is needed")
        super().__init__(cost=cost, num_classes=num_classes)
        self.min_iou = min_iou
        self.topk = topk
        self.separation = separation
        self.single_candidate_positive = single_candidate_positive
        self.fit = mixtures[mixture]

    def candidates(self, anchors: Anchors, targets: Targets) -> Candidates:
        """Returns the candidates by IoU."""
        return iou_candidates(anchors, targets, min_iou=self.min_iou)

    def choose(
        self, costs: CandidateCosts, candidates: Candidates, anchors: Anchors, targets: Targets
    ) -> tuple[Tensor, Tensor]:
        """Returns the cheapest candidates, (G, L * topk), and the mask of positives."""
        chosen = cheapest_per_level(
            costs.cost, candidates, len(targets.boxes), len(anchors.strides), self.topk
        )
        return chosen, self.separate(costs.cost, chosen)

    def mixtures(self, cost: Tensor, chosen: Tensor) -> tuple[Tensor, MixtureFit]:
        """Fits each object's mixture.

        Args:
            cost: (P,) with at least one candidate.
            chosen: (G, T) indices into the candidates, -1 for none.

        Returns:
            (G, T) costs of the chosen candidates, infinite where there is none, and their fits;
            both on the CPU.
        """
        # The only wait for the GPU: NumPy fits a few thousand numbers in a millisecond, a GPU would
        # need thousands of kernel launches.
        samples = cost[chosen.clamp(min=0)].masked_fill(chosen < 0, math.inf).cpu()
        present = samples.isfinite()
        return samples, self.fit(samples.masked_fill(~present, 0.0), present)

    def separate(self, cost: Tensor, chosen: Tensor) -> Tensor:
        """Returns the (G, T) bool mask of positives among the chosen candidates."""
        if not len(cost):
            return chosen >= 0
        samples, fit = self.mixtures(cost, chosen)
        present, diverged = samples.isfinite(), samples == -math.inf
        if self.separation == "mean":
            positive = fit.lower & (samples <= fit.means[:, :1])
        else:
            peak = fit.density.masked_fill(~fit.lower, -math.inf).argmax(dim=1, keepdim=True)
            rank = torch.arange(samples.shape[1])
            positive = fit.lower & (rank <= peak)
        if not self.single_candidate_positive:
            positive &= present.sum(dim=1, keepdim=True) > 1
        return (positive | diverged).to(cost.device, non_blocking=True)
