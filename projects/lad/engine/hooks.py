"""Trainer hooks: random state per iteration, training state, averaged weights, best checkpoint."""

from __future__ import annotations

import copy
import logging
import math
import os
from typing import Any

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lad.checkpoint.write import damage, write_checkpoint
from lad.engine.signals import Failed
from lad.engine.stopping import is_due
from lad.modeling.network import DenseNetwork, is_frozen, model_info

logger = logging.getLogger(__name__)


def unwrap(model: nn.Module) -> nn.Module:
    """Returns a trainer's model without DistributedDataParallel."""
    return model.module if isinstance(model, DistributedDataParallel) else model


class ModelHook(HookBase):
    """A hook that works with some models only.

    Attributes:
        unused_parameters: whether it leaves parameters without gradients in some steps.
    """

    unused_parameters = False

    def check(self, model: nn.Module) -> None:
        """Raises ValueError if the hook cannot work with a model (without DDP)."""


class IterationSeed(HookBase):
    """Seeds all random generators before each step from (seed, iteration, rank).

    A resumed run thus draws the same numbers as an uninterrupted one, without saved generators.

    Attributes:
        rank: draws as this process; None for its own.
    """

    def __init__(self, seed: int):
        self._seed = seed
        self.rank: int | None = None

    def before_step(self) -> None:
        """Seeds Python's, NumPy's and PyTorch's generators (CPU and GPU)."""
        rank = comm.get_rank() if self.rank is None else self.rank
        entropy = [self._seed, self.trainer.iter, rank]
        seed_all_rng(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def state_dict(self) -> dict[str, int]:
        """Returns the seed."""
        return {"seed": self._seed}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Keeps the run's own seed, with a warning if the saved one differs."""
        if state_dict["seed"] != self._seed:
            logger.warning(
                f"The checkpoint was trained with seed {state_dict['seed']}, this run has "
                f"{self._seed}: the order of images changes; to keep it, set "
                f"train.seed={state_dict['seed']}"
            )


class TrainingStateHook(HookBase):
    """Saves `DenseNetwork.training_state`, e.g. the loss normalizer of RetinaNet and FCOS.

    The checkpoint holds the states of all processes. A training resumed with more processes uses
    them in turn.
    """

    def __init__(self) -> None:
        self._of_all_ranks: list[dict[str, dict[str, float]]] = []

    def _networks(self) -> dict[str, DenseNetwork]:
        networks = model_info(unwrap(self.trainer.model)).networks
        return {name: x for name, x in networks.items() if isinstance(x, DenseNetwork)}

    def after_step(self) -> None:
        """Collects the states of all processes."""
        states = {name: network.training_state() for name, network in self._networks().items()}
        states = {name: state for name, state in states.items() if state}
        # Equal models: all processes have something to save, or none.
        self._of_all_ranks = comm.gather(states) if states else []

    def state_dict(self) -> dict[str, Any]:
        """Returns the states by process and network, as plain numbers."""
        return {"ranks": self._of_all_ranks} if self._of_all_ranks else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads this process' states into its networks."""
        self._of_all_ranks = state_dict["ranks"]
        states = self._of_all_ranks[comm.get_rank() % len(self._of_all_ranks)]
        networks = self._networks()
        for name, state in states.items():
            if name in networks:
                networks[name].load_training_state(state)


class EMAHook(HookBase):
    """Keeps an exponential moving average of the trained weights, which evaluation uses.

    After step t = 0, 1, ... average = d * average + (1 - d) * weights with
    d = min(decay, (1 + t) / (10 + t)): the initial weights soon lose influence. Buffers and
    parameters that are not trained are copied; frozen networks, such as LAD's teacher, are shared
    with the model, and so are the training's progress and its roles.

    Args:
        model: the trained model, without DDP.
        decay: in [0, 1).

    Attributes:
        model: a copy with the averages, in eval mode.

    Raises:
        ValueError: for another decay.
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 <= decay < 1:
            raise ValueError(f"train.ema.decay={decay}: it has to be at least 0 and below 1")
        self._source = model
        self._decay = decay
        self._saved: dict[str, Tensor] = {}
        info = model_info(model)
        frozen = [x for x in info.networks.values() if is_frozen(x)]
        shared = {id(x): x for x in (*frozen, info.progress, info.roles)}
        self.model = copy.deepcopy(model, shared).requires_grad_(False).eval()

    def before_train(self) -> None:
        """Starts from the loaded weights, or from the averages of a resumed run."""
        self._update(0.0)
        averages = self._averages()
        for name in self._saved.keys() & averages.keys():
            averages[name].copy_(self._saved[name])
        self._saved = {}

    def after_step(self) -> None:
        """Updates the averages."""
        step = self.trainer.iter
        self._update(min(self._decay, (1 + step) / (10 + step)))

    def _averages(self) -> dict[str, Tensor]:
        """Returns the averages of the trained parameters, by name."""
        trained = {name for name, p in self._source.named_parameters() if p.requires_grad}
        return {name: p.data for name, p in self.model.named_parameters() if name in trained}

    @torch.no_grad()
    def _update(self, decay: float) -> None:
        for average, weight in zip(self.model.parameters(), self._source.parameters(), strict=True):
            if average is not weight:
                average.lerp_(weight, 1 - decay if weight.requires_grad else 1.0)
        for copied, buffer in zip(self.model.buffers(), self._source.buffers(), strict=True):
            if copied is not buffer:
                copied.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        """Returns the averages of the trained parameters."""
        return {"model": self._averages()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps saved averages for `before_train`."""
        self._saved = state_dict["model"]


class BestCheckpointer(HookBase):
    """Keeps the weights with the highest metric in ``model_best.pth``.

    Unlike Detectron2's it stores the weights that were evaluated (the averages, with EMA), reads
    the best value so far from the file when resumed, and leaves ``last_checkpoint`` alone. Register
    it after the ``EvalHook``, on the main process only.

    Args:
        eval_period: as the ``EvalHook``'s.
        model: the evaluated model.
        output_dir: folder of the file.
        metric: a name in metrics.json, e.g. "bbox/AP"; higher is better.
    """

    def __init__(self, *, eval_period: int, model: nn.Module, output_dir: str, metric: str):
        self._period = eval_period
        self._metric = metric
        self._model = model
        self._file = os.path.join(output_dir, "model_best.pth")
        self._best = -math.inf

    def before_train(self) -> None:
        """Reads the best value so far, and compares an evaluation that was repeated just now."""
        if os.path.isfile(self._file):
            try:
                saved = torch.load(self._file, map_location="cpu", mmap=True, weights_only=True)
                best = float(saved["metrics"].get(self._metric, -math.inf))
                self._best = math.nan if damage(self._file) else best
            except Exception:  # a damaged file can raise anything
                self._best = math.nan
            if math.isnan(self._best):
                logger.warning(f"{self._file} is damaged: the next evaluation replaces it")
                self._best = -math.inf
        if self._metric in self.trainer.storage.latest():
            self._compare()

    def after_step(self) -> None:
        """Compares after each evaluation but the last."""
        if is_due(self.trainer.iter, self._period, self.trainer.max_iter):
            self._compare()

    def after_train(self) -> None:
        """Compares after the last evaluation, unless the training failed."""
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
        metrics = {self._metric: float(value)}
        content = {"model": self._model.state_dict(), "iteration": iteration, "metrics": metrics}
        try:
            write_checkpoint(content, self._file)
        except OSError as error:
            raise Failed(error) from error
        done = min(iteration + 1, self.trainer.max_iter)
        logger.info(f"Best {self._metric} so far: {value:.2f} after iteration {done}")
