"""Writers of a training's metrics: metrics.json, console, TensorBoard, services for experiments.

The last are for the config's ``train.writers``, e.g.
``train.writers=[{_target_:lad.engine.writers.WandbWriter,project:detectors}]``.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TextIO

import torch
from detectron2.engine.hooks import PeriodicWriter
from detectron2.utils.events import (
    EventStorage,
    EventWriter,
    TensorboardXWriter,
    get_event_storage,
)

from lad.engine.evaluation import without_nan
from lad.engine.stopping import is_due
from lad.files import write_text
from lad.metrics import read_metrics

logger = logging.getLogger(__name__)


class MetricsWriter(EventWriter):
    """Writes a JSON object per line and iteration, with null for nan and infinite numbers.

    The metrics of an iteration that the file has already, as of an evaluation that a resumed run
    repeats, go into its line.

    Args:
        path: of the file; lines are added to it.
        window: iterations that noisy metrics are smoothed over.
    """

    def __init__(self, path: str, window: int):
        self._path = path
        self._window = window
        self._last_write = -1
        self._file: TextIO | None = None

    def write(self) -> None:
        """Adds a line for each iteration that has new metrics."""
        rows = new_metrics(self._window, self._last_write)
        self._last_write = max([self._last_write, *rows])
        if self._file is None:
            rows = self._complete_last_line(rows)
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
        for step, metrics in sorted(rows.items()):
            self._file.write(_line(step, metrics))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _complete_last_line(self, rows: dict[int, dict[str, float]]) -> dict[int, dict[str, float]]:
        """Adds metrics to the file's last line if it is of their iteration; returns the others."""
        old = read_metrics(self._path) if os.path.isfile(self._path) else []
        step = old[-1]["iteration"] if old else None
        if step not in rows:
            return rows
        if old[-1] | rows[step] != old[-1]:
            old[-1] |= rows[step]
            write_text(self._path, "".join(_line(row["iteration"], row) for row in old))
        return {other: metrics for other, metrics in rows.items() if other != step}

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


def _line(step: int, metrics: Mapping[str, float]) -> str:
    row = without_nan({**metrics, "iteration": step})
    return json.dumps(row, sort_keys=True, allow_nan=False) + "\n"


class TensorBoardWriter(EventWriter):
    """Detectron2's ``TensorboardXWriter``, whose curves a resumed run continues.

    What an interrupted run wrote after its last checkpoint is replaced, not drawn twice.

    Args:
        folder: of the event files; each run adds one.
        window: iterations that noisy metrics are smoothed over.

    Attributes:
        start: the run's first iteration.
    """

    def __init__(self, folder: str, window: int):
        self._folder = folder
        self._window = window
        self._writer: TensorboardXWriter | None = None
        self.start = 0

    def write(self) -> None:
        """Adds the metrics and images that are new."""
        if self._writer is None:
            self._writer = TensorboardXWriter(self._folder, self._window, purge_step=self.start)
        self._writer.write()

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()


class MetricsPeriod(PeriodicWriter):
    """Detectron2's ``PeriodicWriter``, whose writers know of a resumed run's first iteration.

    It makes up for a line of metrics.json: a run that is killed in an evaluation has not written
    the losses of the iteration before it. An evaluation is written at once, whatever the period;
    the console shows its own line.
    """

    def before_train(self) -> None:
        """Writes the metrics of the iteration before, if that was due or is evaluated again."""
        start = self.trainer.start_iter
        for writer in self._writers:
            if isinstance(writer, TensorBoardWriter):
                writer.start = start
        due = start % self._period == 0 or start == self.trainer.max_iter
        if start and (due or self._evaluated() == start - 1):
            self.trainer.storage.iter = start - 1
            for writer in self._writers:
                if isinstance(writer, MetricsWriter):
                    writer.write()
            self.trainer.storage.iter = start

    def after_step(self) -> None:
        """Writes if it is time to, or after an evaluation."""
        super().after_step()
        step = self.trainer.iter
        if self._evaluated() == step and not is_due(step, self._period, self.trainer.max_iter):
            for writer in self._writers:
                if not isinstance(writer, ConsoleWriter):
                    writer.write()

    def _evaluated(self) -> int:
        """Returns the iteration of the last evaluation, -1 before the first."""
        return self.trainer.storage.latest().get("eval_seconds", (0.0, -1))[1]


def new_metrics(window: int, last_write: int) -> dict[int, dict[str, float]]:
    """Returns the metrics that are newer than an iteration, by their iteration and name.

    Args:
        window: iterations that noisy metrics are smoothed over, by their median.
        last_write: the iteration.
    """
    rows: dict[int, dict[str, float]] = defaultdict(dict)
    for name, (value, step) in get_event_storage().latest_with_smoothing_hint(window).items():
        if step > last_write:
            rows[step][name] = float(value)
    return rows


