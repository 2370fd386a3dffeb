"""Anchors of feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lad.ops.boxes import paired_iou
from lad.structures import Anchors, Grid


class AnchorGenerator:
    """One square anchor per cell, centered at (x * stride, y * stride), of side scale * stride.

    Args:
        strides: pixels between neighboring cells of each level.
        scale: side of an anchor in strides.

    Raises:
        ValueError: for strides or a scale that are not positive.
    """

    def __init__(self, *, strides: Sequence[int] = (8, 16, 32, 64, 128), scale: float = 8.0):
        if not strides or any(s <= 0 for s in strides) or scale <= 0:
            raise ValueError(f"anchors need positive strides and scale, got {strides} and {scale}")
        self.strides = tuple(strides)
        self.sizes = tuple(scale * stride for stride in self.strides)
        self._cache: tuple[tuple, Anchors] | None = None

    def __call__(
        self, shapes: Sequence[Sequence[int]], device: torch.device | str = "cpu"
    ) -> Anchors:
        """Returns the anchors of feature maps.

        Args:
            shapes: (height, width) of each level's feature map.
            device: of the boxes.

        Raises:
            ValueError: when the number of levels is not the number of strides.
        """
        if len(shapes) != len(self.strides):
            raise ValueError(
                f"{len(shapes)} feature maps, but anchors for {len(self.strides)} strides: "
                "give head_in_features and the anchor generator's strides the same length"
            )
        grids = tuple(
            Grid(height, width, stride, side)
            for (height, width), stride, side in zip(shapes, self.strides, self.sizes, strict=True)
        )
        if torch.compiler.is_compiling():  # an export's sizes and tensors are symbols
            return self._make(grids, device)
        key = (grids, str(device))
        if self._cache is None or self._cache[0] != key:
            self._cache = (key, self._make(grids, device))
        return self._cache[1]

    def _make(self, grids: tuple[Grid, ...], device: torch.device | str) -> Anchors:
        numbers = tuple(grid.height * grid.width for grid in grids)
        boxes = torch.cat([grid_boxes(grid) for grid in grids])
        # Each coordinate contiguous in memory: faster to select and to compare.
        boxes = boxes.t().contiguous().to(device).t()
        return Anchors(boxes, numbers, self.strides, grids)

    def best_iou(self, boxes: Tensor) -> Tensor:
        """Returns each (G, 4) box's highest IoU with an anchor of a feature map without borders.

        Example: with stride 8 and side 16 the anchor nearest to (0, 0, 18, 16), whose center is
        (9, 8), is (0, 0, 16, 16): the IoU is 256 / 288.
        """
        strides, sides = boxes.new_tensor(self.strides), boxes.new_tensor(self.sizes)
        center = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2  # (G, 1, 2)
        nearest = (center / strides[:, None]).round() * strides[:, None]  # (G, levels, 2)
        half = sides[:, None] / 2
        return paired_iou(boxes[:, None], torch.cat([nearest - half, nearest + half], -1)).amax(1)


def grid_boxes(grid: Grid) -> Tensor:
    """Returns the (height * width, 4) anchors of a level, row after row, on the CPU."""
    y = torch.arange(grid.height, dtype=torch.float32) * grid.stride + grid.offset
    x = torch.arange(grid.width, dtype=torch.float32) * grid.stride + grid.offset
    y, x = torch.meshgrid(y, x, indexing="ij")
    center = torch.stack([x, y, x, y], dim=-1).reshape(-1, 4)
    return center + grid.side / 2 * torch.tensor([-1.0, -1.0, 1.0, 1.0])
