"""Indicators of the better teacher, from each network's costs (LAD paper 3.4).

An indicator reduces costs to sums per group, and sums to a value. Sums add up over processes, so a
decision over all ranks needs one reduction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from lad.assignment.assigners import cheapest_per_level
from lad.assignment.mixture import fit_mixtures
from lad.structures import Candidates


class Groups(NamedTuple):
    """The sets of candidates that share a decision.

    Attributes:
        of_candidate: (P,) int64 group of each candidate.
        members: (E,) int64 objects. An object may be in several groups (its levels), a group may
            have several objects (its image).
        member_group: (E,) int64 group of each member.
        number: of groups.
        num_objects: G.
        num_levels: L.
    """

    of_candidate: Tensor
    members: Tensor
    member_group: Tensor
    number: int
    num_objects: int
    num_levels: int

    def sum(self, values: Tensor) -> Tensor:
        """Sums (P, ...) values of the candidates into (number, ...) float64."""
        total = values.new_zeros((self.number, *values.shape[1:]), dtype=torch.float64)
        return total.index_add_(0, self.of_candidate, values.double())


class Indicator(ABC):
    """The network with the higher indicator is the better teacher."""

    @abstractmethod
    def sums(self, cost: Tensor, candidates: Candidates, groups: Groups) -> Tensor:
        """Returns (number of groups, S) float64 sums from (P,) costs; they add over processes."""

    @abstractmethod
    def value(self, sums: Tensor) -> Tensor:
        """Returns the (number of groups,) indicators; NaN where a group has too few candidates."""


class StdMean(Indicator):
    """Standard deviation (unbiased) over mean of a group's costs (LAD paper, equation 4)."""

    def sums(self, cost: Tensor, candidates: Candidates, groups: Groups) -> Tensor:
        """Returns count, sum and sum of squares."""
        cost = cost.double()
        return groups.sum(torch.stack([torch.ones_like(cost), cost, cost**2], dim=1))

    def value(self, sums: Tensor) -> Tensor:
        """Returns std/mean, NaN for groups of fewer than two candidates."""
        mean, std = mean_and_std(sums)
        return std / mean


def mean_and_std(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and unbiased standard deviation from (..., 3) count, sum and sum of squares.

    Without values the mean is NaN; with fewer than two the deviation is.
    """
    count, total, squares = sums.unbind(dim=-1)
    mean = total / count
    variance = (squares - total * mean).clamp(min=0) / (count - 1).clamp(min=0)
    return mean, torch.where(count > 1, variance.sqrt(), torch.nan)


class Fisher(Indicator):
    """(mu+ - mu-)^2 / (s+^2 + s-^2) of an object's two-Gaussian fit (LAD paper, equation 5).

    The fit is that of `PAAAssigner` with the same `topk`: over the object's cheapest candidates of
    each level. A group's value is the mean over its objects, a level's is its object's.

    Args:
        topk: candidates of each object and level that enter the fit.
    """

    def __init__(self, *, topk: int = 9):
        self.topk = topk

    def sums(self, cost: Tensor, candidates: Candidates, groups: Groups) -> Tensor:
        """Returns the sum of the objects' scores and the number of objects."""
        if not len(cost):
            return cost.new_zeros((groups.number, 2), dtype=torch.float64)
        chosen = cheapest_per_level(
            cost, candidates, groups.num_objects, groups.num_levels, self.topk
        )
        # One copy from a GPU: absent candidates are infinite.
        samples = cost[chosen.clamp(min=0)].masked_fill(chosen < 0, torch.inf).cpu()
        present = samples != torch.inf
        fit = fit_mixtures(samples, present)
        separation = fit.means.diff(dim=1)[:, 0] ** 2 / fit.variances.sum(dim=1)
        enough = (present.sum(dim=1) > 1).double()
        per_object = torch.stack([separation * enough, enough], dim=1).to(cost.device)
        total = per_object.new_zeros((groups.number, 2))
        return total.index_add_(0, groups.member_group, per_object[groups.members])

    def value(self, sums: Tensor) -> Tensor:
        """Returns the mean score, NaN for groups without an object of two candidates."""
        return sums[:, 0] / sums[:, 1]
