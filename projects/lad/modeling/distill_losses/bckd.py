"""BCKD: binary classification and boxes of all cells (arXiv 2308.14286)."""

from __future__ import annotations

import torch
from torch import Tensor

from lad.modeling.distill_loss import DistillLoss
from lad.modeling.distill_losses.common import (
    cross_entropy,
    foreground,
    require_teacher,
)
from lad.modeling.network import DenseNetwork, NetworkOutput
from lad.ops.boxes import paired_giou
from lad.ops.ranks import sum_over_ranks
from lad.structures import Anchors, Assignment, Targets


class BCKD(DistillLoss):
    """Class scores and boxes of the student against the teacher's, where they differ.

    With p and t the class probabilities of student and teacher:

    - class: sum over anchors and classes of abs(t - p) cross-entropy(p, t), the factor included in
      the gradient;
    - box: sum over anchors of max over classes of abs(t - p), detached, times 1 - GIoU of both
      boxes.

    Both are divided by the number of positives. They count anchors that are not ignored, on levels
    with a positive in the batch, and classes that the teacher knows.

    Args:
        class_weight: of the class term.
        box_weight: of the box term.
        **schedule: ``start`` and ``until`` of `DistillLoss`.
    """

    needs_assignment = True

    def __init__(self, *, class_weight: float = 1.0, box_weight: float = 4.0, **schedule: float):
        super().__init__(**schedule)
        self.class_weight = class_weight
        self.box_weight = box_weight

    def check(self, student: DenseNetwork, teacher: DenseNetwork | None) -> None:
        """Requires a teacher."""
        require_teacher(self, teacher)

    def forward(
        self,
        student: NetworkOutput,
        teacher: NetworkOutput | None,
        targets: Targets,
        assignment: Assignment | None,
    ) -> dict[str, Tensor]:
        """Returns ``loss_bckd_cls`` and ``loss_bckd_box``."""
        assert teacher is not None and assignment is not None
        with torch.autocast(student.predictions.scores.device.type, enabled=False):
            own, other = student.predictions.float(), teacher.predictions.float()
            positive, num_positives = foreground(own, assignment)
            counted = (assignment.labels >= 0) & active(positive, own.anchors)
            target = other.class_probabilities()
            gap = (target - own.class_probabilities()).abs()
            if teacher.known_classes is not None:
                gap = gap * teacher.known_classes
            entropy = (gap * cross_entropy(own.scores, own.activation, target)).sum(dim=-1)
            box_loss = gap.detach().amax(dim=-1) * (1 - paired_giou(own.boxes(), other.boxes()))
            return {
                "loss_bckd_cls": self.class_weight * (entropy * counted).sum() / num_positives,
                "loss_bckd_box": self.box_weight * (box_loss * counted).sum() / num_positives,
            }


def active(positive: Tensor, anchors: Anchors) -> Tensor:
    """Returns (R,) bool: whether the anchor's level has a positive, in any process.

    Args:
        positive: (N, R) bool.
        anchors: R anchors.
    """
    counts = torch.stack([x.sum() for x in positive.split(anchors.num_per_level, dim=1)])
    return anchors.per_anchor(sum_over_ranks(counts) > 0)
