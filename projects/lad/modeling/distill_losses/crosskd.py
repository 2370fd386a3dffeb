"""CrossKD: the student's features through the teacher's head (arXiv 2306.11369)."""

from __future__ import annotations

import torch
from torch import Tensor

from lad.modeling.distill_losses.common import (
    TowerLoss,
    channel_statistics,
    cross_entropy,
    foreground,
)
from lad.modeling.network import NetworkOutput, without_gradients
from lad.ops.boxes import paired_giou
from lad.ops.coders import DistributionCoder
from lad.ops.distributions import distribution_kl
from lad.ops.ranks import mean_over_ranks
from lad.structures import Assignment, DensePredictions, Targets


class CrossKD(TowerLoss):
    """What the teacher's last layers make of the student's features, against the teacher's output.

    The student's output of the last but one convolution of each tower (before its ReLU) gets the
    teacher's mean and deviation per channel. The teacher's remaining layers turn it into cross-head
    predictions (paper, section 3.3). With their class probabilities c and the teacher's t:

    - class: sum of abs(t - c) cross-entropy(c, t) over anchors and classes;
    - box: sum over anchors of max over classes of t, times 1 - GIoU of both boxes;
    - quality: cross-entropy to the teacher's quality at the student's positives.

    All are divided by the number of positives; ignored anchors do not count. The towers may have
    different numbers of convolutions, and different channels by a 1x1 convolution.

    Networks with box distributions (`GFLHead`) have another box term, as in the paper: twice the
    above, and the KL divergence of the distributions, mean over the sides and weighted in the same
    way. Both are divided by the sum of these weights.

    Args:
        class_weight: of the class term.
        box_weight: of the box term.
        quality_weight: of the quality term.
        distribution_weight: of the divergence of box distributions.
        **schedule: ``start`` and ``until`` of `DistillLoss`.
    """

    needs_assignment = True
    block = -2
    place = "before"

    def __init__(
        self,
        *,
        class_weight: float = 1.0,
        box_weight: float = 1.0,
        quality_weight: float = 1.0,
        distribution_weight: float = 3.0,
        **schedule: float,
    ):
        super().__init__(**schedule)
        self.class_weight = class_weight
        self.box_weight = box_weight
        self.quality_weight = quality_weight
        self.distribution_weight = distribution_weight

    def forward(
        self,
        student: NetworkOutput,
        teacher: NetworkOutput | None,
        targets: Targets,
        assignment: Assignment | None,
    ) -> dict[str, Tensor]:
        """Returns ``loss_cross_cls``, ``loss_cross_box``, ``..._quality`` and ``..._dfl``.

        The latter two are those of the IoU branch and of box distributions.
        """
        assert teacher is not None and assignment is not None
        cross = self.cross_predictions(student, teacher)
        with torch.autocast(cross.scores.device.type, enabled=False):
            return self.between(cross.float(), teacher.predictions.float(), assignment)

    def cross_predictions(self, student: NetworkOutput, teacher: NetworkOutput) -> DensePredictions:
        """Returns the predictions of the teacher's last layers from the student's features.

        Gradients reach the student and the adapters, and no weight of the teacher.
        """
        network = teacher.network
        with network.second_pass(), without_gradients(network):
            towers = zip(self.pairs(student, teacher), self.blocks(network), strict=True)
            features = [[block.rest(align(x, y)) for x, y in pairs] for pairs, block in towers]
            return network.predict_from_towers(*features)

    def between(
        self, cross: DensePredictions, teacher: DensePredictions, assignment: Assignment
    ) -> dict[str, Tensor]:
        """Returns the losses between cross-head and teacher's predictions, in float32."""
        positive, num_positives = foreground(cross, assignment)
        counted = assignment.labels >= 0
        target = teacher.class_probabilities()
        gap = (target - cross.class_probabilities()).abs()
        entropy = (gap * cross_entropy(cross.scores, cross.activation, target)).sum(dim=-1)
        losses = {
            "loss_cross_cls": self.class_weight * (entropy * counted).sum() / num_positives,
            **self._box_losses(cross, teacher, target.amax(dim=-1) * counted, num_positives),
        }
        if cross.quality is not None and teacher.quality is not None:
            entropy = cross_entropy(cross.quality, "sigmoid", teacher.quality.sigmoid()) * positive
            losses["loss_cross_quality"] = self.quality_weight * entropy.sum() / num_positives
        return losses

    def _box_losses(
        self,
        cross: DensePredictions,
        teacher: DensePredictions,
        weights: Tensor,
        num_positives: Tensor,
    ) -> dict[str, Tensor]:
        """Returns the losses between boxes with (N, R) weights, and between distributions."""
        box_loss = ((1 - paired_giou(cross.boxes(), teacher.boxes())) * weights).sum()
        coder = teacher.coder
        if not isinstance(coder, DistributionCoder):
            return {"loss_cross_box": self.box_weight * box_loss / num_positives}
        total = mean_over_ranks(weights.sum()).clamp(min=1e-6)
        own, other = (coder.logits(x.regression) for x in (cross, teacher))
        divergence = (distribution_kl(own, other, 1.0).mean(dim=-1) * weights).sum()
        return {
            "loss_cross_box": 2 * self.box_weight * box_loss / total,
            "loss_cross_dfl": self.distribution_weight * divergence / total,
        }


def align(student: Tensor, teacher: Tensor) -> Tensor:
    """Returns (N, C, H, W) maps with another's mean and deviation per channel."""
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = student.float(), teacher.float()
        (mean, deviation), (to_mean, to_deviation) = map(channel_statistics, (student, teacher))
        return (student - mean) / deviation * to_deviation + to_mean
