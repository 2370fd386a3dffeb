import pytest
import torch
from fvcore.nn import giou_loss, sigmoid_focal_loss

from helpers import make_anchors, make_assignment, make_predictions, make_targets
from lad.modeling.losses import DetectionLosses
from lad.ops.boxes import paired_iou

ANCHORS = make_anchors()
TARGETS = make_targets([[[10.0, 10, 60, 70], [60.0, 20, 110, 80]], [[5.0, 5, 70, 90]]])


ASSIGNMENT = make_assignment(
    ANCHORS, TARGETS, {(0, 10): 0, (0, 40): 0, (0, 90): 1, (1, 200): 2}, ignored=5
)


def test_losses_equal_fvcores():
    predictions = make_predictions(2, ANCHORS)
    losses = DetectionLosses()(predictions, ASSIGNMENT, TARGETS)
    used = ASSIGNMENT.labels >= 0
    one_hot = torch.nn.functional.one_hot(ASSIGNMENT.labels.clamp(min=0), 4)[..., :3].float()
    focal = sigmoid_focal_loss(predictions.scores[used], one_hot[used], 0.25, 2.0, "sum")
    torch.testing.assert_close(losses["loss_cls"], focal / 4)

    at = (ASSIGNMENT.gt >= 0).nonzero(as_tuple=True)
    boxes = predictions.boxes()[at]
    gt_boxes = TARGETS.boxes[ASSIGNMENT.gt[at]]
    iou = paired_iou(boxes, gt_boxes).detach()
    box = (giou_loss(boxes, gt_boxes) * iou).sum() / iou.sum()
    torch.testing.assert_close(losses["loss_box_reg"], 1.3 * box)
    quality = torch.nn.functional.binary_cross_entropy_with_logits(predictions.quality[at], iou)
    torch.testing.assert_close(losses["loss_quality"], 0.5 * quality)
    unweighted = DetectionLosses(weight_boxes_by_iou=False)
    plain = unweighted(predictions, ASSIGNMENT, TARGETS)
    torch.testing.assert_close(plain["loss_box_reg"], 1.3 * giou_loss(boxes, gt_boxes).mean())
    distilled = DetectionLosses()(predictions, ASSIGNMENT, TARGETS, weighted=False)
    assert torch.equal(distilled["loss_box_reg"], plain["loss_box_reg"])


def test_heads_without_the_iou_branch_do_not_weight():
    predictions = make_predictions(2, ANCHORS, quality=False)
    weighted = DetectionLosses()(predictions, ASSIGNMENT, TARGETS)
    plain = DetectionLosses(weight_boxes_by_iou=False)(predictions, ASSIGNMENT, TARGETS)
    assert weighted.keys() == {"loss_cls", "loss_box_reg"}
    assert torch.equal(weighted["loss_box_reg"], plain["loss_box_reg"])


def test_ignored_anchors_have_no_gradient():
    predictions = make_predictions(2, ANCHORS)
    losses = DetectionLosses()(predictions, ASSIGNMENT, TARGETS)
    gradient = torch.autograd.grad(sum(losses.values()), predictions.scores)[0]
    assert (gradient[:, -5:] == 0).all() and (gradient[:, :-5] != 0).all()


def test_no_positives_give_zero_box_losses_connected_to_the_graph():
    predictions = make_predictions(2, ANCHORS)
    losses = DetectionLosses()(predictions, make_assignment(ANCHORS, TARGETS, {}), TARGETS)
    assert losses["loss_box_reg"].item() == 0 and losses["loss_quality"].item() == 0
    # the normalizer is the number of images
    focal = sigmoid_focal_loss(predictions.scores, torch.zeros_like(predictions.scores), 0.25, 2.0)
    torch.testing.assert_close(losses["loss_cls"], focal.sum() / 2)
    gradients = torch.autograd.grad(
        sum(losses.values()), [predictions.regression, predictions.quality]
    )
    assert all((x == 0).all() for x in gradients)


def test_positives_without_overlap_have_a_finite_loss():
    targets = TARGETS._replace(boxes=TARGETS.boxes + 5000)
    losses = DetectionLosses()(make_predictions(2, ANCHORS), ASSIGNMENT, targets)
    assert all(value.isfinite() for value in losses.values())


@pytest.mark.parametrize("field", ["scores", "regression", "quality"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_predictions_that_are_not_finite_show_in_the_losses(field, bad):
    predictions = make_predictions(2, ANCHORS).detach()
    getattr(predictions, field)[0, 10] = bad
    losses = DetectionLosses()(predictions, ASSIGNMENT, TARGETS)
    assert not sum(losses.values()).isfinite()


def test_losses_are_float32_under_autocast():
    predictions = make_predictions(2, ANCHORS)
    expected = DetectionLosses()(predictions, ASSIGNMENT, TARGETS)
    fused = predictions._replace(scores=predictions.scores.sigmoid(), activation="none")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = DetectionLosses()(fused, ASSIGNMENT, TARGETS)
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name])
