import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from lad.data import digits
from lad.data.digits import DigitScenesSpec, register_digit_scenes, write_digit_scenes
from lad.data.scenes import load_sources, make_scene

SPEC = DigitScenesSpec(image_size=64, num_train=3, num_val=2, seed=5)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets") / "nested" / "digits"
    write_digit_scenes(root, SPEC)
    return root


def test_files_hold_the_scenes(root):
    content = json.loads((root / "annotations" / "train.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [
        "000000.png",
        "000001.png",
        "000002.png",
    ]
    assert [category["name"] for category in content["categories"]] == list("0123456789")
    sources = load_sources("train")
    for index in range(3):
        scene = make_scene(sources, "train", index, image_size=64, seed=5)
        pixels = np.asarray(Image.open(root / "train" / f"{index:06d}.png"))
        np.testing.assert_array_equal(pixels, scene.image)
        mine = [a for a in content["annotations"] if a["image_id"] == index + 1]
        assert [a["bbox"] for a in mine] == scene.boxes.tolist()
        assert [a["category_id"] - 1 for a in mine] == scene.classes.tolist()
    assert not [path for path in root.parent.iterdir() if path != root]


def test_complete_dataset_is_not_made_again(root, monkeypatch):
    monkeypatch.setattr(digits, "make_scene", None)
    write_digit_scenes(root, SPEC)


def test_other_parameters_are_refused(root):
    other = DigitScenesSpec(image_size=64, num_train=3, num_val=2, seed=6)
    with pytest.raises(ValueError, match=r"nested/digits does not hold .*'seed': 6.*remove"):
        write_digit_scenes(root, other)


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / "somebody's work").touch()
    with pytest.raises(ValueError, match=r"no manifest\.json"):
        write_digit_scenes(tmp_path, SPEC)


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(digits, "_to_coco", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_digit_scenes(tmp_path / "digits", SPEC)
    assert list(tmp_path.iterdir()) == []


def test_slower_of_two_processes_discards_its_files(tmp_path, monkeypatch):
    root = tmp_path / "digits"
    to_coco = digits._to_coco

    def overtaken(*args):
        monkeypatch.setattr(digits, "_to_coco", to_coco)
        write_digit_scenes(root, SPEC)
        (root / "made by the faster").touch()
        return to_coco(*args)

    monkeypatch.setattr(digits, "_to_coco", overtaken)
    write_digit_scenes(root, SPEC)
    assert (root / "made by the faster").exists()
    assert list(tmp_path.iterdir()) == [root]


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/digits: .*DETECTRON2_DATASETS"):
        write_digit_scenes(tmp_path / "file" / "digits", SPEC)


@pytest.mark.parametrize(
    ("field", "value"),
    [("image_size", 31), ("num_train", 0), ("num_val", 2.5), ("seed", -1)],
)
def test_bad_parameters_are_named(field, value):
    with pytest.raises(ValueError, match=rf"{field} must be an integer .* not {value}"):
        DigitScenesSpec(**{field: value})


def test_registered_dataset_is_made_when_loaded(tmp_path):
    for _ in range(2):  # as a config that is loaded twice
        register_digit_scenes("lad_test_digits", tmp_path / "digits", SPEC)
    try:
        with pytest.raises(ValueError, match="'lad_test_digits_train' is registered already"):
            register_digit_scenes("lad_test_digits", tmp_path / "others", SPEC)
        assert not (tmp_path / "digits").exists()
        dicts = DatasetCatalog.get("lad_test_digits_val")
        metadata = MetadataCatalog.get("lad_test_digits_val")
        assert len(dicts) == 2 and (dicts[0]["width"], dicts[0]["height"]) == (64, 64)
        assert metadata.thing_classes == list("0123456789")
        assert metadata.json_file == str(tmp_path / "digits" / "annotations" / "val.json")
        assert metadata.evaluator_type == "coco"
    finally:
        for name in ("lad_test_digits_train", "lad_test_digits_val"):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def test_import_registers_the_default_dataset():
    assert {"digits_train", "digits_val", "bccd_train", "bccd_val"} <= set(DatasetCatalog.list())
    assert MetadataCatalog.get("digits_val").thing_classes == list("0123456789")
