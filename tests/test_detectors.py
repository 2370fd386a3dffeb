"""Detectors through train_net.py: kills, evaluation of both networks, export, checkpoints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import train_net

from lad.checkpoint import export_network
from lad.visualize import read_metrics

ROOT = Path(__file__).parent.parent
CONFIG = str(Path(__file__).parent / "engine/detector_config.py")
PLAIN = str(Path(__file__).parent / "engine/plain_config.py")
LAD = str(Path(__file__).parent / "engine/lad_config.py")
TIMES = {"time", "data_time", "eta_seconds", "rank_data_time"}


@pytest.fixture(scope="module", autouse=True)
def datasets(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(tmp_path_factory.mktemp("datasets")))
        yield


def run(config, folder, *overrides, flags=()):
    train_net.main(["--config-file", config, *flags, f"train.output_dir={folder}", *overrides])
    return folder


def metrics(folder):
    """metrics.json by iteration, without times; lines after a resume complete those before."""
    lines: dict = {}
    for row in read_metrics(folder / "metrics.json"):
        kept = {k: v for k, v in row.items() if k not in TIMES}
        lines.setdefault(row["iteration"], {}).update(kept)
    return lines


def weights(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


def detections(folder):
    return json.loads((folder / "coco_instances_results.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(CONFIG, tmp_path_factory.mktemp("run") / "colad")


def test_colad_evaluates_both_networks_and_draws_its_roles(finished):
    lines = metrics(finished)
    assert {"student/bbox/AP", "teacher/bbox/AP"} <= lines[8].keys()
    assert {"switch/student", "switch/teacher", "switch/student_share"} <= lines[7].keys()
    assert lines[0]["student/loss_cls"] != lines[0]["teacher/loss_cls"]
    assert (finished / "roles.png").stat().st_size > 1000


def test_colad_killed_and_resumed_equals_the_whole_run(finished, tmp_path):
    folder = tmp_path / "killed"
    command = [sys.executable, str(ROOT / "train_net.py"), "--config-file", CONFIG]
    process = subprocess.Popen(
        [*command, f"train.output_dir={folder}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    log = folder / "metrics.json"
    # Past the first checkpoint, iteration 2's, and the line that is logged after it.
    while process.poll() is None and not (log.is_file() and len(read_metrics(log)) > 2):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "model_final.pth").is_file()
    run(CONFIG, folder, flags=["--resume"])
    assert metrics(folder) == metrics(finished)
    whole = weights(finished)
    assert all(torch.equal(value, whole[key]) for key, value in weights(folder).items())


@pytest.mark.parametrize("network", ["student", "teacher"])
def test_exported_network_detects_the_same_with_the_plain_config(finished, tmp_path, network):
    exported = tmp_path / f"{network}.pth"
    export_network(str(finished / "model_final.pth"), network, str(exported))
    overrides = [f"train.init_checkpoint={exported}"]
    width = {"student": 8, "teacher": 16}[network]
    overrides += [f"model.backbone.bottom_up.width={width}"]
    folder = run(PLAIN, tmp_path / "plain", *overrides, flags=["--eval-only"])
    found = detections(folder / "inference")
    assert found == detections(finished / "inference" / network)
    assert len(found) > 50


def test_lad_learns_from_an_exported_teacher_and_leaves_it_alone(finished, tmp_path):
    teacher = tmp_path / "teacher.pth"
    export_network(str(finished / "model_final.pth"), "teacher", str(teacher))
    folder = run(LAD, tmp_path / "lad", f"model.teacher_checkpoint={teacher}")
    start, trained = weights(finished), weights(folder)
    moved = [k for k, v in trained.items() if not torch.equal(v, start[k])]
    assert moved
    assert all(key.startswith("student.") for key in moved)
    small = run(
        LAD, tmp_path / "small", f"model.teacher_checkpoint={teacher}", "model.save_teacher=false"
    )
    assert weights(small).keys() == {k for k in trained if k.startswith("student.")}
    assert metrics(small) == metrics(folder)
    # A resumed run reads the teacher's own checkpoint again.
    (small / "model_final.pth").unlink()
    (small / "last_checkpoint").write_text("model_0000002.pth")
    overrides = [f"model.teacher_checkpoint={teacher}", "model.save_teacher=false"]
    run(LAD, small, *overrides, flags=["--resume"])
    assert metrics(small) == metrics(folder)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.teacher_checkpoint=nowhere.pth"], "nowhere.pth"),
        (["model.teacher_checkpoint={other}"], "something.else"),
        (
            ["model.teacher_checkpoint={teacher}", "model.teacher.backbone.bottom_up.width=8"],
            "shape",
        ),
        (
            [
                "model.teacher_checkpoint={teacher}",
                "model.student.head.num_classes=4",
                "model.teacher.head.num_classes=4",
            ],
            "class",
        ),
        (
            [
                "model.teacher_checkpoint={teacher}",
                "model.student.anchor_generator.scale=8",
                "model.teacher.anchor_generator.scale=8",
            ],
            "anchor",
        ),
        (["model.student.anchor_generator.scale=8"], "equal anchors"),
        (["train.init_checkpoint={teacher}"], "none of its weights fits"),
        (
            [
                "train.init_checkpoint={whole}",
                "model.student.head.num_classes=4",
                "model.teacher.head.num_classes=4",
            ],
            "another number of classes",
        ),
        (
            [
                "model.teacher_checkpoint=''",
                "model.student.head.num_classes=4",
                "model.teacher.head.num_classes=4",
            ],
            "dataset 'tiny_digits_train' has 10 classes, the model 4",
        ),
    ],
)
def test_a_teacher_that_does_not_fit_is_one_line(finished, tmp_path, capsys, overrides, message):
    files = {name: tmp_path / f"{name}.pth" for name in ("teacher", "other")}
    files["whole"] = finished / "model_final.pth"
    export_network(str(finished / "model_final.pth"), "teacher", str(files["teacher"]))
    torch.save({"model": {"something.else": torch.zeros(3)}}, files["other"])
    with pytest.raises(SystemExit) as exit_:
        run(LAD, tmp_path / "lad", *[text.format(**files) for text in overrides])
    assert exit_.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "error: " in error
    assert message in error
    assert not list((tmp_path / "lad").glob("*.pth"))
