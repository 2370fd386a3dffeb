"""Which anchors each object may claim, from geometry alone (LAD paper 3.1, PAA paper 3.1).

An anchor belongs to the object with the highest IoU, if that IoU is at least `min_iou`. On top of
that every object claims the anchors that tie at its own highest IoU, however low; of several
objects that claim one anchor so, the later one wins.

An anchor grid is regular, so the cells that can reach a given IoU with a box lie around its centre.
Only those are visited: a few hundred an object instead of all R anchors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lad.boxes import boxes_on, paired_iou, take_boxes
from lad.structures import Anchors, Candidates, Targets

# A hair more cells are visited than needed; the IoU itself decides.
_SLACK = 1e-4


def iou_candidates(anchors: Anchors, targets: Targets, *, min_iou: float = 0.1) -> Candidates:
    """Returns the candidates of every object, ordered by object, level and anchor.

    Worked out on the CPU; with targets there a GPU is never waited for.

    Args:
        anchors: the anchors of the batch's feature maps.
        targets: G objects in N images.
        min_iou: above 0; below this IoU an anchor is background, unless it is an object's best.
    """
    device, targets = targets.boxes.device, targets.to("cpu")
    gt, level, anchor = _reachable_cells(anchors, targets, min_iou)
    objects = torch.from_numpy(gt)
    overlap = paired_iou(
        take_boxes(targets.boxes, objects),
        take_boxes(boxes_on(anchors, "cpu"), torch.from_numpy(anchor)),
    )
    num_objects = len(targets.boxes)
    best = overlap.new_zeros(num_objects).scatter_reduce_(0, objects, overlap, "amax").numpy()
    iou = overlap.numpy()

    # One integer orders all claims on an anchor: an object's best beats any IoU, the later object
    # wins; else the higher IoU (the bits of a non-negative float are ordered as the float), the
    # earlier object. An IoU below min_iou does not reach the least claim.
    claim = (_bits(iou) << 31) + (num_objects - 1 - gt)
    is_best = np.flatnonzero(iou == best[gt])
    claim[is_best] = gt[is_best] + (1 << 62)
    least = _bits(np.array([min_iou], dtype=np.float32)) << 31
    image = targets.image.numpy()[gt]
    slot = image * len(anchors.boxes) + anchor
    winner = np.repeat(least, len(targets.image_sizes) * len(anchors.boxes))
    np.maximum.at(winner, slot, claim)
    keep = np.flatnonzero(claim == winner[slot])
    return Candidates(*(torch.from_numpy(x[keep]) for x in (image, anchor, gt, level))).to(device)


def centre_candidates(anchors: Anchors, targets: Targets, *, radius: float = 0.0) -> Candidates:
    """Returns the anchors whose centre lies inside an object's box or close to the box's centre.

    An anchor may be the candidate of several objects. Ordered by object, level and anchor. Worked
    out on the CPU.

    Args:
        anchors: the anchors of the batch's feature maps.
        targets: G objects in N images.
        radius: in strides of the anchor's level: also anchors whose centre is less than this away
            from the centre of the box, in x and in y, are candidates.
    """
    device, targets = targets.boxes.device, targets.to("cpu")
    boxes = targets.boxes.double()[:, None]  # (G, 1, 4)
    stride = boxes.new_tensor(anchors.strides)[:, None]  # (L, 1)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    limit = torch.from_numpy(anchors.valid_shapes(targets.image_sizes))[targets.image].flip(-1) - 1
    lower = torch.minimum(boxes[..., :2], middle - radius * stride)  # (G, L, 2)
    upper = torch.maximum(boxes[..., 2:], middle + radius * stride)
    first = (lower / stride).floor().long().clamp(min=-1) + 1
    last = torch.minimum((upper / stride).ceil().long() - 1, limit)
    gt, level, anchor = map(torch.from_numpy, _window_cells(anchors, first.numpy(), last.numpy()))
    near = (anchor_centres(anchors, anchor) - middle[gt, 0]).abs() < radius * stride[level]
    keep = inside_box(anchors, anchor, targets.boxes[gt]) | near.all(dim=1)
    keep = keep.nonzero(as_tuple=True)[0]
    gt = gt[keep]
    return Candidates(targets.image[gt], anchor[keep], gt, level[keep]).to(device)


def anchor_centres(anchors: Anchors, index: Tensor) -> Tensor:
    """Returns the (P, 2) float64 centres of the anchors with (P,) indices."""
    boxes = boxes_on(anchors, index.device)[index].double()
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def inside_box(anchors: Anchors, index: Tensor, boxes: Tensor) -> Tensor:
    """Returns (P,) bool: does the anchor's centre lie inside its (P, 4) box, not on the border."""
    centre = anchor_centres(anchors, index)
    return ((boxes[:, :2] < centre) & (centre < boxes[:, 2:])).all(dim=1)


