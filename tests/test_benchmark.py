"""The benchmarks' logic on tiny sizes; speed is not tested."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import __main__ as benchmark
from benchmarks import assignment, evaluation, export, loader, measure, scaling
from benchmarks.measure import Report, interleaved, peak_memory

TOOL = Path(__file__).parents[1] / "tools/benchmark.py"


def test_assignment_reports_targets_and_json(tmp_path):
    command = [
        *(sys.executable, str(TOOL), "assignment", "--size", "96x128", "--objects", "1,7"),
        *("--repeats", "1", "--threads", "1"),
        *("--json", str(tmp_path / "out.json")),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [x for x in result.stdout.splitlines() if x.startswith("target ")]
    assert len(lines) == 3, result.stdout + result.stderr
    for count, line in zip((1, 7), lines, strict=False):
        name = f"target assignment-differing-labels-{count}"
        assert line == f"{name}: measured 0, wanted <= 0, ok"
    assert lines[2].startswith("target assignment-speedup-7: measured ")
    assert result.returncode == int(lines[2].endswith(", short"))
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["mode"] == "assignment" and content["threads"] == 1
    assert content["targets"][2]["wanted"] == ">= 7"
    assert all(value > 0 for value in content["figures"].values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["assignment", "--size", "800"], "'800' is not height x width, such as 800x1344"),
        (["assignment", "--objects", "7,0"], "'7,0' is not a list of numbers"),
        (["loader", "--data", "voc"], "invalid choice: 'voc'"),
        (["training"], "invalid choice: 'training'"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        benchmark.main()
    assert stop.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]


def test_a_missed_target_makes_the_status_1(tmp_path, capsys):
    report = Report("step")
    report.at_least("fast", 3.0, 2)
    report.at_most("small", 1.0, 1.0)
    assert report.finish(None) == 0
    report.at_most("tight", 1.2, 1.1)
    assert report.finish(tmp_path / "out.json") == 1
    assert "target tight: measured 1.2, wanted <= 1.1, short" in capsys.readouterr().out
    assert [x["ok"] for x in json.loads((tmp_path / "out.json").read_text())["targets"]] == [
        True,
        True,
        False,
    ]


def test_variants_take_turns_and_the_median_counts(monkeypatch):
    clock = iter([0, 9, 0, 9, 0, 1, 0, 2, 0, 3, 0, 4, 0, 100, 0, 6])  # start, end; start, end ...
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    calls = []
    variants = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    assert interleaved(variants, repeats=3) == {"a": 3, "b": 4}  # 9 and 9 warmed up
    assert calls == ["a", "b"] * 4


def test_quick_variants_are_called_until_their_turn_is_over(monkeypatch):
    clock = iter([0, 1, 0, 1, 0, 1, 0, 5])
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    calls = []
    variants = {"quick": lambda: calls.append("quick"), "slow": lambda: calls.append("slow")}
    assert interleaved(variants, repeats=1, warmup=0, turn=3) == {"quick": 1, "slow": 5}
    assert calls == ["quick"] * 3 + ["slow"]


def test_peak_memory_is_the_most_held_at_once():
    def call():
        first = torch.ones(1 << 20)
        del first
        kept = [torch.ones(1 << 20), torch.ones(1 << 20)]
        del kept

    assert peak_memory(call) == pytest.approx(2 * 4 * (1 << 20), rel=0.05)


def test_anchors_with_other_labels_are_counted_once():
    labels = torch.zeros(1, 4)
    changed = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    same = assignment.Assignment(labels, labels)
    assert assignment.count_differing(same, same) == 0
    assert assignment.count_differing(same, assignment.Assignment(changed, changed)) == 1
    assert assignment.count_differing(same, assignment.Assignment(labels, labels + 1)) == 4


def test_both_evaluations_agree_on_the_synthetic_detections():
    report = Report("evaluation")
    evaluation.run(SimpleNamespace(images=20, repeats=1), report)
    speedup, numbers = report.targets
    assert speedup["name"] == "evaluation-speedup" and speedup["measured"] > 0
    assert numbers["name"] == "evaluation-12-numbers" and numbers["ok"]


def test_there_are_a_hundred_synthetic_detections_per_image():
    rng = np.random.default_rng(0)
    truth = evaluation.make_ground_truth(3, rng)
    detections = evaluation.make_detections(truth, rng)
    assert [x["image_id"] for x in detections] == [1] * 100 + [2] * 100 + [3] * 100
    assert {x["image_id"] for x in truth["annotations"]} == {1, 2, 3}


def test_exported_files_are_measured():
    report = Report("export")
    args = SimpleNamespace(size=(64, 64), models=["small"], threads=1, repeats=1)
    export.run(args, report)
    names = ["small, file [MiB]", "small, ONNX Runtime [ms]", "small, PyTorch [ms]"]
    assert list(report.figures) == names
    assert all(value > 0 for value in report.figures.values())


def test_photos_are_jpegs_of_the_stated_size(tmp_path):
    records = loader.write_photos(tmp_path)
    assert len(records) == loader.FILES
    with loader.Image.open(records[0]["file_name"]) as image:
        assert (image.height, image.width) == loader.PHOTO == (480, 640)


def test_scaling_reports_each_number_of_processes(monkeypatch):
    seconds = {1: 0.5, 2: 1.0}
    monkeypatch.setattr(scaling, "step_seconds", lambda args, processes, images: seconds[processes])
    report = Report("scaling")
    scaling.run(SimpleNamespace(processes=[1, 2], total=None, per_process=4), report)
    assert list(report.figures.values()) == [500, 8, 1000, 8, 100, 50]


def test_scaling_times_a_real_training(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    args = SimpleNamespace(
        config_file=str(Path(__file__).with_name("engine") / "toy_config.py"),
        device="cpu",
        threads=1,
        iterations=4,
        opts=["model.dropout=0"],
    )
    assert 0 < scaling.step_seconds(args, 1, 4) < 60
    args.opts = ["train.max_itre=1"]
    with pytest.raises(RuntimeError, match="(?s)1 processes: .*unknown key train.max_itre"):
        scaling.step_seconds(args, 1, 4)
