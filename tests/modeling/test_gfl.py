"""GFL: its head and losses, and what other parts do with distributions and joint scores."""

import numpy as np
import pytest
import torch

from helpers import (
    make_anchors,
    make_assignment,
    make_batch,
    make_distributions,
    make_fpn,
    make_gfl,
    make_lgd,
    make_paa,
    make_targets,
    train_step,
)
from lad.assignment.indicators import StdMean
from lad.assignment.switch import RoleSwitch
from lad.assignment.tal import TALAssigner
from lad.modeling.anchor_generator import AnchorGenerator
from lad.modeling.distill_losses.soft_label import SoftLabelLoss
from lad.modeling.distillation import LAD, CoLAD, Distillation, SoftLabel
from lad.modeling.heads import ConditionalObjectness, GFLHead, ImplicitObjectness
from lad.modeling.losses import DetectionLosses, GFLLosses
from lad.modeling.one_stage import OneStageDetector
from lad.modeling.postprocess import PostProcessor
from lad.ops.coders import DeltaCoder, DistributionCoder
from lad.structures import Assignment, DensePredictions, Targets

BATCH = make_batch([[[5.0, 5, 40, 50], [50.0, 10, 90, 60]], [[10.0, 10, 30, 30]]])
EMPTY = make_batch([[], []])
ANCHORS = make_anchors()
TARGETS = make_targets([[[10.0, 10, 60, 70], [60.0, 20, 110, 80]], [[5.0, 5, 70, 90]]])


ASSIGNMENT = make_assignment(ANCHORS, TARGETS, {(0, 10): 0, (0, 40): 0, (1, 200): 2}, ignored=5)


def test_the_head_predicts_four_distributions_and_no_quality():
    head = GFLHead(in_channels=8, num_classes=4, num_levels=1, channels=32, num_convs=1, num_bins=5)
    scores, regression, quality = head([torch.rand(2, 8, 6, 5)])
    assert scores[0].shape == (2, 4, 6, 5) and regression[0].shape == (2, 20, 6, 5)
    assert quality == [] and head.num_outputs == 20
    with pytest.raises(ValueError, match="GFLHead: quality=true, but .* set it to false"):
        GFLHead(in_channels=8, num_classes=4, quality=True)


def test_losses_by_hand():
    """Two anchors of 64 px, the first, centered at (0, 0), a positive; three bins of 8 px."""
    anchors = AnchorGenerator(strides=(8,), scale=8)([(1, 2)])
    targets = Targets(
        torch.tensor([[-4.0, -8.0, 8.0, 6.0]]),
        torch.tensor([1]),
        torch.tensor([0]),
        torch.tensor([[32, 32]]),
    )
    logits = np.array([[0.0, 1, 0], [0.0, 1, 0], [0.0, 1, 0], [0.0, 1, 0]])
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)  # means of 1 bin: 8 px
    regression = torch.zeros(1, 2, 12)
    regression[0, 0] = torch.tensor(logits.flatten())
    probability = np.array([[0.2, 0.3], [0.1, 0.6]])  # of two anchors and classes
    scores = torch.tensor(probability).float().logit()[None]
    coder = DistributionCoder(num_bins=3)
    predictions = DensePredictions(scores, "sigmoid", regression, None, anchors, coder)
    assignment = Assignment(torch.tensor([[1, 2]]), torch.tensor([[0, -1]]))
    losses = GFLLosses()(predictions, assignment, targets)

    # The predicted box is (-8, -8, 8, 8); the object lies in it, so GIoU is IoU.
    iou = 12 * 14 / 256
    negatives = np.array([0.2, 0.1, 0.6])
    entropy = -iou * np.log(0.3) - (1 - iou) * np.log(0.7)
    expected = (-(negatives**2) * np.log(1 - negatives)).sum() + (iou - 0.3) ** 2 * entropy
    assert losses["loss_cls"].item() == pytest.approx(expected, rel=1e-4)
    # One positive: its weight, 0.3, cancels.
    assert losses["loss_box_reg"].item() == pytest.approx(2 * (1 - iou), rel=1e-4)
    low, mid = -np.log(p[0, 0]), -np.log(p[0, 1])  # sides at 0.5, 1, 1 and 0.75 bins
    sides = [(low + mid) / 2, mid, mid, 0.25 * low + 0.75 * mid]
    assert losses["loss_dfl"].item() == pytest.approx(0.25 * np.mean(sides), rel=1e-4)


