"""Localization distillation: the teacher's box distributions (LD, arXiv 2102.12252)."""

from __future__ import annotations

import torch
from torch import Tensor

from lad.assignment.atss import overlap_threshold
from lad.assignment.candidates import nearest_candidates
from lad.modeling.distill_loss import DistillLoss
from lad.modeling.losses import positives
from lad.modeling.network import DenseNetwork, NetworkOutput
from lad.ops.boxes import paired_diou, paired_iou
from lad.ops.coders import DistributionCoder
from lad.ops.distributions import distribution_kl
from lad.ops.ranks import mean_over_ranks
from lad.structures import Anchors, Assignment, DensePredictions, Targets

_IMAGES = 2  # of a process in the released training, which sums over them


class LD(DistillLoss):
    """The student's distributions of box sides against the teacher's, for `GFLHead`s.

    KL(teacher || student) at a temperature, times its square, is averaged over bins and sides. It
    is summed over the main region, the positives, each weighted by the student's highest class
    probability (without gradient), and over the valuable localization region (`valuable_region`),
    each anchor weighted by its IoU. Both are divided by the number of images, a mean over the
    processes, and multiplied by 2: the released code sums over the 2 images of a process.

    Args:
        weight: of the main region.
        vlr_weight: of the valuable localization region; the released code has 0.25 / 4. 0 for none.
        temperature: divides the logits.
        vlr_share: of the positives' IoU threshold, where the valuable region begins.
        **schedule: ``start`` and ``until`` of `DistillLoss`.

    Raises:
        ValueError: for a temperature that is not positive or a share outside 0..1.
    """

    needs_assignment = True

    def __init__(
        self,
        *,
        weight: float = 0.25,
        vlr_weight: float = 0.0625,
        temperature: float = 10.0,
        vlr_share: float = 0.25,
        **schedule: float,
    ):
        if temperature <= 0:
            raise ValueError(f"temperature={temperature}: it has to be positive")
        if not 0 < vlr_share <= 1:
            raise ValueError(f"vlr_share={vlr_share}: it has to be above 0 and at most 1")
        super().__init__(**schedule)
        self.weight = weight
        self.vlr_weight = vlr_weight
        self.temperature = temperature
        self.vlr_share = vlr_share

    def check(self, student: DenseNetwork, teacher: DenseNetwork | None) -> None:
        """Requires distributions of both networks over the same bins."""
        if teacher is None:
            raise ValueError("LD: box distributions come from a teacher: set model.teacher")
        bins = []
        for name, network in (("student", student), ("teacher", teacher)):
            coder = network.coder
            if not isinstance(coder, DistributionCoder):
                raise ValueError(
                    f"LD: model.{name} has {type(coder).__name__} and no box distributions: give "
                    "both networks GFLHead with DistributionCoder, or use another loss"
                )
            bins.append((coder.num_bins, coder.distances.units_per_side))
        if bins[0] != bins[1]:
            raise ValueError(
                "LD: student and teacher need the same bins, but have (num_bins, units_per_side) "
                f"{bins[0]} and {bins[1]}: make model.student.coder and model.teacher.coder equal"
            )

    def forward(
        self,
        student: NetworkOutput,
        teacher: NetworkOutput | None,
        targets: Targets,
        assignment: Assignment | None,
    ) -> dict[str, Tensor]:
        """Returns ``loss_ld`` and, with a weight, ``loss_ld_vlr``."""
        assert teacher is not None and assignment is not None
        return self.between(student.predictions, teacher.predictions, targets, assignment)

    def between(
        self,
        student: DensePredictions,
        teacher: DensePredictions,
        targets: Targets,
        assignment: Assignment,
    ) -> dict[str, Tensor]:
        """Returns the losses between predictions with the same anchors, zero without objects."""
        with torch.autocast(student.scores.device.type, enabled=False):
            student, teacher = student.float(), teacher.detach().float()
            labels = assignment.labels
            images = mean_over_ranks(torch.tensor(float(len(labels)), device=labels.device))
            at = positives(student, assignment)
            scores = student.detach().class_probabilities(at).amax(dim=-1)
            total = (scores * self._divergence(student, teacher, at)).sum()
            losses = {"loss_ld": self.weight * _IMAGES * total / images}
            if self.vlr_weight:
                region = valuable_region(student.anchors, targets, self.vlr_share)
                region[at] = 0.0
                image, anchor = region.nonzero(as_tuple=True)
                at = image, anchor
                total = (region[at] * self._divergence(student, teacher, at)).sum()
                losses["loss_ld_vlr"] = self.vlr_weight * _IMAGES * total / images
            return losses

    def _divergence(
        self, student: DensePredictions, teacher: DensePredictions, at: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Returns (P,) means over sides and bins at (P,) image and anchor indices."""
        coder = student.coder
        assert isinstance(coder, DistributionCoder)
        mine, theirs = (coder.logits(x.take(x.regression, at)) for x in (student, teacher))
        return distribution_kl(mine, theirs, self.temperature).mean(dim=-1) / coder.num_bins


@torch.no_grad()
def valuable_region(anchors: Anchors, targets: Targets, share: float) -> Tensor:
    """Returns (N, R): the weight of each anchor in the valuable localization region, else 0.

    An anchor is in the region of an object if its DIoU with it is below the object's positive
    threshold and at least ``share`` of it (LD, algorithm 1). The threshold is ATSS's, mean plus
    standard deviation of the IoUs of the nearest anchors, whatever assigner makes the labels. The
    weight is the highest IoU with such an object, as in the released code.

    Example: at a threshold of 0.6 and a share of 0.25 an anchor of DIoU 0.2 and IoU 0.25 has
    weight 0.25; DIoU 0.1 and 0.7 are outside.

    Args:
        anchors: R anchors.
        targets: G objects of N images, on the anchors' device.
        share: of the threshold.
    """
    boxes, objects = anchors.boxes, targets.boxes
    nearest = nearest_candidates(anchors, targets, topk=9)
    iou = paired_iou(boxes[nearest.anchor], objects[nearest.gt])
    threshold = overlap_threshold(iou.double(), nearest.gt, len(objects)).to(boxes.dtype)[:, None]
    diou = paired_diou(boxes, objects[:, None])  # (G, R)
    valid = anchors.valid(targets.image_sizes)
    inside = (diou >= share * threshold) & (diou < threshold) & valid[targets.image]
    gt, anchor = inside.nonzero(as_tuple=True)
    weight = paired_iou(boxes[anchor], objects[gt])
    slot = targets.image[gt] * len(boxes) + anchor
    region = boxes.new_zeros(valid.numel()).scatter_reduce_(0, slot, weight, "amax")
    return region.view_as(valid)
