"""The training step of distillation and its methods (LAD paper 3.2 to 3.4)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from lad.assignment.switch import RoleSwitch
from lad.modeling.batch import Outputs, ground_truth, split_by_labels
from lad.modeling.checks import check_intermediates, check_networks, check_teachable
from lad.modeling.classes import ClassMap, describe, match_classes
from lad.modeling.distill_loss import DistillLoss
from lad.modeling.losses import nan_unless_finite
from lad.modeling.network import (
    DenseNetwork,
    ModelInfo,
    Progress,
    Roles,
    same_values,
)
from lad.structures import Assignment, CandidateCosts, Candidates, Targets

logger = logging.getLogger(__name__)

NETWORKS = ("student", "teacher")


@META_ARCH_REGISTRY.register()
class Distillation(nn.Module):
    """A student on its own assignment, with any number of distillation losses.

    LAD, CoLAD and SoftLabel are subclasses that differ in `assign` and `supervise`.

    Args:
        student: the network to train.
        teacher: frozen unless the method trains it. It has the student's anchors and classes, but
            may be of another kind, with another backbone and head.
        student_checkpoint: initial weights of the student, a detector's or a backbone's.
        teacher_checkpoint: the same for the teacher; "random" for none, where it is frozen.
        distill_losses: added to the student's losses.
        switch: decides whose costs count, for methods that assign by a teacher.
        eval_network: "student" or "teacher", used by the model in evaluation mode.
        save_teacher: keep a frozen teacher's weights in checkpoints; without them, resuming reads
            ``teacher_checkpoint`` again.
        student_classes: names of the student's classes, needed with ``teacher_classes``.
        teacher_classes: names of the classes in ``teacher_checkpoint``, if they are others than the
            student's: its class layer then is that of the student's classes. A frozen teacher gives
            no soft labels of a class that it lacks, and the student's own costs label its objects.

    Raises:
        ValueError: when the parts do not fit together.
    """

    trains_teacher = False

    def __init__(
        self,
        *,
        student: DenseNetwork,
        teacher: DenseNetwork | None = None,
        student_checkpoint: str = "",
        teacher_checkpoint: str = "",
        distill_losses: Sequence[DistillLoss] = (),
        switch: RoleSwitch | None = None,
        eval_network: str = "student",
        save_teacher: bool = True,
        student_classes: Sequence[str] | None = None,
        teacher_classes: Sequence[str] | None = None,
    ):
        super().__init__()
        if eval_network not in NETWORKS[: 1 if teacher is None else 2]:
            raise ValueError(f"eval_network={eval_network!r}: choose 'student' or 'teacher'")
        if teacher is student:
            raise ValueError("model.teacher: it is the student itself; make a second network")
        if teacher is not None:
            check_networks(student, teacher)
        self.student = student
        self.teacher = teacher
        self.distill_losses = nn.ModuleList(distill_losses)
        self.checkpoints = {"student": student_checkpoint, "teacher": teacher_checkpoint}
        self.eval_network = eval_network
        self.save_teacher = save_teacher
        self.roles = Roles(switch) if switch is not None else None
        self.progress = Progress()
        self.class_map = self._map_classes(student_classes, teacher_classes)
        known = torch.tensor(self.class_map.source) >= 0 if self.class_map else None
        if self.trains_teacher or (known is not None and known.all()):
            known = None  # a teacher learns the classes that it is trained on
        self._known_classes: Tensor | None
        self.register_buffer("_known_classes", known, persistent=False)
        for index, loss in enumerate(distill_losses):
            loss.check(student, teacher)
            loss.progress = self.progress
            for network in filter(None, (student, teacher)):
                names = loss.intermediates(network)
                check_intermediates(f"model.distill_losses.{index}", names, network)
        if teacher is not None:
            self._same_pixels = same_values(student.pixel_mean, teacher.pixel_mean) and (
                same_values(student.pixel_std, teacher.pixel_std)
            )
            if not self.trains_teacher:
                teacher.requires_grad_(False)
            if not save_teacher:
                self.register_state_dict_post_hook(_drop_teacher)
        self.check()

    def _map_classes(
        self, student: Sequence[str] | None, teacher: Sequence[str] | None
    ) -> ClassMap | None:
        if teacher is None:
            return None
        if self.teacher is None:
            raise ValueError("model.teacher_classes: there is no teacher: set model.teacher")
        for key, names in (("student", student), ("teacher", teacher)):
            if names is None or isinstance(names, str):
                raise ValueError(f"model.{key}_classes={names}: list the names of its classes")
        assert student is not None
        if len(student) != self.student.num_classes:
            raise ValueError(
                f"model.student_classes names {len(student)} classes, the student has "
                f"{self.student.num_classes}: name each, in the order of the dataset"
            )
        classes = match_classes(student, teacher)
        logger.info(describe(classes, student, teacher))
        return classes

    def check(self) -> None:
        """Raises ValueError if the parts do not fit the method."""
        if self.roles is not None:
            raise ValueError(
                f"model.switch: {type(self).__name__} assigns without a teacher's costs: set it "
                "to null"
            )

    @property
    def device(self) -> torch.device:
        """The networks' device."""
        return self.student.device

    def train(self, mode: bool = True) -> Distillation:
        """Sets the mode; a frozen teacher stays in eval mode."""
        super().train(mode)
        if self.teacher is not None and not self.trains_teacher:
            self.teacher.eval()
        return self

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Returns losses in training, else the detections of ``eval_network``."""
        if not self.training:
            return self.info().networks[self.eval_network](batched_inputs)
        labeled, unlabeled = split_by_labels(batched_inputs)
        everything = self.run([*labeled, *unlabeled])
        outputs = everything.first(len(labeled)) if unlabeled else everything
        # The ground truth stays on the loader's device: the CPU computes the candidates while the
        # GPU runs the networks.
        targets = Targets.from_instances(ground_truth(labeled))
        assignment = self.assign(outputs, targets)
        targets = targets.to(self.device)
        losses = self.supervise(outputs, assignment, targets)
        sizes = [tuple(x["image"].shape[-2:]) for x in unlabeled]
        inputs = {
            True: (*everything.detach_teacher(), targets.with_unlabeled(sizes)),
            False: (*outputs.detach_teacher(), targets),
        }
        for index, distill_loss in enumerate(self.distill_losses):
            assert isinstance(distill_loss, DistillLoss)
            further = distill_loss.scheduled(*inputs[distill_loss.takes_unlabeled], assignment)
            for name, loss in further.items():
                losses[f"{name}.{index}" if name in losses else name] = loss
        return losses

    def run(self, batched_inputs: list[dict]) -> Outputs:
        """Runs the networks on the same images; a frozen teacher without gradients."""
        images = self.student.preprocess_image(batched_inputs)
        student = self.student.run(images, self._intermediates(self.student))
        if self.teacher is None:
            return Outputs(student, None)
        if not self._same_pixels:
            images = self.teacher.preprocess_image(batched_inputs)
        with torch.set_grad_enabled(self.trains_teacher and torch.is_grad_enabled()):
            teacher = self.teacher.run(images, self._intermediates(self.teacher))
        return Outputs(student, teacher._replace(known_classes=self._known_classes))

    def _intermediates(self, network: DenseNetwork) -> list[str]:
        """Returns the names of the inner modules whose outputs the losses need."""
        losses: Iterable[DistillLoss] = self.distill_losses  # type: ignore[assignment]
        return sorted({name for loss in losses for name in loss.intermediates(network)})

    def assign(self, outputs: Outputs, targets: Targets) -> Assignment | None:
        """Returns the student's own assignment."""
        return self.student.assign(outputs.student.predictions, targets)

    def supervise(
        self, outputs: Outputs, assignment: Assignment | None, targets: Targets
    ) -> dict[str, Tensor]:
        """Returns the losses on the assignment."""
        assert assignment is not None
        return self.student.losses(outputs.student.predictions, assignment, targets)

    def info(self) -> ModelInfo:
        """Returns the networks and how to load and evaluate them."""
        networks = {"student": self.student}
        if self.teacher is not None:
            networks["teacher"] = self.teacher
        return ModelInfo(
            networks,
            evaluated=(
                {name: name for name in networks}
                if self.trains_teacher
                else {"": self.eval_network}
            ),
            checkpoints={name: self.checkpoints[name] for name in networks},
            num_classes=self.student.num_classes,
            roles=self.roles,
            progress=self.progress,
            class_maps={"teacher": self.class_map} if self.class_map else {},
            takes_unlabeled=any(x.takes_unlabeled for x in self.distill_losses),
        )


