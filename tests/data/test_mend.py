"""Mended copies of folders."""

from __future__ import annotations

import json
import shutil

import pytest

from labeled_folders import write_coco, write_yolo
from lad.data import get_dataset_dicts, read_folder, write_coco_files
from lad.data.check import check_folder
from lad.data.folders import split_photos
from lad.data.mend import check_output, write_mended

BOX = (8, 4, 20, 10)


def mend(tmp_path, folder="data"):
    """Mends a folder; returns the changes, and what a check of the result finds."""
    changes = write_mended(check_folder(tmp_path / folder), tmp_path / "out")
    again = check_folder(tmp_path / "out")
    assert again.problems == [] and not any(again.findings.values()) and not again.warnings
    assert again.layout.name == "COCO"
    return changes, again.layout


def file_names(layout, split):
    return [photo.path.name for photo in layout.splits[split]]


def test_everything_that_is_wrong_is_mended_and_named(tmp_path):
    images = tmp_path / "data/images/train"
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "sub/a.jpg", "same.jpg"):
        write_yolo(images / name, [(0, BOX), (1, (3, 3, 5, 7))], (64, 48 + len(name)))
    write_yolo(tmp_path / "data/images/val/v.jpg", [(1, BOX)], (50, 50))
    shutil.copy(images / "same.jpg", tmp_path / "data/images/val/w.jpg")
    labels = tmp_path / "data/labels/train"
    (labels / "a.txt").write_text("0 0.5 0.5 0 0.1\n1 0.95 0.5 0.2 0.5\n7 0.5 0.5 0.1 0.1\n")
    (images / "b.jpg").write_bytes(b"no image")
    data = (images / "c.jpg").read_bytes()
    (images / "c.jpg").write_bytes(data[: len(data) - 100])
    (tmp_path / "data/data.yaml").write_text(
        "names: [cat, dog]\ntrain: images/train\nval: images/val\n"
    )
    changes, layout = mend(tmp_path)
    text = "\n".join(changes)
    for line in (
        f"left out: {labels}/a.txt:3: class 7",
        f"left out: {images}/b.jpg: cannot be read as an image",
        f"left out: {images}/c.jpg: is damaged",
        f"left out, without area: {labels}/a.txt:1: cat, 0x",
        f"clipped: {labels}/a.txt:2: dog, 12.8x",
        f"left out of train: {images}/same.jpg: its photo is in val",
        f"renamed: {images}/sub/a.jpg is train/a-2.jpg",
    ):
        assert line in text
    assert len(changes) == 7
    assert file_names(layout, "train") == ["a.jpg", "d.jpg", "a-2.jpg"]
    assert file_names(layout, "val") == ["v.jpg", "w.jpg"]
    (entry,) = layout.splits["train"][0].objects
    assert entry["bbox"] == pytest.approx([54.4, 0.25 * 53, 9.6, 0.5 * 53])
    assert entry["area"] == pytest.approx(9.6 * 0.5 * 53)
    # The source is as it was.
    assert (images / "same.jpg").exists() and "7 0.5" in (labels / "a.txt").read_text()


def test_good_data_stay_as_they_are(tmp_path):
    for i in range(6):
        write_yolo(tmp_path / f"data/images/{i}.jpg", [(0, (i, 4, 20, 10))])
    before = read_folder(tmp_path / "data")
    changes, layout = mend(tmp_path)
    assert changes == [] and layout.class_names == before.class_names
    for split, photos in before.splits.items():
        assert [x.path.name for x in photos] == file_names(layout, split)
        for old, new in zip(photos, layout.splits[split], strict=True):
            assert old.path.read_bytes() == new.path.read_bytes()
            assert new.objects[0]["bbox"] == pytest.approx(old.objects[0]["bbox"])


def test_mended_data_train(tmp_path):
    for i in range(5):
        write_yolo(tmp_path / f"data/images/{i}.jpg", [(0, (i, 4, 20, 10)), (0, (9, 9, 0, 0))])
    changes, layout = mend(tmp_path)
    assert len(changes) == 5
    write_coco_files(layout, tmp_path / "json", replace=False)
    records = get_dataset_dicts(str(tmp_path / "json/train.json"), outside_root=True)
    assert all(len(record["annotations"]) == 1 for record in records)


def test_train_and_val_that_are_the_same_are_split(tmp_path):
    for i in range(20):
        write_yolo(tmp_path / f"data/images/{i}.jpg", [(0, (i, 4, 20, 10))])
    (tmp_path / "data/data.yaml").write_text("names: [cat]\ntrain: images\nval: images\n")
    changes, layout = mend(tmp_path)
    assert changes[0] == "left out: val: it has all training photos"
    assert changes[1].startswith("val: a fifth of the training images")
    train, val = split_photos(read_folder(tmp_path / "data").splits["train"])
    assert file_names(layout, "val") == [photo.path.name for photo in val]
    assert len(layout.splits["train"]) == len(train)


def test_duplicate_ids_and_class_names(tmp_path):
    file = tmp_path / "data/annotations/train.json"
    images = {f"{i}.jpg": [(1 + i % 3, (i, 4, 20, 10))] for i in range(9)}
    content = write_coco(file, tmp_path / "data/images", images, {1: "cat", 2: "cat", 3: "dog"})
    content["annotations"][4]["id"] = 3
    content["images"].append({"id": 1, "file_name": "8.jpg", "width": 64, "height": 48})
    file.write_text(json.dumps(content))
    changes, layout = mend(tmp_path)
    text = "\n".join(changes)
    assert "annotations[4] has id 3, which another entry has too" in text
    assert "images[9] has id 1, which another entry has too" in text
    assert "several categories are named 'cat'" in text
    assert changes[-1] == "classes of one name are one class"
    assert layout.class_names == ["cat", "dog"]
    labels = [x["category_id"] for y in layout.splits.values() for z in y for x in z.objects]
    assert sorted(labels) == [0] * 5 + [1] * 3


def test_what_cannot_be_mended_leaves_nothing(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=r"--fix .*out: it exists already: name a new folder"):
        check_output(tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"it cannot be made in .*file"):
        check_output(tmp_path / "file/out")
    with pytest.raises(ValueError, match="nothing was written: .*there is no such folder"):
        write_mended(check_folder(tmp_path / "nowhere"), tmp_path / "new")
    for i in range(3):
        write_yolo(tmp_path / f"data/images/{i}.jpg", [(0, BOX)])
        image = tmp_path / f"data/images/{i}.jpg"
        if i:
            image.write_bytes(image.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"one photo cannot be split|no training image is left"):
        write_mended(check_folder(tmp_path / "data"), tmp_path / "new")
    assert sorted(x.name for x in tmp_path.iterdir()) == ["data", "file", "out"]
