"""Trainer hooks: random state per iteration, averaged weights, best checkpoint."""

from __future__ import annotations

import copy
import logging
import math
import os
import pickle
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import nn

logger = logging.getLogger(__name__)


class IterationSeed(HookBase):
    """Seeds all random generators before each step from (seed, iteration, rank).

    So no state of a generator has to be saved: a resumed run draws what the uninterrupted one would
    have drawn, on every rank, whatever an evaluation or a checkpoint drew in between.
    """

    def __init__(self, seed: int):
        self._seed = seed

    def before_step(self) -> None:
        """Seeds Python's, NumPy's and PyTorch's generators (CPU and GPU)."""
        entropy = [self._seed, self.trainer.iter, comm.get_rank()]
        seed_all_rng(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def state_dict(self) -> dict[str, int]:
        """Returns the seed."""
        return {"seed": self._seed}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Keeps the run's own seed, with a warning if the saved one differs."""
        if state_dict["seed"] != self._seed:
            logger.warning(
                f"The checkpoint was trained with seed {state_dict['seed']}, this run has "
                f"{self._seed}: it does not continue the same order of images; "
                f"train.seed={state_dict['seed']} does"
            )


class EMAHook(HookBase):
    """Keeps an exponential moving average of the trained weights, which evaluation uses.

    After step t = 0, 1, ... average = d * average + (1 - d) * weights with
    d = min(decay, (1 + t) / (10 + t)), so that the first weights, random in a training from
    scratch, are soon forgotten. Weights that are not trained and buffers are copied.

    Args:
        model: what is trained, not wrapped.
        decay: in [0, 1).

    Attributes:
        model: a copy of the model that holds the average; in eval mode.

    Raises:
        ValueError: for another decay.
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 <= decay < 1:
            raise ValueError(f"train.ema.decay={decay}: it has to be at least 0 and below 1")
        self._source = model
        self._decay = decay
        self._resumed = False
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    def before_train(self) -> None:
        """Starts from the model's weights, loaded by now, unless an average has been loaded."""
        self._update(0.0 if not self._resumed else 1.0)

    def after_step(self) -> None:
        """Moves the average."""
        step = self.trainer.iter
        self._update(min(self._decay, (1 + step) / (10 + step)))

    @torch.no_grad()
    def _update(self, decay: float) -> None:
        for average, weight in zip(self.model.parameters(), self._source.parameters(), strict=True):
            average.lerp_(weight, 1 - decay if weight.requires_grad else 1.0)
        for average, buffer in zip(self.model.buffers(), self._source.buffers(), strict=True):
            average.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        """Returns the averaged weights."""
        return {"model": self.model.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from saved averages; weights that checkpoints leave out come from the model."""
        self.model.load_state_dict(state_dict["model"], strict=False)
        self._resumed = True


class _WeightsCheckpointer(DetectionCheckpointer):
    """Saves weights beside a training's checkpoints, and is no place to resume from."""

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Leaves ``last_checkpoint`` as it is."""


class BestCheckpointer(HookBase):
    """Keeps the weights with the highest metric in ``model_best.pth``.

    Unlike Detectron2's it stores the weights that were evaluated (the average, with EMA), survives
    a resume (the best value so far is read from the file) and is not what a run resumes from.
    Register it after the ``EvalHook``, on the main process only.

    Args:
        eval_period: as the ``EvalHook``'s.
        model: what is evaluated.
        output_dir: folder of the file.
        metric: a name in metrics.json, e.g. "bbox/AP"; higher is better.
    """

    def __init__(self, *, eval_period: int, model: nn.Module, output_dir: str, metric: str):
        self._period = eval_period
        self._metric = metric
        self._checkpointer = _WeightsCheckpointer(model, output_dir)
        self._file = os.path.join(output_dir, "model_best.pth")
        self._best = -math.inf

    def before_train(self) -> None:
        """Reads the best value so far."""
        if not os.path.isfile(self._file):
            return
        try:
            saved = torch.load(self._file, map_location="cpu", mmap=True, weights_only=True)
            self._best = saved["metrics"].get(self._metric, -math.inf)
        except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError):
            logger.warning(f"{self._file} is damaged: the next evaluation replaces it")

    def after_step(self) -> None:
        """Compares after each evaluation but the last."""
        done = self.trainer.iter + 1
        if self._period > 0 and done % self._period == 0 and done != self.trainer.max_iter:
            self._compare()

    def after_train(self) -> None:
        """Compares after the last evaluation, which a training that failed has not had."""
        if self.trainer.iter >= self.trainer.max_iter:
            self._compare()

    def _compare(self) -> None:
        latest = self.trainer.storage.latest()
        if self._metric not in latest:
            known = ", ".join(sorted(k for k in latest if "/" in k)) or "none"
            logger.warning(f"train.best.metric={self._metric!r} was not evaluated; known: {known}")
            return
        value, iteration = latest[self._metric]
        if not value > self._best:  # nan, of an evaluation without detections, is never better
            return
        self._best = value
        self._checkpointer.save(
            "model_best", iteration=iteration, metrics={self._metric: float(value)}
        )
        logger.info(f"Best {self._metric} so far: {value:.4f} at iteration {iteration}")
