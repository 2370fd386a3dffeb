"""Which anchors each object may claim, from geometry alone (LAD paper 3.1, PAA paper 3.1)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lad.ops.boxes import paired_iou, take_boxes
from lad.structures import Anchors, Candidates, Grid, Targets, pad_sizes

_MATRIX = 2**22  # IoUs at a time: more objects would need much memory
_SLACK = 1e-4  # relative, on the bound of the window; the exact IoU test follows


def iou_candidates(anchors: Anchors, targets: Targets, *, min_iou: float = 0.1) -> Candidates:
    """Returns each object's candidates by their IoU, ordered by object and anchor.

    An anchor belongs to the object with the highest IoU, if that IoU is at least `min_iou`; on a
    tie to the earlier object. In addition every object claims the anchors that tie at its own
    highest IoU, however low. If several objects claim one anchor so, the later one wins.

    On regular grids only the cells near an object are visited (`window_pairs`), on the CPU, which
    does not wait for the GPU if the targets are there. Other anchors use the matrix of all IoUs.

    Example:
        IoUs of three objects with four anchors, `min_iou` 0.1::

            anchor      0     1     2     3
            object 0  0.70  0.30  0.00  0.00   -> anchor 0
            object 1  0.00  0.20  0.06  0.00   -> anchor 1, its best: that counts more than 0.30
            object 2  0.00  0.00  0.05  0.08   -> anchor 3, its best, although below 0.1

        Anchor 2 is no candidate: 0.06 is below 0.1 and not object 1's best.

    Args:
        anchors: the anchors of the batch's feature maps.
        targets: G objects in N images.
        min_iou: above 0; below this IoU an anchor is background, unless it is an object's best.

    Returns:
        The candidates on the anchors' device; no anchor has two objects.
    """
    if anchors.grids is not None:
        targets = targets.to("cpu")
        gt, level, anchor, boxes = window_pairs(anchors.grids, targets, min_iou)
        pairs = Candidates(targets.image.index_select(0, gt), anchor, gt, level)
        iou = paired_iou(boxes, take_boxes(targets.boxes, gt))
    else:
        targets = targets.to(anchors.boxes.device)
        pairs, iou = matrix_pairs(anchors, targets, min_iou)
    keep = resolve_claims(iou, pairs, targets, len(anchors.boxes), min_iou)
    keep = keep.nonzero(as_tuple=True)[0]
    return Candidates(*(x.index_select(0, keep) for x in pairs)).to(anchors.boxes.device)


def resolve_claims(
    iou: Tensor, pairs: Candidates, targets: Targets, num_anchors: int, min_iou: float
) -> Tensor:
    """Returns (P,) bool: which pairs of object and anchor the rule of `iou_candidates` keeps.

    ``pairs`` has at least those whose (P,) ``iou`` reaches `min_iou` or is the object's highest.
    """
    slot, gt = pairs.slot(num_anchors), pairs.gt
    num_slots, num_objects = len(targets.image_sizes) * num_anchors, len(targets.boxes)
    best = iou.new_zeros(num_objects).scatter_reduce_(0, gt, iou, "amax")
    is_best = (iou == best.index_select(0, gt)) & (iou > 0)
    highest = iou.new_full((num_slots,), min_iou).scatter_reduce_(0, slot, iou, "amax")
    is_highest = iou == highest.index_select(0, slot)
    # The larger claim wins: an object's best, the later object first, before the highest IoU, the
    # earlier object first.
    claim = torch.where(is_highest, num_objects - 1 - gt, -1)
    claim = torch.where(is_best, num_objects + gt, claim)
    largest = claim.new_full((num_slots,), -1).scatter_reduce_(0, slot, claim, "amax")
    return (claim >= 0) & (claim == largest.index_select(0, slot))


def matrix_pairs(anchors: Anchors, targets: Targets, min_iou: float) -> tuple[Candidates, Tensor]:
    """Returns the pairs of object and valid anchor that can be candidates, and their (P,) IoUs.

    The IoUs of some objects at a time with all anchors are computed.
    """
    valid = anchors.valid(targets.image_sizes)
    levels = anchors.per_anchor(tuple(range(len(anchors.strides))))
    rows = max(1, _MATRIX // max(1, len(anchors.boxes)))
    found = []
    for objects in torch.arange(len(targets.boxes), device=valid.device).split(rows):
        image = targets.image[objects]
        iou = paired_iou(anchors.boxes, targets.boxes[objects, None]) * valid[image]
        highest = iou.amax(dim=1, keepdim=True) if iou.numel() else iou
        gt, anchor = ((iou >= min_iou) | ((iou == highest) & (iou > 0))).nonzero(as_tuple=True)
        found.append((image[gt], anchor, objects[gt], levels[anchor], iou[gt, anchor]))
    *pairs, iou = (torch.cat(x) for x in zip(*found, strict=True))
    return Candidates(*pairs), iou


@np.errstate(divide="ignore", invalid="ignore")  # of objects without area, which no cell reaches
def window_pairs(
    grids: tuple[Grid, ...], targets: Targets, min_iou: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns every pair of object and anchor that can be a candidate, and few others.

    An IoU of t between boxes of areas A and B needs an intersection of t (A + B) / (1 + t). The
    overlap in one direction is at most the shorter side, so the overlap in the other has to reach
    the intersection divided by that side. This leaves a window of cells per object and level.

    Example:
        An object of 40 x 40 pixels centered at (100, 60); anchors of side 64, stride 8; t = 0.5.
        The intersection has to be 0.5 (1600 + 4096) / 1.5 = 1898.7, more than the object's 1600: no
        cell. With t = 0.1 it is 517.8, so the overlap is at least 517.8 / 40 = 12.9 pixels in x and
        in y: centers from 80 + 12.9 - 32 = 60.9 to 120 - 12.9 + 32 = 139.1 in x, columns 8 to 17,
        and from 20.9 to 99.1 in y, rows 3 to 12: 100 cells instead of all.

    Args:
        grids: L levels.
        targets: G objects in N images, on the CPU.
        min_iou: t. For an object that no anchor overlaps so much, t is its nearest anchor's IoU.

    Returns:
        (P,) object, level and anchor of each pair, ordered so, and its (P, 4) anchor box.
    """
    _, height, width, stride, side, offset = _grid_arrays(grids)
    boxes = targets.boxes.numpy().astype(np.float64)
    left, top, right, bottom = boxes.T[..., None]  # (G, 1) against (L,): all arrays are (G, L)
    padded = pad_sizes(targets.image_sizes).numpy()[targets.image.numpy()].T[..., None]
    rows, columns = (
        np.minimum(np.ceil((size - offset) / stride), limit)
        for size, limit in zip(padded, (height, width), strict=True)
    )

    def overlap_at_nearest(low: np.ndarray, high: np.ndarray, limit: np.ndarray) -> np.ndarray:
        cell = np.rint(((low + high) / 2 - offset) / stride)
        center = np.minimum(np.maximum(cell, 0), limit - 1) * stride + offset
        overlap = np.minimum(high, center + side / 2) - np.maximum(low, center - side / 2)
        return np.maximum(overlap, 0) * (limit > 0)  # a level may have no valid cell

    areas = (right - left) * (bottom - top) + side**2
    common = overlap_at_nearest(left, right, columns) * overlap_at_nearest(top, bottom, rows)
    # A lower bound of the object's highest IoU: the anchors that tie there stay inside the window.
    reachable = (common / (areas - common)).max(axis=1, keepdims=True)
    threshold = np.minimum(reachable, min_iou) * (1 - _SLACK)
    needed = threshold / (1 + threshold) * areas

    def window(
        low: np.ndarray, high: np.ndarray, other: np.ndarray, limit: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """First cell and number of cells whose overlap in one direction is enough."""
        least = needed / np.minimum(other, side)
        first = np.maximum(np.ceil((low + least - side / 2 - offset) / stride), 0)
        last = np.minimum(np.floor((high - least + side / 2 - offset) / stride), limit - 1)
        possible = (least > 0) & (least <= np.minimum(high - low, side))
        count = np.where(possible, np.maximum(last - first + 1, 0), 0)
        return np.where(possible, first, 0).astype(np.int64), count.astype(np.int64)

    first_row, num_rows = window(top, bottom, right - left, rows)
    first_column, num_columns = window(left, right, bottom - top, columns)
    return _cells_of_windows(grids, first_row, num_rows, first_column, num_columns)


def _cells_of_windows(
    grids: tuple[Grid, ...],
    first_row: np.ndarray,
    num_rows: np.ndarray,
    first_column: np.ndarray,
    num_columns: np.ndarray,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lists the cells of (G, L) windows; returns as `window_pairs`."""
    start, _, width, stride, side, offset = _grid_arrays(grids)
    counts = (num_rows * num_columns).ravel()
    window = np.repeat(np.arange(len(counts)), counts)  # (P,) which window each pair lies in
    nth = np.arange(len(window)) - (np.cumsum(counts) - counts)[window]
    row, column = np.divmod(nth, num_columns.ravel()[window])
    gt, level = np.divmod(window, len(grids))
    first_anchor = (start + first_row * width + first_column).astype(np.int64).ravel()
    anchor = first_anchor[window] + row * width.astype(np.int64)[level] + column
    x, y = (
        (first * stride + offset).astype(np.float32).ravel()[window]
        + (cell * stride.astype(np.int64)[level]).astype(np.float32)
        for first, cell in ((first_column, column), (first_row, row))
    )
    half = (side / 2).astype(np.float32)[level]
    boxes = np.stack([x - half, y - half, x + half, y + half]).T
    to_tensor = torch.from_numpy
    return to_tensor(gt), to_tensor(level), to_tensor(anchor), to_tensor(boxes)


@lru_cache(maxsize=16)
def _grid_arrays(grids: tuple[Grid, ...]) -> tuple[np.ndarray, ...]:
    """First anchor, height, width, stride, side and offset of each level, (L,) float64."""
    height, width, stride, side, offset = np.array(grids, dtype=np.float64).T
    return np.cumsum(height * width) - height * width, height, width, stride, side, offset


def center_candidates(anchors: Anchors, targets: Targets, *, radius: float = 0.0) -> Candidates:
    """Returns the anchors whose center lies inside an object's box or near the box's center.

    Near is less than ``radius`` strides of the anchor's level away, in x and in y. An anchor may be
    the candidate of several objects.
    """
    targets = targets.to(anchors.boxes.device)
    x, y = centers(anchors).t()
    left, top, right, bottom = targets.boxes.double().t()[..., None]
    keep = (left < x) & (x < right) & (top < y) & (y < bottom)
    if radius > 0:
        reach = radius * anchors.per_anchor(anchors.strides)
        middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
        keep |= ((x - middle_x).abs() < reach) & ((y - middle_y).abs() < reach)
    return _candidates(keep & anchors.valid(targets.image_sizes)[targets.image], anchors, targets)


def nearest_candidates(anchors: Anchors, targets: Targets, *, topk: int) -> Candidates:
    """Returns the `topk` valid anchors per object and level whose centers are nearest to its own.

    Of equally near anchors the earlier ones are taken. An anchor may be the candidate of several
    objects.
    """
    targets = targets.to(anchors.boxes.device)
    boxes = targets.boxes.double()
    x, y = centers(anchors).t()
    middle_x, middle_y = ((boxes[:, :2] + boxes[:, 2:]) / 2).t()[..., None]
    distance = (x - middle_x) ** 2 + (y - middle_y) ** 2  # (G, R)
    distance.masked_fill_(~anchors.valid(targets.image_sizes)[targets.image], torch.inf)
    keep = []
    for level in distance.split(anchors.num_per_level, dim=1):
        limit = level.topk(min(topk, level.shape[1]), largest=False).values[:, -1:]
        nearer, tied = level < limit, level == limit
        room = topk - nearer.sum(dim=1, keepdim=True)
        keep.append((nearer | (tied & (tied.cumsum(dim=1) <= room))) & level.isfinite())
    return _candidates(torch.cat(keep, dim=1), anchors, targets)


def _candidates(keep: Tensor, anchors: Anchors, targets: Targets) -> Candidates:
    """Returns the candidates that a (G, R) mask marks, ordered by object and anchor."""
    gt, anchor = keep.nonzero(as_tuple=True)
    level = anchors.per_anchor(tuple(range(len(anchors.strides))))[anchor]
    return Candidates(targets.image[gt], anchor, gt, level)


def centers(anchors: Anchors) -> Tensor:
    """Returns the (R, 2) float64 centers of the anchors."""
    boxes = anchors.boxes.double()
    return (boxes[:, :2] + boxes[:, 2:]) / 2
