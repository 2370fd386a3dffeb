"""Names of classes from lists, files and datasets."""

from __future__ import annotations

import json

import pytest
from detectron2.data import MetadataCatalog

from labeled_folders import write_coco
from lad.data import register_coco
from lad.data.names import read_class_names


def read(source):
    return read_class_names(source if isinstance(source, list) else str(source), "model.x")


def test_lists_and_registered_datasets():
    assert read(["cat", 7]) == ["cat", "7"]
    assert read("coco_2017_val")[:2] == ["person", "bicycle"] and len(read("coco_2017_val")) == 80


def test_a_dataset_is_loaded_for_its_names(tmp_path, dataset_name):
    write_coco(tmp_path / "a.json", tmp_path, {"1.jpg": []}, {7: "dog", 2: "cat"})
    register_coco(dataset_name, tmp_path / "a.json", tmp_path)
    assert MetadataCatalog.get(dataset_name).get("thing_classes") is None
    assert read(dataset_name) == ["cat", "dog"]
    assert read(tmp_path / "a.json") == ["cat", "dog"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "cat\n\n  dog \n"),
        ("a.json", '["cat", "dog"]'),
        (
            "a.json",
            json.dumps({"categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}]}),
        ),
        ("data.yaml", "names: {0: cat, 1: dog}"),
        ("data.yml", "nc: 2\nnames: [cat, dog]"),
    ],
)
def test_files(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read(tmp_path / name) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "\n", "holds no names"),
        ("a.json", "{", "neither a list of names nor COCO's categories"),
        ("a.json", "3", "neither a list of names nor COCO's categories"),
        ("a.json", '{"categories": [{"name": "cat"}]}', "neither a list of names"),
        ("a.yaml", "path: .", "names is missing"),
    ],
)
def test_files_without_names(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name)


def test_what_is_no_source():
    with pytest.raises(FileNotFoundError, match="model.x=nowhere.txt: there is no such file"):
        read("nowhere.txt")
    with pytest.raises(ValueError, match="model.x=coco80: it is no registered dataset and no .txt"):
        read("coco80")
    with pytest.raises(ValueError, match="holds no names"):
        read([])
