"""metrics.json, the console's line and services for experiments."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_setup import CONFIG

from lad.engine.build import writers
from lad.engine.config import load_config
from lad.engine.writers import (
    ClearMLWriter,
    ConsoleWriter,
    MetricsPeriod,
    MetricsWriter,
    MLflowWriter,
    TensorBoardWriter,
    WandbWriter,
    memory,
)
from lad.metrics import read_metrics, series


def test_numbers_that_json_has_not_are_null(tmp_path):
    writer = MetricsWriter(str(tmp_path / "metrics.json"), window=2)
    with EventStorage(0) as storage:
        storage.put_scalar("AP", float("nan"))
        storage.put_scalar("loss", 1.0)
        writer.write()
        storage.step()
        storage.put_scalar("loss", float("inf"))
        writer.write()
        writer.write()  # nothing new
    writer.close()
    lines = (tmp_path / "metrics.json").read_text().splitlines()
    strict = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert strict == [
        {"AP": None, "iteration": 0, "loss": 1.0},
        {"iteration": 1, "loss": None},
    ]
    steps, values = series(read_metrics(tmp_path / "metrics.json"), "loss")
    assert steps == [0, 1] and values[0] == 1.0 and values[1] != values[1]


def test_metrics_of_an_iteration_that_the_file_has_go_into_its_line(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 0, "loss": 2.0}\n{"iteration": 1, "loss": null}\n')
    writer = MetricsWriter(str(path), window=2)
    with EventStorage(1) as storage:
        storage.put_scalar("AP", 3.0)
        writer.write()
        storage.step()
        storage.put_scalar("loss", 1.0)
        writer.write()
    writer.close()
    assert [json.loads(x) for x in path.read_text().splitlines()] == [
        {"iteration": 0, "loss": 2.0},
        {"AP": 3.0, "iteration": 1, "loss": None},
        {"iteration": 2, "loss": 1.0},
    ]


def test_tensorboard_draws_no_iteration_of_a_resumed_run_twice(tmp_path):
    for start, value in ((0, 1.0), (2, 5.0)):
        writer = TensorBoardWriter(str(tmp_path), window=1)
        hook = MetricsPeriod([writer], period=2)
        with EventStorage(start) as storage:
            hook.trainer = SimpleNamespace(
                start_iter=start, iter=start, max_iter=4, storage=storage
            )
            hook.before_train()
            for i in range(start, 4):
                hook.trainer.iter = i
                storage.put_scalar("loss", value)
                if i == 2:  # an evaluation between two logged iterations
                    storage.put_scalar("AP", value)
                hook.after_step()
                storage.step()
            hook.after_train()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(x.step, x.value) for x in events.Scalars("loss")] == [(1, 1.0), (3, 5.0)]
    assert [(x.step, x.value) for x in events.Scalars("AP")] == [(2, 5.0)]


def test_an_evaluation_between_two_lines_is_written(tmp_path, caplog):
    path = tmp_path / "metrics.json"
    writers = [ConsoleWriter(8, 4), MetricsWriter(str(path), window=4)]
    hook = MetricsPeriod(writers, period=4)
    with EventStorage(0) as storage, caplog.at_level("INFO", logger="lad"):
        hook.trainer = SimpleNamespace(start_iter=0, iter=0, max_iter=8, storage=storage)
        hook.before_train()
        for hook.trainer.iter in range(8):
            storage.put_scalars(total_loss=1.0, lr=0.1)
            if hook.trainer.iter in (1, 2, 3):
                ap = 10.0 * hook.trainer.iter
                storage.put_scalars(**{"bbox/AP": ap, "eval_seconds": 1.0}, smoothing_hint=False)
            hook.after_step()
            storage.step()
        hook.after_train()
    assert series(read_metrics(path), "bbox/AP") == ([1, 2, 3], [10.0, 20.0, 30.0])
    assert series(read_metrics(path), "total_loss")[0] == [1, 2, 3, 7]
    assert [x.getMessage().split("  ")[0] for x in caplog.records] == ["iter 4/8", "iter 8/8"]


def test_an_evaluation_that_a_resumed_run_repeats_is_written(tmp_path):
    path = tmp_path / "metrics.json"
    hook = MetricsPeriod([MetricsWriter(str(path), window=4)], period=4)
    with EventStorage(3) as storage:
        hook.trainer = SimpleNamespace(start_iter=3, iter=3, max_iter=8, storage=storage)
        storage.iter = 2  # as the evaluation's hook does
        metrics = {"bbox/AP": 7.0, "eval_seconds": 1.0, "total_loss": 1.0}
        storage.put_scalars(**metrics, smoothing_hint=False)
        storage.iter = 3
        hook.before_train()
    assert read_metrics(path) == [metrics | {"iteration": 2}]


def test_tensorboard_gets_no_file_without_metrics(tmp_path):
    TensorBoardWriter(str(tmp_path), window=1).close()
    assert not list(tmp_path.iterdir())


def line(caplog, max_iter=300, **scalars):
    """The console's line after iteration 19."""
    caplog.set_level("INFO")
    with EventStorage(19) as storage:
        for name, value in flatten_results_dict(scalars).items():
            storage.put_scalar(name, value)
        ConsoleWriter(max_iter, window=20).write()
        eta = storage.latest().get("eta_seconds")
    return (caplog.messages or [""])[-1], eta


