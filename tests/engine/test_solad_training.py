"""SoLAD on a folder, with a teacher of other classes and images without labels, end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

import train_net
from labeled_folders import write_image, write_yolo
from lad.engine.config import load_config
from lad.engine.trainer import Trainer

TINY = str(Path(__file__).with_name("folder_config.py"))
SOLAD = str(Path(__file__).with_name("solad_config.py"))
TIMES = ("time", "data_time", "eta_seconds", "eval_seconds")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of cats and dogs, others without labels, and a teacher of birds, dogs and cats."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(10):
        boxes = [(i % 2, (4 + i, 6, 24, 20)), (1, (36, 20, 20, 24))]
        write_yolo(folder / f"images/{i}.jpg", boxes)
    (folder / "data.yaml").write_text("names: [cat, dog]\ntrain: images\n")
    for i in range(4):
        write_image(folder / f"more/{i}.jpg", boxes=[(i % 2, (4, 6 + i, 24, 20))])
    torch.manual_seed(0)
    config = load_config(TINY, ["model.head.num_classes=3"])
    torch.save({"model": instantiate(config.model).state_dict()}, folder / "teacher.pth")
    return folder


def run(folder, output, *overrides, flags=(), config=SOLAD, unlabeled="more"):
    """Trains four iterations with a teacher of three classes."""
    arguments = ["--config-file", config, "--data", str(folder), *flags]
    if unlabeled:
        arguments += ["--unlabeled", str(folder / unlabeled)]
    overrides = [f"train.output_dir={output}", "train.max_iter=4", *overrides]
    if config == SOLAD:
        overrides.append(f"model.teacher_checkpoint={folder}/teacher.pth")
    train_net.main([*arguments, *overrides])
    return output


NAMED = "model.teacher_classes=[bird,dog,cat]"


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    return run(folder, tmp_path_factory.mktemp("run") / "solad", NAMED)


def metrics(folder):
    lines: dict = {}
    for line in (folder / "metrics.json").read_text().splitlines():
        values = json.loads(line)
        kept = {k: repr(v) for k, v in values.items() if k not in TIMES}  # nan equals nan
        lines.setdefault(values["iteration"], {}).update(kept)
    return lines


def final(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def refused(capsys, *arguments, **options):
    with pytest.raises(SystemExit) as exit_:
        run(*arguments, **options)
    assert exit_.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_what_the_run_says(finished):
    config = load_config(str(finished / "config.yaml"))
    assert config.model.student_classes == ["cat", "dog"]
    assert config.model.teacher_classes == ["bird", "dog", "cat"]
    assert config.dataloader.train.unlabeled.names == str(finished / "data/unlabeled.json")
    log = (finished / "log.txt").read_text()
    assert "Unlabeled: 4 images, 1 per labeled image of a batch" in log
    assert (
        "The teacher knows 2 of the student's 2 classes; 1 of its own 3 are not used: bird" in log
    )


def test_the_teachers_figures_stand_in_the_metrics_once(finished):
    lines = metrics(finished)
    assert "teacher/bbox/AP" in lines[0] and "teacher/bbox/AP-dog" in lines[0]
    assert not any("teacher/bbox/AP" in lines[i] for i in lines if i)
    assert (finished / "inference/teacher/coco_instances_results.json").is_file()


def test_the_results_have_the_student_first(finished):
    results = json.loads((finished / "results.json").read_text())
    assert list(results["figures"]) == ["", "teacher"]
    assert results["best"]["metric"] == "bbox/AP"
    assert "| student bbox |" in (finished / "results.md").read_text()


def test_the_teachers_evaluation_changes_nothing(folder, finished, tmp_path):
    other = run(folder, tmp_path / "other", NAMED, "train.eval_teacher=false")
    assert same(final(finished), final(other))
    lines = metrics(finished)
    lines[0] = {k: v for k, v in lines[0].items() if not k.startswith("teacher/")}
    assert lines == metrics(other)


def test_a_run_resumed_after_a_kill_equals_the_whole_run(folder, finished, tmp_path, monkeypatch):
    original = Trainer.run_step

    def killed(trainer):
        if trainer.iter == 2:
            raise KeyboardInterrupt
        original(trainer)

    monkeypatch.setattr(Trainer, "run_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "resumed", NAMED)
    monkeypatch.undo()
    resumed = run(folder, tmp_path / "resumed", NAMED, flags=["--resume"])
    assert same(final(finished), final(resumed))
    assert metrics(finished) == metrics(resumed)


def test_the_saved_config_trains_by_itself(finished, tmp_path):
    overrides = [f"train.output_dir={tmp_path}/again", "train.max_iter=4"]
    train_net.main(["--config-file", str(finished / "config.yaml"), *overrides])
    assert same(final(finished), final(tmp_path / "again"))


def test_images_of_the_data_are_no_unlabeled_images(folder, tmp_path, capsys):
    error = refused(capsys, folder, tmp_path / "run", NAMED, unlabeled="images")
    assert "images: all of its images are in the labeled data already" in error


def test_images_of_named_datasets_are_no_unlabeled_images(folder, finished, tmp_path, capsys):
    names = [
        f"dataloader.{split}.dataset.{key}"
        for split, file in (("train", "train"), ("test", "val"))
        for key in (f"names={finished}/data/{file}.json", "outside_root=true")
    ]
    with pytest.raises(SystemExit):
        arguments = ["--config-file", SOLAD, "--unlabeled", str(folder / "images"), *names]
        train_net.main([*arguments, NAMED, f"train.output_dir={tmp_path}/run"])
    assert "all of its images are in the labeled data already" in capsys.readouterr().err


def test_a_changed_folder_cannot_be_resumed(folder, finished, tmp_path, capsys):
    write_image(tmp_path / "more/1.jpg")
    error = refused(
        capsys, folder, finished, NAMED, flags=["--resume"], unlabeled=tmp_path / "more"
    )
    assert "unlabeled.json: the data have changed since this run began" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unlabeled": "nowhere"}, "nowhere: there is no such folder"),
        ({"flags": ["--eval-only"]}, "--unlabeled is for training"),
        ({"config": TINY}, "none of the model's losses takes images without labels; use"),
    ],
)
def test_unlabeled_images_that_cannot_be_used(folder, tmp_path, capsys, options, message):
    names = [] if options.get("config") else [NAMED]
    assert message in refused(capsys, folder, tmp_path / "run", *names, **options)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "it has another number of classes than the model (head.class_logits.weight, "),
        (["model.teacher_classes=[dog,cat]"], "it has another number of classes|names 2 classes"),
        (["model.teacher_classes=[a,b,c]"], "none of the student's classes (cat, dog) is one"),
        (["model.teacher_classes=nowhere.txt"], "model.teacher_classes=nowhere.txt: there is no"),
    ],
)
def test_teachers_of_other_classes_are_one_line(folder, tmp_path, capsys, overrides, message):
    error = refused(capsys, folder, tmp_path / "run", *overrides, unlabeled=None)
    assert any(part in error for part in message.split("|"))
