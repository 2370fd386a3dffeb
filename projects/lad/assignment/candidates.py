"""Which anchors each object may claim, from geometry alone (LAD paper 3.1, PAA paper 3.1).

An anchor belongs to the object with the highest IoU, if that IoU is at least `min_iou`. On top of
that every object claims the anchors that tie at its own highest IoU, however low; of several
objects that claim one anchor so, the later one wins.

An anchor grid is regular, so the cells that can reach a given IoU with a box lie in a window around
its centre. Only those windows are visited: a few hundred cells an object instead of all R anchors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lad.boxes import boxes_on, paired_iou
from lad.structures import Anchors, Candidates, Targets

# Windows are a hair larger than needed; the IoU itself decides.
_SLACK = 1e-4


def iou_candidates(anchors: Anchors, targets: Targets, *, min_iou: float = 0.1) -> Candidates:
    """Returns the candidates of every object, ordered by object, level and anchor.

    Runs where ``targets`` are: with targets on the CPU a GPU is never waited for.

    Args:
        anchors: the anchors of the batch's feature maps.
        targets: G objects in N images.
        min_iou: below this IoU an anchor is background, unless it is an object's best.
    """
    boxes = boxes_on(anchors, targets.boxes.device)
    first, last = _windows(anchors, targets, min_iou)
    pair_gt, pair_level, pair_anchor = _window_pairs(anchors, first, last)
    # index_select: indexing by a tensor takes three times as long on a CPU.
    iou = paired_iou(targets.boxes.index_select(0, pair_gt), boxes.index_select(0, pair_anchor))
    num_objects = len(targets.boxes)
    best = iou.new_zeros(num_objects).scatter_reduce_(0, pair_gt, iou, "amax")
    is_best = (iou == best.index_select(0, pair_gt)) & (iou > 0)

    # One integer orders all claims on an anchor: an object's best beats any IoU, the later object
    # wins; else the higher IoU (the bits of a non-negative float are ordered as the float), the
    # earlier object.
    claim = torch.where(
        is_best,
        pair_gt + (1 << 62),
        iou.view(torch.int32).long() * (1 << 31) + (num_objects - 1 - pair_gt),
    )
    claim = claim.masked_fill((iou < min_iou) & ~is_best, -1)
    slot = targets.image.index_select(0, pair_gt) * len(boxes) + pair_anchor
    winner = claim.new_full((len(targets.image_sizes) * len(boxes),), -1)
    winner.scatter_reduce_(0, slot, claim, "amax")
    keep = ((claim == winner.index_select(0, slot)) & (claim >= 0)).nonzero(as_tuple=True)[0]
    gt = pair_gt[keep]
    return Candidates(targets.image[gt], pair_anchor[keep], gt, pair_level[keep])


def centre_candidates(anchors: Anchors, targets: Targets, *, radius: float = 0.0) -> Candidates:
    """Returns the anchors whose centre lies inside an object's box or close to the box's centre.

    An anchor may be the candidate of several objects. Ordered by object, level and anchor.

    Args:
        anchors: the anchors of the batch's feature maps.
        targets: G objects in N images.
        radius: in strides of the anchor's level: also anchors whose centre is less than this away
            from the centre of the box, in x and in y, are candidates.
    """
    boxes = targets.boxes.double()[:, None]  # (G, 1, 4)
    stride = boxes.new_tensor(anchors.strides)[:, None]  # (L, 1)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    limit = anchors.valid_shapes(targets.image_sizes)[targets.image].flip(-1) - 1  # (G, L, 2)
    lower = torch.minimum(boxes[..., :2], middle - radius * stride)
    upper = torch.maximum(boxes[..., 2:], middle + radius * stride)
    first = (lower / stride).floor().long().clamp(min=-1) + 1
    last = torch.minimum((upper / stride).ceil().long() - 1, limit)
    gt, level, anchor = _window_pairs(anchors, first, last)
    near = (anchor_centres(anchors, anchor) - middle[gt, 0]).abs() < radius * stride[level]
    keep = inside_box(anchors, anchor, targets.boxes[gt]) | near.all(dim=1)
    keep = keep.nonzero(as_tuple=True)[0]
    gt = gt[keep]
    return Candidates(targets.image[gt], anchor[keep], gt, level[keep])


def anchor_centres(anchors: Anchors, index: Tensor) -> Tensor:
    """Returns the (P, 2) float64 centres of the anchors with (P,) indices."""
    boxes = boxes_on(anchors, index.device)[index].double()
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def inside_box(anchors: Anchors, index: Tensor, boxes: Tensor) -> Tensor:
    """Returns (P,) bool: does the anchor's centre lie inside its (P, 4) box, not on the border."""
    centre = anchor_centres(anchors, index)
    return ((boxes[:, :2] < centre) & (centre < boxes[:, 2:])).all(dim=1)


