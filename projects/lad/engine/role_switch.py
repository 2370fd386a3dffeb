"""The Trainer hook that owns what a role switch keeps between iterations (LAD paper 3.4)."""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from detectron2.engine.hooks import HookBase
from detectron2.utils import comm
from torch import nn

from lad.assignment.switch import RoleSwitch
from lad.modeling.distillation import NETWORKS
from lad.visualize import plot_roles


class RoleSwitchHook(HookBase):
    """Arms a model's role switch before each step and logs what it decided.

    The decision itself uses the step's own costs, inside the model's forward. Logged are
    ``switch/student`` and ``switch/teacher`` (indicators), ``switch/student_taught`` (this step's
    share of decisions that the student won, 0 or 1 with scope iteration) and
    ``switch/student_share`` (its mean over all steps). With gradient accumulation roles are decided
    per batch and the last batch of a step is logged.
    """

    def __init__(self, *, output_dir: str, force: str | None = None, force_iterations: int = 0):
        """Keeps the parts and settings.

        Args:
            output_dir: gets ``roles.png`` after the training, drawn from its metrics.json.
            force: "student" or "teacher": who teaches in the first iterations, whatever the
                indicators say.
            force_iterations: how many these are.

        Raises:
            ValueError: for another role, or iterations without a role.
        """
        if force not in (None, *NETWORKS):
            raise ValueError(f"force={force!r}: choose 'student', 'teacher' or None")
        if force_iterations and force is None:
            raise ValueError(f"force_iterations={force_iterations} needs force: who shall teach?")
        self.output_dir = output_dir
        self.force = force
        self.force_iterations = force_iterations
        self._steps = 0
        self._taught = 0.0

    @property
    def switch(self) -> RoleSwitch:
        """The switch of the trainer's model."""
        model = self.trainer.model
        return getattr(model, "module", model).switch

    @staticmethod
    def check(model: nn.Module) -> None:
        """Finds a missing switch before any work is done.

        Raises:
            ValueError: when the model has none.
        """
        if getattr(model, "switch", None) is None:
            raise ValueError(
                "RoleSwitchHook needs a model with a switch: set model.switch or remove the hook "
                "from train.hooks"
            )

    def before_train(self) -> None:
        """Forgets decisions of before the training."""
        self.switch.record = None

    def before_step(self) -> None:
        """Forces the role, or lets the switch decide."""
        forced = self.trainer.iter < self.force_iterations
        self.switch.forced = self.force == "student" if forced else None

    def after_step(self) -> None:
        """Logs the decision."""
        record = self.switch.record
        if record is None:
            return
        student, teacher, taught = torch.stack(record).tolist()
        storage = self.trainer.storage
        for name, value in (("student", student), ("teacher", teacher), ("student_taught", taught)):
            if math.isfinite(value):  # a batch without objects tells nothing
                storage.put_scalar(f"switch/{name}", value)
        if math.isfinite(taught):
            self._steps += 1
            self._taught += taught
            share = self._taught / self._steps
            storage.put_scalar("switch/student_share", share, smoothing_hint=False)

    def after_train(self) -> None:
        """Draws the timeline of indicators and roles."""
        metrics = os.path.join(self.output_dir, "metrics.json")
        if comm.is_main_process() and os.path.isfile(metrics):
            plot_roles(metrics, os.path.join(self.output_dir, "roles.png"))

    def state_dict(self) -> dict[str, Any]:
        """Returns the counts and the last decision, plain numbers."""
        return {
            "steps": self._steps,
            "taught": self._taught,
            "student_taught": bool(self.switch.student_taught),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a saved state."""
        self._steps = state["steps"]
        self._taught = state["taught"]
        self.switch.student_taught = torch.tensor(state["student_taught"])
