"""Detectron2's training step with mixed precision, gradient accumulation and clipping."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lad.engine.stopping import StoppedEarly

AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}

GradientClipper = Callable[[Sequence[nn.Parameter]], Any]


def gradient_clipper(type: str, max: float) -> GradientClipper:
    """Returns a function that clips gradients in place.

    Args:
        type: "norm" scales all gradients down to a joint L2 norm of ``max``; "value" clamps each
            element to [-max, max].
        max: the limit.

    Raises:
        ValueError: for another type, or a limit that is not positive.
    """
    if max <= 0:
        raise ValueError(f"train.clip_grad.max={max}: it has to be positive")
    if type == "norm":
        return partial(nn.utils.clip_grad_norm_, max_norm=max)
    if type == "value":
        return partial(nn.utils.clip_grad_value_, clip_value=max)
    raise ValueError(f"train.clip_grad.type={type!r}: choose 'norm' or 'value'")


class Trainer(SimpleTrainer):
    """Trains a model that returns a dict of losses on the batches of an endless loader.

    The gradient of a step is the mean over ``accumulate`` batches. For losses that are means over
    images, and models without batch statistics, it equals that of one large batch. Losses that are
    normalized by the number of positives are normalized per batch.

    Args:
        model: on its device, with or without DDP.
        data_loader: endless iterable with ``set_start(batch_index)`` for resumed runs.
        optimizer: of the model's parameters.
        accumulate: batches per step.
        amp_dtype: "float16" (with loss scaling) or "bfloat16"; None trains in full precision.
        clip_grad: called with the parameters before each step.

    Attributes:
        stopped_early: why the training ended before the last iteration; "" if it did not.

    Raises:
        ValueError: for fewer than one batch per step or another dtype.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Any,
        optimizer: torch.optim.Optimizer,
        *,
        accumulate: int = 1,
        amp_dtype: str | None = None,
        clip_grad: GradientClipper | None = None,
    ):
        if accumulate < 1:
            raise ValueError(f"train.accumulate={accumulate}: it has to be at least 1")
        if amp_dtype is not None and amp_dtype not in AMP_DTYPES:
            raise ValueError(
                f"train.amp.dtype={amp_dtype!r}: choose one of {', '.join(AMP_DTYPES)}"
            )
        # Detectron2 0.6 starts the loader here, before a resumed run knows its position.
        super().__init__(model, (), optimizer)
        self.data_loader = data_loader
        self.accumulate = accumulate
        self._batches: Iterator | None = None
        self._amp_dtype = AMP_DTYPES[amp_dtype] if amp_dtype is not None else None
        self._device_type = next(model.parameters()).device.type
        self._scaler = torch.amp.GradScaler(self._device_type, enabled=amp_dtype == "float16")
        self._clip_grad = clip_grad
        self.stopped_early = ""

    def train(self, start_iter: int, max_iter: int) -> None:
        """Trains from an iteration to the last, or until a hook ends it early."""
        try:
            super().train(start_iter, max_iter)
        except StoppedEarly as stop:
            self.stopped_early = str(stop)

    def after_train(self) -> None:
        """Calls the hooks; a finished training that is resumed has no further iteration."""
        self.iter: int = min(self.iter, self.max_iter)
        super().after_train()

    def run_step(self) -> None:
        """Takes one optimizer step on ``accumulate`` batches.

        Raises:
            FloatingPointError: on the main process, naming the iteration, if a loss is not finite.
        """
        assert self.model.training, "the model was changed to eval mode"
        self.optimizer.zero_grad()
        mean_losses: dict[str, Tensor] = {}
        data_time = 0.0
        for remaining in reversed(range(self.accumulate)):
            start = time.perf_counter()
            batch = self._next_batch()
            data_time += time.perf_counter() - start
            for name, loss in self._backward(batch, synchronize=remaining == 0).items():
                mean_losses[name] = mean_losses.get(name, 0) + loss / self.accumulate
        self._write_metrics(mean_losses, data_time)
        self._optimizer_step()

    def _next_batch(self) -> list[dict]:
        if self._batches is None:
            self.data_loader.set_start(self.iter * self.accumulate)
            self._batches = iter(self.data_loader)
        return next(self._batches)

    def _backward(self, batch: list[dict], *, synchronize: bool) -> dict[str, Tensor]:
        """Adds the gradients of a batch; returns its losses, detached."""
        ddp = isinstance(self.model, DistributedDataParallel)
        with self.model.no_sync() if ddp and not synchronize else nullcontext():
            with torch.autocast(
                self._device_type, dtype=self._amp_dtype, enabled=self._amp_dtype is not None
            ):
                losses = self.model(batch)
            self._scaler.scale(sum(losses.values()) / self.accumulate).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def _optimizer_step(self) -> None:
        if self._clip_grad is not None:
            self._scaler.unscale_(self.optimizer)
            self._clip_grad([p for g in self.optimizer.param_groups for p in g["params"]])
        self._scaler.step(self.optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Returns the states of the iteration, the hooks, the optimizer and the loss scaling."""
        state = super().state_dict()
        if self._scaler.is_enabled():
            state["grad_scaler"] = self._scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores a saved state; loss scaling that is not in it starts anew."""
        super().load_state_dict(state_dict)
        if self._scaler.is_enabled() and "grad_scaler" in state_dict:
            self._scaler.load_state_dict(state_dict["grad_scaler"])