def test_positives_count_by_their_highest_class_probability():
    predictions = make_distributions(2, ANCHORS)
    both = GFLLosses()(
        predictions, make_assignment(ANCHORS, TARGETS, {(0, 10): 0, (1, 200): 2}), TARGETS
    )
    alone = [
        GFLLosses()(predictions, make_assignment(ANCHORS, TARGETS, x), TARGETS)
        for x in ({(0, 10): 0}, {(1, 200): 2})
    ]
    weights = predictions.scores.detach().sigmoid().amax(dim=-1)
    weights = torch.stack([weights[0, 10], weights[1, 200]])
    for name in ("loss_box_reg", "loss_dfl"):
        expected = (torch.stack([x[name] for x in alone]) * weights).sum() / weights.sum()
        torch.testing.assert_close(both[name], expected)
    box_losses = both["loss_box_reg"] + both["loss_dfl"]
    (gradient,) = torch.autograd.grad(box_losses, predictions.scores, allow_unused=True)
    assert gradient is None, "the weights are constants"


def test_distilled_labels_have_the_same_losses():
    predictions = make_distributions(2, ANCHORS)
    own, distilled = (
        GFLLosses()(predictions, ASSIGNMENT, TARGETS, weighted=x) for x in (True, False)
    )
    assert all(torch.equal(own[name], distilled[name]) for name in own)


def test_ignored_anchors_have_no_gradient():
    predictions = make_distributions(2, ANCHORS)
    losses = GFLLosses()(predictions, ASSIGNMENT, TARGETS)
    scores, regression = torch.autograd.grad(
        sum(losses.values()), [predictions.scores, predictions.regression]
    )
    assert (scores[:, -5:] == 0).all() and (scores[:, :-5] != 0).all()
    assert (regression[0, 10] != 0).all() and (regression[0, 11] == 0).all()


def test_no_positives_give_zero_box_losses_connected_to_the_graph():
    predictions = make_distributions(2, ANCHORS)
    losses = GFLLosses()(predictions, make_assignment(ANCHORS, TARGETS, {}), TARGETS)
    assert losses["loss_box_reg"].item() == losses["loss_dfl"].item() == 0
    # the normalizer is the number of images
    p = predictions.scores.detach().double().sigmoid()
    expected = (-(p**2) * (1 - p).log()).sum().item() / 2
    assert losses["loss_cls"].item() == pytest.approx(expected, rel=1e-4)
    gradient = torch.autograd.grad(sum(losses.values()), predictions.regression)[0]
    assert (gradient == 0).all()


@pytest.mark.parametrize("field", ["scores", "regression"])
def test_predictions_that_are_not_finite_show_in_the_losses(field):
    predictions = make_distributions(2, ANCHORS).detach()
    getattr(predictions, field)[0, 10] = float("nan")
    assert not sum(GFLLosses()(predictions, ASSIGNMENT, TARGETS).values()).isfinite()


def test_losses_are_float32_under_autocast():
    predictions = make_distributions(2, ANCHORS)
    expected = GFLLosses()(predictions, ASSIGNMENT, TARGETS)
    fused = predictions._replace(scores=predictions.scores.sigmoid(), activation="none")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = GFLLosses()(fused, ASSIGNMENT, TARGETS)
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objectness", [None, ConditionalObjectness, ImplicitObjectness])
def test_a_step_gives_losses_and_gradients_everywhere(objectness):
    model = make_gfl(objectness=objectness(channels=32) if objectness else None)
    losses = train_step(model, BATCH)
    assert losses.keys() == {"loss_cls", "loss_box_reg", "loss_dfl"}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    train_step(model, EMPTY)


