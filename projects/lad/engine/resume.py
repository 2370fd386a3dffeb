"""Resuming of a training: what has to be the same, and what may differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lad.checkpoint.load import OPTIONAL, check_anchors
from lad.checkpoint.read import read_training
from lad.engine.stopping import Checkpointer
from lad.engine.trainer import Trainer
from lad.modeling.network import is_frozen, model_info

# Options that PyTorch's versions add to optimizers.
_NEW_OPTIONS = {"capturable", "decoupled_weight_decay", "differentiable", "foreach", "fused"}


def resume(trainer: Trainer, checkpointer: Checkpointer, path: str, *, max_iter: int) -> int:
    """Loads a checkpoint of the training; returns the iteration to go on from.

    The optimizer's options, such as its learning rate, are those of the config.

    Args:
        trainer: built from the config; its frozen networks may have weights already.
        checkpointer: of the trainer.
        path: of the checkpoint.
        max_iter: of the config.

    Raises:
        ValueError: if it is of another model or optimizer, or of a longer training.
    """
    content = read_training(path)
    start = content["trainer"]["iteration"] + 1
    if start > max_iter:
        raise ValueError(
            f"--resume: {path} is of iteration {start}, train.max_iter={max_iter}: set it to at "
            f"least {start}"
        )
    check_weights(checkpointer.model, content["model"], path)
    check_optimizer(trainer.optimizer, content["trainer"].get("optimizer"), path)
    options = [{**group, "params": None} for group in trainer.optimizer.param_groups]
    try:
        checkpointer.load(path)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise ValueError(
            f"--resume: the training's state in {path} does not fit this training: {reason}"
        ) from error
    for group, new in zip(trainer.optimizer.param_groups, options, strict=True):
        del new["params"]
        group.update(new, initial_lr=new["lr"])
    return start


def check_weights(model: nn.Module, weights: Mapping[str, torch.Tensor], path: str) -> None:
    """Raises ValueError unless a checkpoint's weights are those of the model, by name and shape.

    Frozen networks may be missing in it.
    """
    ours = model.state_dict()
    frozen = tuple(f"{k}." for k, x in model_info(model).networks.items() if k and is_frozen(x))
    missing = [k for k in ours if k not in weights and not k.endswith(OPTIONAL)]
    missing = [k for k in missing if not k.startswith(frozen)] if frozen else missing
    unknown = [k for k in weights if k not in ours and not k.endswith(OPTIONAL)]
    shapes = [k for k in ours if k in weights and weights[k].shape != ours[k].shape]
    for names, problem in (
        (missing, "lacks {} of the model's weights"),
        (unknown, "has {} weights that the model has not"),
        (shapes, "has other shapes of {} weights"),
    ):
        if names:
            shape = ""
            if names is shapes:
                shape = f" {tuple(weights[names[0]].shape)}, model {tuple(ours[names[0]].shape)}"
            raise ValueError(
                f"--resume: {path} is of another model: it {problem.format(len(names))}, e.g. "
                f"{names[0]}{shape}; resume with the run's own config.yaml, or start a new "
                "training with train.init_checkpoint and another train.output_dir"
            )

    try:
        check_anchors(ours, weights)
    except ValueError as error:
        raise ValueError(
            f"--resume: {path} is of another model: {error}; resume with the run's own config.yaml"
        ) from error


def check_optimizer(optimizer: torch.optim.Optimizer, state: Any, path: str) -> None:
    """Raises ValueError unless a saved state is of the same optimizer and parameters."""
    remedy = "resume with the run's own optimizer"
    if not isinstance(state, Mapping) or not {"state", "param_groups"} <= state.keys():
        raise ValueError(
            f"--resume: {path} has no state of the optimizer: start a new training from its "
            "weights with train.init_checkpoint and another train.output_dir"
        )
    ours, theirs = optimizer.param_groups, state["param_groups"]
    sizes = [[len(group["params"]) for group in groups] for groups in (theirs, ours)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"--resume: the optimizer in {path} has {sum(sizes[0])} parameters in {len(sizes[0])} "
            f"groups, this one {sum(sizes[1])} in {len(sizes[1])}: {remedy}"
        )
    needed = optimizer.defaults.keys() - _NEW_OPTIONS
    lacking = sorted(needed - theirs[0].keys())
    if lacking:
        raise ValueError(
            f"--resume: the optimizer in {path} is no {type(optimizer).__name__}, since it has no "
            f"{', '.join(lacking)}: {remedy}"
        )