@META_ARCH_REGISTRY.register()
class SoftLabel(Distillation):
    """Pure soft-label distillation: the student learns from the teacher's predictions only.

    The ground truth selects and weights anchors (LAD paper, equation 3).
    """

    def assign(self, outputs: Outputs, targets: Targets) -> None:
        """Returns no assignment."""

    def supervise(
        self, outputs: Outputs, assignment: Assignment | None, targets: Targets
    ) -> dict[str, Tensor]:
        """Returns no hard-label losses."""
        return {}

    def check(self) -> None:
        """Requires a teacher, with an IoU branch if the student has one."""
        super().check()
        if self.teacher is None:
            raise ValueError("model.teacher=null: soft labels come from a teacher")
        if self._known_classes is not None:
            raise ValueError(
                "model.teacher_classes: the teacher lacks some of the student's classes, and "
                "SoftLabel has no other source: use LAD with soft labels, as configs/quick/solad.py"
            )
        for index, loss in enumerate(self.distill_losses):
            if loss.needs_assignment:
                raise ValueError(
                    f"model.distill_losses.{index}: {type(loss).__name__} needs hard labels, which "
                    "SoftLabel has not: use another method or remove the loss"
                )
        if self.student.predicts_quality and not self.teacher.predicts_quality:
            raise ValueError(
                "model.teacher: the teacher has no IoU branch, but the student has: set "
                "model.student.head.quality=false"
            )
        if not self.distill_losses:
            raise ValueError(
                "model.distill_losses=[]: SoftLabel has no other losses; add a SoftLabelLoss"
            )


