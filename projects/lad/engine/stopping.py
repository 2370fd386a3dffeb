"""Hooks for trainings that stop and go on: checkpoints, recent metrics, early stopping."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import time
from glob import escape, glob
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import HookBase
from detectron2.engine.hooks import PeriodicCheckpointer
from detectron2.utils import comm

from lad.checkpoint.read import read_training
from lad.checkpoint.write import write_checkpoint
from lad.data.loader import TrainLoader
from lad.engine.signals import Failed, Refused, Stopped, StopSignals
from lad.files import write_text, written_aside
from lad.metrics import read_metrics, series

logger = logging.getLogger(__name__)

LATEST = "model_latest"
FINAL = "model_final.pth"


class Checkpointer(DetectionCheckpointer):
    """Detectron2's, but whenever the process is killed each file is the old one or the new one."""

    def save(self, name: str, **kwargs: Any) -> None:
        """Saves ``name``.pth and names it in ``last_checkpoint``.

        Raises:
            Failed: if the disk is full.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        parts = {key: x.state_dict() for key, x in self.checkpointables.items()}
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        try:
            write_checkpoint({"model": self.model.state_dict(), **parts, **kwargs}, path)
            self.tag_last_checkpoint(f"{name}.pth")
        except OSError as error:
            raise Failed(error) from error

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Writes ``last_checkpoint``."""
        write_text(os.path.join(self.save_dir, "last_checkpoint"), last_filename_basename)

    def finish(self, path: str) -> None:
        """Makes ``model_final.pth`` of a checkpoint of the last iteration, if a kill prevented it.

        Args:
            path: of the checkpoint.
        """
        if self.save_to_disk and os.path.basename(path) != FINAL:
            with written_aside(os.path.join(self.save_dir, FINAL)) as part:
                shutil.copyfile(path, part)
            self.tag_last_checkpoint(FINAL)

    def _load_file(self, filename: str) -> dict[str, Any]:
        return read_training(filename)


class KeptCheckpoints(PeriodicCheckpointer):
    """Detectron2's ``PeriodicCheckpointer``, which in a resumed run also counts older files."""

    def before_train(self) -> None:
        """Finds the checkpoints of the iterations before."""
        super().before_train()
        numbered = glob(os.path.join(escape(self.checkpointer.save_dir), "model_[0-9]*.pth"))
        first = os.path.join(self.checkpointer.save_dir, f"model_{self.trainer.start_iter:07d}.pth")
        self.recent_checkpoints = sorted(path for path in numbered if path < first)


class LatestCheckpointer(HookBase):
    """Keeps the newest state in ``model_latest.pth``, and ends a training that is asked to stop.

    It saves whenever so many minutes have passed since the last checkpoint, when a signal has come,
    and when too many training images cannot be read. All processes agree on the iteration to stop
    after. The end of the training removes the file. Register it after Detectron2's
    ``PeriodicCheckpointer`` and before evaluations: a signal ends these where they are, and the
    checkpoint is of the iteration before.

    Args:
        checkpointer: of the training.
        signals: that it waits for.
        minutes: between two checkpoints; None saves only at a signal.
    """

    def __init__(
        self, checkpointer: Checkpointer, signals: StopSignals, *, minutes: float | None = None
    ):
        self._checkpointer = checkpointer
        self._signals = signals
        self._seconds = math.inf if minutes is None else 60 * minutes
        self._due = math.inf
        self._step: int | None = None

    def before_train(self) -> None:
        """Starts the clock."""
        if comm.is_main_process():
            self._due = time.monotonic() + self._seconds

    def after_step(self) -> None:
        """Saves if it is time to.

        Raises:
            Stopped: if any process has got a signal.
            Refused: if any process has met too many unreadable images.
        """
        self._step = self.trainer.iter
        reasons = comm.all_gather((self._signals.received, self._refusal()))
        self._signals.received = max(number for number, _ in reasons)
        refusal = next((line for _, line in reasons if line), "")
        if self._signals.received or refusal:
            self._stop()
            comm.synchronize()  # torchrun kills all processes once one has ended
            raise Stopped(self._signals.received) if self._signals.received else Refused(refusal)
        if time.monotonic() >= self._due:
            age = self._seconds_since_checkpoint()
            if age >= self._seconds:
                self._checkpointer.save(LATEST, iteration=self._step)
                age = 0.0
            self._due = time.monotonic() + self._seconds - age

    def after_train(self) -> None:
        """Saves if an evaluation was stopped; else removes the file of a finished training."""
        if not comm.is_main_process():
            return
        if self._signals.raised and self._step is not None:
            self._stop()
        elif os.path.basename(self._checkpointer.get_checkpoint_file()) == FINAL:
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(self._checkpointer.save_dir, f"{LATEST}.pth"))

    def _refusal(self) -> str:
        loader = self.trainer.data_loader
        return loader.refusal() if isinstance(loader, TrainLoader) else ""

    def _seconds_since_checkpoint(self) -> float:
        path = os.path.join(self._checkpointer.save_dir, "last_checkpoint")
        return time.time() - os.path.getmtime(path) if os.path.isfile(path) else math.inf

    def _stop(self) -> None:
        """Saves, unless another checkpoint is of this iteration."""
        if not comm.is_main_process():
            return
        step, last_step = self._step or 0, self.trainer.max_iter - 1
        existing = FINAL if step == last_step else f"model_{step:07d}.pth"
        if os.path.basename(self._checkpointer.get_checkpoint_file()) != existing:
            self._checkpointer.save(LATEST, iteration=step)
        self._signals.message = (
            f"iteration {step + 1} of {self.trainer.max_iter} is saved as "
            f"{self._checkpointer.get_checkpoint_file()}; the same command with --resume goes on"
        )


