"""The page about a folder of labeled images, printed and as HTML, and the exit status."""

from __future__ import annotations

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labeled_folders import write_coco, write_image, write_yolo
from lad.cli import check_dataset
from lad.cli.check_pictures import picture, region_around, region_with, size_plot, thumbnail
from lad.data.layouts import Photo
from lad.engine.box_sizes import BoxSizes
from lad.engine.config import load_config

BOX = (8, 4, 20, 10)
BCCD = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"), "bccd")
VOID = {"meta"}  # elements without an end


class Page(HTMLParser):
    """Reads a page and checks that its elements are closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("href", "src"):
                assert value.startswith(("#", "data:image/jpeg;base64,"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


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


def check(folder, capsys, *options):
    """Returns the exit status and the lines of the page, with single spaces."""
    status = check_dataset.main([str(folder), *map(str, options)])
    return status, [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_good_data(folder, capsys):
    status, lines = check(folder, capsys)
    assert status == 0 and lines[-1] == "No problem found."
    assert "YOLO: 3 classes" in lines
    for line in ("images 5 1", "without objects 1 0", "objects 8 1", "cat 4 0", "dog 4 1", "7 0 0"):
        assert line in lines
    # Short side 48 to 320: the validation box of 30 pixels has a side of 200.
    assert any(line.startswith("val 200 200 200 200 200 ") for line in lines)
    assert any(re.fullmatch(r"Anchors of \d+(, \d+)+ px", line) for line in lines)


def test_every_problem_with_its_file_and_entry(folder, capsys):
    rows = ["0 0.5 0.5 0.1 0.1", "9 0.5 0.5 0.1 0.1", "0 1 2"] + ["0 1 2"] * 30
    (folder / "labels/train/0.txt").write_text("\n".join(rows))
    (folder / "images/train/1.png").write_bytes(b"no image")
    data = (folder / "images/train/2.png").read_bytes()
    (folder / "images/train/2.png").write_bytes(data[: len(data) - 30])
    status, lines = check(folder, capsys)
    assert status == 1
    assert "What training refuses (34):" in lines
    found = "\n".join(lines)
    assert "labels/train/0.txt:2: class 9" in found and "labels/train/0.txt:33: it has 2" in found
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
    assert "train.json: annotation 2: cat, 20x20 px at (60, 40) in 2.jpg (64x48)" in found
    assert "train.json: annotation 3: cat, 0x9 px at (5, 5) in 3.jpg (64x48)" in found


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_data_that_cannot_be_read(name, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    page = tmp_path / "new/page.html"
    status, lines = check(tmp_path / name, capsys, "--html", page)
    assert status == 1 and lines[0] == "What training refuses (1):"
    assert name in lines[1]
    assert "1 to mend" in Page(page.read_text()).text


def test_same_folder_twice_is_noticed(folder, capsys):
    (folder / "data.yaml").write_text("names: [a, b, c]\ntrain: images/train\nval: images/train\n")
    status, lines = check(folder, capsys)
    assert status == 0 and "Warnings (1):" in lines
    assert any(line.startswith("val: 5 of 5 images are training images, too") for line in lines)


def test_long_lists_are_cut():
    (text,) = check_dataset.listed("things", [str(i) for i in range(30)], 20)
    lines = text.splitlines()
    assert lines[0] == "things (30):" and lines[-1] == "  ... and 10 more: --html FILE has all"
    assert len(check_dataset.listed("things", ["1"] * 30)[0].splitlines()) == 31
    assert check_dataset.listed("things", []) == []


def test_page_with_pictures_and_escaped_names(folder, capsys):
    name = '<b>&"cat"'
    (folder / "data.yaml").write_text(
        f"names: ['{name}', dög, 7]\ntrain: images/train\nval: images/val\n"
    )
    strange = folder / 'images/train/<i>"&.png'
    write_yolo(strange, [(0, (60, 4, 20, 10)), (1, (5, 5, 0, 7))])
    shutil.copy(folder / "images/train/0.png", folder / "images/val/copy.png")
    rows = (folder / "labels/train/0.txt").read_text()
    (folder / "labels/train/0.txt").write_text(f"{rows}\n8 0.5 0.5 0.1 0.1\n")
    status, _ = check(folder, capsys, "--html", folder / "page.html")
    assert status == 1
    text = (folder / "page.html").read_text("utf-8")
    page = Page(text)
    assert "<b>" not in text and "<i>" not in text and "http" not in text
    assert name in page.text and "dög" in page.text
    for line in (
        'labels/train/<i>"&.txt:1: ' + name + ", 20x10 px at (60, 4)",
        'labels/train/<i>"&.txt:2: dög, 0x7 px at (5, 5)',
        "labels/train/0.txt:3: class 8",
        "0.png (train) is the photo of",
        "empty.png",
    ):
        assert line in page.text
    sections = re.findall(r'<section id="(s\d)"><h2>', text)
    assert len(sections) == 8
    assert all(f'href="#{section}"' in text for section in sections)
    # Examples of two classes, the plot, and pictures of: no area, outside, two photos, no objects.
    assert page.tags.count("svg") == 3 + 3 + 1 + 1 + 1 + 2 + 2
    assert page.tags.count("image") == page.tags.count("svg") - 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--html", "page.txt"], "--html page.txt: name a file that ends in .html"),
        (["--html", "folder.html"], "--html folder.html: it is a folder"),
        (["--fix", "folder.html"], "--fix folder.html: it exists already: name a new folder"),
        (["--config-file", "no.py"], "--config-file no.py: there is no such file"),
    ],
)
def test_wrong_options_are_one_line(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(SystemExit) as exit_:
        check_dataset.main([".", *options])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_mended_copy_passes(folder, capsys):
    rows = (folder / "labels/train/0.txt").read_text()
    (folder / "labels/train/0.txt").write_text(f"{rows}\n8 0.5 0.5 0.1 0.1\n")
    assert check(folder, capsys)[0] == 1
    status, lines = check(folder, capsys, "--fix", folder / "mended")
    assert status == 0 and "Mended (1):" in lines
    assert any(line.startswith("left out: ") and "0.txt:3: class 8" in line for line in lines)
    status, lines = check(folder / "mended", capsys)
    assert status == 0 and "COCO: 3 classes" in lines and "objects 8 1" in lines


def test_region_of_a_picture():
    photo = Photo(Path("1.jpg"), 200, 100, [])
    # Three times a box's longer side, around its center; at least 32 px and a quarter of the image.
    assert region_around((90, 40, 20, 10), photo) == (70, 15, 130, 75)
    assert region_around((50, 50, 0, 0), photo) == (34, 34, 66, 66)
    assert region_around((0, 0, 200, 100), photo) == (0, -50, 200, 150)
    assert region_with(photo, []) == (0, 0, 200, 100)
    assert region_with(photo, [(-20, 10, 50, 50), (150, 0, 900, 110)]) == (-20, 0, 300, 110)


def test_thumbnails_are_made_of_what_training_reads(tmp_path):
    numbers = np.arange(24 * 32).reshape(24, 32)
    for name, kind, shown in (("sixteen.png", np.uint16, True), ("float.tif", np.float32, False)):
        Image.fromarray(numbers.astype(kind)).save(tmp_path / name)
        address = thumbnail(Photo(tmp_path / name, 32, 24, [], None), (0, 0, 32, 24))
        assert address.startswith("data:image/jpeg;base64,") if shown else address == ""


def test_picture_of_an_object(tmp_path):
    path = write_image(tmp_path / "1.png", (64, 48))
    entries = [{"bbox": box, "category_id": 1} for box in (BOX, (5, 5, 0, 0))]
    page = Page(picture(Photo(path, 64, 48, []), entries))
    assert [page.tags.count(x) for x in ("image", "rect", "circle")] == [1, 2, 2]
    nan = [{"bbox": (float("nan"), 0, 5, 5), "category_id": 0}]
    page = Page(picture(Photo(path, 64, 48, []), nan, around=nan[0]["bbox"]))
    assert [page.tags.count(x) for x in ("image", "rect", "circle")] == [1, 0, 0]
    path.write_bytes(b"damaged")
    assert Page(picture(Photo(path, 64, 48, []), entries)).tags.count("image") == 0


def test_sizes_of_boxes_and_anchors():
    overrides = [
        "dataloader.test.mapper.augmentations=[]",
        "model.anchor_generator.strides=[8,16]",
        "model.anchor_generator.scale=4",
    ]
    config = load_config("quick/paa.py", overrides)
    boxes = [(16, 16, 32, 32), (8, 8, 60, 3)]
    photo = Photo(Path("1.jpg"), 80, 80, [{"bbox": x, "category_id": 0} for x in boxes])
    sizes = BoxSizes.of(config, [photo])
    assert sizes.anchors == (32, 64) and sizes.reached.tolist() == [True, False]
    assert sizes.share == 0.5 and sizes.sides.tolist() == pytest.approx([32, 180**0.5])
    plot = size_plot(sizes)
    assert [plot.count(f'class="{x}"') for x in ("reached", "missed", "anchor")] == [1, 1, 2]
    other = BoxSizes.of(load_config("digits/fcos.py", overrides[:1]), [photo])
    assert other.anchors == () and other.share is None
    assert size_plot(other).count('class="reached"') == 2


@pytest.mark.skipif(not BCCD.is_dir(), reason="needs the folder bccd in $DETECTRON2_DATASETS")
def test_zero_areas_of_bccd(capsys):
    status, lines = check(BCCD, capsys)
    assert status == 0
    found = [line for line in lines if "RBC, 0x0 px" in line]
    assert [line.split(":")[1] for line in found] == [" annotation 2288", " annotation 887"]
