"""--data: what it sets in a config, and a training on a folder of YOLO's from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.transforms import ResizeShortestEdge

import train_net
from labeled_folders import write_yolo
from lad import Predictor
from lad.data.layouts import Layout, Photo
from lad.engine.box_sizes import BoxSizes
from lad.engine.config import load_config
from lad.engine.data import data_settings, describe_data
from lad.engine.fit import resized_boxes

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = str(Path(__file__).with_name("folder_config.py"))
TOY = str(Path(__file__).with_name("toy_config.py"))


def photo(*boxes, size=(64, 48)):
    return Photo(Path("1.jpg"), *size, [{"bbox": box, "category_id": 0} for box in boxes])


def layout(num_images=10, classes=3):
    train = [photo([8, 8, 24, 24])] * num_images
    return Layout("YOLO", [f"c{i}" for i in range(classes)], {"train": train, "val": train[:2]})


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("paa/r18_1x", ["model.head.num_classes"]),
        (
            "lad/r18_from_r50_1x",
            ["model.student.head.num_classes", "model.teacher.head.num_classes"],
        ),
        ("digits/retinanet_lad", ["model.student.num_classes", "model.teacher.head.num_classes"]),
        ("digits/paa_lgd", ["model.student.head.num_classes"]),
        ("lgd/faster_rcnn_r50_1x", ["model.student.roi_heads.num_classes"]),
    ],
)
def test_settings_of_any_config(name, keys):
    path = str(CONFIGS / f"{name}.py")
    settings = data_settings(load_config(path), layout(), "run/data")
    names = {
        "dataloader.train.dataset.names": "run/data/train.json",
        "dataloader.test.dataset.names": "run/data/val.json",
    }
    names |= {f"dataloader.{split}.dataset.outside_root": True for split in ("train", "test")}
    assert settings == dict.fromkeys(keys, 3) | names
    config = load_config(path, (), settings)
    assert config.dataloader.evaluator.dataset_name == "run/data/val.json"
    config = load_config(path, [f"{keys[0]}=7", "dataloader.test.dataset.names=bccd_val"], settings)
    assert config.dataloader.evaluator.dataset_name == "bccd_val"
    assert config.dataloader.train.dataset.names == "run/data/train.json"


def test_config_without_named_data():
    with pytest.raises(ValueError, match=r"no dataloader\.train\.dataset\.names to set"):
        data_settings(load_config(TOY), layout(), "run/data")


@pytest.mark.parametrize(
    ("num_images", "overrides", "max_iter", "period"),
    [
        (1000, [], 7500, 1500),  # 30 epochs of 250 batches of 4
        (1001, ["train.accumulate=2"], 3754, 751),
        (10, [], 500, 100),
        (1000, ["train.epochs=4"], 1000, 200),
        (1000, ["train.max_iter=12"], 12, 3),
        (1000, ["train.epochs=null"], None, None),
    ],
)
def test_length_in_epochs(num_images, overrides, max_iter, period):
    config = load_config(TINY, overrides)
    settings = data_settings(config, layout(num_images), "", overrides)
    assert settings.get("train.max_iter") == max_iter
    assert settings.get("train.eval_period") == settings.get("train.checkpointer.period") == period


def test_boxes_are_those_of_the_resized_image():
    resize = L(ResizeShortestEdge)(short_edge_length=96, max_size=200)
    boxes = resized_boxes([photo([8, 4, 20, 10], [0, 0, 0, 5]), photo()], [resize])
    assert boxes.tolist() == [[16, 8, 56, 28]]
    assert resized_boxes([photo([8, 4, 20, 10])], []).tolist() == [[8, 4, 28, 14]]
    assert resized_boxes([], []).shape == (0, 4)


def test_share_of_boxes_that_anchors_reach():
    """Short side 64 to 64: anchors of 16, 32 and 64 pixels at strides 4, 8 and 16."""
    config = load_config(TINY)
    photos = [photo([24, 24, 16, 16], [0, 30, 64, 4], size=(64, 64))]
    assert BoxSizes.of(config, photos).share == 0.5
    assert BoxSizes.of(config, [photo()]).share is None
    assert BoxSizes.of(load_config(str(CONFIGS / "digits/fcos.py")), photos).share is None


def test_lines_of_the_log():
    config = load_config(TINY, ["train.max_iter=20"])
    data, warning, length, images, anchors = describe_data(config, layout(classes=25))
    assert data.startswith("Data (YOLO): 25 classes (c0, c1, ") and "c19, ...)" in data
    assert "train 10 images, 10 objects; val 2 images, 2 objects" in data
    assert warning.startswith("Warning: val: 2 of 2 images are training images, too")
    assert length == "Training: train.max_iter=20, 8.0 epochs"
    assert images == "Images: short side 64 px, long side at most 96 px"
    assert anchors.startswith("Anchors of 16, 32, 64 px: 100.0% of the training boxes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty-two images, two of them copies of one photo, one without objects."""
    folder = tmp_path_factory.mktemp("data") / "my set"
    for i in range(20):
        boxes = [(i % 2, (4 + i, 6, 24, 20)), (1, (36, 20, 20, 24))]
        write_yolo(folder / "images" / f"photo {i}.jpg", boxes)
    write_yolo(folder / "images/photo 1_jpg.rf.ab.jpg", [(1, (4, 6, 24, 20))])
    write_yolo(folder / "images/empty.jpg")
    (folder / "data.yaml").write_text("names: [cat, dog]\ntrain: images\n")
    return folder


