import math

import pytest
import torch

from helpers import make_anchors, make_predictions, make_targets, random_boxes
from lad.assignment.candidates import center_candidates
from lad.assignment.simota import SimOTAAssigner, SimOTACost
from lad.modeling.anchor_generator import AnchorGenerator
from lad.ops.coders import DeltaCoder
from lad.structures import DensePredictions

# 4 x 4 anchors of side 16, centers 0, 8, 16, 24
GRID = AnchorGenerator(strides=(8,), scale=2)([(4, 4)])
SQUARE = [8.0, 8, 24, 24]  # the anchor with index 10
# Probability 1/2 for all of three classes, boxes equal to the anchors.
FLAT = DensePredictions(
    torch.zeros(1, 16, 3), "sigmoid", torch.zeros(1, 16, 4), None, GRID, DeltaCoder()
)


def assign(targets, predictions=FLAT, **options):
    assigner = SimOTAAssigner(num_classes=3, **options)
    candidates = assigner.candidates(predictions.anchors, targets)
    costs = assigner.cost(predictions, targets, candidates)
    return assigner.assign(costs, candidates, predictions.anchors, targets)


def positives(boxes, **options):
    """Anchor -> object of one 32 x 32 image."""
    gt = assign(make_targets([boxes], [(32, 32)]), **options).gt[0]
    return {anchor: gt[anchor].item() for anchor in (gt >= 0).nonzero()[:, 0].tolist()}


def by_definition(costs, candidates, anchors, targets, topk=10):
    """The rule of the paper, object by object."""
    owner = torch.full((len(targets.image_sizes), len(anchors.boxes)), -1)
    lowest = torch.full(owner.shape, math.inf)
    for index, image in enumerate(targets.image.tolist()):
        mine = (candidates.gt == index).nonzero()[:, 0]
        value, iou = costs.cost[mine], costs.iou[mine]
        number = max(1, math.floor(iou.sort(descending=True).values[:topk].double().sum()))
        for i in value.argsort(stable=True)[:number].tolist():
            anchor = candidates.anchor[mine[i]]
            if value[i] < lowest[image, anchor]:
                owner[image, anchor], lowest[image, anchor] = index, value[i]
    return owner


@pytest.mark.parametrize(("activation", "score"), [("sigmoid", math.log(4)), ("none", 0.8)])
def test_the_cost_worked_by_hand(activation, score):
    targets = make_targets([[SQUARE]], [(32, 32)])
    scores = torch.full_like(FLAT.scores, score)
    predictions = FLAT._replace(scores=scores, activation=activation)
    candidates = center_candidates(GRID, targets, radius=2.5)
    cost, iou = SimOTACost()(predictions, targets, candidates)
    assert len(cost) == 16, "|x - 16| < 20 for all centers"
    # probability 0.8: -log 0.8 of the object's class, twice -log 0.2 of the others; IoU 1, 1/3, 0
    entropy = -math.log(0.8) - 2 * math.log(0.2)
    assert iou[[10, 6, 0]].tolist() == pytest.approx([1, 1 / 3, 0], abs=1e-6)
    expected = [entropy, entropy + 3 * math.log(3), entropy - 3 * math.log(1e-8)]
    assert cost[[10, 6, 0]].tolist() == pytest.approx(expected, rel=1e-5)


def test_k_is_the_sum_of_the_best_ious_worked_by_hand():
    # IoUs 1, 4 x 1/3, 4 x 1/7 and zeros: their sum 2.9 gives k = 2, and of the four anchors with
    # IoU 1/3 the first counts
    assert positives([SQUARE]) == {10: 0, 6: 0}
    assert positives([SQUARE], topk=4) == {10: 0, 6: 0}  # 1 + 3 x 1/3 = 2
    assert positives([SQUARE], topk=3) == {10: 0}  # 1 + 2 x 1/3


def test_k_is_at_least_one():
    assert positives([[15.0, 15, 17, 17]]) == {10: 0}  # the IoUs sum to 16 x 4 / 256 at most


def test_an_object_that_contains_no_center_still_has_a_positive():
    assert positives([[9.0, 9, 15, 15]]) == {5: 0}
    assert positives([[9.0, 9, 15, 15]], radius=0) == {}


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_an_anchor_claimed_twice_goes_to_the_cheaper_object(order):
    # the second takes 10 (224 / 288), 11 (160 / 352) and leaves 10: the first's cost is lower
    boxes = [[SQUARE, [10.0, 8, 26, 24]][i] for i in order]
    first, second = order.index(0), order.index(1)
    owners = positives(boxes)
    assert owners[10] == first and owners[11] == second


def test_no_objects_are_all_background():
    result = assign(make_targets([[]], [(32, 32)]))
    assert (result.labels == 3).all() and (result.gt == -1).all()


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_papers_rule_object_by_object(seed):
    anchors = make_anchors(96, 128)
    boxes = [random_boxes(15, 96, 128, seed), [], random_boxes(9, 30, 60, seed + 9)]
    targets = make_targets(boxes, [(96, 128), (96, 128), (30, 60)])
    predictions = make_predictions(3, anchors, seed=seed)
    assigner = SimOTAAssigner(num_classes=3)
    candidates = assigner.candidates(anchors, targets)
    costs = assigner.cost(predictions, targets, candidates)
    result = assigner.assign(costs, candidates, anchors, targets)
    assert torch.equal(result.gt, by_definition(costs, candidates, anchors, targets))
    assert (result.labels[2] == -1).any() and (result.gt >= 0).sum() > 20


@pytest.mark.parametrize(
    ("options", "message"),
    [({"radius": -1}, "radius=-1: it has to be 0"), ({"topk": 0}, "topk=0: k is the sum of")],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SimOTAAssigner(num_classes=3, **options)
