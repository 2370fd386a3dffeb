"""Runs of the toy training (tests/toy_training.py) for cases: whole, killed in a child, resumed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pkgutil
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from unittest import mock

import torch

from faults.case import Printed, call
from lad.engine.run import main

CONFIG = Path(__file__).parents[1] / "engine/toy_config.py"
# Everything that has a state of its own.
SWITCHES = (
    *("train.ema.enabled=true", "train.accumulate=2", "train.best.metric=toy/AP"),
    *("train.amp.enabled=true", "train.amp.dtype=bfloat16", "train.checkpointer.period=2"),
)
TIMES = {"time", "data_time", "eta_seconds", "rank_data_time", "eval_seconds"}


def run(folder: Path, *arguments: str) -> Printed:
    """Trains in this process, with `SWITCHES`."""
    # Asking compilers and drivers for their versions takes longer than the training.
    with mock.patch("lad.engine.console.collect_env_info", return_value=""):
        options = ["--config-file", CONFIG, *SWITCHES, f"train.output_dir={folder}"]
        return call(main, [*options, *arguments])


@cache
def whole() -> Path:
    """The folder of a run that nothing has stopped."""
    folder = Path(tempfile.mkdtemp(prefix="whole_toy_"))
    printed = run(folder / "run")
    assert printed.status == 0, printed.text
    return folder / "run"


def stopped(folder: Path) -> Path:
    """Makes a copy of the whole run as it was after iteration 4, a checkpoint older included."""
    run_folder = folder / "run"
    shutil.copytree(whole(), run_folder)
    for name in ("model_0000005.pth", "model_final.pth", "results.md", "results.json"):
        (run_folder / name).unlink()
    (run_folder / "last_checkpoint").write_text("model_0000003.pth")
    return run_folder


def weights_hash(folder: Path) -> str:
    """Returns a hash of everything in the final checkpoint: weights, averages, optimizer."""
    digest = hashlib.sha256()
    final = torch.load(folder / "model_final.pth", weights_only=True)

    def add(value: object) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key, entry in value.items():
                digest.update(repr(key).encode())
                add(entry)
        elif isinstance(value, list | tuple):
            for entry in value:
                add(entry)
        else:
            digest.update(repr(value).encode())

    add(final)
    return digest.hexdigest()


def metrics(folder: Path) -> list[dict]:
    """Returns the lines of metrics.json as strict JSON, without times."""

    def wrong(text: str) -> None:
        raise AssertionError(f"metrics.json has {text}")

    lines = (folder / "metrics.json").read_text().splitlines()
    rows = [json.loads(line, parse_constant=wrong) for line in lines]
    return [{k: x for k, x in row.items() if k not in TIMES} for row in rows]


def check_whole(folder: Path) -> None:
    """Checks that a run has come out as the whole one, to the bit.

    Raises:
        AssertionError: if anything differs.
    """
    assert weights_hash(folder) == weights_hash(whole()), "the final checkpoint differs"
    assert metrics(folder) == metrics(whole()), f"metrics.json differs: {metrics(folder)}"
    best = [torch.load(x / "model_best.pth", weights_only=True) for x in (folder, whole())]
    assert best[0]["metrics"] == best[1]["metrics"], "model_best.pth is of another evaluation"
    for name, value in best[0]["model"].items():
        assert torch.equal(value, best[1]["model"][name]), "model_best.pth differs"
    results = [json.loads((x / "results.json").read_text())["figures"] for x in (folder, whole())]
    assert results[0] == results[1], "results.json differs"
    left = [x.name for x in folder.iterdir() if x.name.endswith(".part") or x.name == ".lock"]
    assert not left, f"left behind: {left}"


def in_child(work: Callable[[], object]) -> int:
    """Runs a function in a forked process; returns its exit status, negative for a signal."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def kill_self(*_: object) -> None:
    """Ends this process as kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def killed_at_call(target: str, number: int, *, after: bool = False) -> Iterator[None]:
    """Kills this process at the n-th call of a function, or right after it.

    Args:
        target: of mock.patch, e.g. "os.replace".
        number: of the call, from 1.
        after: the call.
    """
    original = pkgutil.resolve_name(target)
    calls = 0

    def counted(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number and not after:
            kill_self()
        result = original(*args, **options)
        if calls == number:
            kill_self()
        return result

    with mock.patch(target, counted):
        yield
