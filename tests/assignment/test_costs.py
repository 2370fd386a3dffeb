import math

import pytest
import torch
from fvcore.nn import sigmoid_focal_loss

from helpers import make_anchors, make_predictions, make_targets
from lad.assignment.candidates import iou_candidates
from lad.assignment.costs import PAACost


def cost_of(cost: PAACost, scores, gt_box, probabilities=False):
    """Cost of one pair whose predicted box is (0, 0, 10, 10) and whose class is 1."""
    return cost.cost(
        torch.tensor([scores]),
        probabilities,
        torch.tensor([1]),
        torch.tensor([[0.0, 0.0, 10.0, 10.0]]),
        torch.tensor([gt_box]),
    ).item()


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


def test_probabilities_cost_as_their_logits():
    logits = [0.3, -1.2, 2.0]
    box = [1.0, 2.0, 9.0, 9.0]
    fused = cost_of(PAACost(), torch.tensor(logits).sigmoid().tolist(), box, probabilities=True)
    assert fused == pytest.approx(cost_of(PAACost(), logits, box), rel=1e-5)


def test_class_part_is_the_focal_loss_of_the_whole_row():
    anchors, targets = make_anchors(), make_targets([[[10.0, 10, 60, 70]], [[5.0, 5, 90, 90]]])
    predictions = make_predictions(2, anchors)
    candidates = iou_candidates(anchors, targets)
    cost = PAACost(box_weight=0.0)(predictions, anchors, targets, candidates)
    one_hot = torch.nn.functional.one_hot(targets.classes[candidates.gt], 3).float()
    logits = predictions.scores[candidates.image, candidates.anchor]
    expected = sigmoid_focal_loss(logits, one_hot, 0.25, 2.0).sum(dim=1)
    torch.testing.assert_close(cost, expected.detach())
    assert not cost.requires_grad


def test_costs_are_float32_under_autocast():
    anchors, targets = make_anchors(), make_targets([[[10.0, 10, 60, 70]]])
    candidates = iou_candidates(anchors, targets)
    predictions = make_predictions(1, anchors)
    expected = PAACost()(predictions, anchors, targets, candidates)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cost = PAACost()(predictions, anchors, targets, candidates)
    assert cost.dtype == torch.float32 and torch.equal(cost, expected)


def test_no_candidates_cost_nothing():
    anchors, targets = make_anchors(), make_targets([[]])
    candidates = iou_candidates(anchors, targets)
    assert PAACost()(make_predictions(1, anchors), anchors, targets, candidates).shape == (0,)


def test_unknown_box_cost_is_refused():
    with pytest.raises(ValueError, match="box_cost='diou': choose 'giou' or 'iou'"):
        PAACost(box_cost="diou")
