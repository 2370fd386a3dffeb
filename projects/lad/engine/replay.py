"""Repeating a step whose losses were not finite."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from lad.engine.hooks import IterationSeed, ModelHook, TrainingStateHook, unwrap
from lad.engine.nonfinite import broken_weights
from lad.engine.schedule import ProgressHook
from lad.engine.trainer import Trainer

# What a step depends on.
_HOOKS = (IterationSeed, ProgressHook, TrainingStateHook, ModelHook)


def replay(trainer: Trainer, step: Mapping[str, Any], *, max_iter: int) -> list[str]:
    """Computes the losses of a step's batches again, and of each labeled image alone.

    In a training of several processes the losses are normalized over all of them, so that here
    their values can differ.

    Args:
        trainer: built from the run's config, with hooks.
        step: of `read_step`.
        max_iter: of the run.

    Returns:
        Lines on the losses, and the first module whose output is not finite.

    Raises:
        ValueError: if the step's weights or state do not fit the config.
    """
    model = unwrap(trainer.model)
    try:
        unknown = model.load_state_dict(step["model"], strict=False).unexpected_keys
    except RuntimeError as error:
        raise ValueError(f"--replay: {str(error).splitlines()[-1].strip()}") from error
    if unknown:
        raise ValueError(f"--replay: the model has no {unknown[0]}: use the run's own config.yaml")
    trainer.max_iter = max_iter
    iteration = step["trainer"]["iteration"]
    lines = [f"Iteration {iteration + 1} again, with its weights:"]
    if broken := broken_weights(model):
        lines.append(f"{len(broken)} weights were not finite before, e.g. {broken[0]}")
    seeds = [hook for hook in trainer._hooks if isinstance(hook, IterationSeed)]
    for hook in seeds:
        hook.rank = step["rank"]
    states = step["trainer"].get("hooks", {})
    with EventStorage(iteration) as trainer.storage:
        for batch in step["batches"]:
            lines += _losses(trainer, batch, iteration, states)
            alone = [x for x in batch if not x.get("unlabeled")] if len(batch) > 1 else []
            for image in alone:
                lines += [f"  alone: {x}" for x in _losses(trainer, [image], iteration, states)]
    return lines


def _losses(
    trainer: Trainer, batch: list[dict], iteration: int, states: Mapping[str, Any]
) -> list[str]:
    """Returns lines on the losses of a batch at the start of the step."""
    trainer.iter = trainer.start_iter = iteration
    hooks = [x for x in trainer._hooks if isinstance(x, _HOOKS)]
    for hook in hooks:
        if state := states.get(type(hook).__qualname__):
            hook.load_state_dict(state)
    with first_not_finite(unwrap(trainer.model)) as modules:
        for hook in hooks:
            hook.before_step()
        losses = trainer.losses(batch)
    images = ", ".join(str(x.get("file_name", x.get("image_id", "?"))) for x in batch)
    values = ", ".join(f"{name} {float(x):.6g}" for name, x in losses.items())
    lines = [f"{images}: {values}"]
    if modules and not all(math.isfinite(float(x)) for x in losses.values()):
        lines.append(f"the first module whose output is not finite: {modules[0]}")
    return lines


@contextmanager
def first_not_finite(model: nn.Module) -> Iterator[list[str]]:
    """While it runs, collects the names of modules whose outputs are not finite, in their order."""
    found: list[str] = []

    def looks(name: str) -> Any:
        def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if any(not bool(torch.isfinite(x).all()) for x in _tensors(output)):
                found.append(name or "the model's own losses")

        return look

    handles = [x.register_forward_hook(looks(name)) for name, x in model.named_modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for x in value.values():
            yield from _tensors(x)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for x in value:
            yield from _tensors(x)