def test_the_line_of_an_interval(caplog):
    text, eta = line(
        caplog,
        total_loss=1.5,
        loss_cls=1.0,
        loss_box_reg=0.5,
        val={"total_loss": 9.0},
        lr=0.001,
        time=0.5,
        data_time=0.01,
        switch={"student": 0.5, "teacher": 0.75, "student_taught": 0.0},
    )
    start, memory_part = text.rsplit("  ", 1)
    assert start == (
        "iter 20/300  loss 1.5 (cls 1, box_reg 0.5)  "
        "taught by teacher (student 0.5, teacher 0.75)  lr 0.001  0.5 s/iter  eta 0:02:20"
    )
    assert memory_part.startswith("mem ") and memory_part.endswith(" GB")
    assert eta == (140.0, 19)


def test_a_slow_loader_and_shared_roles_are_said(caplog):
    text, _ = line(caplog, lr=0.1, time=0.5, data_time=0.4, switch={"student_taught": 0.25})
    assert "taught by student 25%  lr 0.1  0.5 s/iter (0.4 s for data)" in text


def test_no_line_before_the_first_step_and_after_the_last(caplog):
    assert line(caplog)[0] == ""
    assert line(caplog, max_iter=19, lr=0.1)[0] == ""


def test_memory_without_a_gpu_is_that_of_this_process(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert 2**26 < memory() < 2**40


class Service(MagicMock):
    """A module that takes any call."""


def write_with(writer):
    """Two iterations through a writer; the second has one new metric."""
    writer.start({"train": {"max_iter": 2}}, 1)
    with EventStorage(0) as storage:
        storage.put_scalars(loss=1.0, lr=0.1)
        writer.write()
        storage.step()
        storage.put_scalar("bbox/AP", 30.0)
        writer.write()
    writer.close()


def test_wandb(monkeypatch):
    module = Service()
    monkeypatch.setitem(sys.modules, "wandb", module)
    write_with(WandbWriter(project="cells"))
    module.init.assert_called_once_with(config={"train": {"max_iter": 2}}, project="cells")
    sent = [(call.args[0], call.kwargs["step"]) for call in module.init().log.call_args_list]
    assert sent == [({"loss": 1.0, "lr": 0.1}, 0), ({"bbox/AP": 30.0}, 1)]
    module.init().finish.assert_called_once_with()


def test_mlflow(monkeypatch):
    module = Service()
    monkeypatch.setitem(sys.modules, "mlflow", module)
    write_with(MLflowWriter(experiment="cells", run_name="first"))
    module.set_experiment.assert_called_once_with("cells")
    module.start_run.assert_called_once_with(run_name="first")
    sent = [(call.args[0], call.kwargs["step"]) for call in module.log_metrics.call_args_list]
    assert sent == [({"loss": 1.0, "lr": 0.1}, 0), ({"bbox/AP": 30.0}, 1)]
    module.end_run.assert_called_once_with()
    MLflowWriter().put({"bbox/AP-chip (broken)": 1.0}, 3)
    module.log_metrics.assert_called_with({"bbox/AP-chip _broken_": 1.0}, step=3)


def test_clearml(monkeypatch):
    module = Service()
    monkeypatch.setitem(sys.modules, "clearml", module)
    write_with(ClearMLWriter(project_name="cells"))
    module.Task.init.assert_called_once_with(project_name="cells")
    report = module.Task.init().get_logger().report_scalar
    assert [call.args for call in report.call_args_list] == [
        ("loss", "loss", 1.0, 0),
        ("lr", "lr", 0.1, 0),
        ("bbox", "AP", 30.0, 1),
    ]
    module.Task.init().close.assert_called_once_with()


def test_config_with_a_service(monkeypatch, tmp_path):
    node = "train.writers=[{_target_:lad.engine.writers.WandbWriter,project:cells}]"
    config = load_config(CONFIG, [node, f"train.output_dir={tmp_path}"])
    monkeypatch.setitem(sys.modules, "wandb", None)  # not installed
    with pytest.raises(ValueError, match=r"WandbWriter needs the package wandb: pip install wandb"):
        writers(config)
    module = Service()
    monkeypatch.setitem(sys.modules, "wandb", module)
    assert not any(isinstance(x, WandbWriter) for x in writers(config, dry_run=True))
    module.init.assert_not_called()
    for writer in writers(config):
        if not isinstance(writer, WandbWriter):
            writer.close()
    assert module.init.call_args.kwargs["config"]["train"]["max_iter"] == 6
    config.train.writers = [OmegaConf.create({"_target_": "toy_training.ToyModel"})]
    with pytest.raises(ValueError, match=r"train.writers.0: ToyModel is no EventWriter"):
        writers(config)
