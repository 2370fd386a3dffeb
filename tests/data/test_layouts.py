"""Readers of COCO's, YOLO's and Pascal VOC's folders, and their traps."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from detectron2.data import detection_utils as utils
from PIL import Image

from labeled_folders import write_coco, write_image, write_voc, write_yolo
from lad.data.layouts import open_photo, read_coco, read_roboflow
from lad.data.voc import read_voc
from lad.data.yolo import label_file, read_yolo

BOX = (8, 4, 20, 10)
YAML = "names: [cat, dog]\ntrain: ../train/images\nval: ../valid/images\n"


def stop(problem):
    raise ValueError(problem)


def boxes(layout, split="train"):
    """Per image: its objects as (class name, box)."""
    return {
        photo.path.name: [
            (layout.class_names[o["category_id"]], pytest.approx(o["bbox"])) for o in photo.objects
        ]
        for photo in layout.splits[split]
    }


def roboflow(folder, split, label=1, categories=None):
    categories = categories or {0: "animals", 1: "cat", 2: "dog"}
    file = folder / split / "_annotations.coco.json"
    write_coco(file, file.parent, {f"{split}.jpg": [(label, BOX)]}, categories)
    return file


def change(file, function):
    content = json.loads(file.read_text())
    function(content)
    file.write_text(json.dumps(content))


def test_roboflow_without_its_unused_category(tmp_path):
    for split, label in (("train", 1), ("valid", 2), ("test", 2)):
        roboflow(tmp_path, split, label)
    layout = read_roboflow(tmp_path, stop)
    assert layout.class_names == ["cat", "dog"]
    assert layout.splits.keys() == {"train", "val", "test"}
    assert boxes(layout) == {"train.jpg": [("cat", BOX)]}
    assert boxes(layout, "val") == {"valid.jpg": [("dog", BOX)]}


def test_roboflow_keeps_category_0_where_an_object_has_it(tmp_path):
    roboflow(tmp_path, "train", 1)
    roboflow(tmp_path, "valid", 0)
    assert read_roboflow(tmp_path, stop).class_names == ["animals", "cat", "dog"]


def test_categories_are_matched_by_name(tmp_path):
    roboflow(tmp_path, "train")
    file = roboflow(tmp_path, "valid", 7, {7: "cat", 9: "bird"})
    assert boxes(read_roboflow(tmp_path, stop), "val") == {"valid.jpg": [("cat", BOX)]}
    change(file, lambda content: content["annotations"][0].update(category_id=9))
    with pytest.raises(ValueError, match=r"valid/_annotations.*category 'bird', which the train"):
        read_roboflow(tmp_path, stop)


@pytest.mark.parametrize(
    ("train", "val", "images"),
    [
        ("instances_train2017", "instances_val2017", ("train2017", "val2017")),
        ("instances_train2017", "instances_val2017", ("images/train2017", "images/val2017")),
        ("train", "val", ("images", "images")),
        ("train", "val", ("train", "val")),
        ("train2024", "val2024", ("images/train", "images/val")),
    ],
)
def test_coco_finds_the_images_of_each_file(tmp_path, train, val, images):
    for name, place in zip((train, val), images, strict=True):
        file = tmp_path / f"annotations/{name}.json"
        write_coco(file, tmp_path / place, {f"{name}.jpg": [(5, BOX)]}, {5: "cat"})
    (tmp_path / "annotations/captions_train2017.json").write_text("not read")
    layout = read_coco(tmp_path, stop)
    assert boxes(layout) == {f"{train}.jpg": [("cat", BOX)]}
    assert boxes(layout, "val") == {f"{val}.jpg": [("cat", BOX)]}


def test_coco_of_one_file_and_of_foreign_paths(tmp_path):
    file = tmp_path / "annotations/instances_default.json"
    write_coco(file, tmp_path / "images", {"1.jpg": [(1, BOX)]}, {1: "cat"})
    change(file, lambda content: content["images"][0].update(file_name=r"C:\up\1.jpg"))
    assert boxes(read_coco(tmp_path, stop)) == {"1.jpg": [("cat", BOX)]}


def test_coco_in_a_folder_whose_path_is_relative(tmp_path, monkeypatch):
    file = tmp_path / "data/annotations/train.json"
    write_coco(file, tmp_path / "data/images", {"1.jpg": [(1, BOX)]}, {1: "cat"})
    monkeypatch.chdir(tmp_path)
    assert boxes(read_coco(Path("data"), stop)) == {"1.jpg": [("cat", BOX)]}


def test_two_files_of_a_split(tmp_path):
    for name in ("train_a", "train_b"):
        write_coco(tmp_path / f"annotations/{name}.json", tmp_path, {"1.jpg": []}, {1: "cat"})
    with pytest.raises(ValueError, match=r"train_a\.json, train_b\.json are files of one split"):
        read_coco(tmp_path, stop)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["images"][0].update(file_name="no.jpg"), "image 0: file 'no.jpg' is in none"),
        (lambda c: c["images"][0].update(width=48, height=64), "image 0 is said to be 48x64, but"),
        (lambda c: c["annotations"][0].update(category_id=8), "annotation 0 has category_id 8"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2]), r"annotation 0 has bbox \[1, 2\]"),
        (lambda c: c["images"].append(c["images"][0]), r"images\[1\] has id 0, which another"),
        (lambda c: c["categories"][1].update(name="dog"), "several categories are named 'dog'"),
        (lambda c: c["categories"][1].update(id=[1]), r"categories\[1\] has id \[1\], which is"),
        (lambda c: c["annotations"][0].update(category_id=[1]), r"category_id \[1\], which is no"),
        (lambda c: c["annotations"].append("text"), r"annotations\[1\] has no 'id'"),
        (
            lambda c: c["images"].append(c["images"][0] | {"id": 7}),
            "image 7: its file .*image 0",
        ),
        (lambda c: c.pop("images"), "has no list 'images'"),
    ],
)
def test_wrong_entries_of_coco(tmp_path, edit, message):
    file = roboflow(tmp_path, "train")
    change(file, edit)
    with pytest.raises(ValueError, match=rf"train/_annotations\.coco\.json.*{message}"):
        read_roboflow(tmp_path, stop)


def test_copies_in_folders_that_only_the_file_knows(tmp_path):
    file = tmp_path / "annotations/train.json"
    write_coco(file, tmp_path / "images", {"0.jpg": [(1, BOX)], "1.jpg": [(1, BOX)]}, {1: "cat"})
    change(file, lambda c: [x.update(file_name=f"cam{x['id']}/0.jpg") for x in c["images"]])
    problems = []
    layout = read_coco(tmp_path, problems.append)
    assert boxes(layout) == {"0.jpg": [("cat", BOX)]}
    (problem,) = problems
    assert "image 1: its file" in problem and "images/0.jpg is also that of image 0" in problem


@pytest.mark.parametrize("segmentation", [[[]], [[1, 2, 3, 4]], []])
def test_an_object_without_a_polygon_is_its_box(tmp_path, segmentation):
    file = roboflow(tmp_path, "train")
    change(file, lambda content: content["annotations"][0].update(segmentation=segmentation))
    layout = read_roboflow(tmp_path, stop)
    assert boxes(layout) == {"train.jpg": [("cat", BOX)]}
    assert "segmentation" not in layout.splits["train"][0].objects[0]


def test_objects_of_a_wrong_category_are_left_out(tmp_path):
    file = roboflow(tmp_path, "train", 2)
    change(file, lambda content: content["categories"][2].update(name=None))
    problems = []
    assert boxes(read_roboflow(tmp_path, problems.append)) == {"train.jpg": []}
    assert len(problems) == 1 and "categories[2]" in problems[0]


def test_every_problem_is_reported_and_left_out(tmp_path):
    images = {f"{i}.jpg": [(1, BOX), (1, BOX)] for i in range(3)}
    file = tmp_path / "train/_annotations.coco.json"
    write_coco(file, file.parent, images, {1: "cat"})
    change(file, lambda content: content["annotations"][0].update(bbox=None))
    (tmp_path / "train/1.jpg").unlink()
    (tmp_path / "train/2.jpg").write_bytes(b"no image")
    problems = []
    layout = read_roboflow(tmp_path, problems.append)
    assert boxes(layout) == {"0.jpg": [("cat", BOX)]}
    assert [problem.count("\n") for problem in problems] == [0, 0, 0]
    assert "annotation 0 has bbox None" in problems[0] and "1.jpg" in problems[1]
    assert "2.jpg: cannot be read as an image" in problems[2]


@pytest.mark.parametrize("name", ["1.jpg", "1.png", "1.webp"])
def test_size_is_that_of_the_turned_image(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / name, exif=exif)
    assert open_photo(tmp_path / name, [], stop)[1:3] == (20, 30)
    assert utils.read_image(tmp_path / name, "RGB").shape == (30, 20, 3)


def yolo(folder, yaml=YAML, splits=("train", "valid")):
    for split in splits:
        write_yolo(folder / split / "images" / f"{split}.jpg", [(1, BOX)])
    (folder / "data.yaml").write_text(yaml)
    return folder / "train/labels/train.txt"


@pytest.mark.parametrize(
    "yaml",
    [
        YAML,
        "names:\n  0: cat\n  1: dog\nnc: 2\ntrain: train/images\nvalid: [valid/images]\n",
        "names: [cat, dog]\npath: /elsewhere\ntrain: /content/data/train/images\n"
        "val: C:\\data\\valid\\images\ntest: ../test/images\n",
    ],
)
def test_yolo_of_any_data_yaml(tmp_path, yaml):
    yolo(tmp_path, yaml)
    layout = read_yolo(tmp_path, stop)
    assert boxes(layout) == {"train.jpg": [("dog", BOX)]}
    assert boxes(layout, "val") == {"valid.jpg": [("dog", BOX)]}


def test_yolo_takes_the_images_in_its_folder(tmp_path):
    folder = tmp_path / "data"
    yolo(folder)
    write_yolo(tmp_path / "train/images/other.jpg", [(0, BOX)])
    assert boxes(read_yolo(folder, stop)) == {"train.jpg": [("dog", BOX)]}
    outside = YAML.replace("../train/images", "../others/images")
    write_yolo(tmp_path / "others/images/other.jpg", [(0, BOX)])
    (folder / "data.yaml").write_text(outside)
    with pytest.raises(FileNotFoundError, match="others/images does not exist in its folder"):
        read_yolo(folder, stop)


def test_yolo_of_a_linked_folder(tmp_path):
    yolo(tmp_path / "real", YAML.replace("../train/images", "train.txt"))
    (tmp_path / "real/train.txt").write_text(str(tmp_path / "real/train/images/train.jpg"))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert boxes(read_yolo(tmp_path / "link", stop)) == {"train.jpg": [("dog", BOX)]}


def test_yolo_takes_each_image_once(tmp_path):
    yolo(tmp_path, YAML.replace("../train/images", "[train/images, ./train/images/]"))
    assert len(read_yolo(tmp_path, stop).splits["train"]) == 1


def test_yolo_names_stay_text(tmp_path):
    yolo(tmp_path, YAML.replace("[cat, dog]", "[no, 1]"))
    assert read_yolo(tmp_path, stop).class_names == ["no", "1"]


def test_yolo_list_of_images(tmp_path):
    yolo(tmp_path, YAML.replace("../train/images", "train.txt"))
    (tmp_path / "train.txt").write_text("./train/images/train.jpg\n\n")
    assert boxes(read_yolo(tmp_path, stop)) == {"train.jpg": [("dog", BOX)]}
    (tmp_path / "train.txt").write_text("train/images/2.jpg")
    with pytest.raises(FileNotFoundError, match=r"train\.txt:1: train/images/2\.jpg does not exi"):
        read_yolo(tmp_path, stop)


def test_yolo_without_data_yaml(tmp_path):
    for split in ("train", "val"):
        write_yolo(tmp_path / f"images/{split}/1.jpg", [(2, BOX)])
    assert read_yolo(tmp_path, stop).class_names == ["0", "1", "2"]
    assert read_yolo(tmp_path, stop).splits.keys() == {"train", "val"}
    (tmp_path / "classes.txt").write_text("cat\ndog\nbird\n")
    assert boxes(read_yolo(tmp_path, stop)) == {"1.jpg": [("bird", BOX)]}


def test_yolo_polygons_empty_files_and_images_without_labels(tmp_path):
    labels = yolo(tmp_path)
    labels.write_text("\ufeff0 0.25 0.5 0.75 0.25 0.5 1.0\n\n1.0 .5 .5 1 1\n", "utf-8")
    write_image(tmp_path / "train/images/background.jpg")
    write_yolo(tmp_path / "train/images/empty.jpg")
    write_image(tmp_path / "train/images/._train.jpg")  # a Mac's, which is no image of the set
    assert boxes(read_yolo(tmp_path, stop)) == {
        "background.jpg": [],
        "empty.jpg": [],
        "train.jpg": [("cat", (16, 12, 32, 36)), ("dog", (0, 0, 64, 48))],
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0 0.5 0.5 0.2", "it has 3 numbers after the class"),
        ("0 0.5 0.5 0.2 0.2 0.9", "it has 5 numbers after the class"),
        ("2 0.5 0.5 0.2 0.2", "class 2, but the 2 names are numbered from 0"),
        ("-1 0.5 0.5 0.2 0.2", "class -1, but"),
        ("0.5 0.5 0.5 0.2 0.2", "class 0.5, but"),
        ("cat 0.5 0.5 0.2 0.2", "'cat 0.5 0.5 0.2 0.2' is not a row of numbers"),
        ("0 320 240 20 20", "coordinates are shares of the image"),
        ("0 nan 0.5 0.2 0.2", "coordinates are shares of the image"),
    ],
)
def test_wrong_rows_of_yolo(tmp_path, row, message):
    yolo(tmp_path).write_text(f"0 0.5 0.5 0.2 0.2\n{row}\n")
    with pytest.raises(ValueError, match=rf"labels/train\.txt:2: {message}"):
        read_yolo(tmp_path, stop)


def test_the_box_of_a_pose_counts(tmp_path):
    labels = yolo(tmp_path, f"{YAML}kpt_shape: [2, 2]\n")
    labels.write_text("1 0.5 0.5 0.5 0.25 0.1 0.1 0.9 0.9\n")
    assert boxes(read_yolo(tmp_path, stop)) == {"train.jpg": [("dog", (16, 18, 32, 12))]}
    (tmp_path / "data.yaml").write_text(f"{YAML}kpt_shape: 17\n")
    with pytest.raises(ValueError, match=r"data.yaml: kpt_shape is 17: write \[number of"):
        read_yolo(tmp_path, stop)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("names: [", r"data\.yaml: it is not YAML"),
        ("text", r"data\.yaml: it needs the keys"),
        ("train: train/images", r"data\.yaml: names is missing"),
        ("names: {1: cat, 2: dog}", r"data\.yaml: names has the keys 1, 2: number them from 0"),
        ("names: [cat]\nnc: 2", r"data\.yaml: nc is 2, but there are 1 names"),
        ("names: [cat, cat]", r"data\.yaml: several classes are named 'cat'"),
        ("names: [cat]\nval: valid/images", r"data\.yaml: train: it names no folder with images"),
        ("names: [cat]\ntrain: a/b", r"data\.yaml: train: a/b does not exist in its"),
        (YAML.replace("valid/", "valid/labels/../labels/"), r"data\.yaml: val: \S+ does not exist"),
    ],
)
def test_wrong_data_yaml(tmp_path, yaml, message):
    yolo(tmp_path, yaml)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_yolo(tmp_path, stop)


def test_yolo_split_without_any_labels(tmp_path):
    yolo(tmp_path).unlink()
    with pytest.raises(ValueError, match=r"no image of the train split .*labels/train\.txt does"):
        read_yolo(tmp_path, stop)


def test_text_that_is_not_utf8(tmp_path):
    labels = yolo(tmp_path)
    labels.write_bytes("ü".encode("latin-1"))
    with pytest.raises(ValueError, match=r"labels/train\.txt: it is no text in UTF-8"):
        read_yolo(tmp_path, stop)


def test_labels_are_beside_images_that_are_in_no_folder_of_that_name(tmp_path):
    found = label_file(tmp_path / "images/a/images/x.y.jpg", tmp_path)
    assert found == tmp_path / "images/a/labels/x.y.txt"
    assert label_file(tmp_path / "photos/x.jpg", tmp_path) == tmp_path / "photos/x.txt"
    above = tmp_path / "images/mine"
    assert label_file(above / "train/x.jpg", above) == above / "train/x.txt"


def test_voc_and_its_lists(tmp_path):
    write_voc(tmp_path, "a b", [("dog", (9, 5, 28, 14)), ("cat", (1, 1, 64, 48))])
    write_voc(tmp_path, "ü", [])
    layout = read_voc(tmp_path, stop)
    assert layout.class_names == ["cat", "dog"] and layout.splits.keys() == {"train"}
    assert boxes(layout) == {"a b.jpg": [("dog", BOX), ("cat", (0, 0, 64, 48))], "ü.jpg": []}
    lists = tmp_path / "ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a b\n")
    (lists / "val.txt").write_text("ü\n", "utf-8")
    (lists / "trainval.txt").write_text("not read")
    assert boxes(read_voc(tmp_path, stop), "val") == {"ü.jpg": []}
    (lists / "val.txt").write_text("ü\nc\n", "utf-8")
    with pytest.raises(ValueError, match=r"val\.txt:2: 'c' has no xml file"):
        read_voc(tmp_path, stop)
    (lists / "train.txt").unlink()
    (lists / "val.txt").unlink()
    (lists / "trainval.txt").write_text("a b\n")
    assert list(boxes(read_voc(tmp_path, stop))) == ["a b.jpg"]


def test_voc_of_another_size_and_names_that_come_twice(tmp_path):
    for name in ("1", "2", "3"):
        file = write_voc(tmp_path, name, [("cat", (9, 5, 28, 14))])
        width, height = {"1": (64, 48), "2": (0, 0), "3": (48.0, 64)}[name]
        size = f"<annotation><size><width>{width}</width><height>{height}</height></size>"
        file.write_text(file.read_text("utf-8").replace("<annotation>", size), "utf-8")
    problems = []
    assert list(boxes(read_voc(tmp_path, problems.append))) == ["1.jpg", "2.jpg"]
    assert len(problems) == 1 and "3.xml: its size is 48x64, but" in problems[0]
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("1\n2\n1\n")
    assert len(read_voc(tmp_path, problems.append).splits["train"]) == 2


ENTITY = '<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<annotation>", "it is not XML"),
        (ENTITY.encode(), "has a DOCTYPE"),
        (ENTITY.encode("utf-16"), "has a DOCTYPE"),
        (b"<annotation><object><name>a</name></object></annotation>", "object 1 has no name or no"),
    ],
)
def test_wrong_files_of_voc(tmp_path, data, message):
    write_voc(tmp_path, "1", []).write_bytes(data)
    with pytest.raises(ValueError, match=rf"Annotations/1\.xml: .*{message}"):
        read_voc(tmp_path, stop)


def test_voc_without_an_image(tmp_path):
    write_voc(tmp_path, "1", [("cat", (9, 5, 28, 14))])
    (tmp_path / "JPEGImages/1.jpg").unlink()
    with pytest.raises(ValueError, match=r"1\.xml: there is no image 1\.\* in .*JPEGImages"):
        read_voc(tmp_path, stop)
    (tmp_path / "JPEGImages").rmdir()
    with pytest.raises(FileNotFoundError, match="there is no JPEGImages"):
        read_voc(tmp_path, stop)


@pytest.mark.skipif(
    not Path(os.environ.get("DETECTRON2_DATASETS", "datasets"), "bccd").is_dir(),
    reason="needs the folder bccd in $DETECTRON2_DATASETS",
)
def test_bccd_as_a_folder():
    layout = read_coco(Path(os.environ.get("DETECTRON2_DATASETS", "datasets"), "bccd"), stop)
    assert layout.class_names == ["RBC", "WBC", "Platelets"]
    assert [len(layout.splits[split]) for split in ("train", "val")] == [205, 87]
