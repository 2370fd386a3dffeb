"""ATSS: positives by the statistics of their overlaps, without predictions (arXiv 1912.02424)."""

from __future__ import annotations

import torch
from torch import Tensor

from lad.assignment.assigners import LabelAssigner, label_anchors, lowest_claims
from lad.assignment.candidates import inside_box
from lad.assignment.costs import NoCost
from lad.boxes import paired_iou
from lad.structures import Anchors, Assignment, Candidates, Targets


class ATSSAssigner(LabelAssigner):
    """Adaptive training sample selection (ATSS, arXiv 1912.02424, section 3.2, algorithm 1).

    Candidates are, on each level, the anchors nearest to the object's centre. Positive are those
    whose IoU with the object is at least mean + standard deviation (unbiased; that of one candidate
    is 0) of the object's candidates and whose centre lies inside the box. An anchor that several
    objects claim goes to the highest IoU. An object too small to contain a centre has no positives.

    The assignment is static: there is no cost that a teacher could give.
    """

    def __init__(self, *, num_classes: int, topk: int = 9):
        """Sets the rule.

        Args:
            num_classes: K, the background's label.
            topk: candidates of each object and level; fewer where a level has fewer valid cells.

        Raises:
            ValueError: when topk < 1.
        """
        if topk < 1:
            raise ValueError(f"topk={topk}: at least one candidate per level is needed")
        self.cost: NoCost = NoCost()
        self.num_classes = num_classes
        self.topk = topk

    def candidates(self, anchors: Anchors, targets: Targets) -> Candidates:
        """See `LabelAssigner.candidates`. Of equally near anchors the earlier ones count."""
        return nearest_candidates(anchors, targets, topk=self.topk)

    @torch.no_grad()
    def assign(
        self, cost: Tensor, candidates: Candidates, anchors: Anchors, targets: Targets
    ) -> Assignment:
        """See `LabelAssigner.assign`; ``cost`` is not used."""
        gt, boxes = candidates.gt, targets.boxes[candidates.gt]
        iou = paired_iou(anchors.boxes[candidates.anchor], boxes)
        enough = iou >= overlap_threshold(iou.double(), gt, len(targets.boxes))[gt]
        positive = enough & inside_box(anchors, candidates.anchor, boxes)
        chosen = torch.arange(len(gt), device=gt.device)
        positive = lowest_claims(positive, chosen, -iou, candidates, anchors, targets)
        return label_anchors(positive, chosen, candidates, anchors, targets, self.num_classes)


def overlap_threshold(iou: Tensor, gt: Tensor, num_objects: int) -> Tensor:
    """Returns the (G,) mean + standard deviation of each object's IoUs, (P,) float64 of (P,) gt."""

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(num_objects).index_add_(0, gt, values)

    count = total(torch.ones_like(iou))
    mean = total(iou) / count.clamp(min=1)
    variance = total((iou - mean[gt]) ** 2) / (count - 1).clamp(min=1)
    return mean + variance.sqrt()


def nearest_candidates(anchors: Anchors, targets: Targets, *, topk: int) -> Candidates:
    """Returns each object's `topk` nearest valid anchors of every level, by their centres.

    An anchor may be the candidate of several objects. Ordered by object, level and anchor. With
    every anchor the whole rectangle between it and the one nearest to the object is at least as
    near, so only anchors with a rectangle of at most `topk` cells are looked at: 57 for 9. Worked
    out on the CPU.

    Args:
        anchors: the anchors of the batch's feature maps.
        targets: G objects in N images.
        topk: how many to take per object and level.
    """
    device, targets = targets.boxes.device, targets.to("cpu")
    reach = range(1 - topk, topk)
    offsets = [(x, y) for y in reach for x in reach if (abs(x) + 1) * (abs(y) + 1) <= topk]
    offset = torch.tensor(offsets)
    boxes = targets.boxes.double()
    stride = torch.tensor(anchors.strides)[:, None]  # (L, 1)
    width = torch.tensor([w for _, w in anchors.shapes])[:, None]
    start = torch.tensor([0, *anchors.num_per_level[:-1]]).cumsum(0)[:, None]
    limit = torch.from_numpy(anchors.valid_shapes(targets.image_sizes))[targets.image].flip(-1) - 1

    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None]  # (G, 1, 2)
    # Halves are rounded down: of two cells equally near, the earlier is the nearest.
    nearest = torch.minimum((centre / stride - 0.5).ceil().long().clamp(min=0), limit)
    cell = nearest[:, :, None] + offset  # (G, L, S, 2)
    outside = ((cell < 0) | (cell > limit[:, :, None])).any(dim=-1)
    distance = ((cell * stride[:, None] - centre[:, None]) ** 2).sum(dim=-1)
    order = distance.masked_fill(outside, torch.inf).argsort(dim=-1, stable=True)
    taken = order[..., :topk].sort(dim=-1).values  # offsets are in the order of anchors
    index = (start + cell[..., 1] * width + cell[..., 0]).gather(2, taken)
    gt, level, rank = (~outside.gather(2, taken)).nonzero(as_tuple=True)
    return Candidates(targets.image[gt], index[gt, level, rank], gt, level).to(device)
