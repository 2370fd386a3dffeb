"""Box coders: between the regression outputs of a head and boxes."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor


class DeltaCoder:
    """Deltas (dx, dy, dw, dh) from the anchor's center and size, in units of their deviations.

    Sizes change by at most a factor ``max_ratio`` either way; Detectron2's `Box2BoxTransform`
    limits growth only.

    Args:
        offset_std: of dx and dy, in sizes of the anchor.
        size_std: of dw and dh, in logarithms.
        max_ratio: of the box's size to the anchor's.
    """

    num_outputs = 4

    def __init__(
        self, *, offset_std: float = 0.1, size_std: float = 0.2, max_ratio: float = 1000 / 16
    ):
        self.offset_std, self.size_std = offset_std, size_std
        self.max_log_ratio = math.log(max_ratio)

    def decode(self, anchors: Tensor, regression: Tensor) -> Tensor:
        """Returns (..., 4) boxes from (..., 4) anchors, broadcastable, and (..., 4) deltas."""
        # By coordinate: operations over a last dimension of two are several times slower.
        left, top, right, bottom = anchors.unbind(dim=-1)
        dx, dy, dw, dh = regression.unbind(dim=-1)
        width, height = right - left, bottom - top
        x = (left + right) / 2 + dx * self.offset_std * width
        y = (top + bottom) / 2 + dy * self.offset_std * height
        limit = self.max_log_ratio
        dw, dh = ((d * self.size_std).clamp(-limit, limit) for d in (dw, dh))
        half_width, half_height = width * dw.exp() / 2, height * dh.exp() / 2
        corners = [x - half_width, y - half_height, x + half_width, y + half_height]
        return torch.stack(corners).movedim(0, -1)

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Returns the (..., 4) deltas of (..., 4) boxes."""
        anchor_size = anchors[..., 2:] - anchors[..., :2]
        size = boxes[..., 2:] - boxes[..., :2]
        offset = (boxes[..., :2] + boxes[..., 2:] - anchors[..., :2] - anchors[..., 2:]) / 2
        log_ratio = (size / anchor_size).log()
        return torch.cat([offset / anchor_size / self.offset_std, log_ratio / self.size_std], -1)


class DistanceCoder:
    """Distances (left, top, right, bottom) from the anchor's center to the sides of the box.

    Args:
        units_per_side: the unit is the anchor's side divided by this; with anchors of 8 strides, 8
            makes the unit a stride.
    """

    num_outputs = 4

    def __init__(self, *, units_per_side: float = 1.0):
        if units_per_side <= 0:
            raise ValueError(f"units_per_side={units_per_side}: it has to be positive")
        self.units_per_side = units_per_side

    def decode(self, anchors: Tensor, regression: Tensor) -> Tensor:
        """Returns (..., 4) boxes from (..., 4) anchors, broadcastable, and (..., 4) distances.

        Negative distances count as 0, so that every box contains its center.
        """
        x, y, unit = self._centers(anchors)
        left, top, right, bottom = (regression.clamp(min=0) * unit[..., None]).unbind(dim=-1)
        return torch.stack([x - left, y - top, x + right, y + bottom]).movedim(0, -1)

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Returns the (..., 4) distances of (..., 4) boxes, negative for a center outside."""
        x, y, unit = self._centers(anchors)
        left, top, right, bottom = boxes.unbind(dim=-1)
        return (
            torch.stack([x - left, y - top, right - x, bottom - y]).movedim(0, -1) / unit[..., None]
        )

    def _centers(self, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, top, right, bottom = anchors.unbind(dim=-1)
        return (left + right) / 2, (top + bottom) / 2, (right - left) / self.units_per_side


class DistributionCoder:
    """Distances as expectations over bins 0, 1, ..., n (GFL, arXiv 2006.04388, section 3.2).

    A head predicts 4 (n + 1) logits per anchor: the bins of left, then top, right and bottom.

    Args:
        num_bins: n + 1.
        units_per_side: as in `DistanceCoder`.
    """

    def __init__(self, *, num_bins: int = 17, units_per_side: float = 8.0):
        if num_bins < 2:
            raise ValueError(f"num_bins={num_bins}: it has to be at least 2")
        self.num_bins = num_bins
        self.num_outputs = 4 * num_bins
        self.distances = DistanceCoder(units_per_side=units_per_side)

    def decode(self, anchors: Tensor, regression: Tensor) -> Tensor:
        """Returns (..., 4) boxes from (..., 4) anchors and (..., 4 (n + 1)) logits."""
        probabilities = self.logits(regression).softmax(dim=-1)
        bins = torch.arange(self.num_bins, dtype=regression.dtype, device=regression.device)
        return self.distances.decode(anchors, probabilities @ bins)

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Returns the (..., 4) distances of (..., 4) boxes in bins, inside [0, n - 0.01]."""
        return self.distances.encode(anchors, boxes).clamp(0, self.num_bins - 1 - 0.01)

    def logits(self, regression: Tensor) -> Tensor:
        """Returns the (..., 4, n + 1) logits of each side's bins from (..., 4 (n + 1)) outputs."""
        return regression.unflatten(-1, (4, self.num_bins))


class BoxTransform(Protocol):
    """Detectron2's ``Box2BoxTransform*``."""

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Returns (P, 4) boxes."""

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Returns (P, 4) deltas."""


class TransformCoder:
    """A coder that applies one of Detectron2's ``Box2BoxTransform*``."""

    num_outputs = 4

    def __init__(self, transform: BoxTransform):
        self.transform = transform

    def decode(self, anchors: Tensor, regression: Tensor) -> Tensor:
        """Returns (..., 4) boxes from (..., 4) anchors, broadcastable, and (..., 4) deltas."""
        flat = anchors.expand_as(regression).reshape(-1, 4)
        return self.transform.apply_deltas(regression.reshape(-1, 4), flat).view_as(regression)

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Returns the (..., 4) deltas of (..., 4) boxes."""
        flat = anchors.expand_as(boxes).reshape(-1, 4)
        return self.transform.get_deltas(flat, boxes.reshape(-1, 4)).view_as(boxes)