class RecentMetrics(HookBase):
    """Saves the metrics that the writers smooth over: a resumed run writes the same ones.

    Times are left out.

    Args:
        window: iterations that the writers smooth over.
    """

    def __init__(self, window: int):
        self._window = window
        self._saved: dict[str, list[list[Any]]] = {}

    def before_train(self) -> None:
        """Puts saved values back; those of the iteration before can be written once more."""
        storage, before = self.trainer.storage, self.trainer.start_iter - 1
        for name, values in self._saved.items():
            for value, iteration, *exact in values:
                storage.iter = int(iteration)
                if iteration == before:
                    value = math.nan if value is None else value
                    storage.put_scalar(name, value, smoothing_hint=not exact)
                else:
                    storage.histories()[name].update(value, iteration)
        storage.iter = self.trainer.start_iter
        self._saved = {}

    def state_dict(self) -> dict[str, Any]:
        """Returns the last [value, iteration] of each metric that is smoothed.

        Of the others, such as the learning rate, [value, iteration, "exact"] of this iteration.
        """
        storage = self.trainer.storage
        smoothed = storage.smoothing_hints()
        state: dict[str, Any] = {}
        for name, history in storage.histories().items():
            if name.endswith(("time", "seconds")):
                continue
            values = [list(x) for x in history.values()[-self._window :]]
            if not smoothed.get(name, True):
                # None for nan, which is not equal to itself: equal states compare as equal.
                values = [
                    [value if math.isfinite(value) else None, step, "exact"]
                    for value, step in values[-1:]
                    if step == self.trainer.iter
                ]
            if values:
                state[name] = values
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps saved values for `before_train`."""
        self._saved = state_dict


def is_due(step: int, period: int, max_iter: int) -> bool:
    """Whether an evaluation follows an iteration; the one after the last is apart."""
    done = step + 1
    return period > 0 and done > 0 and done % period == 0 and done < max_iter


class StoppedEarly(BaseException):
    """Ends a training before its last iteration, as finished; the message says why."""


class EarlyStop(HookBase):
    """Ends a training after so many evaluations without a higher metric.

    It has no state: a resumed run reads the evaluations before it in metrics.json. Register it
    after the evaluations, in every process.

    Args:
        checkpointer: saves ``model_final.pth`` at the end.
        eval_period: iterations between evaluations.
        metric: name in metrics.json; higher is better.
        patience: evaluations in a row that bring no higher value.
    """

    def __init__(self, checkpointer: Checkpointer, *, eval_period: int, metric: str, patience: int):
        self._checkpointer = checkpointer
        self._period = eval_period
        self._metric = metric
        self._patience = patience
        self._best = -math.inf
        self._waited = 0

    def before_train(self) -> None:
        """Reads the evaluations so far.

        Raises:
            StoppedEarly: if they were enough already.
        """
        start = self.trainer.start_iter
        if not start:
            return
        path = os.path.join(self._checkpointer.save_dir, "metrics.json")
        if comm.is_main_process() and os.path.isfile(path):
            past = dict(zip(*series(read_metrics(path), self._metric), strict=True))
            for step, value in past.items():
                if step < start - 1:
                    self._observe(value)
            # An evaluation that was stopped has been repeated just now.
            latest = self.trainer.storage.latest().get(self._metric, (past.get(start - 1),))[0]
            if latest is not None:
                self._observe(latest)
        self._end_if_enough(start - 1)

    def after_step(self) -> None:
        """Looks at an evaluation of this iteration.

        Raises:
            StoppedEarly: if it was one too many.
        """
        step = self.trainer.iter
        if not is_due(step, self._period, self.trainer.max_iter):
            return
        latest = self.trainer.storage.latest()
        if self._metric in latest:  # of the main process
            self._observe(latest[self._metric][0])
        self._end_if_enough(step)

    def _observe(self, value: float) -> None:
        better = value > self._best
        self._best, self._waited = (value, 0) if better else (self._best, self._waited + 1)

    def _end_if_enough(self, step: int) -> None:
        if max(comm.all_gather(self._waited)) < self._patience:
            return
        if comm.is_main_process():
            self.trainer.iter = step
            self._checkpointer.save("model_final", iteration=step)
        raise StoppedEarly(
            f"stopped early after iteration {step + 1} of {self.trainer.max_iter}: "
            f"{self._patience} evaluations without a better {self._metric}"
        )
