"""Hooks that depend on how much of a training is done."""

from __future__ import annotations

from detectron2.engine import HookBase
from torch import nn

from lad.engine.hooks import ModelHook, unwrap
from lad.modeling.network import model_info


class ProgressHook(HookBase):
    """Tells a model before each step how much of the training is done (`ModelInfo.progress`).

    It has no state: a resumed training goes on at its iteration.
    """

    def before_train(self) -> None:
        """Sets the last step's share, for an evaluation that a resumed training repeats."""
        self._set(max(self.trainer.start_iter - 1, 0))

    def before_step(self) -> None:
        """Sets the share of iterations before this one."""
        self._set(self.trainer.iter)

    def _set(self, iteration: int) -> None:
        progress = model_info(unwrap(self.trainer.model)).progress
        if progress is not None:
            progress.share = iteration / self.trainer.max_iter


class FreezeBackbone(ModelHook):
    """Leaves the student's ``backbone.bottom_up`` as it is in the first part of a training.

    Nothing of it is computed backward, and neither weight decay nor momentum changes it. Running
    statistics of batch norm go on. In several processes it makes DistributedDataParallel look for
    unused parameters in all steps.

    Args:
        until: share of the training.

    Raises:
        ValueError: for a share outside 0..1.
    """

    unused_parameters = True

    def __init__(self, *, until: float):
        if not 0 <= until <= 1:
            raise ValueError(f"until={until}: it is a share of the training, from 0 to 1")
        self.until = until
        self._trained: list[nn.Parameter] = []

    def check(self, model: nn.Module) -> None:
        """Raises ValueError if the model's backbone has no bottom_up."""
        _bottom_up(model)

    def before_train(self) -> None:
        """Notes what the training would train."""
        parameters = _bottom_up(unwrap(self.trainer.model)).parameters()
        self._trained = [p for p in parameters if p.requires_grad]

    def before_step(self) -> None:
        """Freezes, or trains again."""
        frozen = self.trainer.iter / self.trainer.max_iter < self.until
        for parameter in self._trained:
            parameter.requires_grad_(not frozen)

    def after_train(self) -> None:
        """Leaves the parameters as they were."""
        for parameter in self._trained:
            parameter.requires_grad_(True)


def _bottom_up(model: nn.Module) -> nn.Module:
    networks = model_info(model).networks
    network = networks.get("student", networks.get(""))
    try:
        return network.get_submodule("backbone.bottom_up")  # type: ignore[union-attr]
    except AttributeError as error:
        raise ValueError(
            f"FreezeBackbone: {type(network).__name__} has no backbone.bottom_up, as an FPN has: "
            "remove the hook from train.hooks"
        ) from error
