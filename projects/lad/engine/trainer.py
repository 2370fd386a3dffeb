"""Detectron2's training step with mixed precision, gradient accumulation and clipping."""

from __future__ import annotations

import errno
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lad.engine.hooks import unwrap
from lad.engine.nonfinite import Snapshot, Wrong, broken_weights, find_wrong, write_step
from lad.engine.signals import Failed
from lad.engine.stopping import StoppedEarly

logger = logging.getLogger(__name__)

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


# Of the disk: full, over quota, over a limit of the file's size, read-only, broken.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
# What gloo, NCCL and sockets say when another process has ended.
_GONE = ("onnection closed", "onnection reset", "onnection refused", "roken pipe", "imed out")


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Makes `Failed` of a full disk and of a process that is gone."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise Failed(
            f"{error.filename or 'a file'} cannot be written: {error.strerror}; the checkpoints so "
            "far are intact: make room, and go on with --resume"
        ) from error
    except RuntimeError as error:
        text = str(error)
        if comm.get_world_size() == 1 or not any(part in text for part in _GONE):
            raise
        raise Failed(
            f"another process of the training has ended ({text.splitlines()[-1][:120]}): see its "
            "own log; the same command with --resume goes on from the last checkpoint"
        ) from error


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
        skip_nonfinite: steps with losses that are not finite to skip; the next one ends the run.
        output_dir: folder for the file of such a step; None writes none.

    Attributes:
        stopped_early: why the training ended before the last iteration; "" if it did not.
        skipped: steps so far that were skipped.

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
        skip_nonfinite: int = 0,
        output_dir: str | None = None,
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
        self._skip_nonfinite = skip_nonfinite
        self._output_dir = output_dir
        self.stopped_early = ""
        self.skipped = 0

    def train(self, start_iter: int, max_iter: int) -> None:
        """Trains from an iteration to the last, or until a hook ends it early."""
        try:
            super().train(start_iter, max_iter)
        except StoppedEarly as stop:
            self.stopped_early = str(stop)

    def before_train(self) -> None:
        """Calls the hooks."""
        with told_in_one_line():
            super().before_train()

    def after_step(self) -> None:
        """Calls the hooks."""
        with told_in_one_line():
            super().after_step()

    def after_train(self) -> None:
        """Calls the hooks; a finished training that is resumed has no further iteration."""
        self.iter: int = min(self.iter, self.max_iter)
        failed = isinstance(sys.exc_info()[1], Failed)
        try:
            with told_in_one_line():
                super().after_train()
        except Failed:
            if not failed:  # the first line says why
                raise

    def run_step(self) -> None:
        """Takes one optimizer step on ``accumulate`` batches.

        Raises:
            Failed: naming iteration, losses and images, if a loss is not finite and no such step
                may be skipped any more; or if the disk is full or another process is gone.
        """
        assert self.model.training, "the model was changed to eval mode"
        with told_in_one_line():
            snapshot = Snapshot(unwrap(self.model), buffers=self._skip_nonfinite > 0)
            self.optimizer.zero_grad()
            batches, losses, data_time = self._accumulate()
            wrong = find_wrong(batches, losses)
            if wrong:
                snapshot.restore()
                self._skip(wrong, batches)
                return
            # From the first to the last batch: the order of the sum decides its rounding.
            mean_losses: dict[str, Tensor] = {}
            for batch_losses in losses:
                for name, loss in batch_losses.items():
                    mean_losses[name] = mean_losses.get(name, 0) + loss / self.accumulate
            self._write_metrics(mean_losses, data_time)
            self._optimizer_step()

    def _accumulate(self) -> tuple[list[list[dict]], list[dict[str, Tensor]], float]:
        """Adds up the gradients of a step; returns its batches, their losses, and loading time."""
        batches, losses, data_time = [], [], 0.0
        for remaining in reversed(range(self.accumulate)):
            start = time.perf_counter()
            batches.append(self._next_batch())
            data_time += time.perf_counter() - start
            losses.append(self._backward(batches[-1], synchronize=remaining == 0))
        return batches, losses, data_time

    def _skip(self, wrong: list[Wrong], batches: list[list[dict]]) -> None:
        """Counts a step whose losses are not finite, or ends the run."""
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        line = f"iteration {self.iter + 1}: {'; '.join(map(str, wrong))}; learning rate {rate:.3g}"
        broken = broken_weights(unwrap(self.model))
        if self.skipped < self._skip_nonfinite and not broken:
            self.skipped += 1
            logger.warning(f"{line}: skipped, {self.skipped} of {self._skip_nonfinite}")
            self.storage.put_scalar("skipped_steps", self.skipped, smoothing_hint=False)
            return
        if broken:
            line += f"; {len(broken)} weights were not finite before, e.g. {broken[0]}"
        path = ""
        if self._output_dir is not None and comm.get_rank() == wrong[0].rank:
            path = write_step(self._output_dir, unwrap(self.model), super().state_dict(), batches)
        path = "".join(comm.all_gather(path))
        replay = f"; --replay {path} repeats the step" if path else ""
        raise Failed(f"{line}{replay}. Lower the learning rate, or see docs/training.md")

    def _next_batch(self) -> list[dict]:
        if self._batches is None:
            self.data_loader.set_start(self.iter * self.accumulate)
            self._batches = iter(self.data_loader)
        return next(self._batches)

    def losses(self, batch: list[dict]) -> dict[str, Tensor]:
        """Returns the model's losses for a batch, in the precision of the training."""
        with torch.autocast(
            self._device_type, dtype=self._amp_dtype, enabled=self._amp_dtype is not None
        ):
            return self.model(batch)

    def _backward(self, batch: list[dict], *, synchronize: bool) -> dict[str, Tensor]:
        """Adds the gradients of a batch; returns its losses, detached."""
        ddp = isinstance(self.model, DistributedDataParallel)
        with self.model.no_sync() if ddp and not synchronize else nullcontext():
            losses = self.losses(batch)
            total: Tensor = sum(losses.values())  # type: ignore[assignment]
            self._scaler.scale(total / self.accumulate).backward()
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
        if self.skipped:
            state["skipped"] = self.skipped
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores a saved state; loss scaling that is not in it starts anew."""
        super().load_state_dict(state_dict)
        if self._scaler.is_enabled() and "grad_scaler" in state_dict:
            self._scaler.load_state_dict(state_dict["grad_scaler"])
        self.skipped = state_dict.get("skipped", 0)
