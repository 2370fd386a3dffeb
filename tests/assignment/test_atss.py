import pytest
import torch

from helpers import generic, make_anchors, make_targets, random_boxes
from lad.assignment.atss import ATSSAssigner, overlap_threshold
from lad.assignment.candidates import centers as centers_of
from lad.modeling.anchor_generator import AnchorGenerator
from lad.ops.boxes import paired_iou
from lad.structures import CandidateCosts

# 4 x 4 anchors of side 16, centers 0, 8, 16, 24
GRID = AnchorGenerator(strides=(8,), scale=2)([(4, 4)])
SQUARE = [8.0, 8, 24, 24]  # the anchor with index 10


def assign(targets, anchors=GRID, **options):
    assigner = ATSSAssigner(num_classes=3, **options)
    candidates = assigner.candidates(anchors, targets)
    costs = CandidateCosts(torch.zeros(len(candidates.gt)))
    return assigner.assign(costs, candidates, anchors, targets)


def by_definition(targets, anchors, topk):
    """Algorithm 1 of the paper, object by object."""
    valid = anchors.valid(targets.image_sizes)
    centers = centers_of(anchors)
    owner = torch.full(valid.shape, -1)
    overlap = torch.full(valid.shape, -1.0)
    for index, (box, image) in enumerate(zip(targets.boxes, targets.image.tolist(), strict=True)):
        distance = (centers - (box[:2] + box[2:]).double() / 2).pow(2).sum(dim=1)
        chosen = []
        for level in torch.arange(len(centers)).split(anchors.num_per_level):
            level = level[valid[image, level]]
            chosen.append(level[distance[level].argsort(stable=True)[:topk]])
        chosen = torch.cat(chosen)
        iou = paired_iou(anchors.boxes[chosen], box.expand(len(chosen), 4))
        threshold = iou.double().mean() + iou.double().std()
        for anchor, value in zip(chosen.tolist(), iou.tolist(), strict=True):
            inside = (box[:2] < centers[anchor]).all() and (centers[anchor] < box[2:]).all()
            if inside and value >= threshold and value > overlap[image, anchor]:
                owner[image, anchor] = index
                overlap[image, anchor] = value
    return owner


def test_the_threshold_worked_by_hand():
    targets = make_targets([[SQUARE]], [(32, 32)])
    candidates = ATSSAssigner(num_classes=3).candidates(GRID, targets)
    assert candidates.anchor.tolist() == [5, 6, 7, 9, 10, 11, 13, 14, 15]
    boxes = GRID.boxes[candidates.anchor]
    iou = paired_iou(boxes, targets.boxes.expand_as(boxes))
    # the anchor itself; a shift by 8: 128 / 384; by 8 and 8: 64 / 448
    assert iou.tolist() == pytest.approx(
        [1 / 7, 1 / 3, 1 / 7, 1 / 3, 1, 1 / 3, 1 / 7, 1 / 3, 1 / 7]
    )
    # mean 0.3228, variance (0.4587 + 4 x 0.0001 + 4 x 0.0324) / 8 = 0.0736
    threshold = overlap_threshold(iou.double(), candidates.gt, 1)
    assert threshold.item() == pytest.approx(0.3228 + 0.2712, abs=1e-4)
    result = assign(targets)
    assert (result.labels[0] < 3).nonzero()[:, 0].tolist() == [10]
    assert result.gt[0, 10] == 0


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_an_anchor_claimed_twice_goes_to_the_higher_iou(order):
    # both claim anchor 10: IoU 1 and 224 / 288
    boxes = [[SQUARE, [10.0, 8, 26, 24]][i] for i in order]
    result = assign(make_targets([boxes], [(32, 32)]))
    assert result.gt[0, 10] == order.index(0)
    assert (result.gt >= 0).sum() == 1


def test_an_object_without_a_center_inside_has_no_positives():
    result = assign(make_targets([[[9.0, 1, 15, 31]]], [(32, 32)]))  # between the columns 8 and 16
    assert (result.labels == 3).all()


def test_a_single_candidate_is_positive():
    result = assign(make_targets([[SQUARE]], [(32, 32)]), topk=1)
    assert (result.gt[0] == 0).nonzero()[:, 0].tolist() == [10]


@pytest.mark.parametrize("topk", [1, 4, 9])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_papers_algorithm_object_by_object(seed, topk):
    anchors = make_anchors(96, 128, strides=(8, 16, 32, 64))
    boxes = [random_boxes(15, 96, 128, seed), [], random_boxes(9, 30, 60, seed + 9)]
    boxes[0] += [[8.0 * x for x in box] for box in ([1, 1, 4, 4], [0, 0, 16, 12], [2, 3, 7, 8])]
    targets = make_targets(boxes, [(96, 128), (96, 128), (30, 60)])
    expected = by_definition(targets, anchors, topk)
    assert torch.equal(assign(targets, anchors, topk=topk).gt, expected)
    assert torch.equal(assign(targets, generic(anchors), topk=topk).gt, expected)


def test_no_objects_are_all_background():
    result = assign(make_targets([[]], [(32, 32)]))
    assert (result.labels == 3).all() and (result.gt == -1).all()
    assert result.cost is None, "a static assignment has no costs"


def test_no_candidates_are_refused():
    with pytest.raises(ValueError, match="topk=0: at least one"):
        ATSSAssigner(num_classes=3, topk=0)
