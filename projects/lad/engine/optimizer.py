"""Parameter groups of the optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.solver.build import get_default_optimizer_params, reduce_param_groups
from torch import nn

from lad.modeling.distillation import Distillation


def distillation_params(
    model: nn.Module, *, distill_losses: Mapping[str, Any], **options: Any
) -> list[dict[str, Any]]:
    """Returns parameter groups in which those of the distillation losses have their own options.

    Args:
        model: a method with distillation losses.
        distill_losses: options for their parameters, in place of the others; ``base_lr`` and
            ``weight_decay`` above all.
        **options: of Detectron2's ``get_default_optimizer_params``.

    Raises:
        ValueError: for a model without distillation losses.
    """
    if not isinstance(model, Distillation):
        raise ValueError(
            f"optimizer.params: {type(model).__name__} has no distillation losses: use "
            "get_default_optimizer_params"
        )
    own = get_default_optimizer_params(model.distill_losses, **{**options, **distill_losses})
    # Of two options of a parameter the later holds.
    return reduce_param_groups(get_default_optimizer_params(model, **options) + own)
