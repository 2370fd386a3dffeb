"""Folders of labeled images: recognition, splits and the files that are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labeled_folders import write_coco, write_image, write_voc, write_yolo
from lad.data import build_coco_evaluator, get_dataset_dicts, read_folder, write_coco_files
from lad.data.folders import clip_box, name_hash, source_name, split_photos, to_coco
from lad.data.layouts import Layout, Photo

BOX = (8, 4, 20, 10)
NAMES = ["a b.jpg", "c#1.png", "d%20e.jpg", "größe 猫.jpg", "f.g.jpg"]


def photo(name, objects=(), size=(64, 48)):
    return Photo(Path("/photos") / name, *size, list(objects))


@pytest.mark.parametrize("layout", ["Roboflow COCO", "COCO", "YOLO", "Pascal VOC"])
def test_any_file_name_in_any_layout_trains(layout, tmp_path):
    folder = tmp_path / "my data #1 ü"
    if layout == "YOLO":
        for name in NAMES:
            write_yolo(folder / "images" / name, [(0, BOX)])
    elif layout == "Pascal VOC":
        for name in NAMES:
            x, y, width, height = BOX
            write_voc(folder, Path(name).stem, [("0", (x + 1, y + 1, x + width, y + height))])
    else:
        images = {name: [(3, BOX)] for name in NAMES}
        file = "annotations/train.json" if layout == "COCO" else "train/_annotations.coco.json"
        write_coco(folder / file, folder / "train", images, {3: "0"})
    read = read_folder(folder)
    assert read.name == layout and read.class_names == ["0"]
    assert read.splits.keys() == {"train", "val"}
    write_coco_files(read, tmp_path / "json", replace=False)
    files = [str(tmp_path / f"json/{x}.json") for x in ("train", "val")]
    records = get_dataset_dicts(files, outside_root=True)
    found = {Path(record["file_name"]).stem for record in records}
    assert found == {Path(name).stem for name in NAMES}
    for record in records:
        assert Path(record["file_name"]).is_file()
        (entry,) = record["annotations"]
        assert entry["bbox"] == pytest.approx(BOX) and entry["category_id"] == 0
    evaluator = build_coco_evaluator(str(tmp_path / "json/val.json"))
    assert evaluator._metadata.thing_classes == ["0"]


def test_unknown_layouts(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder; unpack"):
        read_folder(tmp_path / "nowhere")
    write_image(tmp_path / "1.jpg")
    with pytest.raises(ValueError, match=r"no known layout; it needs .*data\.yaml"):
        read_folder(tmp_path)


def test_coco_comes_before_yolo(tmp_path):
    write_yolo(tmp_path / "images/1.jpg", [(0, BOX)])
    write_yolo(tmp_path / "images/2.jpg", [(0, BOX)])
    assert read_folder(tmp_path).name == "YOLO"
    for split, name in (("train", "1.jpg"), ("val", "2.jpg")):
        file = tmp_path / f"annotations/{split}.json"
        write_coco(file, tmp_path / "images", {name: [(1, BOX)]}, {1: "cat"})
    assert read_folder(tmp_path).name == "COCO"


def test_relative_paths_become_absolute(tmp_path, monkeypatch):
    for name in ("1.jpg", "2.jpg"):
        write_yolo(tmp_path / "set/images" / name, [(0, BOX)])
    monkeypatch.chdir(tmp_path)
    photos = read_folder("set").splits["train"]
    assert all(x.path.is_absolute() for x in photos)


@pytest.mark.parametrize(
    "name", ["cat.jpg", "cat_jpg.rf.0a1B.jpg", "cat.rf.77.jpg", "cat_PNG.rf.9.png"]
)
def test_copies_of_a_photo_have_one_name(name):
    assert source_name(name) == "cat"
    assert name_hash(name) == name_hash("cat.jpg")


def test_names_that_only_look_like_copies():
    assert source_name("cat_jpg.png") == "cat_jpg"
    assert source_name("a.rf.b.c.jpg") == "a.rf.b.c"
    # The same letters, composed and decomposed.
    assert name_hash("gr\u00f6\u00dfe.jpg") == name_hash("gro\u0308\u00dfe.jpg")


def test_split_is_stable_and_keeps_copies_together():
    names = [
        f"{i}{ending}" for i in range(500) for ending in (".jpg", "_jpg.rf.a.jpg", ".rf.b.jpg")
    ]
    train, val = split_photos([photo(name) for name in names])
    assert 0.16 < len(val) / len(names) < 0.24
    assert not {source_name(x.path.name) for x in train} & {source_name(x.path.name) for x in val}
    # Fewer photos: each stays on its side.
    _, few = split_photos([photo(name) for name in names[:300]])
    assert few == [x for x in val if names.index(x.path.name) < 300]
    # The same on all machines.
    assert [x.path.name for x in val[:6:3]] == ["8.jpg", "9.jpg"]


@pytest.mark.parametrize("names", [["1.jpg", "2.jpg"], [f"{i}.jpg" for i in range(5)]])
def test_both_sides_of_a_split_have_photos(names):
    train, val = split_photos([photo(name) for name in names])
    assert train and val and len(train) + len(val) == len(names)


def test_both_sides_of_a_split_have_objects():
    """Photos in the order of their hashes; two of them have an object."""
    names = sorted((f"{i}.jpg" for i in range(8)), key=name_hash)
    box = {"bbox": BOX, "category_id": 0}
    for labeled in ((5, 7), (0, 1), (0, 7)):
        photos = [photo(name, [box] * (i in labeled)) for i, name in enumerate(names)]
        train, val = split_photos(photos)
        assert any(x.objects for x in train) and any(x.objects for x in val)
        assert [x.path.name for x in (*val, *train)] == names
    # A crowd region and a box without area are no objects to find.
    others = [photo(names[0], [{**box, "iscrowd": 1}, {"bbox": (1, 1, 0, 5), "category_id": 0}])]
    others += [photo(name, [box] * (i > 4)) for i, name in enumerate(names[1:])]
    assert any(x.objects for x in split_photos(others)[1][1:])


def test_training_images_without_objects(tmp_path):
    for i in range(4):
        write_yolo(tmp_path / f"images/{i}.jpg", [(0, (5, 5, 0, 5))])
    with pytest.raises(ValueError, match="no training image has an object: add labels"):
        read_folder(tmp_path)


def test_one_photo_cannot_be_split(tmp_path):
    write_yolo(tmp_path / "images/1.jpg", [(0, BOX)])
    write_yolo(tmp_path / "images/1_jpg.rf.a.jpg", [(0, BOX)])
    with pytest.raises(ValueError, match="one photo cannot be split"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((8, 4, 20, 10), [8, 4, 20, 10]),
        ((-5, 40, 10, 20), [0, 40, 5, 8]),
        ((64, 4, 5, 5), None),
        ((8, 4, 0, 10), None),
        ((float("nan"), 4, 5, 10), None),
    ],
)
def test_boxes_are_clipped(box, expected):
    assert clip_box(box, photo("1.jpg")) == expected


def test_written_entries():
    objects = [
        {"bbox": [0, 0, 0, 9], "category_id": 0},
        {"bbox": [60, 0, 9, 9], "category_id": 1, "iscrowd": 1, "area": 20},
        {"bbox": [60, 0, 9, 9], "category_id": 0, "area": 81},
        {"bbox": [6, 0, 9, 9], "category_id": 0, "area": 50},
    ]
    content = to_coco([photo("1.jpg"), photo("2.jpg", objects)], ["a", "b"])
    assert content["images"][1] == {
        "id": 2,
        "file_name": "/photos/2.jpg",
        "width": 64,
        "height": 48,
    }
    assert content["annotations"] == [
        {"id": 1, "image_id": 2, "category_id": 2, "bbox": [60, 0, 4, 9], "iscrowd": 1, "area": 20},
        {"id": 2, "image_id": 2, "category_id": 1, "bbox": [60, 0, 4, 9], "iscrowd": 0, "area": 36},
        {"id": 3, "image_id": 2, "category_id": 1, "bbox": [6, 0, 9, 9], "iscrowd": 0, "area": 50},
    ]
    assert content["categories"] == [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]


def test_files_with_other_content_are_kept(tmp_path):
    one, two = (Layout("YOLO", ["a"], {"train": [photo(name)]}) for name in ("1.jpg", "2.jpg"))
    write_coco_files(one, tmp_path, replace=False)
    write_coco_files(one, tmp_path, replace=False)
    with pytest.raises(ValueError, match=r"train\.json: the data have changed since"):
        write_coco_files(two, tmp_path, replace=False)
    write_coco_files(two, tmp_path, replace=True)
    content = json.loads((tmp_path / "train.json").read_text())
    assert content["images"][0]["file_name"] == "/photos/2.jpg"
    assert [path.name for path in tmp_path.iterdir()] == ["train.json"]
