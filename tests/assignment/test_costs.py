import math

import pytest
import torch
from fvcore.nn import sigmoid_focal_loss

from helpers import make_anchors, make_predictions, make_targets
from lad.assignment.candidates import iou_candidates
from lad.assignment.costs import NoCost, PAACost, QualityFocalCost
from lad.assignment.simota import SimOTACost
from lad.assignment.tal import AlignmentCost

EVERY = [PAACost(), QualityFocalCost(), SimOTACost(), AlignmentCost(), NoCost()]
every = pytest.mark.parametrize("cost", EVERY, ids=lambda x: type(x).__name__)


def cost_of(cost: PAACost, scores, gt_box, activation="sigmoid"):
    """Cost of one pair whose predicted box is (0, 0, 10, 10) and whose class is 1."""
    costs = cost.cost(
        torch.tensor([scores]),
        activation,
        torch.tensor([1]),
        torch.tensor([[0.0, 0.0, 10.0, 10.0]]),
        torch.tensor([gt_box]),
    )
    return costs.cost.item()


def test_paa_cost_by_hand():
    # logits 0: p = 1/2; the positive costs 0.25/4 ln 2, each negative 0.75/4 ln 2
    focal = (0.25 + 0.75 * 2) / 4 * math.log(2)
    half = [0.0, 0.0, 10.0, 5.0]  # IoU 1/2, inside the hull: GIoU 1/2
    assert cost_of(PAACost(), [0.0] * 3, half) == pytest.approx(focal + 1.3 * 0.5, rel=1e-5)
    apart = [10.0, 0.0, 20.0, 10.0]  # touching: GIoU 0
    assert cost_of(PAACost(), [0.0] * 3, apart) == pytest.approx(focal + 1.3, rel=1e-5)


def test_the_papers_cost_counts_iou_once():
    paper = PAACost(box_cost="iou", box_weight=1.0)
    focal = (0.25 + 0.75 * 2) / 4 * math.log(2)
    assert cost_of(paper, [0.0] * 3, [0.0, 0.0, 10.0, 5.0]) == pytest.approx(focal + 0.5, rel=1e-5)


def test_quality_focal_cost_by_hand():
    half = [0.0, 0.0, 10.0, 5.0]  # IoU 1/2: a score of 1/2 is right
    right = QualityFocalCost()
    others = 2 * 0.5**2 * math.log(2)  # two classes whose score should be 0
    assert cost_of(right, [0.0] * 3, half) == pytest.approx(others + 2 * 0.5, rel=1e-5)
    apart = [10.0, 0.0, 20.0, 10.0]  # IoU and GIoU 0: the third class' score should be 0, too
    assert cost_of(right, [0.0] * 3, apart) == pytest.approx(1.5 * others + 2, rel=1e-5)
    exact = [0.0, 0.0, 10.0, 10.0]
    assert cost_of(right, [-50.0, 50.0, -50.0], exact) == pytest.approx(0, abs=1e-6)
    assert cost_of(right, [0.0, -2.0, 0.0], half) > cost_of(right, [0.0] * 3, half)


@every
def test_probabilities_cost_the_same_as_their_logits(cost):
    logits = [0.3, -1.2, 2.0]
    box = [1.0, 2.0, 9.0, 9.0]
    fused = cost_of(cost, torch.tensor(logits).sigmoid().tolist(), box, activation="none")
    assert fused == pytest.approx(cost_of(cost, logits, box), rel=1e-5)


def test_class_part_is_the_focal_loss_of_the_whole_row():
    anchors, targets = make_anchors(), make_targets([[[10.0, 10, 60, 70]], [[5.0, 5, 90, 90]]])
    predictions = make_predictions(2, anchors)
    candidates = iou_candidates(anchors, targets)
    costs = PAACost(box_weight=0.0)(predictions, targets, candidates)
    one_hot = torch.nn.functional.one_hot(targets.classes[candidates.gt], 3).float()
    logits = predictions.scores[candidates.image, candidates.anchor]
    expected = sigmoid_focal_loss(logits, one_hot, 0.25, 2.0).sum(dim=1)
    torch.testing.assert_close(costs.cost, expected.detach())


@every
def test_a_cost_depends_on_its_own_candidate_alone(cost):
    anchors, targets = make_anchors(), make_targets([[[10.0, 10, 60, 70]], [[5.0, 5, 90, 90]]])
    predictions, candidates = make_predictions(2, anchors), iou_candidates(anchors, targets)
    order = torch.randperm(len(candidates.gt), generator=torch.Generator().manual_seed(0))
    costs = cost(predictions, targets, candidates)
    permuted = cost(predictions, targets, type(candidates)(*(x[order] for x in candidates)))
    torch.testing.assert_close(permuted.cost, costs.cost[order])
    assert not costs.cost.requires_grad


@every
def test_costs_are_float32_under_autocast(cost):
    anchors, targets = make_anchors(), make_targets([[[10.0, 10, 60, 70]]])
    candidates = iou_candidates(anchors, targets)
    predictions = make_predictions(1, anchors)
    expected = cost(predictions, targets, candidates)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        costs = cost(predictions, targets, candidates)
    assert costs.cost.dtype == torch.float32 and torch.equal(costs.cost, expected.cost)


@every
def test_no_candidates_have_no_costs(cost):
    anchors, targets = make_anchors(), make_targets([[]])
    candidates = iou_candidates(anchors, targets)
    assert cost(make_predictions(1, anchors), targets, candidates).cost.shape == (0,)


def test_a_static_assigners_costs_are_zero():
    anchors, targets = make_anchors(), make_targets([[[10.0, 10, 60, 70]]])
    candidates = iou_candidates(anchors, targets)
    costs = NoCost()(make_predictions(1, anchors), targets, candidates)
    assert torch.equal(costs.cost, torch.zeros(len(candidates.gt))) and costs.iou is None


def test_unknown_box_cost_is_refused():
    with pytest.raises(ValueError, match="box_cost='diou': choose 'giou' or 'iou'"):
        PAACost(box_cost="diou")
