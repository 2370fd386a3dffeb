import math

import pytest
import torch

from helpers import make_anchors, make_predictions, make_targets
from lad.modeling.soft_label import SoftLabelLoss, best_overlap, focal_kl

ANCHORS = make_anchors()
TARGETS = make_targets([[[10.0, 10, 60, 70]], [[5.0, 5, 70, 90], [60.0, 20, 110, 80]]])
LOGITS = (False, False)


def soft(student, teacher, targets=TARGETS, **options):
    return SoftLabelLoss(min_iou=0.1, **options)(student, teacher, ANCHORS, targets)


def test_focal_kl_by_hand():
    student, teacher = torch.tensor(0.5), torch.tensor(0.8)
    divergence = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    fused = (True, True)
    assert focal_kl(student, teacher, 0.0, probabilities=fused).item() == pytest.approx(divergence)
    weighted = focal_kl(student, teacher, 2.0, probabilities=fused).item()
    assert weighted == pytest.approx(divergence * (0.09 + 1e-6), rel=1e-5)
    assert focal_kl(student.logit(), teacher.logit(), 2.0, probabilities=LOGITS).item() == (
        pytest.approx(weighted, rel=1e-5)
    )


def test_kl_gradient_is_student_minus_teacher():
    student = torch.randn(50, requires_grad=True)
    teacher = torch.randn(50)
    focal_kl(student, teacher, 0.0, probabilities=LOGITS).sum().backward()
    torch.testing.assert_close(student.grad, student.detach().sigmoid() - teacher.sigmoid())


def test_extreme_scores_are_finite():
    extreme = torch.tensor([-200.0, 0.0, 200.0]).repeat(3, 1)
    assert focal_kl(extreme, extreme.T, 0.5, probabilities=LOGITS).isfinite().all()
    certain = torch.tensor([0.0, 0.5, 1.0]).repeat(3, 1)
    assert focal_kl(certain, certain.T, 0.5, probabilities=(True, True)).isfinite().all()


def test_equal_networks_have_no_loss():
    predictions = make_predictions(2, ANCHORS)
    for value in soft(predictions, predictions.detach()).values():
        assert value.item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("kind", ["kl", "l1", "l2"])
def test_class_weight_scales_the_class_term_only(kind):
    student, teacher = make_predictions(2, ANCHORS), make_predictions(2, ANCHORS, seed=1)
    once = soft(student, teacher, kind=kind, class_weight=1.0)
    thrice = soft(student, teacher, kind=kind, class_weight=3.0)
    torch.testing.assert_close(thrice["loss_soft_cls"], 3 * once["loss_soft_cls"])
    assert torch.equal(thrice["loss_soft_box"], once["loss_soft_box"])
    assert torch.equal(thrice["loss_soft_quality"], once["loss_soft_quality"])


def test_l1_and_l2_are_sums_over_probabilities():
    student, teacher = make_predictions(2, ANCHORS), make_predictions(2, ANCHORS, seed=1)
    difference = student.scores.sigmoid() - teacher.scores.sigmoid()
    l1 = soft(student, teacher, kind="l1")["loss_soft_cls"]
    l2 = soft(student, teacher, kind="l2")["loss_soft_cls"]
    torch.testing.assert_close(l1 / l2, difference.abs().sum() / (difference**2).sum())


def test_the_teacher_gets_no_gradient():
    student, teacher = make_predictions(2, ANCHORS), make_predictions(2, ANCHORS, seed=1)
    sum(soft(student, teacher).values()).backward()
    assert teacher.scores.grad is None and teacher.deltas.grad is None
    assert all(x.grad.abs().sum() > 0 for x in (student.scores, student.deltas, student.quality))


def test_the_quality_term_needs_both_branches():
    student, plain = make_predictions(2, ANCHORS), make_predictions(2, ANCHORS, quality=False)
    assert "loss_soft_quality" not in soft(student, plain)
    assert "loss_soft_quality" not in soft(plain, student)


def test_no_selected_cell_gives_zero_losses_connected_to_the_graph():
    student, teacher = make_predictions(2, ANCHORS), make_predictions(2, ANCHORS, seed=1)
    losses = soft(student, teacher, targets=make_targets([[], []]))
    assert all(value.item() == 0 for value in losses.values())
    sum(losses.values()).backward()
    assert (student.scores.grad == 0).all() and (student.deltas.grad == 0).all()


def test_best_overlap_by_hand_and_without_objects():
    boxes = torch.tensor([[[0.0, 0, 10, 10]], [[0.0, 0, 10, 10]], [[0.0, 0, 10, 10]]])
    targets = make_targets([[[0.0, 0, 10, 5], [0.0, 0, 10, 8]], [], [[20.0, 20, 30, 30]]])
    assert best_overlap(boxes, targets).flatten().tolist() == pytest.approx([0.8, 0, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"kind": "js"}, "kind='js': choose"), ({"select_by": "gt"}, "select_by='gt': choose")],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SoftLabelLoss(**options)
