"""Losses of a dense detector on an assignment (PAA section 3.3, LAD section 3.2; GFL)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lad.ops.boxes import paired_giou, paired_iou
from lad.ops.coders import DistributionCoder
from lad.ops.distributions import distribution_focal
from lad.ops.focal import focal_negative, focal_positive, quality_focal
from lad.ops.ranks import mean_over_ranks
from lad.structures import Assignment, BoxCoder, DensePredictions, Targets

_EPS = 1e-6


def is_positive(predictions: DensePredictions, assignment: Assignment) -> Tensor:
    """Returns (N, R) bool: the anchors with an object."""
    labels = assignment.labels
    return (labels >= 0) & (labels < predictions.scores.shape[-1])


def positives(predictions: DensePredictions, assignment: Assignment) -> tuple[Tensor, Tensor]:
    """Returns the (P,) image and anchor indices of the positives."""
    image, anchor = is_positive(predictions, assignment).nonzero(as_tuple=True)
    return image, anchor


def nan_unless_finite(losses: dict[str, Tensor], values: Tensor) -> dict[str, Tensor]:
    """Returns losses of which the first is NaN if one of the values is not finite."""
    first = next(iter(losses))
    return {**losses, first: losses[first] + 0.0 * values.sum()}


class DetectionLosses:
    """Focal class loss, GIoU box loss and the IoU branch's cross-entropy.

    Normalizers are means over the processes, so N processes train as one with the whole batch. With
    gradient accumulation each batch has its own.

    Args:
        weight_boxes_by_iou: weight each positive's box loss with the detached IoU of its box and
            normalize by their sum (PAA); else normalize by the number of positives, as always
            without the IoU branch.
        box_weight: of the box loss.
        quality_weight: of the IoU branch's loss.
        alpha: of the focal loss.
        gamma: of the focal loss.
    """

    def __init__(
        self,
        *,
        weight_boxes_by_iou: bool = True,
        box_weight: float = 1.3,
        quality_weight: float = 0.5,
        alpha: float = 0.25,
        gamma: float = 2.0,
    ):
        self.weight_boxes_by_iou = weight_boxes_by_iou
        self.box_weight = box_weight
        self.quality_weight = quality_weight
        self.focal = (alpha, gamma)

    def check(self, coder: BoxCoder) -> None:
        """Raises ValueError if the losses cannot work with this coder's regression."""

    def __call__(
        self,
        predictions: DensePredictions,
        assignment: Assignment,
        targets: Targets,
        *,
        weighted: bool = True,
    ) -> dict[str, Tensor]:
        """Returns scalars: ``loss_cls``, ``loss_box_reg``, with the IoU branch ``loss_quality``.

        Without positives the latter two are zero, connected to the graph. Targets are on the device
        of the predictions. ``weighted=False`` turns `weight_boxes_by_iou` off.
        """
        with torch.autocast(predictions.scores.device.type, enabled=False):
            predictions = predictions.float()
            at = positives(predictions, assignment)
            boxes = predictions.boxes(at)
            gt_boxes = targets.boxes[assignment.gt[at]]
            iou = paired_iou(boxes.detach(), gt_boxes)
            totals = mean_over_ranks(torch.stack([iou.new_tensor(len(iou)), iou.sum()]))
            num_positives, iou_sum = totals.clamp(min=_EPS)

            class_loss = self.class_loss(predictions, assignment, at)
            losses = {"loss_cls": class_loss / num_positives.clamp(min=len(assignment.labels))}
            box_loss = self.box_weight * (1 - paired_giou(boxes, gt_boxes))
            if weighted and self.weight_boxes_by_iou and predictions.quality is not None:
                losses["loss_box_reg"] = (box_loss * iou).sum() / iou_sum
            else:
                losses["loss_box_reg"] = box_loss.sum() / num_positives
            if predictions.quality is not None:
                entropy = F.binary_cross_entropy_with_logits(
                    predictions.quality[at], iou, reduction="sum"
                )
                losses["loss_quality"] = self.quality_weight * entropy / num_positives
            return losses

    def class_loss(
        self, predictions: DensePredictions, assignment: Assignment, at: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Returns the summed focal loss of all anchors that are not ignored.

        ``at`` has the image and anchor index of each positive; predictions are in float32.
        """
        scores, activation = predictions.scores, predictions.activation
        own = scores[(*at, assignment.labels[at])]
        negative = focal_negative(scores, activation, *self.focal).sum(dim=-1)
        return (
            (negative * (assignment.labels >= 0)).sum()
            - focal_negative(own, activation, *self.focal).sum()
            + focal_positive(own, activation, *self.focal).sum()
        )


class GFLLosses(DetectionLosses):
    """Generalized focal loss (GFL, arXiv 2006.04388): for `GFLHead`.

    Quality focal loss of the class scores, whose target at a positive is the IoU of its predicted
    box with its object; GIoU loss of the boxes and distribution focal loss of their sides. A
    positive's box counts by its highest class probability, without gradient, and both box losses
    are divided by the sum of these. The class loss is divided by the number of positives, at least
    that of images. Normalizers are means over the processes.

    Args:
        box_weight: of the GIoU loss.
        distribution_weight: of the distribution focal loss, the mean of the four sides.
        beta: of the quality focal loss.
    """

    def __init__(
        self, *, box_weight: float = 2.0, distribution_weight: float = 0.25, beta: float = 2.0
    ):
        super().__init__(weight_boxes_by_iou=False, box_weight=box_weight)
        self.distribution_weight = distribution_weight
        self.beta = beta

    def check(self, coder: BoxCoder) -> None:
        """Requires distributions."""
        if not isinstance(coder, DistributionCoder):
            raise ValueError(
                f"model.losses: GFLLosses trains distributions, but model.coder is "
                f"{type(coder).__name__}: use GFLHead with DistributionCoder, or DetectionLosses"
            )

    def __call__(
        self,
        predictions: DensePredictions,
        assignment: Assignment,
        targets: Targets,
        *,
        weighted: bool = True,
    ) -> dict[str, Tensor]:
        """Returns scalars: ``loss_cls``, ``loss_box_reg`` and ``loss_dfl``.

        Without positives the latter two are zero, connected to the graph. Targets are on the device
        of the predictions. ``weighted`` is about PAA's weights and without effect.
        """
        coder = predictions.coder
        assert isinstance(coder, DistributionCoder)
        with torch.autocast(predictions.scores.device.type, enabled=False):
            predictions = predictions.float()
            at = positives(predictions, assignment)
            boxes, gt_boxes = predictions.boxes(at), targets.boxes[assignment.gt[at]]
            weights = predictions.detach().class_probabilities(at).amax(dim=-1)
            totals = mean_over_ranks(torch.stack([weights.new_tensor(len(weights)), weights.sum()]))
            num_positives, weight_sum = totals.clamp(min=_EPS)

            class_loss = self.quality_loss(
                predictions, assignment, at, paired_iou(boxes.detach(), gt_boxes)
            )
            box_loss = (1 - paired_giou(boxes, gt_boxes)) * weights
            distances = coder.encode(predictions.anchors.boxes[at[1]], gt_boxes)
            logits = coder.logits(predictions.take(predictions.regression, at))
            side_loss = distribution_focal(logits, distances).mean(dim=-1) * weights
            return {
                "loss_cls": class_loss / num_positives.clamp(min=len(assignment.labels)),
                "loss_box_reg": self.box_weight * box_loss.sum() / weight_sum,
                "loss_dfl": self.distribution_weight * side_loss.sum() / weight_sum,
            }

    def quality_loss(
        self,
        predictions: DensePredictions,
        assignment: Assignment,
        at: tuple[Tensor, Tensor],
        quality: Tensor,
    ) -> Tensor:
        """Returns the summed quality focal loss of all anchors that are not ignored.

        ``at`` has the image and anchor index of each positive, ``quality`` its (P,) target.
        """
        scores, activation = predictions.scores, predictions.activation
        own = scores[(*at, assignment.labels[at])]
        negative = focal_negative(scores, activation, 0.0, self.beta).sum(dim=-1)
        return (
            (negative * (assignment.labels >= 0)).sum()
            - focal_negative(own, activation, 0.0, self.beta).sum()
            + quality_focal(own, activation, quality, self.beta).sum()
        )