@META_ARCH_REGISTRY.register()
class LAD(Distillation):
    """Label assignment distillation: the student is trained on the teacher's assignment.

    With a switch the student's own costs count where its indicator is higher (LAD with dynamic
    switch). With a soft-label loss it is SoLAD.
    """

    def check(self) -> None:
        """Requires a teacher, and an assigner of the student that uses costs."""
        check_teachable(self.student, self.teacher)

    def assign(self, outputs: Outputs, targets: Targets) -> Assignment:
        """Returns the labels from the teacher's costs, or from those that the switch chooses.

        The student's assigner computes both networks' costs, so they are comparable. While
        `Roles.own_labels` is set, the labels are the student's own.
        """
        if self.roles is not None and self.roles.own_labels:
            return self.student.assign(outputs.student.predictions, targets)
        student, teacher = outputs
        assert self.student.assigner is not None and teacher is not None
        assigner, anchors = self.student.assigner, student.predictions.anchors
        candidates = assigner.candidates(anchors, targets)
        targets = targets.to(self.device)
        costs = taught = assigner.cost(teacher.predictions, targets, candidates)
        if self.roles is not None or teacher.known_classes is not None:
            own = assigner.cost(student.predictions, targets, candidates)
            if teacher.known_classes is not None:
                costs = taught = known_costs(
                    taught, own, teacher.known_classes, candidates, targets
                )
        if self.roles is not None:
            by_student = self.roles.decide(own, taught, candidates, targets, len(anchors.strides))
            costs = own.where(by_student, taught)
        assignment = assigner.assign(costs, candidates, anchors, targets)
        # The losses report a diverged teacher, even if the student's costs were chosen.
        return assignment._replace(cost=taught.cost, distilled=True)

    def supervise(
        self, outputs: Outputs, assignment: Assignment | None, targets: Targets
    ) -> dict[str, Tensor]:
        """Returns the student's losses on the assignment."""
        assert assignment is not None and assignment.cost is not None
        predictions = outputs.student.predictions
        losses = self.student.losses(predictions, assignment, targets)
        return nan_unless_finite(losses, assignment.cost)  # those of a diverged teacher are not


@META_ARCH_REGISTRY.register()
class CoLAD(LAD):
    """Collaborative LAD: both networks are trained on the assignment that the switch chooses.

    While `Roles.own_labels` is set, each is trained on its own. Distillation losses train the
    student; the teacher learns from the assignment alone.
    """

    trains_teacher = True

    def check(self) -> None:
        """Requires a switch, and checkpoints with the teacher."""
        super().check()
        if self.roles is None:
            raise ValueError("model.switch=null: CoLAD needs a RoleSwitch; set one")
        if not self.save_teacher:
            raise ValueError("model.save_teacher=false: CoLAD trains the teacher; set it to true")

    def supervise(
        self, outputs: Outputs, assignment: Assignment | None, targets: Targets
    ) -> dict[str, Tensor]:
        """Returns both networks' losses, named ``student/...`` and ``teacher/...``."""
        assert assignment is not None and outputs.teacher is not None and self.roles is not None
        labels = {"student": assignment, "teacher": assignment}
        if self.roles.own_labels:
            labels["teacher"] = self.student.assign(outputs.teacher.predictions, targets)
        losses = {}
        for name, output in zip(NETWORKS, outputs, strict=True):
            assert output is not None
            own = output.network.losses(output.predictions, labels[name], targets)
            losses.update({f"{name}/{key}": loss for key, loss in own.items()})
        return losses


def known_costs(
    taught: CandidateCosts,
    own: CandidateCosts,
    known_classes: Tensor,
    candidates: Candidates,
    targets: Targets,
) -> CandidateCosts:
    """Returns a teacher's costs, and the student's own of the objects whose class it does not know.

    Args:
        taught: the teacher's.
        own: the student's.
        known_classes: (K,) bool.
        candidates: P candidates.
        targets: G objects.
    """
    return taught.where(known_classes[targets.classes][candidates.gt], own)


def _drop_teacher(module: nn.Module, state: dict, prefix: str, _: dict) -> None:
    for key in [k for k in state if k.startswith(f"{prefix}teacher.")]:
        del state[key]
