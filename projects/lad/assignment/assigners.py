"""The base of all assigners, from costs to labels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from lad.assignment.costs import AssignmentCost, NoCost
from lad.structures import Anchors, Assignment, CandidateCosts, Candidates, Targets


class LabelAssigner(ABC):
    """Assigns a label to every anchor.

    Args:
        cost: makes one cost per candidate from a network's predictions.
        num_classes: K, the background's label.
    """

    def __init__(self, *, cost: AssignmentCost, num_classes: int):
        self.cost = cost
        self.num_classes = num_classes

    @property
    def is_static(self) -> bool:
        """Whether the labels depend on geometry alone, so that no teacher can change them."""
        return isinstance(self.cost, NoCost)

    @abstractmethod
    def candidates(self, anchors: Anchors, targets: Targets) -> Candidates:
        """Returns the anchors that each object may claim, from geometry, on the anchors' device."""

    @torch.no_grad()
    def assign(
        self, costs: CandidateCosts, candidates: Candidates, anchors: Anchors, targets: Targets
    ) -> Assignment:
        """Returns the labels of all anchors.

        Args:
            costs: of P candidates. Costs that are not finite come from a diverged network. They
                count as the lowest: their candidates become positives and the loss reports it.
            candidates: P candidates.
            anchors: R anchors.
            targets: G objects of N images, on the anchors' device.
        """
        guarded = CandidateCosts(
            torch.where(costs.cost.isfinite(), costs.cost, -math.inf),
            None if costs.iou is None else costs.iou.nan_to_num(nan=0.0),
        )
        chosen, positive = self.choose(guarded, candidates, anchors, targets)
        assignment = label_anchors(positive, chosen, candidates, anchors, targets, self.num_classes)
        return assignment._replace(cost=None if self.is_static else costs.cost)

    @abstractmethod
    def choose(
        self, costs: CandidateCosts, candidates: Candidates, anchors: Anchors, targets: Targets
    ) -> tuple[Tensor, Tensor]:
        """Chooses positives; arguments as for `assign`, the costs without NaN.

        Returns:
            Indices into the candidates, -1 for none, of any shape, and bool of that shape: which of
            them are positives. No anchor is positive twice.
        """


def cheapest_per_level(
    cost: Tensor, candidates: Candidates, num_objects: int, num_levels: int, topk: int
) -> Tensor:
    """Returns each object's `topk` cheapest candidates of every level, ascending over the levels.

    Example:
        Costs 5, 1, 2, 4 of one object's candidates, the first three on level 0, the last on level
        1. With ``topk=2`` level 0 gives candidates 1 and 2, level 1 gives candidate 3: the row is
        [1, 2, 3, -1].

    Args:
        cost: (P,) without NaN. Equal costs keep the candidates' order.
        candidates: P candidates.
        num_objects: G.
        num_levels: L.
        topk: how many to take per object and level.

    Returns:
        (G, L * topk) int64 indices into the candidates, -1 behind an object's last.
    """
    group = candidates.gt * num_levels + candidates.level
    order = _order(group, cost)
    group = group.index_select(0, order)
    count = group.new_zeros(num_objects * num_levels).scatter_add_(0, group, torch.ones_like(group))
    first = count.cumsum(0) - count
    rank = torch.arange(len(cost), device=cost.device) - first.index_select(0, group)
    # The last column takes what is beyond topk.
    table = group.new_full((num_objects * num_levels, topk + 1), -1)
    table.view(-1).scatter_(0, group * (topk + 1) + rank.clamp(max=topk), order)
    table = table[:, :topk].reshape(num_objects, num_levels * topk)
    if not len(cost):
        return table
    samples = cost.take(table.clamp(min=0)).masked_fill(table < 0, math.inf)
    return table.gather(1, samples.sort(dim=1, stable=True).indices)


def _order(group: Tensor, cost: Tensor) -> Tensor:
    """Returns the (P,) order by group, then cost; ties keep their order."""
    if cost.device.type == "cpu":
        # NumPy sorts complex numbers by real, then imaginary part: a third of two sorts' time.
        key = np.empty(len(cost), dtype=np.complex128)
        key.real, key.imag = group.numpy(), cost.numpy()
        return torch.from_numpy(key.argsort(kind="stable"))
    order = cost.argsort(stable=True)
    return order.index_select(0, group.index_select(0, order).argsort(stable=True))


def cheapest_per_object(
    cost: Tensor, candidates: Candidates, num_objects: int, topk: int
) -> Tensor:
    """Returns (G, topk) as `cheapest_per_level`, all levels counted as one."""
    one_level = candidates._replace(level=torch.zeros_like(candidates.level))
    return cheapest_per_level(cost, one_level, num_objects, 1, topk)


def resolve_conflicts(
    positive: Tensor,
    chosen: Tensor,
    value: Tensor,
    candidates: Candidates,
    anchors: Anchors,
    targets: Targets,
) -> Tensor:
    """Gives an anchor that several objects claim to the one with the lowest value.

    Args:
        positive: bool, the shape of ``chosen``: the claims.
        chosen: indices into the candidates, -1 for none.
        value: (P,) without NaN. On a tie the earlier object wins.
        candidates: P candidates.
        anchors: R anchors.
        targets: G objects of N images.

    Returns:
        Bool of the same shape: the remaining claims, one per anchor.
    """
    if not len(value):
        return positive
    index = chosen.clamp(min=0).flatten()
    gt, value = candidates.gt[index], value[index]
    num_slots, num_objects = len(targets.image_sizes) * len(anchors.boxes), len(targets.boxes)
    # The slot after the last takes what is not claimed.
    slot = candidates.slot(len(anchors.boxes))[index]
    slot = torch.where(positive.flatten(), slot, num_slots)
    lowest = value.new_full((num_slots + 1,), math.inf).scatter_reduce_(0, slot, value, "amin")
    tied = torch.where(value == lowest[slot], gt, num_objects)
    owner = gt.new_full((num_slots + 1,), num_objects).scatter_reduce_(0, slot, tied, "amin")
    return positive & (owner[slot] == gt).view_as(positive)


def label_anchors(
    positive: Tensor,
    chosen: Tensor,
    candidates: Candidates,
    anchors: Anchors,
    targets: Targets,
    num_classes: int,
) -> Assignment:
    """Labels positives with their classes, padding -1 (ignored) and other anchors K (background).

    ``chosen`` holds indices into the candidates, -1 for none; ``positive`` is bool of that shape,
    at most one per anchor.
    """
    valid = anchors.valid(targets.image_sizes)
    num_slots = valid.numel()
    # The slot after the last takes what is not positive.
    labels = torch.full((num_slots + 1,), num_classes, device=valid.device)
    labels[:num_slots].masked_fill_(~valid.flatten(), -1)
    gt = torch.full_like(labels, -1)
    if len(candidates.gt):
        index = chosen.clamp(min=0).flatten()
        slot = candidates.slot(valid.shape[1]).take(index)
        slot = torch.where(positive.flatten(), slot, num_slots)
        owner = candidates.gt.take(index)
        labels.scatter_(0, slot, targets.classes.take(owner))
        gt.scatter_(0, slot, owner)
    return Assignment(labels[:num_slots].view_as(valid), gt[:num_slots].view_as(valid))
