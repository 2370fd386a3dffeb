"""PKD: correlation of feature maps (arXiv 2207.02039)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lad.modeling.distill_loss import DistillLoss
from lad.modeling.distill_losses.common import (
    channel_adapters,
    channel_statistics,
    feature_channels,
    require_teacher,
)
from lad.modeling.network import DenseNetwork, NetworkOutput
from lad.structures import Assignment, Targets


class PKD(DistillLoss):
    """Squared difference of the head's input maps, each channel standardized over the batch.

    It is 1 - Pearson's correlation per channel (paper, equations 4 and 5), so it does not change if
    a channel is scaled or shifted. Padding is part of the maps, and each process has its own
    statistics. A student with another number of channels gets a 1x1 convolution.

    Args:
        weight: of the sum over levels.
        num_levels: finest levels that are compared; None for all.
        **schedule: ``start`` and ``until`` of `DistillLoss`.
    """

    takes_unlabeled = True

    def __init__(self, *, weight: float = 10.0, num_levels: int | None = 4, **schedule: float):
        super().__init__(**schedule)
        self.weight = weight
        self.num_levels = num_levels
        self.adapters = nn.ModuleList()

    def check(self, student: DenseNetwork, teacher: DenseNetwork | None) -> None:
        """Requires a teacher; makes the convolutions that the channels need."""
        channels = feature_channels(student), feature_channels(require_teacher(self, teacher))
        own, other = (x[: self.num_levels] for x in channels)
        self.adapters = channel_adapters(own, other)

    def forward(
        self,
        student: NetworkOutput,
        teacher: NetworkOutput | None,
        targets: Targets,
        assignment: Assignment | None,
    ) -> dict[str, Tensor]:
        """Returns ``loss_pkd``."""
        assert teacher is not None
        with torch.autocast(student.features[0].device.type, enabled=False):
            # The adapters are as many as the levels that count.
            levels = zip(self.adapters, student.features, teacher.features, strict=False)
            losses = [decorrelation(x(own.float()), other.float()) for x, own, other in levels]
            return {"loss_pkd": self.weight * torch.stack(losses).sum()}


def decorrelation(student: Tensor, teacher: Tensor) -> Tensor:
    """Returns 1 - Pearson's correlation of two (N, C, H, W) maps, mean over the channels.

    With the unbiased deviation of M positions it is that times (M - 1) / M.
    """
    own, other = (
        (x - mean) / deviation
        for x in (student, teacher)
        for mean, deviation in [channel_statistics(x)]
    )
    return (own - other).square().mean() / 2
