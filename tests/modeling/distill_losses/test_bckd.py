"""BCKD by hand, and its identities."""

import math

import torch

from helpers import make_anchors, make_predictions, make_targets
from lad.modeling.distill_losses.bckd import BCKD
from lad.modeling.network import NetworkOutput
from lad.ops.boxes import paired_giou
from lad.structures import Assignment

ANCHORS = make_anchors(64, 64)
TARGETS = make_targets([[[8.0, 8, 40, 40]]], [(64, 64)])


def output(predictions):
    return NetworkOutput(None, [], predictions, {}, (64, 64))


def labels(positive=(), ignored=(), num_images=1):
    shape = num_images, len(ANCHORS.boxes)
    values = torch.full(shape, 3)
    values[0, list(positive)] = 1
    values[0, list(ignored)] = -1
    return Assignment(values, torch.zeros(shape, dtype=torch.int64))


def losses(student, teacher, assignment):
    return BCKD()(output(student), output(teacher), TARGETS, assignment)


def test_golden_values():
    """Every anchor by hand, on the level of the positives."""
    student, teacher = (make_predictions(1, ANCHORS, seed=x) for x in (0, 1))
    found = losses(student, teacher, labels(positive=[3, 5], ignored=[4]))
    giou = paired_giou(student.boxes(), teacher.boxes())
    classes = boxes = 0.0
    for anchor in range(ANCHORS.num_per_level[0]):
        if anchor == 4:
            continue
        gaps = []
        for score, target in zip(
            student.scores[0, anchor].tolist(), teacher.scores[0, anchor].tolist(), strict=True
        ):
            p, t = (1 / (1 + math.exp(-x)) for x in (score, target))
            gaps.append(abs(t - p))
            classes += gaps[-1] * -(t * math.log(p) + (1 - t) * math.log(1 - p))
        boxes += max(gaps) * (1 - giou[0, anchor].item())
    torch.testing.assert_close(found["loss_bckd_cls"].item(), classes / 2, rtol=1e-4, atol=0)
    torch.testing.assert_close(found["loss_bckd_box"].item(), 4 * boxes / 2, rtol=1e-4, atol=0)


def test_equal_networks_have_no_loss():
    student = make_predictions(1, ANCHORS)
    found = losses(student, student, labels(positive=[3]))
    assert found["loss_bckd_cls"] == found["loss_bckd_box"] == 0


def test_without_positives_it_is_zero_and_part_of_the_graph():
    student, teacher = (make_predictions(1, ANCHORS, seed=x) for x in (0, 1))
    found = losses(student, teacher, labels())
    sum(found.values()).backward()
    assert all(value == 0 for value in found.values())
    assert student.scores.grad.abs().sum() == 0


def test_only_the_class_factor_has_a_gradient():
    """The gradient of the class term by finite differences; the box weight is constant."""
    student, teacher = (make_predictions(1, ANCHORS, seed=x) for x in (0, 1))
    assignment = labels(positive=[3])
    found = losses(student, teacher, assignment)
    (gradient,) = torch.autograd.grad(found["loss_bckd_cls"], student.scores)
    (other,) = torch.autograd.grad(
        found["loss_bckd_box"], student.scores, allow_unused=True, materialize_grads=True
    )
    assert other.abs().sum() == 0
    step, at = 1e-2, (0, 7, 2)
    values = []
    for change in (step, -step):
        scores = student.scores.detach().clone()
        scores[at] += change
        changed = losses(student._replace(scores=scores), teacher, assignment)
        values.append(changed["loss_bckd_cls"].item())
    expected = torch.tensor((values[0] - values[1]) / (2 * step))
    torch.testing.assert_close(gradient[at], expected, rtol=0.05, atol=1e-2)
