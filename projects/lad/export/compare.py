"""Compares an exported file with its detector in PyTorch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.structures import ImageList
from scipy.spatial import cKDTree
from torch import Tensor

from lad.export.graph import DetectionGraph
from lad.export.numpy_postprocess import detect
from lad.export.runtime import OUTPUTS, Arrays, ExportedDetector
from lad.modeling.postprocess import SelectedBoxes

BOX_TOLERANCE = 1e-2  # pixels of the input
SCORE_TOLERANCE = 1e-4
EXCHANGE_TOLERANCE = 1e-5  # of scores, which rounding changes by about 1e-6


class Comparison(NamedTuple):
    """What `compare` found equal.

    Attributes:
        sizes: heights and widths of the inputs that were compared.
        boxes: number of boxes in the outputs.
        detections: number of detections after NMS.
    """

    sizes: tuple[tuple[int, int], ...]
    boxes: int
    detections: int


def compare(
    file: ExportedDetector, graph: DetectionGraph, images: Iterable[np.ndarray]
) -> Comparison:
    """Compares outputs and detections of a file with those of its detector in PyTorch.

    Outputs are compared as sets of rows, since rounding may exchange rows of nearly equal scores.

    Args:
        file: to be checked.
        graph: that the file was made of.
        images: resized images, (3, h, w) uint8.

    Raises:
        ValueError: naming the first tensor that differs.
    """
    sizes, boxes, detections = [], 0, 0
    for pixels in images:
        size = pixels.shape[1], pixels.shape[2]
        padded = file.pad(pixels)
        where = f"at an input of {padded.shape[1]} x {padded.shape[2]}"
        outputs = file.run(padded, size)
        selected, exchangeable, expected = _expected(graph, padded, size)
        if graph.nms:
            with torch.no_grad():
                rows = graph(torch.from_numpy(padded), torch.tensor(size))
            _check_rows(outputs, _to_arrays(rows), None, where)
        else:
            _check_rows(outputs, _to_arrays(selected[:3]), exchangeable, where)
        found = file.detect(pixels)
        missing = len(found[0]) - len(expected[0])
        if missing or len(unmatched(found, expected)) or len(unmatched(expected, found)):
            wrong = len(unmatched(found, expected)), len(unmatched(expected, found))
            raise ValueError(
                f"detections differ {where}: {wrong[0]} of {len(found[0])} are not PyTorch's, "
                f"{wrong[1]} of PyTorch's {len(expected[0])} are missing"
            )
        sizes.append((padded.shape[1], padded.shape[2]))
        boxes, detections = boxes + len(outputs[0]), detections + len(found[0])
    return Comparison(tuple(sizes), boxes, detections)


def unmatched(rows: Arrays, others: Arrays) -> np.ndarray:
    """Returns the indices of rows that no other row equals up to the tolerances.

    Example: boxes (0, 0, 9, 9) and (0, 0, 9, 9.005) of one class with scores 0.5 and 0.50005 are
    equal.
    """
    if not len(others[0]):
        return np.arange(len(rows[0]))
    points = [_points(*x) for x in (rows, others)]
    # NaN equals nothing.
    finite = [np.isfinite(x).all(axis=1) for x in points]
    result = np.full(len(points[0]), np.inf)
    tree = cKDTree(points[1][finite[1]]) if finite[1].any() else None
    if tree is not None and finite[0].any():
        result[finite[0]] = tree.query(points[0][finite[0]], p=np.inf, distance_upper_bound=1.01)[0]
    return np.flatnonzero(~(result <= 1))


def _points(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns rows as points whose largest coordinate difference is at most 1 if they are equal."""
    columns = [boxes / BOX_TOLERANCE, scores[:, None] / SCORE_TOLERANCE, 10.0 * classes[:, None]]
    return np.concatenate([x.astype(np.float64) for x in columns], axis=1)


