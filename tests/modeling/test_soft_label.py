import math

import pytest
import torch

from helpers import make_anchors, make_predictions, make_targets
from lad.modeling.anchor_generator import AnchorGenerator
from lad.modeling.distill_losses.soft_label import SoftLabelLoss, best_overlap, focal_kl
from lad.ops.coders import DeltaCoder
from lad.structures import DensePredictions, Targets

ANCHORS = make_anchors()
TARGETS = make_targets([[[10.0, 10, 60, 70]], [[5.0, 5, 70, 90], [60.0, 20, 110, 80]]])
LOGITS = ("sigmoid", "sigmoid")


def soft(student, teacher, targets=TARGETS, **options):
    return SoftLabelLoss(min_iou=0.1, **options).between(student, teacher, targets)


def test_focal_kl_by_hand():
    student, teacher = torch.tensor(0.5), torch.tensor(0.8)
    divergence = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    fused = ("none", "none")
    assert focal_kl(student, teacher, 0.0, activations=fused).item() == pytest.approx(divergence)
    weighted = focal_kl(student, teacher, 2.0, activations=fused).item()
    assert weighted == pytest.approx(divergence * (0.09 + 1e-6), rel=1e-5)
    assert focal_kl(student.logit(), teacher.logit(), 2.0, activations=LOGITS).item() == (
        pytest.approx(weighted, rel=1e-5)
    )


def test_kl_gradient_is_student_minus_teacher():
    student = torch.randn(50, requires_grad=True)
    teacher = torch.randn(50)
    focal_kl(student, teacher, 0.0, activations=LOGITS).sum().backward()
    torch.testing.assert_close(student.grad, student.detach().sigmoid() - teacher.sigmoid())


def test_extreme_scores_are_finite():
    extreme = torch.tensor([-200.0, 0.0, 200.0]).repeat(3, 1)
    assert focal_kl(extreme, extreme.T, 0.5, activations=LOGITS).isfinite().all()
    certain = torch.tensor([0.0, 0.5, 1.0]).repeat(3, 1)
    assert focal_kl(certain, certain.T, 0.5, activations=("none", "none")).isfinite().all()


def test_totals_by_hand():
    """Two anchors, one object, one class: each term worked out."""
    anchors = AnchorGenerator(strides=(32,), scale=1)([(1, 2)])  # centers (0, 0) and (32, 0)
    targets = Targets(
        torch.tensor([[16.0, 0.0, 48.0, 16.0]]),  # what is left of the second anchor in the image
        torch.tensor([0]),
        torch.tensor([0]),
        torch.tensor([[32, 64]]),
    )

    def predict(scores, shift, quality):
        regression = torch.zeros(1, 2, 4)
        regression[..., 0] = shift  # tenths of the anchor's side
        return DensePredictions(
            torch.tensor([[[x] for x in scores]]).logit(),
            "sigmoid",
            regression,
            torch.tensor([quality]).logit(),
            anchors,
            DeltaCoder(),
        )

    teacher = predict([0.2, 0.8], 0.0, [0.5, 0.9])
    student = predict([0.5, 0.5], 1.0, [0.5, 0.6])
    loss = SoftLabelLoss(
        gamma=0.0, class_weight=2.0, quality_weight=10.0, quality_gamma=0.0, min_iou=0.5
    )
    losses = loss.between(student, teacher, targets)
    # The second teacher box is the object, overlap 1; the first, clipped to 16 x 16 at the corner,
    # does not overlap it. So one anchor is selected, and everything is divided by 1.
    divergence = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)  # the same for 0.2 and 0.8
    assert losses["loss_soft_cls"].item() == pytest.approx(2 * 2 * divergence, rel=1e-5)
    quality = 0.9 * math.log(0.9 / 0.6) + 0.1 * math.log(0.1 / 0.4)
    assert losses["loss_soft_quality"].item() == pytest.approx(10 * quality, rel=1e-5)
    # The student's box is 3.2 px further right: overlap 28.8, union and hull 35.2 of 16 px height.
    box = 1 - 28.8 / 35.2
    assert losses["loss_soft_box"].item() == pytest.approx(1.3 * box, rel=1e-5)


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
    assert teacher.scores.grad is None and teacher.regression.grad is None
    assert all(
        x.grad.abs().sum() > 0 for x in (student.scores, student.regression, student.quality)
    )


def test_the_quality_term_needs_both_branches():
    student, plain = make_predictions(2, ANCHORS), make_predictions(2, ANCHORS, quality=False)
    assert "loss_soft_quality" not in soft(student, plain)
    assert "loss_soft_quality" not in soft(plain, student)


def test_no_selected_cell_gives_zero_losses_connected_to_the_graph():
    student, teacher = make_predictions(2, ANCHORS), make_predictions(2, ANCHORS, seed=1)
    losses = soft(student, teacher, targets=make_targets([[], []]))
    assert all(value.item() == 0 for value in losses.values())
    sum(losses.values()).backward()
    assert (student.scores.grad == 0).all() and (student.regression.grad == 0).all()


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
