"""What is found in a folder of labeled images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from labeled_folders import write_coco, write_voc, write_yolo
from lad.data.check import (
    boxes_outside,
    boxes_without_area,
    check_folder,
    count_classes,
    count_split,
    shared_photos,
    split_warnings,
)
from lad.data.layouts import Layout, Photo

BOX = (8, 4, 20, 10)


def photo(*boxes, path="1.jpg"):
    return Photo(Path(path), 64, 48, [{"bbox": box, "category_id": 0} for box in boxes])


def test_numbers_of_a_split():
    boxes = (BOX, (-2, 4, 20, 10), (0, 0, 64.5, 48.5), (70, 0, 5, 5), (5, 5, 0, 1))
    # The third leaves its image by rounding only; the fourth has no part in it.
    assert count_split([photo(), photo(*boxes)]) == [2, 1, 5, 1, 2]
    assert count_split([]) == [0] * 5
    assert count_classes(Layout("YOLO", ["cat"], {"train": [photo(*boxes)]}))["train"][0] == 5


def test_boxes_are_named_by_file_and_entry(tmp_path):
    """Zero, negative and NaN sizes, and boxes outside, in each layout."""
    bad = [BOX, (5, 5, 0, 9), (5, 5, -3, 9), (70, 4, 5, 5), (60, 4, 20, 10)]
    for folder in ("yolo", "coco", "voc"):
        (tmp_path / folder).mkdir()
    for name in ("1.jpg", "2.jpg"):
        write_yolo(tmp_path / "yolo/images/train" / name, [(0, box) for box in bad])
        write_yolo(tmp_path / "yolo/images/val" / f"v{name}", [(0, BOX)])
    places = [x.text.split(": 0, ")[0] for x in _findings(tmp_path / "yolo")]
    labels = tmp_path / "yolo/labels/train"
    expected = [f"{labels}/{i}.txt:{line}" for line in (2, 3, 4) for i in (1, 2)]
    assert sorted(places[:6]) == sorted(expected)
    assert sorted(places[6:]) == [f"{labels}/1.txt:5", f"{labels}/2.txt:5"]

    file = tmp_path / "coco/annotations/train.json"
    images = {"1.jpg": [(1, BOX)], "2.jpg": [(1, box) for box in bad]}
    content = write_coco(file, tmp_path / "coco/images", images, {1: "cat"})
    content["annotations"][1]["bbox"] = [float("nan"), 0, 5, 5]
    file.write_text(json.dumps(content))
    found = [finding.text for finding in _findings(tmp_path / "coco")]
    assert [text.split(": ")[1] for text in found] == [f"annotation {i}" for i in range(1, 6)]
    assert found[2] == f"{file}: annotation 3: cat, -3x9 px at (5, 5) in 2.jpg (64x48)"

    for name in ("1", "2"):
        write_voc(tmp_path / "voc", name, [("cat", (1, 1, 20, 20)), ("cat", (9, 9, 5, 20))])
    found = [finding.text for finding in _findings(tmp_path / "voc")]
    assert {text.split(": cat")[0] for text in found} == {
        f"{tmp_path}/voc/Annotations/{name}.xml: object 2" for name in "12"
    }


def _findings(folder):
    check = check_folder(folder)
    assert check.problems == [] and not check.damaged
    assert [*boxes_without_area(check.layout), *boxes_outside(check.layout)] == [
        finding for findings in list(check.findings.values())[:2] for finding in findings
    ]
    return [finding for findings in list(check.findings.values())[:2] for finding in findings]


def test_photos_in_two_splits(tmp_path):
    for path in ("a.jpg", "b_jpg.rf.1.jpg", "b_jpg.rf.3.jpg", "c.jpg"):
        write_yolo(tmp_path / "images/train" / path, [(0, BOX)])
    for i, path in enumerate(("b_jpg.rf.2.jpg", "c.jpg")):
        write_yolo(tmp_path / "images/val" / path, [(0, (i + 1, 4, 30, 30))])
    shutil.copy(tmp_path / "images/train/a.jpg", tmp_path / "images/val/d.jpg")
    layout = check_folder(tmp_path).layout
    lines = [finding.text for finding in shared_photos(layout)]
    names = [[Path(word).name for word in line.split() if ".jpg" in word] for line in lines]
    # c.jpg are two photos of one name.
    assert names == [["a.jpg", "d.jpg"], ["b_jpg.rf.1.jpg", "b_jpg.rf.2.jpg"]]
    (line,) = split_warnings(layout)  # by the name alone, without reading the images
    assert line.startswith("val: 1 of 3 images are training images, too, or copies of them")


def test_warnings_about_splits():
    def warnings(**splits):
        return split_warnings(Layout("YOLO", ["cat"], splits))

    train = [photo(BOX, path=f"{i}.jpg") for i in range(3)]
    assert warnings(train=train, val=[photo(BOX, path="v.jpg")]) == []
    (line,) = warnings(train=train, val=train)
    assert line.startswith("val: 3 of 3 images are training images, too")
    (line,) = warnings(train=train, val=[photo((5, 5, 0, 1), path="v.jpg")])
    assert line == "val: no image has an object, so AP is not defined: add labels to it"
    assert len(warnings(train=train, val=train, test=[photo(path="t.jpg")])) == 2


def test_damaged_images_are_problems(tmp_path):
    for i in range(4):
        write_yolo(tmp_path / f"images/{i}.png", [(0, BOX)])
    data = (tmp_path / "images/2.png").read_bytes()
    (tmp_path / "images/2.png").write_bytes(data[: len(data) - 30])
    check = check_folder(tmp_path)
    assert check.damaged == {tmp_path / "images/2.png"}
    assert len(check.problems) == 1 and "2.png: is damaged" in check.problems[0]


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_folder_that_cannot_be_read(name, tmp_path):
    (tmp_path / "empty").mkdir()
    check = check_folder(tmp_path / name)
    assert check.layout is None and len(check.problems) == 1 and name in check.problems[0]
