"""Losses of a dense detector on an assignment (PAA section 3.3, LAD section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lad.ops.boxes import paired_giou, paired_iou
from lad.ops.focal import focal_negative, focal_positive
from lad.ops.ranks import mean_over_ranks
from lad.structures import Assignment, DensePredictions, Targets

_EPS = 1e-6


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
            num_classes = predictions.scores.shape[-1]
            foreground = (assignment.labels >= 0) & (assignment.labels < num_classes)
            image, anchor = foreground.nonzero(as_tuple=True)
            at = image, anchor
            boxes = predictions.boxes(at)
            gt_boxes = targets.boxes[assignment.gt[at]]
            iou = paired_iou(boxes.detach(), gt_boxes)
            totals = mean_over_ranks(torch.stack([iou.new_tensor(len(iou)), iou.sum()]))
            num_positives, iou_sum = totals.clamp(min=_EPS)

            class_loss = self.class_loss(predictions, assignment, at)
            losses = {"loss_cls": class_loss / num_positives.clamp(min=len(foreground))}
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
