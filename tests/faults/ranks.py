"""Faults of a training in several processes, and long runs: minutes each."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import torch

from faults import toy
from faults.case import Case, Lost, Outcome
from faults.checkpoint import cases as table_cases
from lad.data.digits import DigitScenesSpec, write_digit_scenes

ROOT = Path(__file__).parents[2]
COLAD = ROOT / "tests/engine/detector_config.py"
LONG = (
    *("train.log_period=100", "train.checkpointer.period=500"),
    *("train.eval_period=500", "dataloader.train.total_batch_size=2"),
)


def start(folder: Path, *arguments: str, ranks: int = 1, config: Path = toy.CONFIG):
    """Starts a training in one or several new processes, which write to ``folder``.log."""
    sources = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "projects")])
    environment = os.environ | {
        "PYTHONPATH": sources,
        "OMP_NUM_THREADS": "1",
        "DETECTRON2_DATASETS": str(folder.parent),
    }
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    command = [sys.executable, *(torchrun if ranks > 1 else [])]
    command += [str(ROOT / "train_net.py"), "--config-file", str(config)]
    command += [f"train.output_dir={folder}", *arguments]
    with open(f"{folder}.log", "w") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def finish(process: subprocess.Popen, folder: Path, status: int | None = 0) -> str:
    """Waits for its end, at most two minutes; returns what it has written."""
    try:
        code = process.wait(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        raise Lost("it hangs") from None
    text = Path(f"{folder}.log").read_text()
    if status is not None and code != status:
        raise Lost(f"status {code}: {text[-3000:]}")
    return text


def close(first: Path, second: Path, atol: float = 1e-6) -> None:
    """Checks that two final checkpoints have the same weights, but for rounding."""
    a, b = (torch.load(x / "model_final.pth", weights_only=True)["model"] for x in (first, second))
    for name in a.keys() - {"calls"}:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=atol)


# Dropout draws differ between one process and several.
SAME = ("model.dropout=0", "dataloader.train.total_batch_size=4", "train.checkpointer.period=2")


def rank_killed(folder: Path, ranks: int) -> Outcome:
    """One of several processes is killed: the others end with one line, and the run goes on."""
    run = folder / "run"
    hook = f"{{_target_:toy_training.KillOneRank,iteration:3,rank:{ranks - 1}}}"
    text = finish(start(run, *SAME, f"train.hooks=[{hook}]", ranks=ranks), run, status=None)
    lines = [x for x in text.splitlines() if "another process of the training has ended" in x]
    assert len(lines) == 1, text[-5000:]
    assert "Exception during training" not in text, text[-5000:]
    finish(start(run, *SAME, "--resume", ranks=ranks), run)
    expected = folder / "whole"
    finish(start(expected, *SAME), expected)
    close(run, expected)
    return Outcome.CORRECT


def elastic(folder: Path, before: int, after: int) -> Outcome:
    """A run goes on with another number of processes: the same images, the same weights."""
    run, whole = folder / "run", folder / "whole"
    hook = "{_target_:toy_training.SignalItself,iteration:3}"
    text = finish(start(run, *SAME, f"train.hooks=[{hook}]", ranks=before), run, status=None)
    assert "iteration 4 of 6 is saved" in text, text[-3000:]
    finish(start(run, *SAME, "--resume", ranks=after), run)
    finish(start(whole, *SAME), whole)
    close(run, whole)
    return Outcome.CORRECT


# Batch norm's statistics are those of a process' images.
NO_STATISTICS = tuple(
    f"model.{network}.backbone.{key}"
    for network in ("student", "teacher")
    for key in ("bottom_up.norm=FrozenBN", "norm=GN")
)


def unreadable(folder: Path, number: int) -> Outcome:
    """Some images are cut off: two processes train on the same others as one, or both end."""
    digits = folder / "tiny_digits"
    write_digit_scenes(digits, DigitScenesSpec(image_size=96, num_train=12, num_val=4))
    for path in sorted((digits / "train").glob("*.png"))[:number]:
        path.write_bytes(path.read_bytes()[:200])
    runs = {ranks: folder / f"run{ranks}" for ranks in (1, 2)}
    status = 0 if number == 1 else 1  # one image may always be unreadable
    for ranks, run in runs.items():
        text = finish(start(run, *NO_STATISTICS, ranks=ranks, config=COLAD), run, status=status)
        if status:
            lines = [x for x in text.splitlines() if "training images cannot be read" in x]
            assert len(lines) == 1 and "Exception during training" not in text, text[-5000:]
            assert (run / "last_checkpoint").is_file(), "the steps before are lost"
    if status:
        return Outcome.ONE_LINE
    close(*runs.values(), atol=1e-4)  # AdamW divides by gradients that are nearly 0
    return Outcome.CORRECT


@cache
def whole_colad(options: tuple[str, ...]) -> tuple[Path, float]:
    """Returns the folder of a CoLAD that nothing has stopped, and how long it took."""
    folder, begun = Path(tempfile.mkdtemp(prefix="whole_colad_")) / "run", time.monotonic()
    finish(start(folder, *options, config=COLAD), folder)
    return folder, time.monotonic() - begun


def colad_killed(folder: Path, seed: int) -> Outcome:
    """A CoLAD of two detectors with EMA, accumulation and bfloat16 is killed after some seconds."""
    options = (
        *("train.ema.enabled=true", "train.accumulate=2", "dataloader.train.total_batch_size=2"),
        *("train.amp.enabled=true", "train.amp.dtype=bfloat16", "train.eval_period=3"),
    )
    run = folder / "run"
    whole, seconds = whole_colad(options)
    process = start(run, *options, config=COLAD)
    time.sleep(random.Random(seed).uniform(0.4, 0.8) * seconds)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it had finished before"
    finish(start(run, *options, "--resume", config=COLAD), run)
    assert toy.weights_hash(run) == toy.weights_hash(whole), "the final checkpoint differs"
    return Outcome.CORRECT


def memory_of(process: int) -> float:
    """Returns the resident memory of a process in MB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def long_run(folder: Path, iterations: int) -> Outcome:
    """Memory and open files of a long CoLAD do not grow in its second half."""
    run = folder / "run"
    process = start(run, f"train.max_iter={iterations}", *LONG, config=COLAD)
    samples: list[tuple[float, int]] = []
    while process.poll() is None:
        time.sleep(1)
        try:
            files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
            samples.append((memory_of(process.pid), files))
        except (OSError, IndexError):
            break
    finish(process, run)
    # Not the end itself: the pictures after the training load Matplotlib.
    quarter, half, most, end = (samples[int(len(samples) * x)] for x in (0.25, 0.5, 0.75, 0.95))
    print(f"memory in MB and open files at 25, 50, 75 and 95 %: {quarter}, {half}, {most}, {end}")
    assert end[0] < half[0] + 16, "the memory grows"
    assert end[1] <= half[1] + 2, "files are left open"
    return Outcome.CORRECT


def cases(text: str, work, table: dict) -> list[Case]:
    """Slow cases of processes."""
    return [x._replace(group="process") for x in table_cases(text, work, table, quick=False)]


CASES = [
    *cases("killed rank", rank_killed, {"of 2": (2,), "of 4": (4,)}),
    *cases("resume on other processes", elastic, {"1 to 2": (1, 2), "2 to 1": (2, 1)}),
    *cases("unreadable images in 1 and 2 processes", unreadable, {"1": (1,), "3": (3,)}),
    *cases("kill a CoLAD at random moments", colad_killed, {str(i): (i,) for i in range(10)}),
    *cases("long CoLAD", long_run, {"2000 iterations": (2000,)}),
]
