"""Label-guided self-distillation as a distillation loss (LGD, arXiv 2109.11496)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lad.modeling.distill_loss import DistillLoss
from lad.modeling.distill_losses.common import feature_channels
from lad.modeling.distill_losses.lgd.teacher import LabelGuidedTeacher
from lad.modeling.network import DenseNetwork, NetworkOutput, without_gradients
from lad.structures import Assignment, Targets


class LGD(DistillLoss):
    """The student learns from features that are made of its own features and the labels.

    The student's head runs on these features, too, on the same assignment. Its losses train the
    label-guided teacher, and head and backbone with it. The distance of the student's features to
    the teacher's trains the student. Inference needs none of it.

    Until ``start`` and after ``until`` the distance trains only the adapter, not the student.

    Args:
        teacher: makes features.
        weight: of the distance.
        teacher_weight: of the losses on the teacher's features.
        train_head: the losses on the teacher's features train the student's head.
        **schedule: ``start`` and ``until`` of `DistillLoss`; the paper starts after a sixth.
    """

    needs_assignment = True

    def __init__(
        self,
        *,
        teacher: LabelGuidedTeacher,
        weight: float = 1.0,
        teacher_weight: float = 1.0,
        train_head: bool = True,
        **schedule: float,
    ):
        super().__init__(**schedule)
        self.teacher = teacher
        self.weight = weight
        self.teacher_weight = teacher_weight
        self.train_head = train_head
        channels = teacher.channels
        self.adapter = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def check(self, student: DenseNetwork, teacher: DenseNetwork | None) -> None:
        """Requires the student's number of channels and classes."""
        channels = set(feature_channels(student))
        if channels != {self.teacher.channels}:
            raise ValueError(
                f"LGD's teacher has channels={self.teacher.channels}, the student's features "
                f"{', '.join(map(str, sorted(channels)))}: make them equal"
            )
        if student.num_classes != self.teacher.num_classes:
            raise ValueError(
                f"LGD's teacher has num_classes={self.teacher.num_classes}, the student "
                f"{student.num_classes}: let it follow the student's"
            )

    def forward(
        self,
        student: NetworkOutput,
        teacher: NetworkOutput | None,
        targets: Targets,
        assignment: Assignment | None,
    ) -> dict[str, Tensor]:
        """Returns ``loss_lgd``, and the losses on the teacher's features as ``lgd/...``."""
        assert assignment is not None
        network = student.network
        features = self.teacher(student.features, targets, student.image_size)
        with ExitStack() as stack:
            stack.enter_context(network.second_pass())
            if not self.train_head:
                stack.enter_context(without_gradients(network))
            losses = network.losses(network.predict(features), assignment, targets)
        losses = {f"lgd/{name}": self.teacher_weight * loss for name, loss in losses.items()}
        own = [self.adapter(x if self.counts else x.detach()) for x in student.features]
        return {**losses, "loss_lgd": self.weight * feature_distance(own, features)}

    def scheduled(
        self,
        student: NetworkOutput,
        teacher: NetworkOutput | None,
        targets: Targets,
        assignment: Assignment | None,
    ) -> dict[str, Tensor]:
        """Returns all losses: the schedule only decides whether the distance trains the student."""
        return self(student, teacher, targets, assignment)


def feature_distance(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Returns the mean squared difference of maps, each normalized per image and channel.

    The mean is over all elements of all levels, so a finer level counts more. A map of one cell is
    normalized to 0. No gradients reach the teacher.

    Args:
        student: (N, C, H_l, W_l) of each level.
        teacher: the same shapes.
    """
    with torch.autocast(student[0].device.type, enabled=False):
        squares = [
            (_normalize(x) - _normalize(y.detach())).square().sum()
            for x, y in zip(student, teacher, strict=True)
        ]
        return torch.stack(squares).sum() / sum(x.numel() for x in student)


def _normalize(x: Tensor) -> Tensor:
    """Normalizes maps; torch's instance norm refuses maps of one cell."""
    return F.layer_norm(x.float(), x.shape[-2:])
