import pytest
import torch

from helpers import make_anchors, make_targets, random_boxes
from lad.assignment.atss import ATSSAssigner, nearest_candidates, overlap_threshold
from lad.boxes import AnchorGenerator, paired_iou

# 4 x 4 anchors of side 16, centres 0, 8, 16, 24
GRID = AnchorGenerator(strides=(8,), scale=2)([(4, 4)])
SQUARE = [8.0, 8, 24, 24]  # the anchor with index 10


def assign(targets, anchors=GRID, **options):
    assigner = ATSSAssigner(num_classes=3, **options)
    candidates = assigner.candidates(anchors, targets)
    return assigner.assign(torch.zeros(len(candidates.gt)), candidates, anchors, targets)


def by_definition(targets, anchors, topk):
    """Algorithm 1 of the paper, object by object."""
    valid = anchors.valid(targets.image_sizes)
    centres = ((anchors.boxes[:, :2] + anchors.boxes[:, 2:]) / 2).double()
    owner = torch.full(valid.shape, -1)
    overlap = torch.full(valid.shape, -1.0)
    for index, (box, image) in enumerate(zip(targets.boxes, targets.image.tolist(), strict=True)):
        distance = (centres - (box[:2] + box[2:]).double() / 2).pow(2).sum(dim=1)
        chosen = []
        for level in torch.arange(len(centres)).split(anchors.num_per_level):
            level = level[valid[image, level]]
            chosen.append(level[distance[level].argsort(stable=True)[:topk]])
        chosen = torch.cat(chosen)
        iou = paired_iou(anchors.boxes[chosen], box.expand(len(chosen), 4))
        threshold = iou.double().mean() + iou.double().std()
        for anchor, value in zip(chosen.tolist(), iou.tolist(), strict=True):
            inside = (box[:2] < centres[anchor]).all() and (centres[anchor] < box[2:]).all()
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


def test_an_object_without_a_centre_inside_has_no_positives():
    result = assign(make_targets([[[9.0, 1, 15, 31]]], [(32, 32)]))  # between the columns 8 and 16
    assert (result.labels == 3).all()


def test_a_single_candidate_is_positive():
    result = assign(make_targets([[SQUARE]], [(32, 32)]), topk=1)
    assert (result.gt[0] == 0).nonzero()[:, 0].tolist() == [10]


def test_of_anchors_equally_near_the_earlier_are_candidates():
    targets = make_targets([[[0.0, 0, 24, 24]]], [(32, 32)])  # centre 12: between 8 and 16
    assert nearest_candidates(GRID, targets, topk=3).anchor.tolist() == [5, 6, 9]


@pytest.mark.parametrize("topk", [1, 4, 9])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_papers_algorithm_object_by_object(seed, topk):
    anchors = make_anchors(96, 128, strides=(8, 16, 32, 64))
    boxes = [random_boxes(15, 96, 128, seed), [], random_boxes(9, 30, 60, seed + 9)]
    boxes[0] += [[8.0 * x for x in box] for box in ([1, 1, 4, 4], [0, 0, 16, 12], [2, 3, 7, 8])]
    targets = make_targets(boxes, [(96, 128), (96, 128), (30, 60)])
    assert torch.equal(
        assign(targets, anchors, topk=topk).gt, by_definition(targets, anchors, topk)
    )


@pytest.mark.parametrize("shape", [(1, 12), (12, 1), (2, 7), (2, 2)])
def test_narrow_levels_and_centres_outside(shape):
    anchors = AnchorGenerator(strides=(8,), scale=2)([shape])
    size = shape[0] * 8, shape[1] * 8
    corners = [[x, y, x + 7.0, y + 9.0] for x in (-9.0, 0.0, 3.0, 40.5) for y in (-4.0, 8.0, 50.0)]
    targets = make_targets([corners], [size])
    candidates = nearest_candidates(anchors, targets, topk=9)
    centres = ((anchors.boxes[:, :2] + anchors.boxes[:, 2:]) / 2).double()
    for index, box in enumerate(targets.boxes.double()):
        distance = (centres - (box[:2] + box[2:]) / 2).pow(2).sum(dim=1)
        expected = distance.argsort(stable=True)[:9].sort().values
        assert torch.equal(candidates.anchor[candidates.gt == index], expected)


def test_no_candidates_are_refused():
    with pytest.raises(ValueError, match="topk=0: at least one"):
        ATSSAssigner(num_classes=3, topk=0)
