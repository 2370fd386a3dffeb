"""Detectors through train_net.py: kills, evaluation of both networks, export, checkpoints."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

from inspect_lgd import main as inspect_lgd_tool
from lad.checkpoint import export_network, load_weights
from lad.engine.config import build, load_config
from lad.engine.run import main, start_training
from lad.metrics import read_metrics

TESTS = Path(__file__).parent
SOURCES = os.pathsep.join([str(TESTS), str(TESTS.parent / "projects")])
CONFIG = str(TESTS / "engine/detector_config.py")
PLAIN = str(TESTS / "engine/plain_config.py")
LAD = str(TESTS / "engine/lad_config.py")
RETINANET = str(TESTS / "engine/retinanet_config.py")
LGD = str(TESTS / "engine/lgd_config.py")
BEFORE = str(TESTS / "engine/colad_v0_config.py")
THREADS = torch.get_num_threads()  # in other processes, which have to round alike
CHECKPOINT_V0 = TESTS / "data/checkpoints/colad_v0.pth"
TIMES = {"time", "data_time", "eta_seconds", "rank_data_time", "eval_seconds"}


@pytest.fixture(scope="module", autouse=True)
def datasets(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(tmp_path_factory.mktemp("datasets")))
        yield


def run(config, folder, *overrides, flags=()):
    main(["--config-file", config, *flags, f"train.output_dir={folder}", *overrides])
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


@pytest.fixture(scope="module")
def finished_retinanet(tmp_path_factory):
    # In a process of its own: in this one, TorchScript may have optimized the focal loss already.
    folder = tmp_path_factory.mktemp("run")
    arguments = ["--config-file", RETINANET, f"train.output_dir={folder}/retinanet"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", SOURCES, prepend=os.pathsep)
        with start_training(arguments, folder / "log.txt", threads=THREADS) as process:
            assert process.wait() == 0, (folder / "log.txt").read_text()
    return folder / "retinanet"


@pytest.fixture(scope="module")
def finished_lgd(tmp_path_factory):
    return run(LGD, tmp_path_factory.mktemp("run") / "lgd")


def inspect_lgd(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["inspect_lgd.py", *map(str, arguments)])
    return inspect_lgd_tool()


def test_lgds_features_are_drawn_and_its_oracle_evaluated(
    finished_lgd, tmp_path, monkeypatch, capsys
):
    run_of = ["--config-file", finished_lgd / "config.yaml"]
    run_of += ["--weights", finished_lgd / "model_final.pth"]
    pictures = ["--pictures", tmp_path / "features", "--count", 2]
    assert inspect_lgd(monkeypatch, *run_of, *pictures, "--oracle") == 0
    assert len(list((tmp_path / "features").glob("*.png"))) == 2
    output = capsys.readouterr().out
    assert re.search(r"no result of the detector:\noracle/bbox/AP ([\d.]+|nan),", output)


def test_what_inspect_lgd_cannot_do_is_one_line(finished_lgd, monkeypatch, capsys):
    run_of = ["--config-file", finished_lgd / "config.yaml"]
    for more, message in (
        (["--weights", finished_lgd / "model_final.pth"], "nothing to do: add --pictures"),
        (["--weights", "no.pth", "--oracle"], "--weights=no.pth: there is no such file"),
    ):
        with pytest.raises(SystemExit) as error:
            inspect_lgd(monkeypatch, *run_of, *more)
        assert error.value.code == 2 and message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        inspect_lgd(monkeypatch, "--config-file", PLAIN, "--weights", "no.pth", "--oracle")
    assert "OneStageDetector has no LGD: add it to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "whole"),
    [(CONFIG, "finished"), (RETINANET, "finished_retinanet"), (LGD, "finished_lgd")],
)
def test_validation_losses_change_nothing(config, whole, tmp_path, monkeypatch, request):
    whole = request.getfixturevalue(whole)
    folder, log = tmp_path / "run", tmp_path / "log.txt"
    monkeypatch.setenv("PYTHONPATH", SOURCES, prepend=os.pathsep)
    arguments = ["--config-file", config, f"train.output_dir={folder}"]
    arguments += ["train.eval_losses=true", "train.eval_period=3"]
    with start_training(arguments, log, threads=THREADS) as process:
        assert process.wait() == 0, log.read_text()
    trained = [torch.load(x / "model_final.pth", weights_only=True) for x in (folder, whole)]
    flat = [torch.utils._pytree.tree_flatten(x) for x in trained]
    assert flat[0][1] == flat[1][1]
    for ours, theirs in zip(flat[0][0], flat[1][0], strict=True):
        equal = torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
        assert equal
    rows = metrics(folder)
    names = {name for name in rows[7] if "loss" in name}
    for iteration in (2, 5, 8):
        assert {f"val/{name}" for name in names} <= rows[iteration].keys()
    assert rows[8]["val/total_loss"] == pytest.approx(
        sum(rows[8][f"val/{name}"] for name in names - {"total_loss"})
    )


@pytest.mark.parametrize(
    ("config", "whole"),
    [(CONFIG, "finished"), (RETINANET, "finished_retinanet"), (LGD, "finished_lgd")],
)
def test_training_killed_and_resumed_equals_the_whole_run(
    config, whole, tmp_path, monkeypatch, request
):
    whole = request.getfixturevalue(whole)
    folder, log = tmp_path / "killed", tmp_path / "log.txt"
    monkeypatch.setenv("PYTHONPATH", SOURCES, prepend=os.pathsep)
    arguments = ["--config-file", config, f"train.output_dir={folder}"]
    # Between iteration 3's line and iteration 4; the checkpoint is iteration 2's.
    with start_training([*arguments, "train.kill_at=4"], log, threads=THREADS) as process:
        assert process.wait() == -signal.SIGKILL, log.read_text()
    assert (folder / "last_checkpoint").read_text() == "model_0000002.pth"
    assert sorted(metrics(folder)) == [0, 1, 2, 3]
    with start_training(["--resume", *arguments], log, threads=THREADS) as process:
        assert process.wait() == 0, log.read_text()
    assert metrics(folder) == metrics(whole)
    expected, found = weights(whole), weights(folder)
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


# Of the code that wrote the checkpoint: mean and deviation of scores, regression and quality.
PREDICTIONS_V0 = {
    "student": [
        (-4.603222897380748, 0.1262857345543781),
        (0.0010257399510500984, 0.09585366118638101),
        (0.04194852968690351, 0.06773810955983757),
    ],
    "teacher": [
        (-4.587969321359402, 0.1237051880592117),
        (-0.015103987178857881, 0.09572616461250519),
        (0.03728918670602734, 0.09463741307910498),
    ],
}


@torch.no_grad()
def test_checkpoint_of_the_first_version_predicts_the_same():
    model = build(load_config(BEFORE), "model").eval()
    report = load_weights(model, str(CHECKPOINT_V0), complete=True)
    assert report.missing == report.unused == report.mismatched == []
    assert len(report.matched) == len(model.state_dict())
    image = (torch.arange(3 * 96 * 96).reshape(3, 96, 96) * 7 % 256).to(torch.uint8)
    for name, network in model.info().networks.items():
        predictions = network.run(network.preprocess_image([{"image": image}])).predictions
        maps = predictions.scores, predictions.regression, predictions.quality
        found = [(x.double().mean().item(), x.double().std().item()) for x in maps]
        torch.testing.assert_close(found, PREDICTIONS_V0[name], rtol=1e-4, atol=1e-6)


def test_training_of_the_first_version_is_resumed(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(CHECKPOINT_V0, folder / "model_0000001.pth")
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    run(BEFORE, folder, "train.max_iter=4", flags=["--resume"])
    lines = metrics(folder)
    assert [i for i in lines if "total_loss" in lines[i]] == [2, 3]
    before = torch.load(CHECKPOINT_V0, weights_only=True)
    after = torch.load(folder / "model_final.pth", weights_only=True)
    states = [x["trainer"]["hooks"]["RoleSwitchHook"] for x in (before, after)]
    assert states[0].keys() == states[1].keys()
    assert states[1]["steps"] == states[0]["steps"] + 2
    assert after["model"].keys() == before["model"].keys()
    assert any(not torch.equal(v, before["model"][k]) for k, v in after["model"].items())


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
    overrides = [f"model.teacher_checkpoint={teacher}", "train.ema.enabled=true"]
    folder = run(LAD, tmp_path / "lad", *overrides)
    start, trained = weights(finished), weights(folder)
    moved = [k for k, v in trained.items() if not torch.equal(v, start[k])]
    assert moved
    assert all(key.startswith("student.") for key in moved)
    content = torch.load(folder / "model_final.pth", weights_only=True)
    averages = content["trainer"]["hooks"]["EMAHook"]["model"]
    assert averages and all(key.startswith("student.") for key in averages)
    again = tmp_path / "again.pth"
    export_network(str(folder / "model_final.pth"), "teacher", str(again))
    first, second = (torch.load(x, weights_only=True)["model"] for x in (teacher, again))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_teacher_that_checkpoints_leave_out_is_read_again(finished, tmp_path):
    teacher = tmp_path / "teacher.pth"
    export_network(str(finished / "model_final.pth"), "teacher", str(teacher))
    overrides = [f"model.teacher_checkpoint={teacher}", "train.ema.enabled=true"]
    folder = run(LAD, tmp_path / "lad", *overrides)
    overrides.append("model.save_teacher=false")
    small = run(LAD, tmp_path / "small", *overrides)
    assert weights(small).keys() == {k for k in weights(folder) if k.startswith("student.")}
    assert metrics(small) == metrics(folder)
    (small / "model_final.pth").unlink()
    (small / "last_checkpoint").write_text("model_0000002.pth")
    run(LAD, small, *overrides, flags=["--resume"])
    assert metrics(small) == metrics(folder)
    # The student is all that its evaluation needs, and its results have no prefix.
    run(LAD, small, *overrides, flags=["--eval-only", "--resume"])
    results = json.loads((small / "inference/results.json").read_text())
    assert results["bbox/AP"] == pytest.approx(metrics(folder)[8]["bbox/AP"], rel=1e-6)


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
        (
            ["train.init_checkpoint={teacher}"],
            "it holds one network: name it in model.student_checkpoint or model.teacher_checkpoint",
        ),
        (["model.teacher_checkpoint={whole}"], "tools/export_network.py makes a checkpoint of one"),
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
                "model.teacher_checkpoint=random",
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


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PLAIN, "tools/export_network.py makes a checkpoint of one of its networks"),
        (LAD, "evaluate it with a config of that network alone"),
    ],
)
def test_evaluation_of_another_number_of_networks(finished, tmp_path, capsys, config, message):
    file = finished / "model_final.pth"
    if config == LAD:
        file = tmp_path / "student.pth"
        export_network(str(finished / "model_final.pth"), "student", str(file))
    with pytest.raises(SystemExit) as exit_:
        run(config, tmp_path / "run", f"train.init_checkpoint={file}", flags=["--eval-only"])
    assert exit_.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"error: train.init_checkpoint={file}: none of its weights fits" in error
    assert message in error
