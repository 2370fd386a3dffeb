"""Label assignment distillation: whose predictions go into the cost (LAD paper 3.2 to 3.4).

Each class is a composition of the parts of its two networks; none has mathematics of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from lad.assignment.costs import NoCost
from lad.assignment.switch import RoleSwitch
from lad.modeling.paa import PAA
from lad.structures import Anchors, Candidates, DensePredictions, Targets

NETWORKS = ("student", "teacher")


class DistillLoss(Protocol):
    """A loss of the student's predictions against the teacher's."""

    def __call__(
        self,
        student: DensePredictions,
        teacher: DensePredictions,
        anchors: Anchors,
        targets: Targets,
    ) -> dict[str, Tensor]:
        """Returns named scalar losses."""


class TwoNetworks(nn.Module):
    """Two PAA detectors with the same anchors and classes that see the same pixels.

    Evaluation delegates to one of them.
    """

    def __init__(
        self,
        *,
        student: PAA,
        teacher: PAA,
        student_checkpoint: str = "",
        teacher_checkpoint: str = "",
        eval_network: str = "student",
    ):
        """Keeps the parts and settings.

        Args:
            student: the network that the method is about.
            teacher: the other one; backbone, widths and objectness may differ.
            student_checkpoint: initial weights of the student, loaded when training starts: a
                detector, or a backbone alone.
            teacher_checkpoint: the same for the teacher.
            eval_network: "student" or "teacher".

        Raises:
            ValueError: when the networks' anchors or classes differ.
        """
        super().__init__()
        if eval_network not in NETWORKS:
            raise ValueError(f"eval_network={eval_network!r}: choose 'student' or 'teacher'")
        layouts = [
            (x.anchor_generator.strides, x.anchor_generator.sizes) for x in (student, teacher)
        ]
        if layouts[0] != layouts[1]:
            raise ValueError(
                f"student and teacher need equal anchors, but have strides and sizes {layouts[0]}"
                f" and {layouts[1]}: make model.teacher.anchor_generator equal to the student's"
            )
        divisors = student.backbone.size_divisibility, teacher.backbone.size_divisibility
        if divisors[0] != divisors[1]:
            raise ValueError(
                f"student and teacher need feature maps of equal sizes, but their backbones pad "
                f"images to multiples of {divisors[0]} and {divisors[1]}: choose other levels"
            )
        classes = student.head.num_classes, teacher.head.num_classes
        if classes[0] != classes[1]:
            raise ValueError(
                f"student and teacher need equal classes, but have {classes[0]} and {classes[1]}:"
                " set model.student.head.num_classes and model.teacher.head.num_classes equal"
            )
        self.student = student
        self.teacher = teacher
        self.checkpoints = {"student": student_checkpoint, "teacher": teacher_checkpoint}
        self.eval_network = eval_network
        self._same_pixels = student.normalisation == teacher.normalisation

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.student.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Losses in training, else the detections of ``eval_network``."""
        if self.training:
            return self.forward_training(batched_inputs)
        return getattr(self, self.eval_network)(batched_inputs)

    def forward_training(self, batched_inputs: list[dict]) -> dict[str, Tensor]:
        """Returns the method's losses."""
        raise NotImplementedError

    def predict(
        self, batched_inputs: list[dict]
    ) -> tuple[DensePredictions, DensePredictions, Anchors]:
        """Runs both networks on the batch: the student's and the teacher's predictions, anchors."""
        images = self.student.preprocess_image(batched_inputs).tensor
        student, anchors = self.student.predict(images)
        if not self._same_pixels:
            images = self.teacher.preprocess_image(batched_inputs).tensor
        return student, self.predict_teacher(images), anchors

    def predict_teacher(self, images: Tensor) -> DensePredictions:
        """Runs the teacher on (N, 3, H, W) normalised images."""
        return self.teacher.predict(images)[0]

    def cost(
        self,
        student: DensePredictions,
        teacher: DensePredictions,
        anchors: Anchors,
        targets: Targets,
        candidates: Candidates,
        switch: RoleSwitch | None,
    ) -> Tensor:
        """Returns the teacher's costs, or those that the switch chooses.

        The student's assigner makes both networks' costs, so that they can be compared.
        """
        cost = self.student.cost(teacher, anchors, targets, candidates)
        if switch is not None:
            student_cost = self.student.cost(student, anchors, targets, candidates)
            compared = (torch.atleast_2d(x)[0] for x in (student_cost, cost))
            by_student = switch(*compared, candidates, targets, len(anchors.shapes))
            cost = torch.where(by_student, student_cost, cost)  # further rows go with their cost
        return cost


class FrozenTeacher(TwoNetworks):
    """A teacher that is not trained: eval mode, no gradients, not in the optimizer."""

    def __init__(self, *, save_teacher: bool = True, **networks):
        """Keeps the parts and settings.

        Args:
            save_teacher: keep the teacher's weights in checkpoints; without them, resuming reads
                ``teacher_checkpoint`` again.
            **networks: as `TwoNetworks`.
        """
        super().__init__(**networks)
        self.save_teacher = save_teacher
        self.teacher.requires_grad_(False)
        if not save_teacher:
            self.register_state_dict_post_hook(_drop_teacher)

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Sets the student's mode; the teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def predict_teacher(self, images: Tensor) -> DensePredictions:
        """Runs the teacher without gradients."""
        return super().predict_teacher(images)


