"""NMS and voting in NumPy: worked out by hand, and equal to PyTorch's."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from helpers import random_boxes
from lad.export.numpy_postprocess import detect, nms, to_image, vote
from lad.modeling.postprocess import PostProcessor

SETTINGS = {"score_threshold": 0.05, "nms_iou": 0.6, "max_detections": 100, "score_voting": True}
BOX, NEAR = [20.0, 20.0, 60.0, 60.0], [20.0, 20.0, 60.0, 64.0]


def rows(*boxes):
    """Arrays of (box, score, class)."""
    columns = zip(*boxes, strict=True)
    kinds = np.float32, np.float32, np.int64
    return [np.array(x, kind) for x, kind in zip(columns, kinds, strict=True)]


def test_it_needs_neither_torch_nor_detectron2():
    code = (
        "import sys, lad.export.numpy_postprocess;"
        "sys.exit(any(x in sys.modules for x in ('torch', 'detectron2')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_nms_is_per_class_and_voting_moves_the_kept():
    found = rows((NEAR, 0.6, 0), (BOX, 0.8, 0), (NEAR, 0.5, 1), (BOX, 0.04, 2))
    boxes, scores, classes = detect(*found, **SETTINGS | {"score_voting": False})
    assert (boxes.tolist(), classes.tolist()) == ([BOX, NEAR], [0, 1])
    np.testing.assert_allclose(scores, [0.8, 0.5])
    boxes, scores, _ = detect(*found, **SETTINGS)
    weight = 0.6 * np.exp(-((1 - 40 / 44) ** 2) / 0.025)
    bottom = (0.8 * 60 + weight * 64) / (0.8 + weight)
    np.testing.assert_allclose(boxes, [[20, 20, 60, bottom], NEAR], rtol=1e-5)
    np.testing.assert_allclose(scores, [0.8, 0.5])


@pytest.mark.parametrize("number", [40, 400])  # torchvision's two ways
@pytest.mark.parametrize("voting", [False, True])
def test_it_equals_the_post_processor(number, voting):
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor(random_boxes(30, 90, 90)).repeat(number // 10, 1)[:number]
    boxes = (boxes + torch.randn(number, 4, generator=generator)).clamp(min=0)
    scores = torch.rand(number, 3, generator=generator) ** 4
    processor = PostProcessor(score_voting=voting, max_detections=60)
    expected = processor.detect(scores, boxes, (96, 96))
    classes = np.tile(np.arange(3), number)
    found = detect(
        boxes.numpy().repeat(3, axis=0),
        scores.numpy().flatten(),
        classes,
        **SETTINGS | {"score_voting": voting, "max_detections": 60},
    )
    assert len(expected) > 20
    np.testing.assert_allclose(found[0], expected.pred_boxes.tensor, atol=1e-4)
    assert (found[1] == expected.scores.numpy()).all()
    assert (found[2] == expected.pred_classes.numpy()).all()


@pytest.mark.parametrize("score", [0.01, float("nan")])
def test_nothing_found_is_empty(score):
    boxes, scores, classes = detect(*rows((BOX, score, 0)), **SETTINGS)
    assert (boxes.shape, scores.shape, classes.shape) == ((0, 4), (0,), (0,))
    empty = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    assert detect(*empty, **SETTINGS)[0].shape == (0, 4)
    assert to_image(*empty, input_size=(32, 32), image_size=(64, 64))[0].shape == (0, 4)


def test_the_number_is_limited_and_a_lone_box_stays():
    far = [[100.0 * i, 0.0, 100.0 * i + 9, 9.0] for i in range(5)]
    boxes, scores, classes = rows(*((box, 0.1 * i, 0) for i, box in enumerate(far, 1)))
    assert nms(boxes, scores, classes, 0.6, 3).tolist() == [4, 3, 2]
    line = np.array([[3, 3, 3, 9]], np.float32)
    one = np.ones(1, np.int64)
    assert (vote(line, one, line, np.ones(1, np.float32), one) == line).all()


def test_detections_are_scaled_clipped_and_without_empty_ones():
    found = rows(([10, 10, 40, 30], 0.9, 1), ([40, 0, 50, 9], 0.8, 0))
    boxes, scores, classes = to_image(*found, input_size=(20, 40), image_size=(40, 40))
    assert boxes.tolist() == [[10, 20, 40, 40]]
    assert (len(scores), classes.tolist()) == (1, [1])