def _check_rows(
    rows: Arrays, expected: Arrays, exchangeable: np.ndarray | None, where: str
) -> None:
    """Raises ValueError unless the outputs are equal as sets, up to exchangeable rows."""
    for name, ours, theirs in zip(OUTPUTS, rows, expected, strict=True):
        if ours.shape != theirs.shape:
            raise ValueError(f"{name}: shape {ours.shape}, PyTorch has {theirs.shape} {where}")
    close = [
        np.abs(rows[0] - expected[0]).max(axis=1, initial=0) <= BOX_TOLERANCE,
        np.abs(rows[1] - expected[1]) <= SCORE_TOLERANCE,
        rows[2] == expected[2],
    ]
    differ = ~(close[0] & close[1] & close[2])
    left = _take(rows, differ), _take(expected, differ)
    bad = [np.flatnonzero(differ)[unmatched(*pair)] for pair in (left, left[::-1])]
    if exchangeable is not None:
        bad = [x[~exchangeable[x]] for x in bad]
    if len(bad[0]) or len(bad[1]):
        row = bad[0][0] if len(bad[0]) else bad[1][0]
        # Boxes last: they differ too where rows of nearly equal scores are exchanged.
        name = next(OUTPUTS[x] for x in (1, 2, 0) if not close[x][row])
        at = OUTPUTS.index(name)
        raise ValueError(
            f"{name} differ {where}: {max(map(len, bad))} of {len(differ)} rows; row {row} is "
            f"{rows[at][row]}, in PyTorch {expected[at][row]}"
        )


def _expected(
    graph: DetectionGraph, padded: np.ndarray, size: tuple[int, int]
) -> tuple[SelectedBoxes, np.ndarray, Arrays]:
    """Returns PyTorch's selected boxes, which of them are exchangeable, and its detections.

    Exchangeable are anchors (or pairs with a class) of levels of which not all are selected, if
    their best score is the lowest selected one: rounding may select others instead.
    """
    network: Any = graph.network
    with torch.no_grad():
        features = graph.features(torch.from_numpy(padded), torch.tensor(size))
        outputs = network.head(features)
        predictions = network.to_predictions(outputs, features)
        selected = SelectedBoxes(
            *(x[0] for x in network.select_boxes(predictions, torch.tensor([size])))
        )
        numbers = np.array(predictions.anchors.num_per_level)
        exchangeable = _exchangeable(selected, numbers, network.num_classes)
        images = ImageList(torch.from_numpy(padded)[None], [size])
        found = network.forward_inference(images, features, outputs)[0]
    detections = _to_arrays((found.pred_boxes.tensor, found.scores, found.pred_classes))
    if graph.nms:
        settings = network.nms_settings
        detections = detect(
            *_to_arrays(selected[:3]),
            score_threshold=settings.score_thresh,
            nms_iou=settings.nms_thresh,
            max_detections=settings.max_detections,
            score_voting=False,
        )
    return selected, exchangeable, detections


def _exchangeable(selected: SelectedBoxes, numbers: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns (B,) bool from boxes without an image dimension and the anchors of each level."""
    anchors, scores = selected.anchors.numpy(), selected.scores.numpy()
    level = np.searchsorted(numbers.cumsum(), anchors, side="right")
    # A row for each class of an anchor, with the anchor's best score; or single pairs.
    if len(anchors) % num_classes == 0 and not np.ptp(anchors.reshape(-1, num_classes), 1).any():
        scores = scores.reshape(-1, num_classes).max(axis=1).repeat(num_classes)
    result = np.zeros(len(anchors), dtype=bool)
    for index, number in enumerate(numbers):
        of_level = level == index
        if of_level.sum() < number * num_classes:
            result |= of_level & (scores <= scores[of_level].min() + EXCHANGE_TOLERANCE)
    return result


def _take(rows: Arrays, mask: np.ndarray) -> Arrays:
    return rows[0][mask], rows[1][mask], rows[2][mask]


def _to_arrays(tensors: Iterable[Tensor]) -> Arrays:
    boxes, scores, classes = (x.numpy() for x in tensors)
    return boxes, scores, classes
