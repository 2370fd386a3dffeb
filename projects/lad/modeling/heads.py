"""The dense head, with optional objectness (COP and IOP: LAD paper, appendix)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import get_norm
from torch import Tensor, nn


class Scale(nn.Module):
    """A learned scalar factor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies ``x``."""
        return x * self.scale


def _conv3x3(in_channels: int, out_channels: int, *, bias: float | None = 0.0) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias is not None)
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None and bias is not None:
        nn.init.constant_(conv.bias, bias)
    return conv


def _tower(in_channels: int, channels: int, num_convs: int, norm: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(num_convs):
        # A norm has its own bias.
        layers.append(_conv3x3(in_channels, channels, bias=None if norm else 0.0))
        if norm:
            layers.append(get_norm(norm, channels))
        layers.append(nn.ReLU(inplace=True))
        in_channels = channels
    return nn.Sequential(*layers)


class ConditionalObjectness(nn.Module):
    """COP: class probability as a mean over neighbors, weighted by predicted coefficients.

    It is the mean over the kernel's neighborhood of sigmoid(the neighbor's class logit) x
    sigmoid(the cell's coefficient for that neighbor). Logits outside the map are 0.

    Args:
        channels: of the box tower.
        kernel_size: odd side of the neighborhood.

    Raises:
        ValueError: for an even kernel_size.
    """

    def __init__(self, *, channels: int, kernel_size: int = 3):
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size}: it has to be odd")
        self.kernel_size = kernel_size
        self.coefficients = _conv3x3(channels, kernel_size**2)

    def forward(self, class_logits: Tensor, box_features: Tensor) -> Tensor:
        """Returns (N, K, H, W) float32 probabilities from logits and the box tower's features."""
        coefficients = self.coefficients(box_features).float().sigmoid()
        size, radius = self.kernel_size, self.kernel_size // 2
        height, width = class_logits.shape[-2:]
        neighbors = F.pad(class_logits.float(), [radius] * 4).sigmoid()
        total = torch.zeros_like(class_logits, dtype=torch.float32)
        for index in range(size**2):
            row, column = divmod(index, size)
            shifted = neighbors[..., row : row + height, column : column + width]
            total = total + shifted * coefficients[:, index : index + 1]
        return total / size**2


class ImplicitObjectness(nn.Module):
    """IOP: class probability = relu(sigmoid(class) - sigmoid(offset)) x sigmoid(objectness).

    Args:
        channels: of the box tower.
    """

    def __init__(self, *, channels: int):
        super().__init__()
        self.objectness = _conv3x3(channels, 1)
        self.offset = _conv3x3(channels, 1, bias=-9.21)  # probability 1e-4

    def forward(self, class_logits: Tensor, box_features: Tensor) -> Tensor:
        """Returns (N, K, H, W) float32 probabilities from logits and the box tower's features."""
        objectness = self.objectness(box_features).float().sigmoid()
        offset = self.offset(box_features).float().sigmoid()
        return F.relu(class_logits.float().sigmoid() - offset) * objectness


class PAAHead(nn.Module):
    """Class scores, box deltas and (optionally) the IoU of every anchor (PAA section 3.3).

    Args:
        in_channels: channels of every feature map.
        num_classes: K.
        num_levels: feature maps; each has its own learned factor of the deltas.
        channels: of both towers.
        num_convs: 3x3 convolutions of each tower.
        norm: Detectron2's name of the towers' norm; "GN" has 32 groups.
        quality: predict the IoU.
        objectness: such as `ConditionalObjectness`; None for plain class logits.
        prior_prob: initial class probability.
        num_outputs: D, regression outputs of an anchor.

    Attributes:
        activation: of the scores, see `DensePredictions`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        num_levels: int = 5,
        channels: int = 256,
        num_convs: int = 4,
        norm: str = "GN",
        quality: bool = True,
        objectness: nn.Module | None = None,
        prior_prob: float = 0.01,
        num_outputs: int = 4,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.num_outputs = num_outputs
        self.class_tower = _tower(in_channels, channels, num_convs, norm)
        self.box_tower = _tower(in_channels, channels, num_convs, norm)
        prior = -math.log((1 - prior_prob) / prior_prob)
        self.class_logits = _conv3x3(channels, num_classes, bias=prior)
        self.deltas = _conv3x3(channels, num_outputs)
        self.scales = nn.ModuleList(Scale() for _ in range(num_levels))
        self.quality = _conv3x3(channels, 1) if quality else None
        self.objectness = objectness
        self.activation = "sigmoid" if objectness is None else "none"

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Predicts from feature maps of shape (N, in_channels, H_l, W_l), finest first.

        Returns:
            Maps of each level: (N, K, H_l, W_l) scores, (N, D, H_l, W_l) deltas and
            (N, 1, H_l, W_l) quality logits, an empty list for heads without the IoU branch.

        Raises:
            ValueError: when the number of feature maps is not ``num_levels``.
        """
        if len(features) != len(self.scales):
            raise ValueError(
                f"the head is made for {len(self.scales)} levels but gets {len(features)}: "
                "set model.head.num_levels to the length of model.head_in_features"
            )
        return self.outputs(map(self.class_tower, features), map(self.box_tower, features))

    def outputs(
        self, class_features: Iterable[Tensor], box_features: Iterable[Tensor]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Predicts from both towers' outputs of each level; returns what `forward` does."""
        scores, deltas, quality = [], [], []
        levels = zip(class_features, box_features, self.scales, strict=True)
        for class_feature, box_feature, scale in levels:
            class_logits = self.class_logits(class_feature)
            if self.objectness is not None:
                class_logits = self.objectness(class_logits, box_feature)
            scores.append(class_logits)
            deltas.append(scale(self.deltas(box_feature)))
            if self.quality is not None:
                quality.append(self.quality(box_feature))
        return scores, deltas, quality


class GFLHead(PAAHead):
    """GFL's head: scores that hold the quality, and distributions of the distances to the sides.

    A class score estimates the IoU of the box with an object of that class, so there is no IoU
    branch. A box is 4 (n + 1) logits, which `DistributionCoder` decodes (arXiv 2006.04388, section
    3.2). Parameters have `PAAHead`'s names; ``deltas`` makes the logits.

    Args:
        num_bins: n + 1.
        quality: False.
        **options: as for `PAAHead`.

    Raises:
        ValueError: for a head with the IoU branch.
    """

    def __init__(self, *, num_bins: int = 17, quality: bool = False, **options: Any):
        if quality:
            raise ValueError(
                "GFLHead: quality=true, but GFL's class scores hold the quality: set it to false"
            )
        super().__init__(quality=False, num_outputs=4 * num_bins, **options)
