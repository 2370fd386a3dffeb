"""The page about a folder of labeled images, and its exit status."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from labeled_folders import write_coco, write_yolo
from lad.cli import check_dataset
from lad.data.layouts import Layout, Photo

BOX = (8, 4, 20, 10)


def photo(*boxes, path="1.jpg"):
    return Photo(Path(path), 64, 48, [{"bbox": box, "category_id": 0} for box in boxes])


@pytest.fixture
def folder(tmp_path):
    """Six images of two classes; a third class has no object."""
    for i in range(4):
        write_yolo(tmp_path / f"images/train/{i}.png", [(0, BOX), (1, (4 * i, 20, 16, 16))])
    write_yolo(tmp_path / "images/train/empty.png")
    write_yolo(tmp_path / "images/val/5.png", [(1, (2, 2, 30, 30))])
    (tmp_path / "data.yaml").write_text(
        "names: [cat, dog, 7]\ntrain: images/train\nval: images/val\n"
    )
    return tmp_path


def check(folder, capsys):
    """Returns the exit status and the lines of the page, with single spaces."""
    status = check_dataset.main([str(folder)])
    return status, [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_good_data(folder, capsys):
    status, lines = check(folder, capsys)
    assert status == 0 and lines[-1] == "No problem found."
    assert "YOLO: 3 classes" in lines
    for line in ("images 5 1", "without objects 1 0", "objects 8 1", "cat 4 0", "dog 4 1", "7 0 0"):
        assert line in lines
    # Short side 48 to 320: the validation box of 30 pixels has a side of 200.
    assert "val 200 200 200 200 200 100.0%" in lines


def test_every_problem_with_its_file_and_entry(folder, capsys):
    (folder / "labels/train/0.txt").write_text("0 0.5 0.5 0.1 0.1\n9 0.5 0.5 0.1 0.1\n0 1 2\n")
    (folder / "images/train/1.png").write_bytes(b"no image")
    data = (folder / "images/train/2.png").read_bytes()
    (folder / "images/train/2.png").write_bytes(data[: len(data) - 30])
    status, lines = check(folder, capsys)
    assert status == 1
    assert "What training refuses (4):" in lines
    found = "\n".join(lines)
    assert "labels/train/0.txt:2: class 9" in found and "labels/train/0.txt:3: it has 2" in found
    assert "1.png: cannot be read as an image" in found and "2.png: is damaged" in found


def test_coco_entries(tmp_path, capsys):
    file = tmp_path / "annotations/train.json"
    images = {f"{i}.jpg": [(1, BOX)] for i in range(5)}
    content = write_coco(file, tmp_path / "images", images, {1: "cat"})
    content["annotations"][1]["id"] = 0
    content["annotations"][2]["bbox"] = [60, 40, 20, 20]
    content["annotations"][3]["bbox"] = [5, 5, 0, 9]
    file.write_text(json.dumps(content))
    (tmp_path / "images/4.jpg").unlink()
    status, lines = check(tmp_path, capsys)
    assert status == 1 and "What training refuses (2):" in lines
    found = "\n".join(lines)
    assert "train.json: annotations[1] has id 0, which another entry has too" in found
    assert "train.json: image 4: file '4.jpg' is in none of its image folders" in found


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_data_that_cannot_be_read(name, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    status, lines = check(tmp_path / name, capsys)
    assert status == 1 and lines[0] == "What training refuses (1):"
    assert name in lines[1]


def test_numbers_of_a_split():
    photos = [photo(), photo(BOX, (-2, 4, 20, 10), (0, 0, 64.5, 48.5), (70, 0, 5, 5), (5, 5, 0, 1))]
    assert check_dataset.count_split(photos) == [2, 1, 5, 2, 2]


def test_photos_in_two_splits(tmp_path):
    for path in ("a.jpg", "b_jpg.rf.1.jpg", "c.jpg"):
        write_yolo(tmp_path / "images/train" / path, [(0, BOX)])
    for i, path in enumerate(("b_jpg.rf.2.jpg", "c.jpg")):
        write_yolo(tmp_path / "images/val" / path, [(0, (i + 1, 4, 30, 30))])
    shutil.copy(tmp_path / "images/train/a.jpg", tmp_path / "images/val/d.jpg")
    splits = {
        split: [photo(path=path) for path in sorted((tmp_path / "images" / split).iterdir())]
        for split in ("train", "val")
    }
    lines = check_dataset.shared_photos(Layout("YOLO", ["cat"], splits))
    names = [[Path(word).name for word in line.split() if ".jpg" in word] for line in lines]
    # c.jpg are two photos of one name.
    assert names == [["a.jpg", "d.jpg"], ["b_jpg.rf.1.jpg", "b_jpg.rf.2.jpg"]]


def test_long_lists_are_cut():
    (text,) = check_dataset._listed("things", [str(i) for i in range(30)])
    assert text.splitlines()[0] == "things (30):" and text.splitlines()[-1] == "  ... and 10 more"
    assert check_dataset._listed("things", []) == []
