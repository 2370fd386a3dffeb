"""The parts of LGD's teacher (LGD sections 3.2 to 3.4). All norms have no parameters.

Shape letters besides those of `lad.structures`: M objects per image with padding and context, C
channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INTERACTIONS = ("student_guided", "label_guided", "appearance_only", "label_only")


def _layers(*sizes: int) -> nn.Sequential:
    """Returns linear layers, each with norm and ReLU."""
    layers: list[nn.Module] = []
    for size, following in zip(sizes, sizes[1:], strict=False):
        layers += [
            nn.Linear(size, following),
            nn.LayerNorm(following, elementwise_affine=False),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(1, channels, affine=False)


def _conv(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1)


class TNet(nn.Module):
    """Predicts a matrix for each object and multiplies its vector by it (PointNet's T-Net).

    Args:
        size: of the vector.
        width: 64 in the paper; the layers have 1, 2, 16, 8 and 4 times as many channels.
    """

    def __init__(self, *, size: int, width: int):
        super().__init__()
        self.layers = _layers(size, width, 2 * width, 16 * width, 8 * width, 4 * width)
        self.matrix = nn.Linear(4 * width, size * size)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms (N, M, size) vectors."""
        matrix = self.matrix(self.layers(x)).unflatten(-1, (x.shape[-1], x.shape[-1]))
        return (x[..., None, :] @ matrix)[..., 0, :]


class LabelEncoder(nn.Module):
    """Embeds each object's label together with all labels of its image, like PointNet its points.

    Args:
        size: of the descriptors.
        channels: C.
        width: see `TNet`.
    """

    def __init__(self, *, size: int, channels: int, width: int):
        super().__init__()
        self.local = nn.Sequential(
            TNet(size=size, width=width), _layers(size, width), TNet(size=width, width=width)
        )
        self.expand = _layers(width, 2 * width, 16 * width)
        self.output = _layers(17 * width, channels)

    def forward(self, descriptors: Tensor, present: Tensor) -> Tensor:
        """Returns (N, M, C) from (N, M, size) descriptors; (N, M) says which are present."""
        local = self.local(descriptors)
        points = self.expand(local).masked_fill(~present[..., None], -math.inf)
        image = points.amax(dim=1, keepdim=True).expand(-1, local.shape[1], -1)
        return self.output(torch.cat([local, image], dim=-1))


class AppearanceEncoder(nn.Module):
    """Means of a convolution's outputs in each object's cells, on every level.

    Args:
        channels: C.
    """

    def __init__(self, *, channels: int):
        super().__init__()
        self.layers = nn.Sequential(_conv(channels), _norm(channels), nn.ReLU())

    def forward(self, features: Sequence[Tensor], cells: Sequence[Tensor]) -> Tensor:
        """Returns (L, N, M, C); zeros for an object without cells.

        Args:
            features: (N, C, H_l, W_l) of each level.
            cells: (N, M, H_l, W_l) of each level, 1 in the object's cells.
        """
        means = []
        for feature, inside in zip(features, cells, strict=True):
            appearance = self.layers(feature)
            with torch.autocast(feature.device.type, enabled=False):  # sums over a whole map
                inside = inside.flatten(2)
                weights = inside / inside.sum(dim=-1, keepdim=True).clamp(min=1)
                means.append(weights @ appearance.float().flatten(2).mT)
        return torch.stack(means)


class RelationAdapter(nn.Module):
    """Exchanges information between the objects of an image by attention.

    Args:
        channels: C.
        num_heads: of the attention; divides C.
        interaction: "student_guided": appearance asks, labels answer; "label_guided": the other way
            round; "appearance_only" and "label_only" have no attention.

    Raises:
        ValueError: for another interaction, or heads that do not divide the channels.
    """

    def __init__(self, *, channels: int, num_heads: int, interaction: str):
        if interaction not in INTERACTIONS:
            raise ValueError(
                f"interaction={interaction!r}: choose one of {', '.join(INTERACTIONS)}"
            )
        if channels % num_heads:
            raise ValueError(f"num_heads={num_heads}: it has to divide channels={channels}")
        super().__init__()
        self.interaction = interaction
        if interaction != "appearance_only":
            self.label = _layers(channels, channels)
        if interaction in ("student_guided", "label_guided"):
            self.attention = nn.MultiheadAttention(channels, num_heads, batch_first=True)

    def forward(self, appearance: Tensor | None, label: Tensor | None, present: Tensor) -> Tensor:
        """Returns (L, N, M, C), or (1, N, M, C) if all levels are equal.

        Args:
            appearance: (L, N, M, C); None for "label_only".
            label: (N, M, C); None for "appearance_only".
            present: (N, M) bool: other objects take no part.
        """
        if label is None:
            assert appearance is not None
            return appearance
        label = self.label(label)
        if appearance is None:
            return label[None]
        levels, images = appearance.shape[:2]
        label = label.expand_as(appearance).flatten(0, 1)
        seen = appearance.flatten(0, 1)
        query, key = (seen, label) if self.interaction == "student_guided" else (label, seen)
        absent = ~present.repeat(levels, 1)
        found, _ = self.attention(query, key, key, key_padding_mask=absent, need_weights=False)
        return found.unflatten(0, (levels, images))


class KnowledgeMapper(nn.Module):
    """Paints the objects' vectors into their cells and refines the maps.

    Args:
        channels: C.
        context: add the vector of the last object, the context, to all cells.
    """

    def __init__(self, *, channels: int, context: bool):
        super().__init__()
        self.instance = nn.Linear(channels, channels)
        self.context = nn.Linear(channels, channels) if context else None
        self.spread = _conv(channels)
        self.refine = nn.Sequential(
            *(_conv(channels), _norm(channels), nn.ReLU()),
            *(_conv(channels), _norm(channels), nn.ReLU()),
            *(_conv(channels), _norm(channels)),
        )

    def forward(self, objects: Tensor, cells: Sequence[Tensor]) -> list[Tensor]:
        """Returns (N, C, H_l, W_l) of each level; where objects overlap their vectors add up.

        Args:
            objects: (L, N, M, C), or (1, N, M, C).
            cells: (N, M, H_l, W_l) of each level.
        """
        return [
            self._level(x, inside)
            for x, inside in zip(objects.expand(len(cells), -1, -1, -1), cells, strict=True)
        ]

    def _level(self, objects: Tensor, cells: Tensor) -> Tensor:
        size, everywhere = cells.shape[-2:], 0.0
        if self.context is not None:
            everywhere = self.context(objects[:, -1])[..., None, None]
            objects, cells = objects[:, :-1], cells[:, :-1]
        # The convolution of the painted map, tap by tap: M / C of the map's convolution.
        taps = torch.einsum("nmc,dcyx->nmyxd", self.instance(objects), self.spread.weight)
        spread = taps.flatten(1, 3).mT @ F.unfold(cells, 3, padding=1)
        assert self.spread.bias is not None
        spread = spread.unflatten(-1, size) + self.spread.bias[:, None, None]
        return self.refine((spread + everywhere).relu())
