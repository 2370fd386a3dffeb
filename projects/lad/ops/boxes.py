"""Overlaps of paired boxes, and clipping.

fvcore's GIoU is not used since it asserts on values: it fails at a NaN and waits for the GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor


def clip_boxes(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """Clips (..., 4) boxes to images of (..., 2) heights and widths, broadcastable."""
    limits = image_sizes.flip(-1).to(boxes.dtype)
    return torch.minimum(boxes.clamp(min=0), torch.cat([limits, limits], dim=-1))


def take_boxes(boxes: Tensor, index: Tensor) -> Tensor:
    """Returns the (P, 4) boxes at (P,) indices, each coordinate contiguous in memory: faster."""
    return boxes.t().contiguous().index_select(1, index).t()


def paired_iou(boxes: Tensor, others: Tensor, eps: float = 1e-6) -> Tensor:
    """Returns the (...,) IoU of each box with its partner; two boxes without area have IoU 0.

    Fastest if each coordinate is contiguous in memory, as in the boxes that coders return.
    """
    boxes, others = torch.broadcast_tensors(boxes, others)
    return _overlap(boxes.movedim(-1, 0), others.movedim(-1, 0), eps)[0]


def paired_giou(boxes: Tensor, others: Tensor, eps: float = 1e-6) -> Tensor:
    """Returns the (...,) generalized IoU (arXiv 1902.09630) of each box with its partner."""
    boxes, others = (x.movedim(-1, 0) for x in torch.broadcast_tensors(boxes, others))
    iou, union = _overlap(boxes, others, eps)
    hull = torch.maximum(boxes[2:], others[2:]) - torch.minimum(boxes[:2], others[:2])
    hull = _product(hull.clamp(min=0)).clamp(min=eps)
    return iou - (hull - union) / hull


def paired_diou(boxes: Tensor, others: Tensor, eps: float = 1e-6) -> Tensor:
    """Returns the (...,) distance IoU (arXiv 1911.08287) of each box with its partner.

    It is the IoU minus the squared distance of the centers over the squared diagonal of the hull.
    """
    boxes, others = (x.movedim(-1, 0) for x in torch.broadcast_tensors(boxes, others))
    hull = torch.maximum(boxes[2:], others[2:]) - torch.minimum(boxes[:2], others[:2])
    centers = (boxes[:2] + boxes[2:] - others[:2] - others[2:]) / 2
    distance = (centers**2).sum(dim=0) / (hull**2).sum(dim=0).clamp(min=eps)
    return _overlap(boxes, others, eps)[0] - distance


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
