"""What several distillation losses share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lad.modeling.distill_loss import DistillLoss
from lad.modeling.losses import is_positive
from lad.modeling.network import DenseNetwork, NetworkOutput
from lad.modeling.towers import Block, tower_blocks
from lad.ops import focal
from lad.ops.ranks import mean_over_ranks
from lad.structures import Assignment, DensePredictions

_EPS = 1e-6


def require_teacher(loss: object, teacher: DenseNetwork | None) -> DenseNetwork:
    """Returns the teacher; raises ValueError without one."""
    if teacher is None:
        raise ValueError(f"{type(loss).__name__} needs a teacher: set model.teacher")
    return teacher


def feature_channels(network: DenseNetwork) -> list[int]:
    """Returns the channels of the head's input of each level."""
    backbone: Any = network.backbone
    shapes = backbone.output_shape()
    return [shapes[name].channels for name in network.head_in_features]


def channel_adapters(student: Sequence[int], teacher: Sequence[int]) -> nn.ModuleList:
    """Returns a 1x1 convolution from student's to teacher's channels for each pair that differs."""
    return nn.ModuleList(
        nn.Identity() if own == other else nn.Conv2d(own, other, 1)
        for own, other in zip(student, teacher, strict=True)
    )


def channel_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of (N, C, H, W) maps per channel, each (1, C, 1, 1).

    The deviation is the unbiased one plus 1e-6, so a constant channel has that.
    """
    several = x.numel() > x.shape[1]
    deviation = x.std(dim=(0, 2, 3), keepdim=True, correction=int(several))
    return x.mean(dim=(0, 2, 3), keepdim=True), deviation + _EPS


def cross_entropy(scores: Tensor, activation: str, target: Tensor) -> Tensor:
    """Returns `lad.ops.focal.cross_entropy`, with probabilities clamped for finite gradients."""
    if activation != "sigmoid":
        scores = scores.clamp(_EPS, 1 - _EPS)
    return focal.cross_entropy(scores, activation, target)


def foreground(predictions: DensePredictions, assignment: Assignment) -> tuple[Tensor, Tensor]:
    """Returns the (N, R) positives of an assignment and their number, at least 1.

    The number is the mean over the processes.
    """
    positive = is_positive(predictions, assignment)
    return positive, mean_over_ranks(positive.sum().float()).clamp(min=1)


class TowerLoss(DistillLoss):
    """A loss between features of one block of both networks' towers.

    Towers of other channels get a 1x1 convolution on the student's side.

    Args:
        **schedule: ``start`` and ``until`` of `DistillLoss`.

    Attributes:
        block: index of the block in a tower, such as -2 for the last but one.
        place: "before" or "after" the block's ReLU.
    """

    block: int
    place: str

    def __init__(self, **schedule: float):
        super().__init__(**schedule)
        self.adapters = nn.ModuleList()

    def check(self, student: DenseNetwork, teacher: DenseNetwork | None) -> None:
        """Requires towers with the block; makes the convolutions that the channels need."""
        own, other = (self.blocks(x) for x in (student, require_teacher(self, teacher)))
        self.adapters = channel_adapters([x.channels for x in own], [x.channels for x in other])

    def blocks(self, network: DenseNetwork) -> list[Block]:
        """Returns the block of the class tower and that of the box tower."""
        minimum = self.block + 1 if self.block >= 0 else -self.block
        towers = tower_blocks(network, type(self).__name__, minimum)
        return [tower[self.block] for tower in towers]

    def intermediates(self, network: DenseNetwork) -> Sequence[str]:
        """Returns the modules with the features."""
        return [getattr(block, self.place) for block in self.blocks(network)]

    def pairs(
        self, student: NetworkOutput, teacher: NetworkOutput
    ) -> list[list[tuple[Tensor, Tensor]]]:
        """Returns the float32 features of the student, adapted, and of the teacher.

        They are (N, C, H_l, W_l) of each level, of the class tower, then of the box tower.
        """
        own, other = (
            [x.intermediates[name] for name in self.intermediates(x.network)]
            for x in (student, teacher)
        )
        return [
            [(adapter(x.float()), y.float()) for x, y in zip(*levels, strict=True)]
            for adapter, *levels in zip(self.adapters, own, other, strict=True)
        ]
