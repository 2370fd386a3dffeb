"""What a training says at its start and at its end."""

from __future__ import annotations

import json
import math

import pytest
import torch
from test_setup import CONFIG

from lad.engine.config import load_config
from lad.engine.report import (
    blow_up,
    collect_results,
    describe_run,
    describe_training,
    results_markdown,
    split_figures,
    write_results,
)
from toy_training import PairModel, ToyModel

ROWS = [
    {"iteration": 0, "teacher/bbox/AP": 40.0, "teacher/bbox/AP-cat": 40.0},
    {"iteration": 1, "bbox/AP": 30.0, "bbox/AP50": 50.0, "bbox/AP-cat": 35.0, "bbox/AP-a/b": None},
    {"iteration": 1, "total_loss": 1.0, "switch/student": 2.0},
    {"iteration": 3, "total_loss": 0.5},
    {
        "iteration": 4,
        "bbox/AP": 20.0,
        "bbox/AP50": None,
        "bbox/AP-cat": 25.0,
        "bbox/AP-a/b": None,
        "val/total_loss": 1.0,
    },
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "model_final.pth").touch()
    return tmp_path


def test_results_are_of_the_last_evaluation_and_the_best_of_all(folder):
    results = collect_results(str(folder))
    assert results.iterations == 4
    assert results.figures["teacher"]["bbox"] == {"AP": 40.0}
    assert results.figures[""]["bbox"]["AP"] == 20.0
    assert results.classes[""]["bbox"]["cat"] == 25.0
    assert results.best == ("bbox/AP", 30.0, 2)
    assert results.losses == {"val/total_loss": 1.0}
    assert results.files == {
        "final checkpoint": f"{folder}/model_final.pth",
        "metrics": f"{folder}/metrics.json",
    }
    assert collect_results(str(folder), best_metric="teacher/bbox/AP").best.value == 40.0


def test_an_evaluation_without_detections_has_no_classes(folder):
    with open(folder / "metrics.json", "a") as file:
        file.write("\n" + json.dumps({"iteration": 6, "bbox/AP": None, "bbox/AP50": None}))
    results = collect_results(str(folder))
    assert math.isnan(results.figures[""]["bbox"]["AP"]) and "" not in results.classes
    assert results.classes["teacher"]["bbox"] == {"cat": 40.0}, "of its own evaluation"


def test_tables(folder):
    results = collect_results(str(folder))
    lines = [line.replace(" ", "") for line in results_markdown(results)]
    assert "||AP|AP50|" in lines
    assert "|studentbbox|20.00|-|" in lines and "|teacherbbox|40.00|-|" in lines
    assert "|cat|25.00|40.00|" in lines and "|a/b|-|-|" in lines
    assert "-bestbbox/AP:30.00afteriteration2" in lines


def test_results_are_written(folder):
    write_results(str(folder), collect_results(str(folder), stopped_early="stopped early"))
    assert (folder / "results.md").read_text().startswith("# Results, stopped early\n\n|")
    written = json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)
    assert written["figures"][""]["bbox"] == {"AP": 20.0, "AP50": None}
    assert written["best"] == {"metric": "bbox/AP", "value": 30.0, "iteration": 2}


def test_a_training_without_evaluations(tmp_path):
    (tmp_path / "metrics.json").write_text('{"iteration": 1, "total_loss": 1.0}\n')
    results = collect_results(str(tmp_path))
    assert results.iterations == 2 and results.best is None
    assert "No evaluation." in results_markdown(results)


def test_names_of_metrics():
    figures, classes = split_figures({"student/bbox/AP": 1.0, "segm/AP-x/AP-y": 2.0})
    assert figures == {"student": {"bbox": {"AP": 1.0}}}
    assert classes == {"": {"segm": {"x/AP-y": 2.0}}}


def test_networks_weights_and_device_are_said():
    model = PairModel(student=ToyModel(), teacher=ToyModel(), teacher_checkpoint="teacher.pth")
    model.teacher.requires_grad_(False)
    config = load_config(CONFIG, ["train.output_dir=out", "train.ema.enabled=true"])
    lines = describe_run(config, model, config_file="configs/x.py")
    assert lines[0].endswith(f"device: CPU, {torch.get_num_threads()} thread(s)")
    assert lines[1] == "Config: configs/x.py, as a whole in out/config.yaml"
    assert lines[2] == "Method: PairModel"
    assert lines[3].endswith("trained; random initial weights")
    assert lines[4] == "Teacher: ToyModel, 0.0 M parameters, frozen; weights: teacher.pth"
    (line,) = describe_run(config, ToyModel(), resume_from="out/model_latest.pth")[2:]
    assert line.endswith("trained; weights: out/model_latest.pth")
    optimizer = torch.optim.SGD(model.student.parameters(), lr=0.05)
    text = "\n".join(describe_training(config, optimizer))
    for part in ("6 iterations of 4 images, seed 7", "SGD, lr 0.05", "(EMA)", "every 3 iterations"):
        assert part in text


@pytest.mark.parametrize(
    ("losses", "warned"),
    [([2.0, 1, 0.5, 0.4], False), ([2.0, 2, 30, 40], True), ([], False), ([1.0], False)],
)
def test_losses_that_have_grown_are_warned_about(losses, warned):
    rows = [{"iteration": i, "total_loss": x} for i, x in enumerate(losses)]
    assert ("learning rate" in blow_up(rows)) == warned
