"""Soft-label distillation on dense predictions (LAD paper 3.3, table 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, pairwise_iou
from torch import Tensor

from lad.modeling.distill_loss import DistillLoss
from lad.modeling.network import DenseNetwork, NetworkOutput
from lad.ops.boxes import clip_boxes, paired_giou
from lad.ops.ranks import mean_over_ranks
from lad.structures import Assignment, DensePredictions, Targets

_EPS = 1e-6


def focal_kl(
    student: Tensor, teacher: Tensor, gamma: float, *, activations: tuple[str, str]
) -> Tensor:
    """Returns the KL divergence of Bernoulli distributions with a focal factor, elementwise.

    w (t log(t/p) + (1 - t) log((1 - t)/(1 - p))) with w = ((t - p)^2 + 1e-6)^(gamma / 2), p the
    student's and t the teacher's probability. w is part of the gradient.

    Args:
        student: logits or probabilities.
        teacher: logits or probabilities, the same shape.
        gamma: 0 gives the plain divergence.
        activations: of student and teacher: "sigmoid" for logits, "none" for probabilities.
    """
    p, log_p, log_not_p = _with_logs(student, activations[0])
    t, log_t, log_not_t = _with_logs(teacher, activations[1])
    divergence = t * (log_t - log_p) + (1 - t) * (log_not_t - log_not_p)
    return divergence * ((t - p) ** 2 + 1e-6) ** (gamma / 2) if gamma else divergence


def _with_logs(scores: Tensor, activation: str) -> tuple[Tensor, Tensor, Tensor]:
    """Returns probability p, log p and log (1 - p)."""
    if activation == "sigmoid":
        return scores.sigmoid(), F.logsigmoid(scores), F.logsigmoid(-scores)
    p = scores.clamp(_EPS, 1 - _EPS)
    return p, p.log(), (-p).log1p()


class SoftLabelLoss(DistillLoss):
    """The student's class scores, IoU branch and boxes against the teacher's.

    The class term covers every anchor and class, the box and quality terms the anchors whose
    teacher box has an IoU above ``min_iou`` with an object. All are divided by the sum of these
    IoUs (mean over the processes). Without such an anchor all terms are zero.

    The objects of an unlabeled image are not known: the teacher's highest class probability at an
    anchor takes the place of the IoU, and ``min_score`` that of ``min_iou``. Classes that the
    teacher lacks are in no term, and their objects select no anchors.

    Args:
        kind: of the class term: "kl" (with the focal factor), "l1" or "l2" on probabilities.
        gamma: of the class term's focal factor.
        class_weight: of the class term.
        quality_weight: of the IoU branch's KL term.
        quality_gamma: of that term's focal factor.
        box_weight: of the GIoU term between both networks' boxes.
        min_iou: anchors with a higher IoU are selected.
        select_by: "teacher_box" or "anchor": whose IoU selects.
        min_score: anchors of unlabeled images with a higher class probability are selected.
        **schedule: ``start`` and ``until`` of `DistillLoss`.

    Raises:
        ValueError: for another kind or select_by.
    """

    takes_unlabeled = True

    def __init__(
        self,
        *,
        kind: str = "kl",
        gamma: float = 0.5,
        class_weight: float = 2.0,
        quality_weight: float = 10.0,
        quality_gamma: float = 0.5,
        box_weight: float = 1.3,
        min_iou: float = 0.5,
        select_by: str = "teacher_box",
        min_score: float = 0.3,
        **schedule: float,
    ):
        if kind not in ("kl", "l1", "l2"):
            raise ValueError(f"kind={kind!r}: choose 'kl', 'l1' or 'l2'")
        if select_by not in ("teacher_box", "anchor"):
            raise ValueError(f"select_by={select_by!r}: choose 'teacher_box' or 'anchor'")
        super().__init__(**schedule)
        self.kind = kind
        self.gamma = gamma
        self.class_weight = class_weight
        self.quality_weight = quality_weight
        self.quality_gamma = quality_gamma
        self.box_weight = box_weight
        self.min_iou = min_iou
        self.select_by = select_by
        self.min_score = min_score

    def check(self, student: DenseNetwork, teacher: DenseNetwork | None) -> None:
        """Requires a teacher."""
        if teacher is None:
            raise ValueError("SoftLabelLoss: soft labels come from a teacher: set model.teacher")

    def forward(
        self,
        student: NetworkOutput,
        teacher: NetworkOutput | None,
        targets: Targets,
        assignment: Assignment | None,
    ) -> dict[str, Tensor]:
        """Returns ``loss_soft_cls``, ``loss_soft_box`` and, with IoU branches, the quality loss."""
        assert teacher is not None
        own, theirs = student.predictions, teacher.predictions
        if (known := teacher.known_classes) is not None:
            own, theirs = (x._replace(scores=x.scores[..., known]) for x in (own, theirs))
            targets = targets.of_classes(known)
        return self.between(own, theirs, targets)

    def between(
        self, student: DensePredictions, teacher: DensePredictions, targets: Targets
    ) -> dict[str, Tensor]:
        """Returns the losses between predictions with the same anchors and classes."""
        with torch.autocast(student.scores.device.type, enabled=False):
            student, teacher = student.float(), teacher.detach().float()
            teacher_boxes = clip_boxes(teacher.boxes(), targets.image_sizes[:, None])
            weight, selected = self.select(teacher, teacher_boxes, targets)
            image, anchor = selected.nonzero(as_tuple=True)
            at = image, anchor
            weights = weight[at]
            total = mean_over_ranks(weights.sum())
            # If no anchor is selected, every term is zero, including the class term.
            factor = torch.where(total > 0, 1 / total.clamp(min=_EPS), 0.0)

            student_boxes = clip_boxes(student.boxes(at), targets.image_sizes[image])
            box_loss = (1 - paired_giou(student_boxes, teacher_boxes[at])) * weights
            losses = {
                "loss_soft_cls": self.class_weight * self._class_term(student, teacher) * factor,
                "loss_soft_box": self.box_weight * box_loss.sum() * factor,
            }
            if student.quality is not None and teacher.quality is not None:
                quality = focal_kl(
                    student.quality[at],
                    teacher.quality[at],
                    self.quality_gamma,
                    activations=("sigmoid", "sigmoid"),
                )
                losses["loss_soft_quality"] = self.quality_weight * quality.sum() * factor
            return losses

    def select(
        self, teacher: DensePredictions, teacher_boxes: Tensor, targets: Targets
    ) -> tuple[Tensor, Tensor]:
        """Returns (N, R) weights, and bool: the anchors whose boxes and quality are learned."""
        anchors = teacher.anchors
        by_anchor = self.select_by == "anchor"
        weight = best_overlap(
            anchors.boxes.expand_as(teacher_boxes) if by_anchor else teacher_boxes, targets
        )
        selected = weight > self.min_iou
        if targets.labeled is not None:
            labeled = targets.labeled[:, None]
            score = teacher.class_probabilities().amax(dim=-1)
            selected = torch.where(labeled, selected, score > self.min_score)
            weight = torch.where(labeled, weight, score)
        return weight, selected & anchors.valid(targets.image_sizes)

    def _class_term(self, student: DensePredictions, teacher: DensePredictions) -> Tensor:
        """Returns the class term, summed over all anchors and classes of the batch."""
        if self.kind == "kl":
            kinds = student.activation, teacher.activation
            return focal_kl(student.scores, teacher.scores, self.gamma, activations=kinds).sum()
        difference = student.class_probabilities() - teacher.class_probabilities()
        return difference.abs().sum() if self.kind == "l1" else (difference**2).sum()


def best_overlap(boxes: Tensor, targets: Targets) -> Tensor:
    """Returns (N, R): each of (N, R, 4) boxes' highest IoU with its image's objects, else 0."""
    best = boxes.new_zeros(boxes.shape[:2])
    counts = torch.bincount(targets.image, minlength=len(boxes)).tolist()
    for index, gt_boxes in enumerate(targets.boxes.split(counts)):
        if len(gt_boxes):
            best[index] = pairwise_iou(Boxes(gt_boxes), Boxes(boxes[index])).amax(dim=0)
    return best
