import math

import pytest
import torch

from helpers import make_anchors, make_predictions, make_targets, random_boxes
from lad.assignment.tal import AlignmentCost, TALAssigner
from lad.modeling.anchor_generator import AnchorGenerator
from lad.ops.coders import DeltaCoder
from lad.structures import DensePredictions

# 4 x 4 anchors of side 16, centers 0, 8, 16, 24
GRID = AnchorGenerator(strides=(8,), scale=2)([(4, 4)])
BOX = [4.0, 4, 28, 28]  # contains the centers 8, 16 and 24
# Probability 1/2 for all of three classes, boxes equal to the anchors.
FLAT = DensePredictions(
    torch.zeros(1, 16, 3), "sigmoid", torch.zeros(1, 16, 4), None, GRID, DeltaCoder()
)


def positives(boxes, predictions=FLAT, **options):
    """Anchor -> object of one 32 x 32 image."""
    targets = make_targets([boxes], [(32, 32)])
    assigner = TALAssigner(num_classes=3, **options)
    candidates = assigner.candidates(GRID, targets)
    costs = assigner.cost(predictions, targets, candidates)
    gt = assigner.assign(costs, candidates, GRID, targets).gt[0]
    return {anchor: gt[anchor].item() for anchor in (gt >= 0).nonzero()[:, 0].tolist()}


def by_definition(costs, candidates, anchors, targets, topk=13):
    """The rule of the paper, object by object."""
    owner = torch.full((len(targets.image_sizes), len(anchors.boxes)), -1)
    highest = torch.full(owner.shape, -math.inf)
    for index, image in enumerate(targets.image.tolist()):
        mine = (candidates.gt == index).nonzero()[:, 0]
        value, iou = costs.cost[mine], costs.iou[mine]
        for i in value.argsort(stable=True)[:topk].tolist():
            anchor = candidates.anchor[mine[i]]
            if iou[i] > highest[image, anchor]:
                owner[image, anchor], highest[image, anchor] = index, iou[i]
    return owner


@pytest.mark.parametrize(("activation", "score"), [("sigmoid", math.log(4)), ("none", 0.8)])
def test_the_cost_worked_by_hand(activation, score):
    targets = make_targets([[BOX]], [(32, 32)])
    scores = torch.full_like(FLAT.scores, score)
    predictions = FLAT._replace(scores=scores, activation=activation)
    candidates = TALAssigner(num_classes=3).candidates(GRID, targets)
    assert candidates.anchor.tolist() == [5, 6, 7, 9, 10, 11, 13, 14, 15]
    cost, iou = AlignmentCost()(predictions, targets, candidates)
    # in the middle 256 / 576; a side 192 / 640; a corner 144 / 688
    assert iou[[4, 1, 0]].tolist() == pytest.approx([4 / 9, 0.3, 9 / 43])
    expected = [1 - 0.8 * (4 / 9) ** 6, 1 - 0.8 * 0.3**6, 1 - 0.8 * (9 / 43) ** 6]
    assert cost[[4, 1, 0]].tolist() == pytest.approx(expected, abs=1e-6)
    cost, _ = AlignmentCost(alpha=2, beta=1)(predictions, targets, candidates)
    assert cost[4].item() == pytest.approx(1 - 0.64 * 4 / 9)


def test_an_object_takes_its_best_aligned():
    assert set(positives([BOX])) == {5, 6, 7, 9, 10, 11, 13, 14, 15}, "13 are more than there are"
    assert set(positives([BOX], topk=2)) == {10, 6}, "of the four sides the first"
    scores = torch.zeros(1, 16, 3)
    scores[0, 15, 0] = 9  # nearly twice the score, but (9 / 43)^6 instead of (4 / 9)^6
    assert set(positives([BOX], FLAT._replace(scores=scores), topk=1)) == {10}
    assert set(positives([BOX], FLAT._replace(scores=scores), topk=1, beta=0.5)) == {15}


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_an_anchor_claimed_twice_goes_to_the_higher_iou(order):
    # Both contain the center 10 alone: IoU 225 / 256 and 49 / 256. The second's class is certain.
    boxes = [[[8.5, 8.5, 23.5, 23.5], [12.5, 12.5, 19.5, 19.5]][i] for i in order]
    scores = torch.zeros(1, 16, 3)
    scores[0, :, order.index(1)] = 9
    assert positives(boxes, FLAT._replace(scores=scores), beta=0) == {10: order.index(0)}


def test_an_object_that_contains_no_center_has_no_positives():
    assert positives([[9.0, 9, 15, 15]]) == {}
    assert positives([[8.0, 8, 16, 16]]) == {}, "the border is not inside"


def test_no_objects_have_no_positives():
    assert positives([]) == {}


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_papers_rule_object_by_object(seed):
    anchors = make_anchors(96, 128)
    boxes = [random_boxes(15, 96, 128, seed), [], random_boxes(9, 30, 60, seed + 9)]
    targets = make_targets(boxes, [(96, 128), (96, 128), (30, 60)])
    predictions = make_predictions(3, anchors, seed=seed)
    assigner = TALAssigner(num_classes=3)
    candidates = assigner.candidates(anchors, targets)
    costs = assigner.cost(predictions, targets, candidates)
    result = assigner.assign(costs, candidates, anchors, targets)
    assert torch.equal(result.gt, by_definition(costs, candidates, anchors, targets))
    assert (result.labels[2] == -1).any() and (result.gt >= 0).sum() > 50


@pytest.mark.parametrize(
    ("options", "message"),
    [({"beta": -6}, "alpha=1.0, beta=-6: both have"), ({"topk": 0}, "topk=0: an object takes")],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TALAssigner(num_classes=3, **options)
