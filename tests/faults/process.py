"""Faults of processes and files: kills at any moment, signals, full disks, two runs at once."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

from faults import toy
from faults.case import Case, Lost, Outcome, refused
from faults.checkpoint import cases as table_cases
from faults.checkpoint import unchanged
from lad.engine.folder import locked
from lad.engine.writers import MetricsWriter
from toy_training import ToyEvaluator

KILLED = -signal.SIGKILL


def resumes_as_whole(folder: Path, *arguments: str) -> Outcome:
    """Checks that the run goes on, and comes out as one that nothing has stopped."""
    printed = toy.run(folder / "run", "--resume", *arguments)
    if printed.status:
        raise Lost(printed.text[-2000:])
    toy.check_whole(folder / "run")
    return Outcome.CORRECT


def killed(folder: Path, target: str, number: int, after: bool) -> Outcome:
    """Kills a run at the n-th call of a function."""

    def work() -> None:
        with toy.killed_at_call(target, number, after=after):
            toy.run(folder / "run")

    toy.whole()
    assert toy.in_child(work) == KILLED, "the run was not killed: the call never comes"
    return resumes_as_whole(folder)


def killed_in(folder: Path, target: object, name: str, number: int) -> Outcome:
    """Kills a run in the n-th call of a method."""
    original = getattr(target, name)
    calls = 0

    def counted(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number:
            toy.kill_self()
        return original(*args, **options)

    def work() -> None:
        with mock.patch.object(target, name, counted):
            toy.run(folder / "run")

    toy.whole()
    assert toy.in_child(work) == KILLED
    return resumes_as_whole(folder)


def killed_while_saving(folder: Path, number: int, share: float) -> Outcome:
    """Kills a run when a part of the n-th checkpoint has been written."""
    original, calls = torch.save, 0

    def half(content: object, file: object) -> None:
        nonlocal calls
        calls += 1
        original(content, file)
        if calls == number:
            file.flush()
            os.truncate(file.fileno(), int(os.fstat(file.fileno()).st_size * share))
            toy.kill_self()

    def work() -> None:
        with mock.patch("torch.save", half):
            toy.run(folder / "run")

    toy.whole()
    assert toy.in_child(work) == KILLED
    return resumes_as_whole(folder)


def killed_in_metrics(folder: Path, number: int) -> Outcome:
    """Kills a run when half a line of metrics.json has been written."""
    original, calls = MetricsWriter.write, 0

    def torn(writer: MetricsWriter) -> None:
        nonlocal calls
        calls += 1
        original(writer)
        if calls == number:
            path = folder / "run/metrics.json"
            os.truncate(path, path.stat().st_size - 20)
            toy.kill_self()

    def work() -> None:
        with mock.patch.object(MetricsWriter, "write", torn):
            toy.run(folder / "run")

    toy.whole()
    assert toy.in_child(work) == KILLED
    return resumes_as_whole(folder)


def killed_twice(folder: Path, first: int, second: int) -> Outcome:
    """Kills a run, and the resumed one as well."""
    toy.whole()
    for flags, number in (((), first), (("--resume",), second)):

        def work(flags: tuple = flags, number: int = number) -> None:
            with toy.killed_at_call("os.replace", number):
                toy.run(folder / "run", *flags)

        assert toy.in_child(work) == KILLED
    return resumes_as_whole(folder)


def killed_at_random(folder: Path, seed: int) -> Outcome:
    """Kills a run after a random time, up to three times."""
    rng = random.Random(seed)
    start = time.monotonic()
    toy.in_child(lambda: toy.run(folder / "timed"))
    seconds = time.monotonic() - start
    toy.whole()
    killed = False
    for _ in range(3):
        process = os.fork()
        if process == 0:
            toy.run(folder / "run", "--resume")
            os._exit(0)
        time.sleep(rng.uniform(0.2, 0.8) * seconds)
        os.kill(process, signal.SIGKILL)
        killed |= os.WIFSIGNALED(os.waitpid(process, 0)[1])
    assert killed, "all had finished before"
    return resumes_as_whole(folder)


def signaled(folder: Path, number: int, iteration: int) -> Outcome:
    """Sends a signal: the step is finished and saved, and nothing is lost."""
    toy.whole()
    hook = f"{{_target_:toy_training.SignalItself,iteration:{iteration},number:{int(number)}}}"
    run = folder / "run"
    status = toy.in_child(lambda: os._exit(toy.run(run, f"train.hooks=[{hook}]").status))
    assert status == 128 + number, status
    name = (run / "last_checkpoint").read_text()
    saved = torch.load(run / name, weights_only=True)["iteration"]
    if saved != iteration:
        raise Lost(f"the signal came in iteration {iteration}, {saved} was saved")
    return resumes_as_whole(folder)


def disk_full(folder: Path, name: str, number: int) -> Outcome:
    """The disk is full when a file is synced: one line, and what was there is intact."""
    toy.whole()
    original, calls, run = os.fsync, 0, folder / "run"

    def full(descriptor: int) -> None:
        nonlocal calls
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        calls += Path(path).name.startswith(name)
        if calls >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        original(descriptor)

    with mock.patch("os.fsync", full):
        outcome = refused(toy.run(run), "No space left on device", name)
    resumes_as_whole(folder)
    return outcome


def small_disk(folder: Path) -> Outcome:
    """The folder is on a real file system of 150 kB, which fills up; more room, and it goes on."""
    toy.whole()
    run = folder / "run"
    run.mkdir()
    if os.system(f"mount -t tmpfs -o size=152k tmpfs {run} 2>/dev/null"):
        return disk_full(folder / "patched", "model_0000003.pth", 1)
    try:
        outcome = refused(toy.run(run, "model.channels=900"), "No space left on device")
        assert not [x for x in run.iterdir() if x.name.endswith(".part")], "a part is left"
        for path in run.glob("model_*.pth"):
            torch.load(path, weights_only=True)
        assert not os.system(f"mount -o remount,size=9m {run}")
        printed = toy.run(run, "--resume", "model.channels=900")
        if printed.status:
            raise Lost(printed.text[-2000:])
        toy.run(folder / "other", "model.channels=900")
        assert toy.weights_hash(run) == toy.weights_hash(folder / "other")
        return outcome
    finally:
        os.system(f"umount {run}")


def limited_files(folder: Path) -> Outcome:
    """The system limits the size of files (ulimit -f), which the first checkpoint exceeds."""
    import resource

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
        printed = toy.run(folder / "run", "model.channels=900")
        assert refused(printed, "File too large") is Outcome.ONE_LINE
        assert not list((folder / "run").glob("*.p*t*h*"))

    assert toy.in_child(work) == 0, "not refused in one line, or a file is left"
    return Outcome.ONE_LINE


def two_runs(folder: Path, *arguments: str) -> Outcome:
    """Another process uses the folder: the start is refused and changes nothing."""
    run = toy.stopped(folder)
    ready, done = os.pipe(), os.pipe()
    process = os.fork()
    if process == 0:
        with locked(str(run)):
            os.write(ready[1], b".")
            os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        return unchanged(run, toy.run, f"is used by process {process}", *arguments)
    finally:
        os.write(done[1], b".")
        os.waitpid(process, 0)


def dead_owner(folder: Path) -> Outcome:
    """The process that held the folder was killed, while its loader's workers live on."""
    run = toy.stopped(folder)

    def work() -> None:
        with locked(str(run)):
            if os.fork() == 0:  # a worker, which inherits the open file
                time.sleep(5)
                os._exit(0)
            toy.kill_self()

    assert toy.in_child(work) == KILLED
    assert (run / ".lock").exists()
    return resumes_as_whole(folder)