def test_training_learns_one_image():
    model = make_gfl()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    totals = []
    for _ in range(30):
        model.zero_grad()
        totals.append(sum(train_step(model, BATCH).values()).item())
        optimizer.step()
    assert sum(totals[-5:]) < 0.7 * sum(totals[:5])


@pytest.mark.parametrize("voting", [False, True])
def test_detections_are_decoded_and_scored_by_the_joint_score(voting):
    model = make_gfl().eval()
    torch.nn.init.constant_(model.head.class_logits.bias, 1.0)
    model.postprocessor = PostProcessor(score_voting=voting)
    found = model(BATCH)[0]["instances"]
    assert len(found) > 0 and found.pred_boxes.tensor.shape == (len(found), 4)
    predictions = model.run(model.preprocess_image(BATCH)).predictions
    assert found.scores.max() == predictions.class_probabilities()[0].max()


def test_lad_from_a_gfl_teacher_trains_the_student_alone():
    for student in (make_gfl(0), make_paa(0)):  # heads may differ
        for assigner in (student.assigner, TALAssigner(num_classes=3)):
            student.assigner = assigner
            model = LAD(student=student, teacher=make_gfl(1))
            assert train_step(model, BATCH)["loss_box_reg"] > 0
            assert all(p.grad is None for p in model.teacher.parameters())
            train_step(model, EMPTY)
    assert train_step(LAD(student=make_gfl(0), teacher=make_paa(1)), BATCH)["loss_dfl"] > 0


def test_lads_labels_are_those_of_the_teachers_costs():
    model = LAD(student=make_gfl(0), teacher=make_gfl(1))
    losses = train_step(model, BATCH)
    images = model.student.preprocess_image(BATCH)
    targets = Targets.from_instances([x["instances"] for x in BATCH])
    assignment = model.student.assign(model.teacher.run(images).predictions, targets)
    expected = model.student.losses(model.student.run(images).predictions, assignment, targets)
    assert all(torch.equal(losses[name], expected[name]) for name in expected)


def test_colad_with_a_switch():
    switch = RoleSwitch(indicator=StdMean())
    model = CoLAD(student=make_gfl(0), teacher=make_gfl(1), switch=switch)
    assert train_step(model, BATCH)["teacher/loss_dfl"] > 0
    assert all(p.grad is not None for p in model.parameters())


def test_soft_labels_and_lgd_take_gfl():
    model = SoftLabel(
        student=make_gfl(0), teacher=make_gfl(1), distill_losses=[SoftLabelLoss(min_iou=0.1)]
    )
    assert train_step(model, BATCH).keys() == {"loss_soft_cls", "loss_soft_box"}
    assert model.student.head.deltas.weight.grad.abs().sum() > 0
    losses = train_step(Distillation(student=make_gfl(), distill_losses=[make_lgd()]), BATCH)
    assert losses["lgd/loss_dfl"] > 0 and losses["loss_lgd"] > 0
    with pytest.raises(ValueError, match="the teacher has no IoU branch"):
        SoftLabel(student=make_paa(0), teacher=make_gfl(1))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"coder": DistributionCoder(num_bins=9)}, "head has 68 .*, DistributionCoder decodes 36"),
        ({"coder": None}, "the head has 68 regression outputs per anchor, DeltaCoder decodes 4"),
        (
            {"coder": DeltaCoder(), "head": make_paa(quality=False).head},
            "GFLLosses trains distributions, but model.coder is DeltaCoder: use",
        ),
    ],
)
def test_parts_that_do_not_fit_are_one_line(changed, message):
    model = make_gfl()
    parts = {
        "backbone": make_fpn(),
        "head": model.head,
        "head_in_features": ["p3", "p4", "p5"],
        "anchor_generator": model.anchor_generator,
        "assigner": model.assigner,
        "losses": GFLLosses(),
        "postprocessor": model.postprocessor,
        "pixel_mean": [0.0] * 3,
        "pixel_std": [1.0] * 3,
        "coder": model.coder,
    }
    OneStageDetector(**parts | {"losses": DetectionLosses()})  # boxes alone are trained
    with pytest.raises(ValueError, match=message) as error:
        OneStageDetector(**parts | changed)
    assert "\n" not in str(error.value)