def run(*arguments):
    train_net.main([str(x) for x in arguments])


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """A finished training of four iterations."""
    output = tmp_path_factory.mktemp("run") / "tiny"
    run("--config-file", TINY, "--data", folder, f"train.output_dir={output}", "train.max_iter=4")
    return output


def test_training_on_a_folder(finished):
    config = load_config(str(finished / "config.yaml"))
    assert config.model.head.num_classes == 2
    assert config.train.max_iter == 4 and config.train.eval_period == 1
    val = json.loads((finished / "data/val.json").read_text())
    assert [category["name"] for category in val["categories"]] == ["cat", "dog"]
    lines = [json.loads(x) for x in (finished / "metrics.json").read_text().splitlines()]
    assert any("bbox/AP-dog" in line for line in lines)
    log = (finished / "log.txt").read_text()
    assert (
        "Data (YOLO): 2 classes (cat, dog); train " in log
        and "Anchors of 16, 32, 64 px: 100.0%" in log
    )


def test_saved_config_evaluates_by_itself(finished):
    before = (finished / "data/val.json").read_text()
    run("--config-file", finished / "config.yaml", "--eval-only", "--resume")
    results = json.loads((finished / "inference/results.json").read_text())
    lines = [json.loads(x) for x in (finished / "metrics.json").read_text().splitlines()]
    last = [line["bbox/AP"] for line in lines if "bbox/AP" in line][-1]
    assert results["bbox/AP"] == pytest.approx(last, nan_ok=True)
    assert (finished / "data/val.json").read_text() == before


def test_predictions_have_the_folders_class_names(finished):
    name = str(finished / "data/val.json")
    names = MetadataCatalog.get(name).thing_classes
    for catalog in (DatasetCatalog, MetadataCatalog):  # as in another process
        catalog.pop(name)
    assert Predictor(finished).names == tuple(names)


def test_evaluation_on_another_folder_leaves_the_trainings_data(finished, tmp_path):
    for i in range(3):
        write_yolo(tmp_path / f"images/{i}.jpg", [(1, (4, 6, 24, 20))])
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    before = (finished / "data/val.json").read_text()
    arguments = ["--config-file", finished / "config.yaml", "--eval-only", "--resume"]
    run(*arguments, "--data", tmp_path, f"train.output_dir={finished}")
    assert (finished / "data/val.json").read_text() == before
    assert str(tmp_path) in (finished / "inference/data/val.json").read_text()


def test_evaluation_on_other_classes_is_refused(finished, tmp_path, capsys):
    for i in range(3):
        write_yolo(tmp_path / f"images/{i}.jpg", [(1, (4, 6, 24, 20))])
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    weights = finished / "model_final.pth"
    for source in (
        ["--resume", f"train.output_dir={finished}"],
        [f"train.init_checkpoint={weights}"],
    ):
        arguments = ["--config-file", finished / "config.yaml", "--eval-only", "--data", tmp_path]
        flags = [x for x in source if x.startswith("--")]
        with pytest.raises(SystemExit):
            run(*arguments, *flags, *(x for x in source if x not in flags))
        line = capsys.readouterr().err.splitlines()[-1]
        assert "--data: its classes are dog, cat, those of the training cat, dog" in line


def test_resuming_with_changed_data_is_refused(finished, tmp_path, capsys):
    for i in range(3):
        write_yolo(tmp_path / f"images/{i}.jpg", [(1, (4, 6, 24, 20))])
    with pytest.raises(SystemExit):
        run("--config-file", TINY, "--data", tmp_path, "--resume", f"train.output_dir={finished}")
    assert "the data have changed since this run began" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere: there is no such folder"),
        (["--data", "."], "no known layout"),
    ],
)
def test_wrong_data_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        run("--config-file", TINY, *arguments, "train.output_dir=run")
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_wrong_number_of_epochs(folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(
            "--config-file",
            TINY,
            "--data",
            folder,
            f"train.output_dir={tmp_path}/run",
            "train.epochs=0",
        )
    assert "train.epochs=0: expected a whole number of at least 1" in capsys.readouterr().err


def test_epochs_without_data(capsys):
    with pytest.raises(SystemExit):
        run("--config-file", TINY, "train.epochs=3")
    assert "train.epochs: it counts the images of --data" in capsys.readouterr().err


def test_masks_are_needed_by_a_config_of_masks(folder, tmp_path, capsys):
    config = str(CONFIGS / "lgd/mask_rcnn_swin_t_3x_ms.py")
    with pytest.raises(SystemExit):
        run("--config-file", config, "--data", folder, f"train.output_dir={tmp_path}/run")
    assert "has an object without a mask, which this config needs" in capsys.readouterr().err
