"""Which network's costs make the labels (LAD paper 3.4)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from detectron2.utils import comm
from torch import Tensor

from lad.assignment.indicators import Groups, Indicator
from lad.modeling.losses import mean_over_ranks
from lad.structures import Candidates, Targets

SCOPES = ("iteration", "image", "object", "level")


class SwitchRecord(NamedTuple):
    """What one step decided; scalars.

    Attributes:
        student: the student's indicator, the mean over the groups that have one.
        teacher: the teacher's.
        student_share: share of decisions that the student won: mean over the groups of an image,
            then over images.
    """

    student: Tensor
    teacher: Tensor
    student_share: Tensor


class RoleSwitch:
    """Decides, candidate by candidate, whether the student's or the teacher's cost counts.

    The network with the higher indicator teaches; on a tie it is the student. Where a group has too
    few candidates for the indicator, the network with strictly lower mean cost teaches, else the
    teacher. The scope says what is decided on together:

    - ``iteration`` (paper): one decision for the batch, over all processes;
    - ``image``, ``object``;
    - ``level`` (released code): one decision per object and pyramid level.

    Attributes:
        forced: True (the student) or False (the teacher) overrides the decision; None decides.
        student_taught: scope iteration's last decision, which stays when a batch has no candidates.
        record: what the last call decided; with the other scopes on this process's images alone.
    """

    def __init__(self, *, indicator: Indicator, scope: str = "iteration"):
        if scope not in SCOPES:
            raise ValueError(f"scope={scope!r}: choose one of {', '.join(SCOPES)}")
        self.indicator = indicator
        self.scope = scope
        self.forced: bool | None = None
        self.student_taught = torch.tensor(False)
        self.record: SwitchRecord | None = None

    @torch.no_grad()
    def __call__(
        self,
        student_cost: Tensor,
        teacher_cost: Tensor,
        candidates: Candidates,
        targets: Targets,
        num_levels: int,
    ) -> Tensor:
        """Returns (P,) bool: True where the student's cost counts.

        With scope iteration every process must call this in every step: it reduces over them.

        Args:
            student_cost: (P,).
            teacher_cost: (P,).
            candidates: P candidates.
            targets: G objects of N images.
            num_levels: L.
        """
        groups = self.groups(candidates, targets, num_levels)
        costs = torch.stack([student_cost, teacher_cost], dim=1)
        counted = torch.cat([torch.ones_like(costs[:, :1]), costs], dim=1)
        indicators = [
            self.indicator.sums(x, candidates, groups) for x in (student_cost, teacher_cost)
        ]
        sums = torch.cat([groups.sum(counted), *indicators], dim=1)
        if self.scope == "iteration":
            sums = comm.get_world_size() * mean_over_ranks(sums)
        count, student_total, teacher_total = sums[:, :3].unbind(dim=1)
        student, teacher = (self.indicator.value(x) for x in sums[:, 3:].chunk(2, dim=1))
        told = student.isfinite() & teacher.isfinite()
        chosen = torch.where(told, student >= teacher, student_total < teacher_total)
        if self.scope == "iteration":
            previous = self.student_taught.to(chosen.device)
            chosen = torch.where(count > 0, chosen, previous)
        if self.forced is not None:
            chosen = torch.full_like(chosen, self.forced)
        if self.scope == "iteration":
            self.student_taught = chosen[0]
        self._note(student, teacher, chosen, count > 0, targets, groups)
        return chosen[groups.of_candidate]

    def groups(self, candidates: Candidates, targets: Targets, num_levels: int) -> Groups:
        """Returns the sets of candidates that the scope decides on together."""
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

    def _note(
        self,
        student: Tensor,
        teacher: Tensor,
        chosen: Tensor,
        decided: Tensor,
        targets: Targets,
        groups: Groups,
    ) -> None:
        """Records the step's indicators and who taught."""
        share = chosen.double()
        if self.scope in ("object", "level"):
            image = targets.image[groups.members]
            sums = share.new_zeros((len(targets.image_sizes), 2))
            weights = decided.double()
            sums.index_add_(0, image, torch.stack([share * weights, weights], dim=1))
            share = sums[:, 0] / sums[:, 1]
        else:
            share = torch.where(decided, share, torch.nan)
        self.record = SwitchRecord(
            student.masked_fill(~decided, torch.nan).nanmean(),
            teacher.masked_fill(~decided, torch.nan).nanmean(),
            share.nanmean(),
        )