def _window_cells(
    anchors: Anchors, first: np.ndarray, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All (object, level, anchor) inside windows of cells, ordered so.

    Args:
        anchors: of L levels.
        first: (G, L, 2) first cell, x then y.
        last: (G, L, 2) last cell, inclusive.
    """
    column, row = first.reshape(-1, 2).T
    width, height = np.maximum(last - first + 1, 0).reshape(-1, 2).T
    window, nth = _repeat(height)
    return _cells(anchors, window, row[window] + nth, column[window], width[window])


@np.errstate(invalid="ignore")  # of objects without area, which reach no cell
def _reachable_cells(
    anchors: Anchors, targets: Targets, min_iou: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(object, level, anchor) of all cells that may be a candidate and of few others, ordered so.

    From IoU >= t follows: intersection >= t (A + B) / (1 + t). Rows that overlap the box too little
    in y for that, all the smaller width assumed, are left out; a row's overlap in y then says how
    much overlap in x its cells need.
    """
    num_objects, num_levels = len(targets.boxes), len(anchors.strides)
    gt, level = np.divmod(np.arange(num_objects * num_levels), num_levels)  # (G * L,) all arrays
    left, top, right, bottom = targets.boxes.numpy().astype(np.float64)[gt].T
    grid = _Grid(np.array(anchors.strides)[level], np.array(anchors.sizes)[level])
    rows, columns = anchors.valid_shapes(targets.image_sizes)[targets.image.numpy()[gt], level].T

    areas = (right - left) * (bottom - top) + grid.side**2
    # The nearest valid cell's IoU bounds the object's best from below: ties at it stay inside.
    column, row = grid.nearest(left, right, columns), grid.nearest(top, bottom, rows)
    common = grid.overlap(left, right, column) * grid.overlap(top, bottom, row)
    reachable = (common / (areas - common)).reshape(num_objects, num_levels).max(axis=1)
    threshold = np.minimum(reachable, min_iou)[gt] * (1 - _SLACK)
    needed = threshold / (1 + threshold) * areas

    first, height = grid.span(top, bottom, needed / np.minimum(right - left, grid.side), rows)
    window, nth = _repeat(height)
    row = first[window] + nth
    left, top, right, bottom, needed, columns = (
        x[window] for x in (left, top, right, bottom, needed, columns)
    )
    grid = _Grid(grid.stride[window], grid.side[window])
    first, width = grid.span(left, right, needed / grid.overlap(top, bottom, row), columns)
    return _cells(anchors, window, row, first, width)


class _Grid(NamedTuple):
    """The anchors of a pyramid level in one direction, x or y; of many levels at once.

    Attributes:
        stride: (W,) pixels between cells.
        side: (W,) side of the anchors.
    """

    stride: np.ndarray
    side: np.ndarray

    def nearest(self, low: np.ndarray, high: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """The cell among the first ``limit`` whose anchor's centre is nearest to the middle."""
        return np.clip(np.rint((low + high) / 2 / self.stride), 0, limit - 1)

    def overlap(self, low: np.ndarray, high: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """Pixels that the cell's anchor has between ``low`` and ``high``."""
        centre = cell * self.stride
        end = np.minimum(high, centre + self.side / 2)
        return np.maximum(end - np.maximum(low, centre - self.side / 2), 0)

    def span(
        self, low: np.ndarray, high: np.ndarray, needed: np.ndarray, limit: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """First cell that overlaps by ``needed`` > 0 pixels, and number of such cells."""
        first = np.maximum(np.ceil((low + needed - self.side / 2) / self.stride), 0)
        last = np.minimum(np.floor((high - needed + self.side / 2) / self.stride), limit - 1)
        possible = (needed > 0) & (needed <= np.minimum(high - low, self.side))
        count = np.where(possible, np.maximum(last - first + 1, 0), 0)
        return first.astype(np.int64), count.astype(np.int64)


def _bits(values: np.ndarray) -> np.ndarray:
    """The bits of float32 values as int64."""
    return values.view(np.int32).astype(np.int64)


def _cells(
    anchors: Anchors, window: np.ndarray, row: np.ndarray, first: np.ndarray, width: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(object, level, anchor) of the cells in pieces of rows.

    Args:
        anchors: of L levels.
        window: (W,) object * L + level of each piece.
        row: (W,) its row.
        first: (W,) its first column.
        width: (W,) its number of cells.
    """
    gt, level = np.divmod(window, len(anchors.strides))
    level_start = np.cumsum([0, *anchors.num_per_level[:-1]])
    level_width = np.array([columns for _, columns in anchors.shapes])
    start = level_start[level] + row * level_width[level] + first
    piece, nth = _repeat(width)
    return gt[piece], level[piece], start[piece] + nth


def _repeat(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each index as often as ``counts`` says, and which of its repetitions it is."""
    index = np.repeat(np.arange(len(counts)), counts)
    return index, np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
