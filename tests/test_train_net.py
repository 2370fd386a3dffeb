"""The command line, end to end on a toy training."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog

import lad.engine.run
import train_net
from lad.checkpoint import read_weights
from lad.engine.command_line import parse_arguments
from lad.engine.config import load_config
from lad.engine.run import run as run_process
from lad.engine.run import start_training
from lad.engine.trainer import Trainer
from toy_training import PairModel, ToyEvaluator, ToyModel

ROOT = Path(__file__).parent.parent
CONFIG = str(Path(__file__).parent / "engine/toy_config.py")
SOURCES = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "projects")])
TIMES = ("time", "data_time", "eta_seconds", "rank_data_time", "eval_seconds")


def run(folder, *overrides, flags=()):
    train_net.main(["--config-file", CONFIG, *flags, f"train.output_dir={folder}", *overrides])
    return folder


def metrics(folder):
    """metrics.json as {iteration: values}, without times; later lines complete earlier ones."""
    lines: dict = {}
    for line in (folder / "metrics.json").read_text().splitlines():
        values = json.loads(line)
        lines.setdefault(values["iteration"], {}).update(
            {k: v for k, v in values.items() if k not in TIMES}
        )
    return lines


def final(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with everything switched on."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    return run(folder, *SWITCHES)


SWITCHES = ("train.ema.enabled=true", "train.best.metric=toy/AP", "train.accumulate=2")


def test_output_folder_is_detectron2s(finished):
    names = {path.name for path in finished.iterdir()}
    assert {
        "config.yaml",
        "log.txt",
        "metrics.json",
        "last_checkpoint",
        "model_0000002.pth",
        "model_0000005.pth",
        "model_final.pth",
        "model_best.pth",
    } <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert load_config(str(finished / "config.yaml")).train.max_iter == 6
    assert (finished / "last_checkpoint").read_text() == "model_final.pth"
    lines = metrics(finished)
    assert sorted(lines) == [0, 1, 2, 3, 4, 5, 6]
    assert {"total_loss", "loss_square", "loss_size", "lr"} <= lines[0].keys()
    assert [i for i in lines if "toy/AP" in lines[i]] == [1, 3, 6]


def test_learning_rate_warms_up_and_drops(finished):
    rates = [line["lr"] for _, line in sorted(metrics(finished).items())[:6]]
    expected = [0.05 * x for x in (0.001, 0.5005, 1, 1, 1, 0.1)]
    torch.testing.assert_close(rates, expected, rtol=1e-6, atol=0)


def test_run_resumed_after_a_kill_equals_the_whole_run(finished, tmp_path, monkeypatch):
    folder = tmp_path / "resumed"
    original = Trainer.run_step

    def killed(trainer):
        if trainer.iter == 4:
            raise KeyboardInterrupt  # past the checkpoint at iteration 2
        original(trainer)

    monkeypatch.setattr(Trainer, "run_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(folder, *SWITCHES)
    monkeypatch.undo()
    assert (folder / "last_checkpoint").read_text() == "model_0000002.pth"
    run(folder, *SWITCHES, flags=["--resume"])
    assert_same(final(folder), final(finished))
    assert metrics(folder) == metrics(finished)
    assert_same(
        torch.load(folder / "model_best.pth", weights_only=True),
        torch.load(finished / "model_best.pth", weights_only=True),
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_stops_and_the_resumed_run_equals_the_whole_run(
    finished, tmp_path, monkeypatch, capsys, number
):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    folder = tmp_path / "stopped"
    hook = f"{{_target_:toy_training.SignalItself,iteration:4,number:{int(number)}}}"
    windows = ("train.log_period=4", "train.eval_period=2")
    whole = run(tmp_path / "whole", *SWITCHES, *windows)
    assert_same(final(whole)["model"], final(finished)["model"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        run(folder, *SWITCHES, *windows, f"train.hooks=[{hook}]")
    assert exit_.value.code == 128 + number
    last = capsys.readouterr().out.splitlines()[-1]
    assert "iteration 5 of 6 is saved" in last and "same command with --resume goes on" in last
    assert (folder / "last_checkpoint").read_text() == "model_latest.pth"
    run(folder, *SWITCHES, *windows, "--resume")  # a flag after the overrides
    assert_same(final(folder), final(whole))
    lines = metrics(folder)
    del lines[4]  # written when it stopped
    assert lines == metrics(whole)  # the last line is over iterations before the stop, too
    assert not (folder / "model_latest.pth").exists()
    assert_same(
        torch.load(folder / "model_best.pth", weights_only=True),
        torch.load(whole / "model_best.pth", weights_only=True),
    )


def test_evaluation_that_a_signal_stops_is_repeated(finished, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(ToyEvaluator, "evaluate", lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as exit_:
            run(folder, *SWITCHES)
    assert exit_.value.code == 128 + signal.SIGTERM
    assert "iteration 2 of 6 is saved" in capsys.readouterr().out.splitlines()[-1]
    run(folder, *SWITCHES, flags=["--resume"])
    assert_same(final(folder), final(finished))
    assert metrics(folder) == metrics(finished)


def scores(monkeypatch, values):
    """Makes the evaluations of a run give these values in turn."""
    values = iter(values)
    monkeypatch.setattr(ToyEvaluator, "evaluate", lambda _: {"toy": {"AP": next(values)}})


EARLY = ("train.best.metric=toy/AP", "train.early_stop.patience=2", "train.eval_period=1")


def test_early_stop(tmp_path, monkeypatch, capsys):
    scores(monkeypatch, [1.0, 3.0, 3.0, float("nan"), 9.0])
    folder = run(tmp_path / "run", *EARLY)
    assert torch.load(folder / "model_final.pth", weights_only=True)["iteration"] == 3
    text = "stopped early after iteration 4 of 6: 2 evaluations without a better toy/AP"
    results = json.loads((folder / "results.json").read_text())
    assert results["stopped_early"] == text and results["iterations"] == 4
    assert results["best"] == {"metric": "toy/AP", "value": 3.0, "iteration": 2}
    assert text in capsys.readouterr().out
    assert text in (folder / "results.md").read_text()
    lines = (folder / "metrics.json").read_text().splitlines()
    assert all("NaN" not in line for line in lines)
    assert [json.loads(x).get("toy/AP") for x in lines] == [1.0, 3.0, 3.0, None]
    # There is nothing to resume, except with more patience.
    before = final(folder)
    run(folder, *EARLY, flags=["--resume"])
    assert_same(final(folder), before)
    scores(monkeypatch, [2.0, 2.0])
    run(folder, *EARLY, "train.early_stop.patience=3", flags=["--resume"])
    assert final(folder)["iteration"] == 4


def test_early_stop_counts_evaluations_before_a_kill(tmp_path, monkeypatch):
    original = Trainer.run_step

    def killed(trainer):
        if trainer.iter == 3:
            raise KeyboardInterrupt
        original(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_step", killed)
        scores(patch, [1.0, 3.0, 2.0])
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", *EARLY)
    scores(monkeypatch, [1.0, 9.0])
    run(tmp_path / "run", *EARLY, flags=["--resume"])
    assert final(tmp_path / "run")["iteration"] == 3


def test_dry_run_leaves_nothing(tmp_path, capsys):
    folder = tmp_path / "output/run"
    run(folder, *SWITCHES, "train.eval_period=1", flags=["--dry-run"])
    assert not (tmp_path / "output").exists()
    output = capsys.readouterr().out
    assert "Dry run: 2 step(s) done. Memory " in output and "for 6 iterations" in output
    assert "Evaluat" not in output.split("Starting training")[1]
    with pytest.raises(SystemExit):
        run(folder, flags=["--dry-run", "--resume"])
    assert "goes with neither --resume nor --eval-only" in capsys.readouterr().err


def test_a_failed_start_leaves_nothing(tmp_path, capsys):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "notes.txt").touch()
    for folder in (tmp_path / "output/run", kept):
        with pytest.raises(SystemExit):
            run(folder, "optimizer.lr=-1")
    assert [x.name for x in tmp_path.iterdir()] == ["kept"]
    assert [x.name for x in kept.iterdir()] == ["notes.txt"]


def test_what_the_console_shows(tmp_path, capsys):
    folder = run(tmp_path / "run", flags=["--resume"])
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if "Starting training from iteration 0" in line)
    assert start < 15
    assert any(f"--resume: {folder} has no checkpoint" in line for line in lines[:start])
    assert any("Model: ToyModel" in x and "random initial weights" in x for x in lines[:start])
    (line,) = [x for x in lines if "iter 3/6" in x]
    for part in ("loss ", "square ", "size ", "lr 0.05", "mem "):
        assert part in line
    log = (folder / "log.txt").read_text()
    assert "\033" not in log and "\033" not in "\n".join(lines)
    for hidden in ("Environment:", "Config file", "max_iter: 6", "Saving checkpoint to"):
        assert hidden in log and not any(hidden in line for line in lines)
    assert "not built correctly" not in log


def test_evaluation_of_a_file_spares_the_results_of_another_run(finished, tmp_path, capsys):
    (tmp_path / "student.pth").write_bytes((finished / "model_final.pth").read_bytes())
    with pytest.raises(SystemExit):
        run(finished, f"train.init_checkpoint={tmp_path}/student.pth", flags=["--eval-only"])
    assert "inference/ would be overwritten: choose another" in capsys.readouterr().err


def test_two_runs_with_a_seed_are_equal_to_the_bit(finished, tmp_path):
    folder = run(tmp_path / "again", *SWITCHES)
    assert_same(final(folder), final(finished))
    assert metrics(folder) == metrics(finished)


def test_finished_run_is_not_overwritten(finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    with pytest.raises(SystemExit) as exit_:
        run(finished)
    assert exit_.value.code == 2
    assert "holds checkpoints of another run" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in finished.iterdir()}


def test_eval_only_gives_the_trainings_figures(finished, tmp_path):
    last = metrics(finished)[6]["toy/AP"]
    run(finished, *SWITCHES, flags=["--eval-only", "--resume"])
    results = json.loads((finished / "inference/results.json").read_text())
    assert results == {"toy/AP": pytest.approx(last, rel=1e-6)}  # of the averaged weights
    other = run(
        tmp_path / "other",
        f"train.init_checkpoint={finished}/model_best.pth",
        flags=["--eval-only"],
    )
    results = json.loads((other / "inference/results.json").read_text())
    best = max(line["toy/AP"] for line in metrics(finished).values() if "toy/AP" in line)
    assert results == {"toy/AP": pytest.approx(best, rel=1e-6)}


def test_initial_weights(finished, tmp_path):
    folder = run(
        tmp_path / "tuned",
        f"train.init_checkpoint={finished}/model_final.pth",
        "train.max_iter=1",
        "optimizer.lr=0",
        "optimizer.weight_decay=0",
    )
    start = read_weights(str(finished / "model_final.pth"))
    assert torch.equal(final(folder)["model"]["hidden.weight"], start["hidden.weight"])


def test_two_networks_are_evaluated_and_either_can_be_best(tmp_path):
    cfg = load_config(
        CONFIG, [f"train.output_dir={tmp_path}/pair", "train.best.metric=teacher/toy/AP"]
    )
    cfg.model = L(PairModel)(student=L(ToyModel)(), teacher=L(ToyModel)())
    run_process(parse_arguments([]), cfg)
    lines = metrics(tmp_path / "pair")
    assert {"student/toy/AP", "teacher/toy/AP"} <= lines[6].keys()
    best = torch.load(tmp_path / "pair/model_best.pth", weights_only=True)
    assert best["metrics"].keys() == {"teacher/toy/AP"}


def test_training_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", SOURCES, prepend=os.pathsep)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    folder, log = tmp_path / "run", tmp_path / "log.txt"
    arguments = ["--config-file", CONFIG, f"train.output_dir={folder}", "train.max_iter=1"]
    with start_training(arguments, log, threads=1) as process:
        assert process.wait() == 0
    assert (folder / "model_final.pth").is_file()
    assert "Starting training from iteration 0" in log.read_text()
    with start_training(arguments, log) as process:
        assert process.wait() == 2
    assert "error: train.output_dir=" in log.read_text().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config-file is missing"),
        (["--config-file", "nowhere.py"], "--config-file nowhere.py: there is no such file"),
        (["--config-file", CONFIG, "train.max_iters=1"], "nearest known key is train.max_iter"),
        (["--config-file", CONFIG, "train.device=tpu"], "train.device='tpu'"),
        (["--config-file", CONFIG, "train.init_checkpoint=no.pth"], "train.init_checkpoint=no.pth"),
        (["--config-file", CONFIG, "--eval-only"], "nothing to evaluate"),
        (["--config-file", CONFIG, "train.accumulate=0"], "train.accumulate=0"),
        (["--config-file", CONFIG, "dataloader.train.total_batch_size=0"], "total_batch_size=0"),
        (["--config-file", CONFIG, "optimizer.lr=-1"], "Invalid learning rate"),
        (
            ["--config-file", CONFIG, "train.hooks=[{_target_:lad.engine.RoleSwitchHook}]"],
            "override train.hooks.0._target_=lad.engine.RoleSwitchHook is refused",
        ),
        (
            ["--config-file", CONFIG, "train.hooks=[{_target_:toy_training.ToyModel}]"],
            "train.hooks.0: ToyModel is no hook",
        ),
        (
            [
                "--config-file",
                CONFIG,
                "train.hooks=[{_target_:lad.engine.role_switch.RoleSwitchHook,output_dir:x}]",
            ],
            "RoleSwitchHook needs a model with a switch",
        ),
    ],
)
def test_user_errors_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        train_net.main(arguments)
    assert exit_.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert ": error: " in error
    assert message in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_several_gpus_on_a_cpu_machine(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        run(tmp_path, flags=["--num-gpus", "2"])
    assert exit_.value.code == 2
    assert "torchrun --nproc_per_node N" in capsys.readouterr().err


def torchrun(*arguments):
    path = os.pathsep.join([SOURCES, *filter(None, sys.path)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
        + ["--master_port", "0", "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
        + [str(ROOT / "train_net.py"), "--config-file", CONFIG, "train.device=cpu", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


OVERRIDES = ["model.dropout=0", "train.hooks=[{_target_:toy_training.SameWeights}]"]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """A finished run of two processes."""
    folder = tmp_path_factory.mktemp("two") / "run"
    result = torchrun(f"train.output_dir={folder}", *OVERRIDES)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def test_all_processes_stop_after_the_same_iteration(two_processes, tmp_path):
    folder = tmp_path / "stopped"
    # The second process alone gets the signal.
    hook = "{_target_:toy_training.SignalItself,iteration:3,rank:1}"
    hooks = f"train.hooks=[{{_target_:toy_training.SameWeights}},{hook}]"
    result = torchrun(f"train.output_dir={folder}", "model.dropout=0", hooks)
    assert result.returncode != 0
    assert "SIGTERM: iteration 4 of 6 is saved" in result.stdout
    assert "Traceback" not in result.stderr.split("torch/distributed")[0]
    result = torchrun(f"train.output_dir={folder}", *OVERRIDES, "--resume")
    assert result.returncode == 0, result.stderr[-3000:]
    assert_same(final(folder), final(two_processes))
    assert metrics(folder) == metrics(two_processes)


def test_two_processes_train_as_one(two_processes, tmp_path):
    """Without dropout, whose draws differ by rank, halves of the batch give the whole's losses."""
    one = run(tmp_path / "one", "train.device=cpu", *OVERRIDES)
    ours, theirs = metrics(two_processes), metrics(one)
    assert ours.keys() == theirs.keys()
    assert [ours[i].pop("ranks") for i in range(6)] == [2] * 6
    assert [theirs[i].pop("ranks") for i in range(6)] == [1] * 6
    for iteration, line in ours.items():
        torch.testing.assert_close(line, theirs[iteration], rtol=1e-5, atol=1e-6)
    for name, value in final(two_processes)["model"].items():
        torch.testing.assert_close(value, final(one)["model"][name], rtol=1e-5, atol=1e-6)


def test_a_started_process_registers_the_datasets_of_the_config(tmp_path, monkeypatch):
    config = tmp_path / "config.py"
    annotations = tmp_path / "val.json"
    sections = "model, dataloader, optimizer, lr_multiplier, train"
    lines = ["from lad import get_config", "from lad.data import register_coco"]
    lines += [f"register_coco('lad_test_dataset', '{annotations}', '{tmp_path}')"]
    lines += ["base = get_config('digits/paa.py')"]
    lines += [f"{sections} = (base[x] for x in '{sections}'.split(', '))"]
    config.write_text("\n".join(lines))
    arguments = parse_arguments(["--config-file", str(config)])
    seen = []

    def stop(*_):
        seen.append("lad_test_dataset" in DatasetCatalog.list())
        raise ValueError("stopped")

    monkeypatch.setattr(lad.engine.run, "set_up", stop)
    try:
        for parent in (None, "a process"):  # of processes that Detectron2 starts
            monkeypatch.setattr(multiprocessing, "parent_process", lambda parent=parent: parent)
            with pytest.raises(SystemExit):
                run_process(arguments, None)
    finally:
        DatasetCatalog.remove("lad_test_dataset")
        MetadataCatalog.remove("lad_test_dataset")
    assert seen == [False, True]
