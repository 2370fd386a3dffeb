"""Image size and anchors chosen from the boxes of own data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig

from lad.data.layouts import Photo
from lad.engine.config import load_config
from lad.engine.fit import best_scale, fit_settings, fitted_settings
from lad.engine.setup import amp_dtype

SIZES = {
    f"dataloader.{split}.mapper.augmentations.0.{key}": value
    for split in ("train", "test")
    for key, value in (("short_edge_length", 320), ("max_size", 640))
}
SCALE = "model.anchor_generator.scale"


def photos(side, size=(640, 480)):
    """Returns a photo with a square box of a side in pixels of the photo."""
    return [Photo(Path("1.jpg"), *size, [{"bbox": [0, 0, side, side], "category_id": 0}])]


@pytest.mark.parametrize(
    ("side", "scale"),
    # Anchors centered on the box: sides of 8, 16, 32 and 64 times the scale.
    [(16, 2.0), (20, 2.5), (24, 3.0), (80, 5.0), (96, 3.0), (256, 4.0), (320, 5.0), (512, 8.0)],
)
def test_best_scale_has_the_boxes_side_on_a_level(side, scale):
    assert best_scale([square(side)], [8, 16, 32, 64]) == scale


def square(side):
    corner = 512 - side / 2
    return torch.tensor([[corner, corner, corner + side, corner + side]])


def test_each_class_counts_the_same():
    """A rare class of small objects has anchors too."""
    many, few = square(128).repeat(50, 1), square(32)
    assert best_scale([torch.cat([many, few])], [8], preferred=8.0) == 8.0
    assert best_scale([many, few, few, few], [8], preferred=8.0) == 4.0
    assert best_scale([torch.zeros(0, 4)], [8]) is best_scale([], [8]) is None


@pytest.mark.parametrize(
    ("side", "size", "short"),
    [
        (100, (640, 480), 320),  # large enough
        (32, (640, 480), 384),  # 32 px in a photo of 480 are 21 in one of 320
        (10, (640, 480), 512),  # never large enough, but photos are hardly enlarged
        (10, (4000, 3000), 640),
        (10, (100, 80), 320),
    ],
)
def test_image_size_is_chosen_from_the_boxes(side, size, short):
    settings = fit_settings(load_config("quick/paa.py"), photos(side, size))
    assert {key: settings[key] for key in SIZES} == {
        key: short * (2 if "max_size" in key else 1) for key in SIZES
    }


def test_images_without_objects():
    empty = [Photo(Path("1.jpg"), 640, 480, [])]
    assert fit_settings(load_config("quick/paa.py"), empty) == SIZES


def test_overrides_are_not_chosen():
    overrides = ["dataloader.test.mapper.augmentations.0.short_edge_length=640"]
    config = load_config("quick/paa.py", overrides)
    # 16 px at 640: twice the smallest stride.
    assert fit_settings(config, photos(12), overrides) == {SCALE: 2.0}
    overrides = [f"{SCALE}=7"]
    assert fit_settings(load_config("quick/paa.py", overrides), photos(48), overrides) == SIZES


def test_student_has_its_frozen_teachers_anchors(tmp_path):
    keys = {f"model.{name}.anchor_generator.scale" for name in ("student", "teacher")}
    overrides = [f"model.teacher_checkpoint={tmp_path}/model_final.pth"]
    config = load_config("quick/lad.py", overrides)
    chosen = fit_settings(config, photos(96), overrides)
    assert {chosen[key] for key in keys} == {4.0}
    saved = tmp_path / "config.yaml"
    LazyConfig.save(load_config("quick/teacher.py", [f"{SCALE}=5.5"]), str(saved))
    assert {fit_settings(config, photos(96), overrides)[key] for key in keys} == {5.5}
    saved.write_text("model: [")
    with pytest.raises(ValueError, match="config.yaml: the teacher's config cannot be read"):
        fit_settings(config, photos(96), overrides)


def test_an_evaluation_keeps_the_sizes_of_the_training(tmp_path):
    config = load_config("quick/paa.py")
    assert fitted_settings(config, str(tmp_path)) == {}
    resize = "dataloader.test.mapper.augmentations.0"
    chosen = {f"{resize}.short_edge_length": 512, f"{resize}.max_size": 1024, SCALE: 5.5}
    trained = load_config("quick/paa.py", [f"{key}={value}" for key, value in chosen.items()])
    LazyConfig.save(trained, str(tmp_path / "config.yaml"))
    assert fitted_settings(config, str(tmp_path)) == chosen
    (tmp_path / "config.yaml").write_text("model: [")
    with pytest.raises(ValueError, match="config.yaml: the training's config cannot be read"):
        fitted_settings(config, str(tmp_path))


def test_a_random_teacher_has_no_scale_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("foreign: [")
    overrides = ["model.teacher_checkpoint=random"]
    fit_settings(load_config("quick/lad.py", overrides), photos(96), overrides)


def test_other_detectors_keep_their_anchors():
    settings = fit_settings(load_config("digits/fcos.py"), photos(96))
    assert not [key for key in settings if "anchor" in key]


def test_mixed_precision_where_the_gpu_has_it(monkeypatch):
    train = load_config("quick/paa.py", ["train.device=auto"]).train
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for supported in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda x=supported: x)
        assert amp_dtype(train) == ("bfloat16" if supported else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert amp_dtype(train) is None
    train.amp.enabled = True
    assert amp_dtype(train) == "bfloat16"
    train.amp.enabled = "yes"
    with pytest.raises(ValueError, match="train.amp.enabled=yes: choose true, false or auto"):
        amp_dtype(train)
