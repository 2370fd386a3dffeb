"""Anchors, the box coder and pairwise-free box overlaps.

Detectron2's and fvcore's twins are not used for three reasons: the reference clamps size deltas
on both sides, fvcore's GIoU asserts on values (which turns a NaN into an AssertionError and waits
for the GPU), and candidates need the anchors' regular grid, not only their boxes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from lad.structures import Anchors

OFFSET_STD, SIZE_STD = 0.1, 0.2  # of deltas (dx, dy) and (dw, dh)
MAX_LOG_RATIO = abs(math.log(16 / 1000))


class AnchorGenerator:
    """One square anchor per cell, centred at (x * stride, y * stride), of side scale * stride."""

    def __init__(self, *, strides: Sequence[int] = (8, 16, 32, 64, 128), scale: float = 8.0):
        if not strides or any(s <= 0 for s in strides) or scale <= 0:
            raise ValueError(f"anchors need positive strides and scale, got {strides} and {scale}")
        self.strides = tuple(strides)
        self.sizes = tuple(scale * stride for stride in self.strides)
        self._cache: tuple[tuple, Anchors] | None = None

    def __call__(
        self, shapes: Sequence[tuple[int, int]], device: torch.device | str = "cpu"
    ) -> Anchors:
        """Lays the anchors over feature maps.

        Args:
            shapes: (height, width) of each level's feature map.
            device: where the boxes shall be.

        Raises:
            ValueError: when the number of levels is not the number of strides.
        """
        if len(shapes) != len(self.strides):
            raise ValueError(
                f"{len(shapes)} feature maps, but anchors for {len(self.strides)} strides: "
                "give head_in_features and the anchor generator's strides the same length"
            )
        key = (tuple(tuple(s) for s in shapes), str(device))
        if self._cache is None or self._cache[0] != key:
            boxes = _grid(key[0], self.strides, self.sizes).to(device)
            self._cache = (key, Anchors(boxes, key[0], self.strides, self.sizes))
        return self._cache[1]


@lru_cache(maxsize=16)
def _grid(shapes: tuple, strides: tuple, sizes: tuple) -> Tensor:
    """The (R, 4) anchors of a grid, on the CPU."""
    boxes = []
    for (height, width), stride, size in zip(shapes, strides, sizes, strict=True):
        y = torch.arange(height, dtype=torch.float32) * stride
        x = torch.arange(width, dtype=torch.float32) * stride
        y, x = torch.meshgrid(y, x, indexing="ij")
        centre = torch.stack([x, y, x, y], dim=-1).reshape(-1, 4)
        boxes.append(centre + size / 2 * torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    return torch.cat(boxes)


def boxes_on(anchors: Anchors, device: torch.device | str) -> Tensor:
    """Returns the (R, 4) anchors on a device; a GPU that holds them is not waited for."""
    if anchors.boxes.device == torch.device(device):
        return anchors.boxes
    return _grid(anchors.shapes, anchors.strides, anchors.sizes).to(device, non_blocking=True)


def decode_boxes(anchors: Tensor, deltas: Tensor) -> Tensor:
    """Applies deltas (dx, dy, dw, dh) with stds 0.1, 0.1, 0.2, 0.2 to anchors.

    Sizes change by at most a factor 62.5 either way. Boxes are not clipped to the image.

    Args:
        anchors: (..., 4) xyxy, broadcastable to ``deltas``.
        deltas: (..., 4).

    Returns:
        (..., 4) xyxy boxes.
    """
    centre = (anchors[..., :2] + anchors[..., 2:]) / 2
    size = anchors[..., 2:] - anchors[..., :2]
    centre = centre + deltas[..., :2] * OFFSET_STD * size
    log_ratio = (deltas[..., 2:] * SIZE_STD).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    half = size * log_ratio.exp() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def encode_boxes(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Returns the (..., 4) deltas with which `decode_boxes` turns ``anchors`` into ``boxes``."""
    anchor_size = anchors[..., 2:] - anchors[..., :2]
    size = boxes[..., 2:] - boxes[..., :2]
    offset = (boxes[..., :2] + boxes[..., 2:] - anchors[..., :2] - anchors[..., 2:]) / 2
    log_ratio = (size / anchor_size).log()
    return torch.cat([offset / anchor_size / OFFSET_STD, log_ratio / SIZE_STD], dim=-1)


def clip_boxes(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """Clips (N, R, 4) boxes to images of (N, 2) heights and widths."""
    limits = image_sizes.flip(-1).repeat(1, 2)[:, None].to(boxes.dtype)
    return torch.minimum(boxes.clamp(min=0), limits)


def paired_iou(boxes: Tensor, others: Tensor, eps: float = 1e-6) -> Tensor:
    """Returns the (...,) IoU of each box with its partner; two boxes without area have IoU 0."""
    return _overlap(boxes, others, eps)[0]


def paired_giou(boxes: Tensor, others: Tensor, eps: float = 1e-6) -> Tensor:
    """Returns the (...,) generalized IoU (arXiv 1902.09630) of each box with its partner."""
    iou, union = _overlap(boxes, others, eps)
    hull = torch.maximum(boxes[..., 2:], others[..., 2:]) - torch.minimum(
        boxes[..., :2], others[..., :2]
    )
    hull = (hull[..., 0].clamp(min=0) * hull[..., 1].clamp(min=0)).clamp(min=eps)
    return iou - (hull - union) / hull


def _overlap(boxes: Tensor, others: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """IoU and union area of paired boxes.

    Coordinate by coordinate: operations over a last dimension of two are several times slower.
    """
    left, top, right, bottom = boxes.unbind(dim=-1)
    other_left, other_top, other_right, other_bottom = others.unbind(dim=-1)
    width = torch.minimum(right, other_right) - torch.maximum(left, other_left)
    height = torch.minimum(bottom, other_bottom) - torch.maximum(top, other_top)
    intersection = width.clamp(min=0) * height.clamp(min=0)
    area = (right - left) * (bottom - top)
    other_area = (other_right - other_left) * (other_bottom - other_top)
    union = (area + other_area - intersection).clamp(min=eps)
    return intersection / union, union
