"""Pictures and curves of a run."""

import json

import numpy as np
import pytest
import torch
from detectron2.data import Metadata
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from lad.visualize import COLORS, draw_boxes, draw_detections, plot_curves, plot_roles

ROWS = [
    {"iteration": 19, "total_loss": 2.0, "switch/student": 0.4, "switch/student_taught": 1.0},
    {"iteration": 39, "total_loss": 1.0},
    {"iteration": 40, "bbox/AP": 12.0},
]


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + '{"iteration": 41, "tot')
    return path


def dark_pixels(path):
    """How many pixels of a picture are not white."""
    return int((np.asarray(Image.open(path).convert("L")) < 200).sum())


def test_curves_show_what_there_is(metrics, tmp_path):
    plot_curves({"run": metrics}, ["total_loss"], tmp_path / "loss.png", "loss")
    plot_curves({"run": metrics}, ["absent"], tmp_path / "empty.png", "loss")
    assert dark_pixels(tmp_path / "loss.png") > dark_pixels(tmp_path / "empty.png")


def test_roles_of_a_run_with_and_without_decisions(metrics, tmp_path):
    plot_roles(metrics, tmp_path / "roles.png")
    metrics.write_text("")
    plot_roles(metrics, tmp_path / "empty.png")
    assert dark_pixels(tmp_path / "roles.png") > dark_pixels(tmp_path / "empty.png")


def test_ground_truth_is_left_and_confident_detections_are_right(tmp_path):
    Image.new("RGB", (80, 60)).save(tmp_path / "image.png")
    record = {"file_name": str(tmp_path / "image.png"), "height": 60, "width": 80}
    box = {"bbox": [20, 30, 40, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
    detections = Instances((60, 80))
    detections.pred_boxes = Boxes(torch.tensor([[10.0, 10, 40, 40], [50.0, 5, 70, 50]]))
    detections.scores = torch.tensor([0.9, 0.1])
    detections.pred_classes = torch.tensor([0, 0])
    metadata = Metadata(thing_classes=["cat"])  # class 1 has no name
    picture = draw_detections({**record, "annotations": [box]}, detections, metadata)
    assert picture.shape == (480, 2 * 640, 3)  # 8 times
    assert picture.dtype == np.uint8
    left, right = picture[:, :640], picture[:, 640:]
    assert tuple(left[400, 320]) == COLORS[1]  # the lower border
    assert tuple(right[320, 200]) == COLORS[0]
    assert not right[:, 400:].any()  # the second detection scores too little
    empty = draw_detections({**record, "annotations": []}, detections[:0], metadata)
    assert not empty.any()


def test_boxes_have_their_classes_colors_on_an_enlarged_image():
    boxes = np.array([[10.0, 30, 30, 50], [40, 30, 60, 50]])
    picture = draw_boxes(np.zeros((60, 100, 3), np.uint8), boxes, [1, 2], ["cat 50%", "dog 40%"])
    assert picture.size == (800, 480)  # 8 times
    # The middle of a lower border, of a label's corner, and within a box.
    assert picture.getpixel((160, 400)) == COLORS[1]
    assert picture.getpixel((400, 400)) == COLORS[2]
    assert picture.getpixel((81, 238)) == COLORS[1]
    assert picture.getpixel((160, 320)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("size", "drawn"),
    [((600, 500), (500, 600)), ((40, 5000), (5000, 40)), ((479, 479), (958, 958))],
)
def test_large_images_keep_their_size(size, drawn):
    image = np.zeros((*size, 3), np.uint8)
    assert draw_boxes(image, np.zeros((0, 4)), [], []).size == drawn


def test_labels_stay_inside_the_image():
    image = np.zeros((480, 480, 3), np.uint8)
    boxes = np.array([[470.0, 0, 480, 480]])
    picture = np.asarray(draw_boxes(image, boxes, [0], ["a long name of a class 99%"]))
    assert (picture[2:12, 300:460] == COLORS[0]).all(axis=-1).any()
