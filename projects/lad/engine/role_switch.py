"""The hook that keeps a role switch's state between iterations (LAD paper 3.4)."""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from detectron2.utils import comm
from torch import nn

from lad.engine.hooks import ModelHook, unwrap
from lad.modeling.distillation import NETWORKS
from lad.modeling.network import Roles, model_info


class RoleSwitchHook(ModelHook):
    """Prepares a model's role switch for each step and logs its decisions.

    Logged are ``switch/student`` and ``switch/teacher`` (indicators), ``switch/student_taught``
    (the step's share of decisions for the student) and ``switch/student_share`` (its mean over all
    steps). With gradient accumulation roles are decided per batch; a step's last batch is logged.

    Args:
        output_dir: folder of metrics.json, and of ``roles.png`` after the training.
        force: what happens in the first iterations: "student" or "teacher" teaches, or each network
            is trained on its "own" labels (CoLAD's both, LAD's student); None leaves it to the
            switch.
        force_iterations: number of these iterations.

    Raises:
        ValueError: for another role, or iterations without a role.
    """

    def __init__(self, *, output_dir: str, force: str | None = None, force_iterations: int = 0):
        if force not in (None, "own", *NETWORKS):
            raise ValueError(f"force={force!r}: choose 'student', 'teacher', 'own' or None")
        if force_iterations and force is None:
            raise ValueError(
                f"force_iterations={force_iterations} needs force: choose 'student', 'teacher' or "
                "'own'"
            )
        self.output_dir = output_dir
        self.force = force
        self.force_iterations = force_iterations
        self._steps = 0
        self._taught = 0.0

    def check(self, model: nn.Module) -> None:
        """Raises ValueError if the model has no role switch."""
        _roles_of(model)

    @property
    def _roles(self) -> Roles:
        return _roles_of(unwrap(self.trainer.model))

    def before_train(self) -> None:
        """Sets what the last step had, for an evaluation that a resumed training repeats."""
        self._set(max(self.trainer.start_iter - 1, 0))

    def before_step(self) -> None:
        """Forces the role or the networks' own labels, or lets the switch decide."""
        self._set(self.trainer.iter)

    def _set(self, iteration: int) -> None:
        roles = self._roles
        force = self.force if iteration < self.force_iterations else None
        roles.forced = force == "student" if force in NETWORKS else None
        roles.own_labels = force == "own"
        roles.record = None

    def after_step(self) -> None:
        """Logs the decision."""
        record = self._roles.record
        if record is None:
            return
        storage = self.trainer.storage
        # One copy from a GPU.
        student, teacher, taught = torch.stack(record[:3]).tolist()
        for name, value in (("student", student), ("teacher", teacher), ("student_taught", taught)):
            if math.isfinite(value):  # not finite for a batch without objects
                storage.put_scalar(f"switch/{name}", value)
        if math.isfinite(taught):
            self._steps += 1
            self._taught += taught
            share = self._taught / self._steps
            storage.put_scalar("switch/student_share", share, smoothing_hint=False)

    def after_train(self) -> None:
        """Draws indicators and roles over the training."""
        metrics = os.path.join(self.output_dir, "metrics.json")
        if comm.is_main_process() and os.path.isfile(metrics):
            from lad.visualize import plot_roles  # Matplotlib is slow to import.

            plot_roles(metrics, os.path.join(self.output_dir, "roles.png"))

    def state_dict(self) -> dict[str, Any]:
        """Returns the counts and the last decision, as plain numbers."""
        return {
            "steps": self._steps,
            "taught": self._taught,
            "student_taught": bool(self._roles.student_teaches),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores counts and last decision."""
        self._steps = state_dict["steps"]
        self._taught = state_dict["taught"]
        self._roles.student_teaches = state_dict["student_taught"]


def _roles_of(model: nn.Module) -> Roles:
    roles = model_info(model).roles
    if roles is None:
        raise ValueError(
            "RoleSwitchHook needs a model with a switch: set model.switch or remove the hook "
            "from train.hooks"
        )
    return roles
