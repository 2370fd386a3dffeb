"""Which network's costs make the labels (LAD paper 3.4)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lad.assignment.indicators import Groups, Indicator
from lad.ops.ranks import sum_over_ranks
from lad.structures import Candidates, Targets

SCOPES = ("iteration", "image", "object", "level")


class SwitchRecord(NamedTuple):
    """The decisions of one step, as scalars.

    Attributes:
        student: the student's indicator, mean over the groups that have one.
        teacher: the teacher's.
        student_share: share of decisions for the student, mean over the groups of an image, then
            over this process's images.
        student_teaches: scope iteration's decision; False with other scopes.
    """

    student: Tensor
    teacher: Tensor
    student_share: Tensor
    student_teaches: Tensor


class Comparison(NamedTuple):
    """The networks' indicators and the decision of each group.

    Attributes:
        student: (number of groups,) float64 indicator; NaN where there are too few candidates.
        teacher: the teacher's.
        student_teaches: (number of groups,) bool, without meaning where a group is empty.
        size: (number of groups,) float64 number of candidates.
    """

    student: Tensor
    teacher: Tensor
    student_teaches: Tensor
    size: Tensor


class RoleSwitch:
    """Decides, candidate by candidate, whether the student's or the teacher's cost counts.

    The network with the higher indicator teaches, on a tie the student. In a group with too few
    candidates for the indicator, the student teaches if its mean cost is strictly lower. The scope
    says which candidates share a decision:

    - ``iteration`` (paper): one decision for the batch, over all processes;
    - ``image``, ``object``;
    - ``level`` (released code): one decision per object and pyramid level.

    Example:
        One object with student's costs 1, 2, 3 (std/mean 0.5) and teacher's costs 2.0, 2.1, 2.2
        (0.05): `StdMean` lets the student teach; all three of its costs count.

    Args:
        indicator: measures which network is the better teacher.
        scope: one of the above.

    Raises:
        ValueError: for another scope.
    """

    def __init__(self, *, indicator: Indicator, scope: str = "iteration"):
        if scope not in SCOPES:
            raise ValueError(f"scope={scope!r}: choose one of {', '.join(SCOPES)}")
        self.indicator = indicator
        self.scope = scope

    @torch.no_grad()
    def __call__(
        self,
        student_cost: Tensor,
        teacher_cost: Tensor,
        candidates: Candidates,
        targets: Targets,
        num_levels: int,
        *,
        forced: bool | None = None,
        previous: bool | Tensor = False,
    ) -> tuple[Tensor, SwitchRecord]:
        """Decides one step. With scope iteration every process must call it in every step.

        Args:
            student_cost: (P,).
            teacher_cost: (P,).
            candidates: P candidates.
            targets: G objects of N images.
            num_levels: L.
            forced: True (the student) or False (the teacher) overrides the indicators.
            previous: scope iteration's decision for a batch without candidates.

        Returns:
            (P,) bool, True where the student's cost counts, and the record of the step.
        """
        groups = self.groups(candidates, targets, num_levels)
        student, teacher, chosen, count = self.compare(
            student_cost, teacher_cost, candidates, groups, over_ranks=self.scope == "iteration"
        )
        student_teaches = chosen.new_zeros(())
        if self.scope == "iteration":
            chosen = torch.where(count > 0, chosen, torch.as_tensor(previous, device=count.device))
        if forced is not None:
            chosen = torch.full_like(chosen, forced)
        if self.scope == "iteration":
            student_teaches = chosen[0]
        record = SwitchRecord(
            student.masked_fill(count == 0, torch.nan).nanmean(),
            teacher.masked_fill(count == 0, torch.nan).nanmean(),
            self._share(chosen, count > 0, targets, groups),
            student_teaches,
        )
        return chosen[groups.of_candidate], record

    @torch.no_grad()
    def compare(
        self,
        student_cost: Tensor,
        teacher_cost: Tensor,
        candidates: Candidates,
        groups: Groups,
        *,
        over_ranks: bool = False,
    ) -> Comparison:
        """Compares the networks in each group.

        Args:
            student_cost: (P,).
            teacher_cost: (P,).
            candidates: P candidates.
            groups: of the candidates, see `groups`.
            over_ranks: count the candidates of all processes, which then all have to call it.
        """
        costs = torch.stack([student_cost, teacher_cost], dim=1)
        counted = torch.cat([torch.ones_like(costs[:, :1]), costs], dim=1)
        indicators = [
            self.indicator.sums(x, candidates, groups) for x in (student_cost, teacher_cost)
        ]
        sums = torch.cat([groups.sum(counted), *indicators], dim=1)
        if over_ranks:
            sums = sum_over_ranks(sums)
        count, student_total, teacher_total = sums[:, :3].unbind(dim=1)
        student, teacher = (self.indicator.value(x) for x in sums[:, 3:].chunk(2, dim=1))
        comparable = student.isfinite() & teacher.isfinite()
        chosen = torch.where(comparable, student >= teacher, student_total < teacher_total)
        return Comparison(student, teacher, chosen, count)

    def groups(self, candidates: Candidates, targets: Targets, num_levels: int) -> Groups:
        """Returns the groups of candidates by the scope."""
        num_objects = len(targets.boxes)
        members = torch.arange(num_objects, device=targets.boxes.device)
        if self.scope == "iteration":
            of_candidate, group, number = candidates.gt * 0, members * 0, 1
        elif self.scope == "image":
            of_candidate, group = candidates.image, targets.image
            number = len(targets.image_sizes)
        elif self.scope == "object":
            of_candidate, group, number = candidates.gt, members, num_objects
        else:
            of_candidate = candidates.gt * num_levels + candidates.level
            number = num_objects * num_levels
            group = torch.arange(number, device=members.device)
            members = members.repeat_interleave(num_levels, output_size=number)
        return Groups(of_candidate, members, group, number, num_objects, num_levels)

    def _share(self, chosen: Tensor, decided: Tensor, targets: Targets, groups: Groups) -> Tensor:
        """Returns `SwitchRecord.student_share`."""
        share = torch.where(decided, chosen.double(), torch.nan)
        if self.scope in ("object", "level"):
            image = targets.image[groups.members]
            sums = share.new_zeros((len(targets.image_sizes), 2))
            weights = decided.double()
            sums.index_add_(0, image, torch.stack([chosen * weights, weights], dim=1))
            share = sums[:, 0] / sums[:, 1]
        return share.nanmean()