def _check_teachable(student: PAA) -> None:
    """Refuses a static assigner, whose labels no network's predictions can change."""
    if isinstance(student.assigner.cost, NoCost):
        raise ValueError(
            f"model.student.assigner: {type(student.assigner).__name__} is static and has no cost "
            "that a teacher could give: choose PAAAssigner, SimOTAAssigner or TALAssigner, or "
            "train the detector alone"
        )


def _drop_teacher(module: nn.Module, state: dict, prefix: str, _: dict) -> None:
    for key in [k for k in state if k.startswith(f"{prefix}teacher.")]:
        del state[key]


@META_ARCH_REGISTRY.register()
class SoftLabel(FrozenTeacher):
    """Pure soft-label distillation: the teacher's predictions are all that the student learns from.

    The ground truth only selects and weighs cells (LAD paper, equation 3).
    """

    def __init__(self, *, distill_losses: Sequence[DistillLoss], **networks):
        """Keeps the parts and settings.

        Args:
            distill_losses: between student and teacher.
            **networks: as `FrozenTeacher`.

        Raises:
            ValueError: when the student has an IoU branch and the teacher has none to teach it.
        """
        super().__init__(**networks)
        if self.student.head.quality is not None and self.teacher.head.quality is None:
            raise ValueError(
                "the teacher has no IoU branch for the student's to learn from: set "
                "model.student.head.quality=false"
            )
        self.distill_losses = list(distill_losses)

    def forward_training(self, batched_inputs: list[dict]) -> dict[str, Tensor]:
        """Returns the distillation losses."""
        student, teacher, anchors = self.predict(batched_inputs)
        targets = self.student.targets(batched_inputs).to(self.device)
        losses = {}
        for distill in self.distill_losses:
            losses.update(distill(student, teacher, anchors, targets))
        return losses


@META_ARCH_REGISTRY.register()
class LAD(FrozenTeacher):
    """Label assignment distillation: the student is trained on the teacher's assignment.

    With a switch the student's own costs count where its indicator is higher (LAD with dynamic
    switch). With distillation losses on top it is SoLAD.
    """

    def __init__(
        self,
        *,
        switch: RoleSwitch | None = None,
        distill_losses: Sequence[DistillLoss] = (),
        **networks,
    ):
        """Keeps the parts and settings.

        Args:
            switch: decides whose costs count; None: the teacher's.
            distill_losses: added to the student's losses.
            **networks: as `FrozenTeacher`.
        """
        super().__init__(**networks)
        _check_teachable(self.student)
        self.switch = switch
        self.distill_losses = list(distill_losses)

    def forward_training(self, batched_inputs: list[dict]) -> dict[str, Tensor]:
        """Returns the student's losses on the teacher's assignment, and the distillation losses."""
        student, teacher, anchors = self.predict(batched_inputs)
        targets, candidates = self.student.prepare(batched_inputs, anchors)
        cost = self.cost(student, teacher, anchors, targets, candidates, self.switch)
        assignment = self.student.assign(cost, candidates, anchors, targets)
        losses = self.student.losses(student, assignment, anchors, targets)
        # A teacher that gives NaN would spoil the labels unseen: now the loss shows it.
        losses["loss_cls"] = losses["loss_cls"] + 0.0 * cost.sum()
        for distill in self.distill_losses:
            losses.update(distill(student, teacher, anchors, targets))
        return losses


@META_ARCH_REGISTRY.register()
class CoLAD(TwoNetworks):
    """Collaborative LAD: both networks are trained on the assignment of the fitter one."""

    def __init__(self, *, switch: RoleSwitch, **networks):
        """Keeps the parts and settings.

        Args:
            switch: decides whose costs count.
            **networks: as `TwoNetworks`.

        Raises:
            ValueError: without a switch, or with an assigner that has no cost.
        """
        super().__init__(**networks)
        _check_teachable(self.student)
        if switch is None:
            raise ValueError("model.switch=null: CoLAD needs one to decide who teaches")
        self.switch = switch

    def forward_training(self, batched_inputs: list[dict]) -> dict[str, Tensor]:
        """Returns both networks' losses on one assignment, as ``student/...``, ``teacher/...``."""
        student, teacher, anchors = self.predict(batched_inputs)
        targets, candidates = self.student.prepare(batched_inputs, anchors)
        cost = self.cost(student, teacher, anchors, targets, candidates, self.switch)
        assignment = self.student.assign(cost, candidates, anchors, targets)
        losses = {}
        for name, predictions in (("student", student), ("teacher", teacher)):
            network_losses = getattr(self, name).losses(predictions, assignment, anchors, targets)
            losses.update({f"{name}/{key}": value for key, value in network_losses.items()})
        return losses

    def evaluated_networks(self) -> dict[str, nn.Module]:
        """Both networks are evaluated."""
        return {name: getattr(self, name) for name in NETWORKS}
