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
    """The (R, 4) anchors of a grid, on the CPU, a coordinate of all of them together in memory."""
    boxes = []
    for (height, width), stride, size in zip(shapes, strides, sizes, strict=True):
        y = torch.arange(height, dtype=torch.float32) * stride
        x = torch.arange(width, dtype=torch.float32) * stride
        y, x = torch.meshgrid(y, x, indexing="ij")
        centre = torch.stack([x, y, x, y], dim=-1).reshape(-1, 4)
        boxes.append(centre + size / 2 * torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    return torch.cat(boxes).t().contiguous().t()


def boxes_on(anchors: Anchors, device: torch.device | str) -> Tensor:
    """Returns the (R, 4) anchors on a device; a GPU that holds them is not waited for."""
    if anchors.boxes.device == torch.device(device):
        return anchors.boxes
    return _grid(anchors.shapes, anchors.strides, anchors.sizes).to(device, non_blocking=True)


def take_boxes(boxes: Tensor, index: Tensor) -> Tensor:
    """Returns the (P, 4) boxes at (P,) indices, a coordinate of all of them together in memory.

    Quick for anchors, which lie so themselves, and for few boxes.
    """
    return boxes.t().contiguous().index_select(1, index).t()


def decode_boxes(anchors: Tensor, deltas: Tensor) -> Tensor:
    """Applies deltas (dx, dy, dw, dh) with stds 0.1, 0.1, 0.2, 0.2 to anchors.

    Sizes change by at most a factor 62.5 either way. Boxes are not clipped to the image.

    Args:
        anchors: (..., 4) xyxy, broadcastable to ``deltas``.
        deltas: (..., 4).

    Returns:
        (..., 4) xyxy boxes.
    """
    # Coordinate by coordinate: operations over a last dimension of two are several times slower.
    left, top, right, bottom = anchors.unbind(dim=-1)
    dx, dy, dw, dh = deltas.unbind(dim=-1)
    width, height = right - left, bottom - top
    x = (left + right) / 2 + dx * OFFSET_STD * width
    y = (top + bottom) / 2 + dy * OFFSET_STD * height
    dw, dh = ((d * SIZE_STD).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO) for d in (dw, dh))
    half_width, half_height = width * dw.exp() / 2, height * dh.exp() / 2
    corners = [x - half_width, y - half_height, x + half_width, y + half_height]
    return torch.stack(corners).movedim(0, -1)


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
    """Returns the (...,) IoU of each box with its partner; two boxes without area have IoU 0.

    Fastest where a coordinate of all boxes lies together in memory (as `decode_boxes` gives them).
    """
    boxes, others = torch.broadcast_tensors(boxes, others)
    return _overlap(boxes.movedim(-1, 0), others.movedim(-1, 0), eps)[0]


def paired_giou(boxes: Tensor, others: Tensor, eps: float = 1e-6) -> Tensor:
    """Returns the (...,) generalized IoU (arXiv 1902.09630) of each box with its partner.

    Memory as in `paired_iou`.
    """
    boxes, others = (x.movedim(-1, 0) for x in torch.broadcast_tensors(boxes, others))
    iou, union = _overlap(boxes, others, eps)
    hull = torch.maximum(boxes[2:], others[2:]) - torch.minimum(boxes[:2], others[:2])
    hull = _product(hull.clamp(min=0)).clamp(min=eps)
    return iou - (hull - union) / hull


def _overlap(boxes: Tensor, others: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """IoU and union area of paired (4, ...) boxes."""
    common = torch.minimum(boxes[2:], others[2:]) - torch.maximum(boxes[:2], others[:2])
    intersection = _product(common.clamp(min=0))
    areas = _product(boxes[2:] - boxes[:2]) + _product(others[2:] - others[:2])
    union = (areas - intersection).clamp(min=eps)
    return intersection / union, union


def _product(sides: Tensor) -> Tensor:
    """Area from (2, ...) widths and heights."""
    width, height = sides
    return width * height
