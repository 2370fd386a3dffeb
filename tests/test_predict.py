"""Predictions of a trained run: the evaluation's detections, and what users get wrong."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.data import transforms as T
from PIL import Image

from helpers import HARDLY_TRAINED as THRESHOLD
from lad import Predictor
from lad.checkpoint import export_network
from lad.engine.config import build, load_config
from lad.media import read_image

TESTS = Path(__file__).parent
COLAD, LAD, PLAIN = (str(TESTS / f"engine/{x}_config.py") for x in ("detector", "lad", "plain"))


def config(path, **test_mapper):
    loaded = load_config(path)
    loaded.dataloader.test.mapper.update(test_mapper)
    return loaded


def assert_same(found, expected, **tolerance):
    for name in ("boxes", "scores", "classes"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), **tolerance)
    assert found.names == expected.names


def assert_other(found, expected):
    assert len(found) != len(expected) or not torch.equal(found.scores, expected.scores)


def test_importing_the_package_stays_light():
    code = "import sys, lad; sys.exit('torch' in sys.modules or 'detectron2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    import lad

    with pytest.raises(AttributeError, match="has no attribute 'Predicter'"):
        lad.Predicter  # noqa: B018


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_files_and_arrays_are_read_as_the_mapper_reads(images, student, tmp_path, image_format):
    wide = Image.open(images[0]).crop((0, 0, 96, 80))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: 80 x 96
    path = tmp_path / "turned.png"
    wide.save(path, exif=exif)
    resize = L(T.ResizeShortestEdge)(short_edge_length=100, max_size=110)
    loaded = config(PLAIN, image_format=image_format, augmentations=[resize])
    predictor = Predictor(config=loaded, weights=student, threshold=0)
    record = {"file_name": str(path), "height": 96, "width": 80}
    with torch.no_grad():
        mapped = build(loaded, "dataloader.test.mapper")(record)
        expected = predictor.model([mapped])[0]["instances"]
    assert mapped["image"].shape == (3, 110, 92)
    found = predictor(path)
    assert len(found) == len(expected) > 10
    assert torch.equal(found.boxes, expected.pred_boxes.tensor)
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.classes, expected.pred_classes)
    assert found.boxes[:, 2].max() <= 80 and found.boxes[:, 3].max() <= 96
    array = read_image(path)
    assert_same(predictor(array), found, rtol=0, atol=0)
    assert_other(predictor(array[..., ::-1]), found)


def test_batches_equal_single_images(colad, images):
    arrays = [read_image(path) for path in images]
    arrays[1] = arrays[1][:64]  # another size: group norm would see its padding
    batched = Predictor(colad, threshold=THRESHOLD, batch_size=3)
    found = list(batched.stream(arrays))
    assert len(found) == len(arrays)
    for detections, array in zip(found, arrays, strict=True):
        assert len(detections) > 3
        assert_same(detections, batched(array), rtol=1e-4, atol=1e-3)
    assert list(batched.stream([])) == []


def test_threshold_and_classes(colad, images, predictor):
    every = predictor(images[0])
    high = Predictor(colad, threshold=float(every.scores[2]))(images[0])
    assert len(high) == 3
    first = every.names[0]
    assert first == str(int(every.classes[0]))  # the digits' names are their class numbers
    for kept in ([first], [int(first)], [first, int(first)]):
        found = Predictor(colad, threshold=THRESHOLD, classes=kept)(images[0])
        assert set(found.names) == {first}
        assert torch.equal(found.scores, every.scores[every.classes == int(first)])
    assert len(Predictor(colad, threshold=THRESHOLD, classes=[])(images[0])) == 0
    for wrong in ("cat", 10):
        with pytest.raises(ValueError, match=f"classes: '?{wrong}'? is unknown; choose of 0, 1, 2"):
            Predictor(colad, classes=[wrong])


def test_every_pair_of_config_and_weights(colad, student, images, predictor):
    expected = predictor(images[0])
    final = colad / "model_final.pth"
    options = {"threshold": THRESHOLD}
    sources = [
        {"run": colad, "network": "student"},
        {"run": colad, "weights": student},
        {"config": COLAD, "weights": final},
        {"config": load_config(COLAD), "weights": str(final)},
        {"config": LAD, "weights": student},
        {"config": PLAIN, "weights": student},
        {"config": PLAIN, "weights": final, "network": "student"},
    ]
    for source in sources:
        assert_same(Predictor(**source, **options)(images[0]), expected, rtol=0, atol=0)
    teacher = Predictor(colad, network="teacher", **options)
    assert_other(teacher(images[0]), expected)
    loaded = load_config(COLAD)
    loaded.model.eval_network = "teacher"
    evaluated = Predictor(config=loaded, weights=final, **options)
    assert_same(evaluated(images[0]), teacher(images[0]), rtol=0, atol=0)


def test_teacher_that_the_checkpoint_leaves_out_is_not_needed(colad, images, predictor, tmp_path):
    weights = torch.load(colad / "model_final.pth", weights_only=True)["model"]
    weights = {key: value for key, value in weights.items() if key.startswith("student.")}
    torch.save({"model": weights}, tmp_path / "small.pth")
    small = Predictor(config=LAD, weights=tmp_path / "small.pth", threshold=THRESHOLD)
    assert_same(small(images[0]), predictor(images[0]), rtol=0, atol=0)
    with pytest.raises(ValueError, match="small.pth: it has no teacher: its weights are those of"):
        Predictor(config=LAD, weights=tmp_path / "small.pth", network="teacher")


@pytest.mark.parametrize(
    ("name", "threshold"),
    [("lgd", "student.postprocessor.score_thresh"), ("retinanet", "test_score_thresh")],
)
def test_other_detectors_without_the_modules_of_their_losses(images, tmp_path, name, threshold):
    path = str(TESTS / f"engine/{name}_config.py")
    loaded = load_config(path, [f"model.{threshold}=0.001"])
    torch.manual_seed(0)
    model = build(loaded, "model").eval()
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    predictor = Predictor(config=loaded, weights=tmp_path / "model.pth", threshold=0)
    assert not any("distill_losses" in key for key in predictor.model.state_dict())
    mapped = build(loaded, "dataloader.test.mapper")({"file_name": str(images[0])})
    with torch.no_grad():
        expected = model([mapped])[0]["instances"]
    found = predictor(images[0])
    assert len(found) > 10
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.boxes, expected.pred_boxes.tensor)


def test_averaged_weights_are_used(student, tmp_path):
    weights = torch.load(student, weights_only=True)["model"]
    averages = {k: v + 1 for k, v in weights.items() if k.startswith("head.class_logits")}
    trainer = {"hooks": {"EMAHook": {"model": averages}}}
    torch.save({"model": weights, "trainer": trainer}, tmp_path / "ema.pth")
    model = Predictor(config=PLAIN, weights=tmp_path / "ema.pth").model
    for key, value in model.state_dict().items():
        assert torch.equal(value, averages.get(key, weights[key]))


def test_unfinished_run_says_which_checkpoint_is_used(colad, tmp_path, caplog):
    (tmp_path / "config.yaml").write_bytes((colad / "config.yaml").read_bytes())
    with pytest.raises(FileNotFoundError, match="it holds no checkpoint yet"):
        Predictor(tmp_path)
    name = "model_0000005.pth"
    (tmp_path / name).write_bytes((colad / name).read_bytes())
    (tmp_path / "last_checkpoint").write_text(name)
    predictor = Predictor(tmp_path)
    assert predictor.weights == str(tmp_path / name)
    warnings = [x.getMessage() for x in caplog.records if x.levelno >= logging.WARNING]
    assert warnings == [f"{tmp_path}: the training is not finished; {tmp_path / name} is used"]


def test_unregistered_dataset_gives_numbers_and_says_so(student, images, caplog, predictor):
    loaded = load_config(PLAIN)
    loaded.dataloader.test.dataset.names = "somebodys_val"
    found = Predictor(config=loaded, weights=student, threshold=THRESHOLD, classes=[3, "4"])
    assert found.names == tuple("0123456789")
    assert found.category_ids() == list(range(10))
    assert predictor.category_ids() == list(range(1, 11))
    messages = [x.getMessage() for x in caplog.records if x.levelno >= logging.WARNING]
    assert ["somebodys_val" in x for x in messages] == [True, False]
    assert "Category ids are unknown" in messages[1]


def test_classes_of_a_moved_run_are_its_own(student, tmp_path, monkeypatch):
    loaded = load_config(PLAIN)
    loaded.dataloader.test.dataset.names = "output/mine/data/val.json"
    run = tmp_path / "moved"
    for folder, name in ((run, "mine"), (tmp_path / "output/mine", "others")):
        categories = [{"id": 5 + i, "name": f"{name} {i}"} for i in range(10)]
        image = {"id": 1, "file_name": "/no.jpg", "height": 48, "width": 64}
        content = {"images": [image], "annotations": [], "categories": categories}
        (folder / "data").mkdir(parents=True)
        (folder / "data/val.json").write_text(json.dumps(content))
    LazyConfig.save(loaded, str(run / "config.yaml"))
    shutil.copy(student, run / "model_final.pth")
    monkeypatch.chdir(tmp_path)
    found = Predictor("moved")
    assert found.names[:2] == ("mine 0", "mine 1") and found.category_ids()[:2] == [5, 6]
    (run / "data/val.json").unlink()
    assert Predictor(run).names[0] == "others 0", "relative to where it runs, as in a training"


def test_other_numbers_of_classes_are_refused(student):
    loaded = load_config(PLAIN)
    loaded.dataloader.test.dataset.names = "coco_2017_val"
    with pytest.raises(ValueError, match="'coco_2017_val' has 80 classes, the model 10"):
        Predictor(config=loaded, weights=student)
    loaded.model.head.num_classes = 80
    with pytest.raises(ValueError, match="student.pth: it has another number of classes"):
        Predictor(config=loaded, weights=student)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "name either the output folder"),
        ({"run": "{run}", "config": PLAIN}, "name either the output folder"),
        ({"run": "nowhere"}, "nowhere: it holds no config.yaml; name the output folder"),
        ({"config": "nowhere.py", "weights": "{run}/model_final.pth"}, "config nowhere.py: there"),
        ({"config": PLAIN}, "weights: none are named"),
        ({"config": PLAIN, "weights": "nowhere.pth"}, "weights=nowhere.pth: there is no such file"),
        ({"config": PLAIN, "weights": __file__}, "test_predict.py: the file"),
        ({"config": PLAIN, "weights": "{run}/model_final.pth"}, "tools/export_network.py makes"),
        ({"run": "{run}", "network": "tutor"}, "network='tutor': choose 'student' or 'teacher'"),
        ({"run": "{run}", "device": "tpu"}, "device='tpu': choose 'auto', 'cpu', 'cuda' or 'mps'"),
        ({"run": "{run}", "threshold": 50}, "threshold=50: choose a number from 0 to 1"),
        ({"run": "{run}", "batch_size": 0}, "batch_size=0: choose a number of at least 1"),
    ],
)
def test_wrong_sources_are_one_line(colad, options, message):
    options = {k: v.format(run=colad) if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        Predictor(**options)
    assert "\n" not in str(error.value)


def test_configs_that_cannot_predict(student):
    loaded = load_config(PLAIN)
    loaded.dataloader.test.mapper = None
    with pytest.raises(ValueError, match="dataloader.test.mapper: it is no DatasetMapper"):
        Predictor(config=loaded, weights=student)
    del loaded["model"]
    with pytest.raises(ValueError, match="config: it defines no model"):
        Predictor(config=loaded, weights=student)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((96, 96), np.uint8),
        np.zeros((96, 96, 4), np.uint8),
        np.zeros((3, 96, 96), np.uint8),
        np.zeros((96, 96, 3), np.float32),
        np.zeros((0, 96, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(predictor, array):
    with pytest.raises(ValueError, match="image: an array has to be uint8 RGB of shape"):
        predictor(array)


def test_nothing_detected(colad, images):
    nothing = Predictor(colad, threshold=1.0)
    found = nothing(images[0])
    assert len(found) == 0
    assert (found.boxes.shape, found.names) == ((0, 4), ())
    assert found.coco_results([]) == []
    assert nothing.draw(images[0], found).size == (480, 480)


def test_draw_gives_a_picture_with_the_detections(predictor, images, tmp_path):
    found = predictor(images[0])
    predictor.draw(images[0], found).save(tmp_path / "picture.png")
    picture = np.asarray(Image.open(tmp_path / "picture.png")).astype(int)
    assert (picture == np.asarray(predictor.draw(read_image(images[0]), found))).all()
    original = np.asarray(Image.open(images[0]).convert("RGB").resize((480, 480)))
    assert (np.abs(picture - original).max(axis=-1) > 60).mean() > 0.01


def test_saved_config_predicts_without_the_python_config(colad, images, predictor, tmp_path):
    LazyConfig.save(load_config(PLAIN), str(tmp_path / "config.yaml"))
    export_network(str(colad / "model_final.pth"), "student", str(tmp_path / "model_final.pth"))
    found = Predictor(str(tmp_path), threshold=THRESHOLD)(images[0])
    assert_same(found, predictor(images[0]), rtol=0, atol=0)