def _window_pairs(anchors: Anchors, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All (object, level, anchor) inside windows of cells, ordered so.

    Args:
        anchors: of L levels.
        first: (G, L, 2) first cell, x then y.
        last: (G, L, 2) last cell, inclusive.
    """
    device, num_levels = first.device, len(anchors.strides)
    width, height = (last - first + 1).clamp(min=0).flatten(0, 1).unbind(dim=1)  # (G * L,) each
    height = height * (width > 0)
    # Windows to rows, then rows to cells: an object has tens of rows, but hundreds of cells.
    window = torch.repeat_interleave(height)
    nth = torch.arange(len(window), device=device) - (height.cumsum(0) - height)[window]
    level_start = torch.tensor([0, *anchors.num_per_level[:-1]], device=device).cumsum(0)
    level_width = torch.tensor([w for _, w in anchors.shapes], device=device)
    level = window % num_levels
    first_x, first_y = first.flatten(0, 1)[window].unbind(dim=1)
    row_start = level_start[level] + (first_y + nth) * level_width[level] + first_x
    width = width[window]
    row = torch.repeat_interleave(width)
    shift = row_start - (width.cumsum(0) - width)
    anchor = torch.arange(len(row), device=device) + shift.index_select(0, row)
    gt = torch.div(window, num_levels, rounding_mode="floor")
    return gt.index_select(0, row), level.index_select(0, row), anchor


def _windows(anchors: Anchors, targets: Targets, min_iou: float) -> tuple[Tensor, Tensor]:
    """First and last cell (x, y), per object and level, that can be a candidate; (G, L, 2) each.

    From IoU >= t follows: intersection >= t (A + B) / (1 + t); and an intersection is at most its
    extent in one direction times the smaller side in the other.
    """
    boxes = targets.boxes.double()
    stride = boxes.new_tensor(anchors.strides)[:, None]  # (L, 1)
    side = boxes.new_tensor(anchors.sizes)[:, None]
    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None]  # (G, 1, 2)
    size = (boxes[:, 2:] - boxes[:, :2])[:, None]
    limit = anchors.valid_shapes(targets.image_sizes)[targets.image].flip(-1) - 1  # (G, L, 2)

    overlap_limit = torch.minimum(size, side)  # (G, L, 2): the most that can overlap in x and y
    areas = size.prod(dim=-1) + side.prod(dim=-1) ** 2  # (G, L)
    # The nearest valid cell's IoU bounds the object's best from below: ties at it stay inside.
    nearest = torch.minimum((centre / stride).round().clamp(min=0), limit)
    reach = (size + side) / 2
    overlap = (reach - (centre - nearest * stride).abs()).clamp(min=0)
    overlap = torch.minimum(overlap, overlap_limit).prod(dim=-1)
    reachable = (overlap / (areas - overlap)).amax(dim=1, keepdim=True)  # (G, 1)
    threshold = reachable.clamp(max=min_iou) * (1 - _SLACK)

    needed = (threshold / (1 + threshold) * areas)[..., None]
    needed = needed / overlap_limit.flip(-1).clamp(min=1e-12)
    distance = torch.where(needed <= overlap_limit * (1 + _SLACK), reach - needed, -1.0)
    distance = distance * (1 + _SLACK) + _SLACK
    first = ((centre - distance) / stride).ceil().long().clamp(min=0)
    last = torch.minimum(((centre + distance) / stride).floor().long(), limit)
    return first, torch.where(distance > 0, last, first - 1)
