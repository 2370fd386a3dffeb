"""Step times of a training with 1, 2, 4 ... processes, which torchrun starts."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Report
from lad.metrics import read_metrics, series

TRAIN_NET = Path(__file__).parents[1] / "train_net.py"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this mode's options."""
    parser.add_argument("--config-file", default="digits/paa.py", help="(default digits/paa.py)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--per-process", type=int, default=4, help="images (default 4)")
    parser.add_argument("--total", type=int, help="images of all processes together, instead")
    parser.add_argument("--iterations", type=int, default=40, help="of which the last half counts")
    parser.add_argument("opts", nargs="*", metavar="KEY=VALUE", help="overrides of the config")


def run(args: argparse.Namespace, report: Report) -> None:
    """Trains with each number of processes; times are of whole iterations, medians."""
    rates = {}
    for processes in args.processes:
        images = args.total or processes * args.per_process
        seconds = step_seconds(args, processes, images)
        rates[processes] = images / seconds
        name = f"{processes} processes, {images} images per step"
        report.figure(f"{name}, step", 1000 * seconds, "ms")
        report.figure(f"{name}, together", rates[processes], "images/s")
    first = args.processes[0]
    for processes, rate in rates.items():
        share = 100 * rate * first / (rates[first] * processes)
        report.figure(f"{processes} processes, rate per process against {first}", share, "%")


def step_seconds(args: argparse.Namespace, processes: int, images: int) -> float:
    """Returns the median time of an iteration, waiting for data and the other processes included.

    Raises:
        RuntimeError: if the training fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command = [
            *(launcher if processes > 1 else [sys.executable]),
            *([f"--nproc_per_node={processes}"] if processes > 1 else []),
            *(str(TRAIN_NET), "--config-file", args.config_file, *args.opts),
            f"train.output_dir='{folder}/run'",
            f"train.device={args.device}",
            f"train.max_iter={args.iterations}",
            f"dataloader.train.total_batch_size={images}",
            *("train.eval_period=0", "train.log_period=1", "train.seed=0"),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise RuntimeError(f"{processes} processes: {result.stderr.strip()[-500:]}")
        _, times = series(read_metrics(Path(folder, "run/metrics.json")), "time")
    return statistics.median(times[len(times) // 2 :])