def no_locks(folder: Path) -> Outcome:
    """The file system has no locks: a warning says so, and the run goes on."""
    toy.stopped(folder)
    no = OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    with mock.patch("fcntl.lockf", side_effect=no):
        return resumes_as_whole(folder)


def refused_resume(folder: Path, word: str, *arguments: str) -> Outcome:
    """A resume that is refused changes nothing, config.yaml included."""
    return unchanged(toy.stopped(folder), toy.run, word, "--resume", *arguments)


def warned_resume(folder: Path, word: str, *arguments: str) -> Outcome:
    """A resume with another value that may differ says so in one line, and the value counts."""
    run = toy.stopped(folder)
    printed = toy.run(run, "--resume", *arguments)
    if printed.status:
        raise Lost(printed.text[-2000:])
    lines = [x for x in printed.text.splitlines() if "config differs" in x]
    assert len(lines) == 1 and word in lines[0], printed.text[-3000:]
    return Outcome.CORRECT


def new_rate(folder: Path) -> Outcome:
    """A resume with another learning rate trains with it."""
    warned_resume(folder, "optimizer.lr 0.05 -> 0.01", "optimizer.lr=0.01")
    rates = [row["lr"] for row in toy.metrics(folder / "run") if "lr" in row]
    assert math.isclose(rates[4], 0.01) and math.isclose(rates[5], 0.001), rates
    return Outcome.CORRECT


