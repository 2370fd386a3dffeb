"""What several distillation losses share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lad.modeling.network import DenseNetwork
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
    """Returns the binary cross-entropy to soft targets, elementwise.

    Args:
        scores: logits or probabilities, any shape, float32.
        activation: "sigmoid" for logits, "none" for probabilities.
        target: probabilities of the same shape.
    """
    if activation == "sigmoid":
        return F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    return F.binary_cross_entropy(scores.clamp(_EPS, 1 - _EPS), target, reduction="none")


def foreground(predictions: DensePredictions, assignment: Assignment) -> tuple[Tensor, Tensor]:
    """Returns the (N, R) positives of an assignment and their number, at least 1.

    The number is the mean over the processes.
    """
    labels = assignment.labels
    positive = (labels >= 0) & (labels < predictions.scores.shape[-1])
    return positive, mean_over_ranks(positive.sum().float()).clamp(min=1)


def without_autocast(x: Tensor) -> torch.autocast:
    """Returns a context in which operations on the device of ``x`` keep float32."""
    return torch.autocast(x.device.type, enabled=False)
