"""From costs to labels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from lad.assignment.candidates import iou_candidates
from lad.assignment.costs import AssignmentCost
from lad.assignment.mixture import fit_mixtures, fit_mixtures_sklearn
from lad.structures import Anchors, Assignment, Candidates, Targets


class LabelAssigner(ABC):
    """Decides what every anchor is trained to be.

    Attributes:
        cost: makes one cost per candidate from a network's predictions.
    """

    cost: AssignmentCost

    @abstractmethod
    def candidates(self, anchors: Anchors, targets: Targets) -> Candidates:
        """Returns the anchors that each object may claim: geometry only, shared by networks."""

    @abstractmethod
    def assign(
        self, cost: Tensor, candidates: Candidates, anchors: Anchors, targets: Targets
    ) -> Assignment:
        """Returns the labels of all anchors.

        Args:
            cost: (P,) costs of the candidates, or (1 + E, P) from a cost that gives further rows. A
                cost that is not finite is taken as the lowest, so that a diverged network shows in
                its losses instead of losing its positives.
            candidates: P candidates.
            anchors: R anchors.
            targets: G objects of N images with K classes.
        """


class PAAAssigner(LabelAssigner):
    """Probabilistic anchor assignment (PAA, arXiv 2007.08103, section 3.2).

    Per object the `topk` cheapest candidates of a level; a two-Gaussian mixture over their costs;
    positives are the candidates of the lower Gaussian up to the one with the highest density
    (``separation="peak"``, the released code) or those not above its mean (``"mean"``, the LAD
    paper's text).
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
        """Keeps the parts and settings.

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
            ValueError: on an unknown separation or mixture, min_iou <= 0 or topk < 1.
        """
        mixtures = {"batched": fit_mixtures, "sklearn": fit_mixtures_sklearn}
        if separation not in ("peak", "mean"):
            raise ValueError(f"separation={separation!r}: choose 'peak' or 'mean'")
        if mixture not in mixtures:
            raise ValueError(f"mixture={mixture!r}: choose 'batched' or 'sklearn'")
        if min_iou <= 0:
            raise ValueError(f"min_iou={min_iou}: candidates overlap their object, give above 0")
        if topk < 1:
            raise ValueError(f"topk={topk}: at least one candidate per level is needed")
        self.cost = cost
        self.num_classes = num_classes
        self.min_iou = min_iou
        self.topk = topk
        self.separation = separation
        self.single_candidate_positive = single_candidate_positive
        self.fit = mixtures[mixture]

    def candidates(self, anchors: Anchors, targets: Targets) -> Candidates:
        """See `LabelAssigner.candidates`."""
        return iou_candidates(anchors, targets, min_iou=self.min_iou)

    @torch.no_grad()
    def assign(
        self, cost: Tensor, candidates: Candidates, anchors: Anchors, targets: Targets
    ) -> Assignment:
        """See `LabelAssigner.assign`."""
        cost = torch.where(cost.isfinite(), cost, -math.inf)
        chosen = cheapest_per_level(
            cost, candidates, len(targets.boxes), len(anchors.shapes), self.topk
        )
        positive = self.separate(cost, chosen)
        return label_anchors(positive, chosen, candidates, anchors, targets, self.num_classes)

    def separate(self, cost: Tensor, chosen: Tensor) -> Tensor:
        """Returns the (G, T) bool mask of positives among the chosen candidates (see `fit`)."""
        present = chosen >= 0
        if not len(cost):
            return present
        # The one place where a GPU is waited for. Its part would be thousands of launches on a few
        # thousand numbers; NumPy needs a millisecond.
        samples = cost[chosen.clamp(min=0)].masked_fill(~present, math.inf).cpu()
        present, diverged = samples < math.inf, samples == -math.inf
        fit = self.fit(samples.masked_fill(samples.isinf(), 0.0), present)
        if self.separation == "mean":
            positive = fit.lower & (samples <= fit.means[:, :1])
        else:
            peak = fit.density.masked_fill(~fit.lower, -math.inf).argmax(dim=1, keepdim=True)
            rank = torch.arange(samples.shape[1])
            positive = fit.lower & (rank <= peak)
        if not self.single_candidate_positive:
            positive &= present.sum(dim=1, keepdim=True) > 1
        return (positive | diverged).to(cost.device, non_blocking=True)


def cheapest_per_level(
    cost: Tensor, candidates: Candidates, num_objects: int, num_levels: int, topk: int
) -> Tensor:
    """Each object's `topk` cheapest candidates of every level, ascending over the levels.

    Args:
        cost: (P,) without NaN. Equal costs keep the candidates' order.
        candidates: P candidates.
        num_objects: G.
        num_levels: L.
        topk: how many to take per object and level.

    Returns:
        (G, L * topk) int64 indices into the candidates, -1 behind an object's last.
    """
    device = cost.device
    group = candidates.gt * num_levels + candidates.level
    order = _stable_order((group << 32) + _ordered_bits(cost))
    group = group.index_select(0, order)
    count = torch.zeros(num_objects * num_levels, dtype=torch.int64, device=device)
    count.scatter_add_(0, group, torch.ones_like(group))
    first = count.cumsum(0) - count
    rank = torch.arange(len(cost), device=device) - first.index_select(0, group)
    # The last column takes what is beyond topk.
    table = torch.full((num_objects * num_levels, topk + 1), -1, device=device)
    table.view(-1).scatter_(0, group * (topk + 1) + rank.clamp(max=topk), order)
    table = table[:, :topk].reshape(num_objects, num_levels * topk)
    if not len(cost):
        return table
    samples = cost.take(table.clamp(min=0)).masked_fill(table < 0, math.inf)
    return table.gather(1, samples.sort(dim=1, stable=True).indices)


def cheapest_per_object(
    cost: Tensor, candidates: Candidates, num_objects: int, topk: int
) -> Tensor:
    """Each object's `topk` cheapest candidates of all levels together, ascending.

    Args and returns as `cheapest_per_level` with one level.
    """
    one_level = candidates._replace(level=torch.zeros_like(candidates.level))
    return cheapest_per_level(cost, one_level, num_objects, 1, topk)


def lowest_claims(
    positive: Tensor,
    chosen: Tensor,
    value: Tensor,
    candidates: Candidates,
    anchors: Anchors,
    targets: Targets,
) -> Tensor:
    """Leaves an anchor that several objects claim to the one with the lowest value.

    Args:
        positive: bool, the shape of ``chosen``: the claims.
        chosen: indices into the candidates, -1 for none.
        value: (P,) float32 without NaN. Of equal values the earlier object's is the lower.
        candidates: P candidates.
        anchors: R anchors.
        targets: G objects of N images.

    Returns:
        Bool of the same shape: the claims that are left, no anchor twice.
    """
    if not len(value):
        return positive
    key = ((_ordered_bits(value) << 31) + candidates.gt)[chosen.clamp(min=0)]
    slot = (candidates.image * len(anchors.boxes) + candidates.anchor)[chosen.clamp(min=0)]
    none = torch.iinfo(torch.int64).max
    num_slots = len(targets.image_sizes) * len(anchors.boxes)
    lowest = key.new_full((num_slots,), none)
    lowest.scatter_reduce_(0, slot.flatten(), key.masked_fill(~positive, none).flatten(), "amin")
    return positive & (key == lowest[slot])


def _stable_order(key: Tensor) -> Tensor:
    """Indices that sort (P,) integers; equal ones keep their order."""
    if key.device.type == "cpu":  # NumPy is twice as fast
        return torch.from_numpy(np.argsort(key.numpy(), kind="stable"))
    return key.sort(stable=True).indices


def _ordered_bits(values: Tensor) -> Tensor:
    """Integers in 0..2^32-1 that are ordered as the float32 values."""
    bits = (values + 0.0).view(torch.int32)  # + 0.0 makes one of the two zeros
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long() + (1 << 31)


def label_anchors(
    positive: Tensor,
    chosen: Tensor,
    candidates: Candidates,
    anchors: Anchors,
    targets: Targets,
    num_classes: int,
) -> Assignment:
    """Writes positives as labels; other anchors are background, those in the padding ignored.

    Args:
        positive: bool, the shape of ``chosen``; no anchor twice (see `lowest_claims`).
        chosen: indices into the candidates, -1 for none.
        candidates: P candidates.
        anchors: R anchors.
        targets: G objects of N images.
        num_classes: K, the background's label.
    """
    valid = anchors.valid(targets.image_sizes)
    num_slots = valid.numel()
    # Behind the end is where what is not positive is written.
    labels = torch.full((num_slots + 1,), num_classes, device=valid.device)
    labels[:num_slots].masked_fill_(~valid.flatten(), -1)
    gt = torch.full_like(labels, -1)
    if len(candidates.gt):
        index = chosen.clamp(min=0).flatten()
        slot = candidates.image.take(index) * valid.shape[1] + candidates.anchor.take(index)
        slot = torch.where(positive.flatten(), slot, num_slots)
        owner = candidates.gt.take(index)
        labels.scatter_(0, slot, targets.classes.take(owner))
        gt.scatter_(0, slot, owner)
    return Assignment(labels[:num_slots].view_as(valid), gt[:num_slots].view_as(valid))
