"""From an exported detector's outputs to detections: NMS and score voting in NumPy.

This file needs NumPy only; it may be copied to where an exported detector runs.
"""

from __future__ import annotations

import numpy as np

_VOTE_IOU = 0.01
_VOTE_SIGMA = 0.025
# torchvision moves the classes apart up to this size of the array of boxes, on a CPU.
_MOVED_APART = 4000


def detect(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    *,
    score_threshold: float,
    nms_iou: float,
    max_detections: int,
    score_voting: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Makes detections of an image as the detector does in PyTorch.

    Args:
        boxes: (n, 4) float32 xyxy, in any order.
        scores: (n,) float32.
        classes: (n,) integers.
        score_threshold: detections score above this.
        nms_iou: IoU of class-wise non-maximum suppression.
        max_detections: number at most.
        score_voting: move each kept box to the weighted mean of the boxes around it (`vote`).

    Returns:
        (d, 4) boxes, (d,) scores and (d,) classes, best first.

    Example:
        Two boxes of one class, (0, 0, 10, 10) and (0, 0, 10, 9), have IoU 0.9. With nms_iou=0.6 the
        one with the higher score is left.
    """
    # A NaN is not above the threshold.
    above = np.flatnonzero(scores > score_threshold)
    boxes, scores, classes = boxes[above], scores[above], classes[above]
    keep = nms(boxes, scores, classes, nms_iou, max_detections)
    kept = boxes[keep]
    if score_voting:
        kept = vote(kept, classes[keep], boxes, scores, classes)
    return kept, scores[keep], classes[keep]


def nms(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou: float, limit: int
) -> np.ndarray:
    """Class-wise non-maximum suppression, like torchvision's ``batched_nms`` on a CPU.

    Args:
        boxes: (n, 4) float32.
        scores: (n,).
        classes: (n,).
        iou: a box that overlaps a better one of its class by more is left out.
        limit: number of boxes at most.

    Returns:
        (d,) indices, best first.
    """
    apart = 0 < boxes.size <= _MOVED_APART
    if apart:
        boxes = boxes + classes[:, None].astype(boxes.dtype) * (boxes.max() + np.float32(1))
    remaining = np.argsort(-scores, kind="stable")
    keep: list[int] = []
    while len(remaining) and len(keep) < limit:
        best, remaining = remaining[0], remaining[1:]
        keep.append(best)
        suppressed = _iou(boxes[best], boxes[remaining]) > iou
        if not apart:
            suppressed &= classes[remaining] == classes[best]
        remaining = remaining[~suppressed]
    return np.array(keep, dtype=np.int64)


def vote(
    kept: np.ndarray,
    kept_classes: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
) -> np.ndarray:
    """Score voting (PAA section 3.4), as `lad.modeling.postprocess.vote`.

    The mean of same-class boxes, weighted by score x exp(-(1 - IoU)^2 / 0.025).

    Args:
        kept: (d, 4) boxes after NMS.
        kept_classes: (d,).
        boxes: (n, 4) boxes before NMS; those with IoU above 0.01 vote.
        scores: (n,).
        classes: (n,).

    Returns:
        (d, 4) boxes, unchanged where no box votes.
    """
    result = kept.copy()
    for index, (box, number) in enumerate(zip(kept, kept_classes, strict=True)):
        overlap = _iou(box, boxes)
        voters = (overlap > _VOTE_IOU) & (classes == number)
        overlap = overlap[voters]
        weights = scores[voters] * np.exp(-((1 - overlap) ** 2) / np.float32(_VOTE_SIGMA))
        if weights.sum() > 0:
            result[index] = weights @ boxes[voters] / weights.sum()
    return result


def to_image(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    *,
    input_size: tuple[int, int],
    image_size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scales detections from the resized image to the image and clips them to it.

    Args:
        boxes: (d, 4) in pixels of the resized image.
        scores: (d,).
        classes: (d,).
        input_size: height and width of the resized image.
        image_size: height and width of the image.

    Returns:
        The detections that have an area.
    """
    scale = [new / old for new, old in zip(image_size, input_size, strict=True)]
    boxes = boxes * np.array([scale[1], scale[0]] * 2, dtype=np.float32)
    height, width = image_size
    boxes = boxes.clip(0, np.array([width, height] * 2, dtype=np.float32))
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return boxes[has_area], scores[has_area], classes[has_area]


def _iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns the (n,) IoU of a (4,) box with (n, 4) boxes; 0 for boxes without area."""
    common = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = common.clip(0)
    intersection = common[:, 0] * common[:, 1]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    union = (box[2] - box[0]) * (box[3] - box[1]) + areas - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=intersection > 0)