def random_seed(folder: Path) -> Outcome:
    """A run with a random seed is resumed: it keeps the seed that was drawn."""
    run = folder / "run"
    toy.run(run, "train.seed=-1")
    expected = toy.weights_hash(run)
    for name in ("model_0000005.pth", "model_final.pth"):
        (run / name).unlink()
    (run / "last_checkpoint").write_text("model_0000003.pth")
    printed = toy.run(run, "train.seed=-1", "--resume")
    assert printed.status == 0 and toy.weights_hash(run) == expected, printed.text[-2000:]
    return Outcome.CORRECT


def nothing_to_resume(folder: Path) -> Outcome:
    """--resume in a folder without checkpoints says that it starts from 0."""
    toy.whole()
    printed = toy.run(folder / "run", "--resume")
    assert "has no checkpoint; this is a new training" in printed.text, printed.text[-2000:]
    assert "Starting training from iteration 0" in printed.text
    toy.check_whole(folder / "run")
    return Outcome.CORRECT


def metrics_of_a_killed_run(folder: Path) -> Outcome:
    """A run was killed before its first checkpoint: the new one does not add to its metrics."""
    (folder / "run").mkdir()
    rows = [json.dumps({"iteration": i, "total_loss": 9.0}) for i in range(3)]
    (folder / "run/metrics.json").write_text("\n".join(rows) + '\n{"iteration": 3, "tot')
    return resumes_as_whole(folder)


def only_newest_kept(folder: Path, number: int) -> Outcome:
    """With max_to_keep=1 a kill while saving leaves a whole checkpoint."""
    options = ("train.checkpointer.max_to_keep=1", "train.checkpointer.period=1")

    def work() -> None:
        with toy.killed_at_call("os.replace", number):
            toy.run(folder / "run", *options)

    assert toy.in_child(work) == KILLED
    numbered = list((folder / "run").glob("model_0*.pth"))
    if not numbered:
        raise Lost("no checkpoint is left")
    for path in numbered:
        torch.load(path, weights_only=True)
    printed = toy.run(folder / "run", "--resume", *options)
    if printed.status:
        raise Lost(printed.text[-2000:])
    kept = [x.name for x in (folder / "run").glob("model_0*.pth")]
    assert kept == ["model_0000005.pth"], kept
    final = [
        torch.load(x / "model_final.pth", weights_only=True) for x in (folder / "run", toy.whole())
    ]
    assert all(torch.equal(x, final[1]["model"][k]) for k, x in final[0]["model"].items())
    return Outcome.CORRECT


def not_finite(folder: Path) -> Outcome:
    """A loss that is not finite: one line with all that is needed, and the step can be repeated."""
    run = folder / "run"
    printed = toy.run(run, "model.fail_at=0.9")
    words = ("loss_square is nan", "learning rate", "11", "--replay", "nonfinite_")
    outcome = refused(printed, *words)
    (file,) = run.glob("nonfinite_*.pt")
    again = toy.call(toy.main, ["--replay", file])
    assert again.status == 0, again.text[-2000:]
    assert "loss_square nan" in again.text and "alone: 11: loss_square nan" in again.text, (
        again.text
    )
    assert "alone: 0: loss_square nan" not in again.text
    return outcome


def skipped(folder: Path) -> Outcome:
    """Two steps that are not finite may be skipped: they change nothing and are counted."""
    printed = toy.run(folder / "run", "model.fail_at=0.9", "train.skip_nonfinite=9")
    assert printed.status == 0, printed.text[-2000:]
    counts = [row["skipped_steps"] for row in toy.metrics(folder / "run") if "skipped_steps" in row]
    assert counts and counts == sorted(set(counts)), counts
    final = torch.load(folder / "run/model_final.pth", weights_only=True)
    assert all(bool(x.isfinite().all()) for x in final["model"].values())
    assert final["trainer"]["skipped"] == counts[-1]
    return Outcome.CORRECT


def blown_up(folder: Path) -> Outcome:
    """A learning rate that is much too high: a line at the end says so."""
    printed = toy.run(folder / "run", "optimizer.lr=4", "train.max_iter=12")
    if printed.status:
        return refused(printed, "is nan")
    lines = [x for x in printed.text.splitlines() if "WARNING" in x and "learning rate" in x]
    assert len(lines) == 1, printed.text[-3000:]
    return Outcome.CORRECT


def cases(text: str, work: Callable, table: dict, *, quick: bool = True) -> list[Case]:
    """As those of the checkpoints, in this group."""
    return [x._replace(group="process") for x in table_cases(text, work, table, quick=quick)]


