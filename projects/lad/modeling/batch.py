"""What goes into the training step of distillation, and what the networks make of it."""

from __future__ import annotations

from typing import NamedTuple

from detectron2.structures import Instances

from lad.modeling.network import NetworkOutput


class Outputs(NamedTuple):
    """Both networks' outputs for a batch."""

    student: NetworkOutput
    teacher: NetworkOutput | None

    def first(self, number: int) -> Outputs:
        """Returns the outputs for the first images."""
        teacher = None if self.teacher is None else self.teacher.first(number)
        return Outputs(self.student.first(number), teacher)

    def detach_teacher(self) -> Outputs:
        """Returns the outputs with the teacher's outside the autograd graph."""
        return self._replace(teacher=None if self.teacher is None else self.teacher.detach())


def ground_truth(batched_inputs: list[dict]) -> list[Instances]:
    """Returns each image's ``instances``.

    Raises:
        ValueError: for an image without.
    """
    if any("instances" not in x for x in batched_inputs):
        raise ValueError(
            "ground truth is needed, but an input has no 'instances': use a mapper with "
            "is_train=true"
        )
    return [x["instances"] for x in batched_inputs]


def split_by_labels(batched_inputs: list[dict]) -> tuple[list[dict], list[dict]]:
    """Returns the inputs with labels, and those that say ``unlabeled=True``.

    Raises:
        ValueError: if none has labels.
    """
    parts: tuple[list[dict], list[dict]] = ([], [])
    for x in batched_inputs:
        parts[bool(x.get("unlabeled"))].append(x)
    if not parts[0]:
        raise ValueError("a batch has unlabeled images only: each process needs one with labels")
    return parts