class ConsoleWriter(EventWriter):
    """Logs a line on the iterations since the last: losses, roles, learning rate, time, memory.

    Args:
        max_iter: iterations of the training.
        window: iterations to take medians over.
    """

    def __init__(self, max_iter: int, window: int):
        self._max_iter = max_iter
        self._window = window

    def write(self) -> None:
        """Logs the line; nothing after the last iteration."""
        storage = get_event_storage()
        if storage.iter >= self._max_iter or "lr" not in storage.latest():
            return
        histories = storage.histories()
        parts = [f"iter {storage.iter + 1}/{self._max_iter}", self._losses(storage)]
        parts.append(teaching(storage, self._window))
        parts.append(f"lr {histories['lr'].latest():.2g}")
        if "time" in histories:
            # As Detectron2's printer.
            seconds = histories["time"].median(1000)
            left = seconds * (self._max_iter - storage.iter - 1)
            storage.put_scalar("eta_seconds", left, smoothing_hint=False)
            parts.append(self._speed(storage))
            parts.append(f"eta {timedelta(seconds=int(left))}")
        parts.append(f"mem {memory() / 2**30:.1f} GB")
        logger.info("  ".join(x for x in parts if x))

    def _losses(self, storage: EventStorage) -> str:
        histories = storage.histories()
        losses = {
            name: histories[name].median(self._window)
            for name, (_, step) in storage.latest().items()
            if "loss" in name and not name.startswith("val/") and step == storage.iter
        }
        total = losses.pop("total_loss", None)
        parts = [f"{name.replace('loss_', '')} {x:.3g}" for name, x in losses.items()]
        if total is None:
            return ", ".join(parts)
        return f"loss {total:.4g}" + (f" ({', '.join(parts)})" if parts else "")

    def _speed(self, storage: EventStorage) -> str:
        histories = storage.histories()
        seconds = histories["time"].median(self._window)
        loading = histories["data_time"].median(self._window)
        # A trainer waits for its data only if something is wrong with the loader.
        waits = f" ({loading:.2g} s for data)" if loading > 0.2 * seconds else ""
        return f"{seconds:.2g} s/iter{waits}"


def teaching(storage: EventStorage, window: int) -> str:
    """Returns who has taught in the last iterations and both indicators; "" without a switch."""
    histories = storage.histories()
    if "switch/student_taught" not in storage.latest():
        return ""
    share = histories["switch/student_taught"].avg(window)
    taught = "student" if share == 1 else "teacher" if share == 0 else f"student {share:.0%}"
    names = [name for name in ("student", "teacher") if f"switch/{name}" in storage.latest()]
    values = [f"{name} {histories[f'switch/{name}'].median(window):.3g}" for name in names]
    return f"taught by {taught}" + (f" ({', '.join(values)})" if values else "")


def memory() -> int:
    """Returns the most bytes so far: of tensors on the GPU, or without one of the process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    import resource  # Windows has none.

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class ServiceWriter(EventWriter):
    """A writer to a service for experiments, whose package is optional.

    Subclasses set ``package`` and define `open`, `put` and `close`.

    Args:
        **options: of the service's own function that opens a run.

    Raises:
        ValueError: if the package is not installed.
    """

    package: str

    def __init__(self, **options: Any):
        try:
            self.module = importlib.import_module(self.package)
        except ImportError as error:
            name = type(self).__name__
            raise ValueError(
                f"{name} needs the package {self.package}: pip install {self.package}, or remove "
                "it from train.writers"
            ) from error
        self.options = options
        self._last_write = -1
        self._window = 20

    def start(self, config: Mapping[str, Any], window: int) -> None:
        """Opens the run.

        Args:
            config: the run's, as plain values.
            window: iterations that noisy metrics are smoothed over.
        """
        self._window = window
        self.open(config)

    def write(self) -> None:
        """Sends new metrics."""
        rows = new_metrics(self._window, self._last_write)
        self._last_write = max([self._last_write, *rows])
        for step in sorted(rows):
            self.put(rows[step], step)

    def open(self, config: Mapping[str, Any]) -> None:
        """Opens a run in the service."""
        raise NotImplementedError

    def put(self, metrics: Mapping[str, float], step: int) -> None:
        """Sends the metrics of an iteration."""
        raise NotImplementedError


class WandbWriter(ServiceWriter):
    """Weights & Biases; options are those of ``wandb.init``, e.g. ``project``."""

    package = "wandb"

    def open(self, config: Mapping[str, Any]) -> None:
        """Opens a run."""
        self.run = self.module.init(config=config, **self.options)

    def put(self, metrics: Mapping[str, float], step: int) -> None:
        """Sends the metrics of an iteration."""
        self.run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Ends the run."""
        self.run.finish()


class MLflowWriter(ServiceWriter):
    """MLflow; options are those of ``mlflow.start_run``, and ``experiment`` is its name.

    The server is that of the environment variable MLFLOW_TRACKING_URI.
    """

    package = "mlflow"

    def open(self, config: Mapping[str, Any]) -> None:
        """Opens a run."""
        options = dict(self.options)
        if experiment := options.pop("experiment", None):
            self.module.set_experiment(experiment)
        self.module.start_run(**options)
        self.module.log_dict(dict(config), "config.json")

    def put(self, metrics: Mapping[str, float], step: int) -> None:
        """Sends the metrics of an iteration."""
        # MLflow refuses other characters, which names of classes can have.
        allowed = {re.sub(r"[^/\w.\- ]", "_", name): x for name, x in metrics.items()}
        self.module.log_metrics(allowed, step=step)

    def close(self) -> None:
        """Ends the run."""
        self.module.end_run()


class ClearMLWriter(ServiceWriter):
    """ClearML; options are those of ``clearml.Task.init``: ``project_name``, ``task_name``."""

    package = "clearml"

    def open(self, config: Mapping[str, Any]) -> None:
        """Opens a run."""
        self.task = self.module.Task.init(**self.options)
        self.task.connect_configuration(dict(config))

    def put(self, metrics: Mapping[str, float], step: int) -> None:
        """Sends the metrics of an iteration."""
        for name, value in metrics.items():
            title, _, metric = name.rpartition("/")
            self.task.get_logger().report_scalar(title or metric, metric, value, step)

    def close(self) -> None:
        """Ends the run."""
        self.task.close()