RENAMES = 16  # of a run: config, checkpoints, last_checkpoint, best, results
MOMENTS = {
    f"{'after' if after else 'before'} rename {i}": ("os.replace", i, after)
    for i in range(2, RENAMES + 1)
    for after in (False, True)
}
# The others are slower than CI's tests should be.
QUICK_MOMENTS = {k: x for k, x in MOMENTS.items() if x[1] in (3, 12, 13)}
SAVES = {f"number {i}, at {x:.0%}": (i, x) for i in (1, 3, 6) for x in (0.0, 0.5, 0.999)}
QUICK_SAVES = {k: x for k, x in SAVES.items() if x == (3, 0.5)}
SIGNALS = {
    f"{signal.Signals(number).name} in iteration {i}": (number, i)
    for number in (signal.SIGTERM, signal.SIGINT)
    for i in (0, 1, 3, 5)
}
CASES = [
    *cases("kill", killed, QUICK_MOMENTS),
    *cases("kill", killed, {k: MOMENTS[k] for k in MOMENTS.keys() - QUICK_MOMENTS}, quick=False),
    *cases("kill while saving", killed_while_saving, QUICK_SAVES),
    *cases(
        "kill while saving",
        killed_while_saving,
        {k: SAVES[k] for k in SAVES if k not in QUICK_SAVES},
        quick=False,
    ),
    *cases("kill in an evaluation", killed_in, {"second": (ToyEvaluator, "process", 5)}),
    *cases(
        "kill in an evaluation",
        killed_in,
        {"first": (ToyEvaluator, "process", 1), "last": (ToyEvaluator, "evaluate", 3)},
        quick=False,
    ),
    *cases("kill in a line of metrics.json", killed_in_metrics, {"5": 5}),
    *cases("kill in a line of metrics.json", killed_in_metrics, {"1": 1, "2": 2}, quick=False),
    *cases("kill twice", killed_twice, {"4, 3": (4, 3), "9, 4": (9, 4)}, quick=False),
    *cases("kill at random moments", killed_at_random, {str(i): i for i in range(10)}, quick=False),
    *cases("signal", signaled, {k: SIGNALS[k] for k in SIGNALS if "TERM in iteration 3" in k}),
    *cases(
        "signal",
        signaled,
        {k: x for k, x in SIGNALS.items() if "TERM in iteration 3" not in k},
        quick=False,
    ),
    *cases(
        "disk full at",
        disk_full,
        {"a checkpoint": ("model_0000003.pth", 1), "metrics.json": ("metrics.json", 3)},
    ),
    *cases(
        "disk full at",
        disk_full,
        {
            "last_checkpoint": ("last_checkpoint", 2),
            "model_best.pth": ("model_best.pth", 1),
            "model_final.pth": ("model_final.pth", 1),
            "results.json": ("results.json", 4),
        },
        quick=False,
    ),
    Case("process", "disk really full", small_disk, quick=False),
    Case("process", "limit of file size", limited_files),
    *cases(
        "two runs in one folder",
        two_runs,
        {"resume": ("--resume",), "evaluation": ("--resume", "--eval-only")},
    ),
    Case("process", "lock of a killed process whose workers live on", dead_owner),
    Case("process", "file system without locks", no_locks),
    *cases(
        "refused resume",
        refused_resume,
        {
            "unknown key": ("max_itre", "train.max_itre=3"),
            "impossible rate": ("Invalid learning rate", "optimizer.lr=-1"),
            "no such device": ("train.device", "train.device=tpu"),
            "batch of none": ("total_batch_size", "dataloader.train.total_batch_size=0"),
        },
    ),
    *cases(
        "resume with another",
        warned_resume,
        {
            "length": ("train.max_iter 6 -> 8", "train.max_iter=8"),
            "batch size": ("total_batch_size 4 -> 6", "dataloader.train.total_batch_size=6"),
            "data set": ("dataloader.train.size", "dataloader.train.size=16"),
        },
    ),
    Case("process", "resume with another learning rate", new_rate),
    Case("process", "resume of a run with a random seed", random_seed),
    Case("process", "nothing to resume", nothing_to_resume),
    Case("process", "metrics of a run killed early", metrics_of_a_killed_run),
    *cases("kill with max_to_keep=1 at rename", only_newest_kept, {"9": 9}),
    *cases(
        "kill with max_to_keep=1 at rename",
        only_newest_kept,
        {str(i): i for i in (6, 7, 10, 13)},
        quick=False,
    ),
    Case("process", "loss that is not finite", not_finite),
    Case("process", "losses that are not finite, skipped", skipped),
    Case("process", "learning rate much too high", blown_up),
]
