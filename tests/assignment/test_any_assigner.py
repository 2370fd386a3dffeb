"""Properties of every assigner, alone and under label assignment distillation."""

import math

import pytest
import torch

from helpers import (
    generic,
    make_anchors,
    make_batch,
    make_fcos,
    make_gfl,
    make_paa,
    make_predictions,
    make_retinanet,
    make_targets,
    random_boxes,
    train_step,
)
from lad.assignment.atss import ATSSAssigner
from lad.assignment.costs import PAACost, QualityFocalCost
from lad.assignment.indicators import Fisher, StdMean
from lad.assignment.paa import PAAAssigner
from lad.assignment.simota import SimOTAAssigner
from lad.assignment.switch import SCOPES, RoleSwitch
from lad.assignment.tal import TALAssigner
from lad.modeling.distill_losses.soft_label import SoftLabelLoss
from lad.modeling.distillation import LAD, CoLAD, SoftLabel
from lad.structures import Targets

ANCHORS = make_anchors()
LEARNING = {
    "paa": PAAAssigner(cost=PAACost(), num_classes=3),
    "gfl_paa": PAAAssigner(cost=QualityFocalCost(), num_classes=3),
    "simota": SimOTAAssigner(num_classes=3),
    "tal": TALAssigner(num_classes=3),
}
EVERY = {**LEARNING, "atss": ATSSAssigner(num_classes=3)}
BATCH = make_batch([[[5.0, 5, 40, 50], [20.0, 10, 90, 60]], [], [[10.0, 10, 30, 30]]])

every = pytest.mark.parametrize("assigner", EVERY.values(), ids=EVERY)
learning = pytest.mark.parametrize("assigner", LEARNING.values(), ids=LEARNING)


def labels(assigner, predictions, targets):
    candidates = assigner.candidates(predictions.anchors, targets)
    costs = assigner.cost(predictions, targets, candidates)
    return assigner.assign(costs, candidates, predictions.anchors, targets)


def networks(assigner) -> dict:
    return {"student": make_paa(0, assigner=assigner), "teacher": make_paa(1)}


@every
def test_labels_are_the_classes_of_the_matched_objects(assigner):
    targets = make_targets([random_boxes(20, 96, 128), [], random_boxes(9, 96, 128, 1)])
    result = labels(assigner, make_predictions(3, ANCHORS), targets)
    matched = result.gt >= 0
    assert matched.sum() > 10
    assert torch.equal(result.labels[matched], targets.classes[result.gt[matched]])
    assert torch.equal(targets.image[result.gt[matched]], matched.nonzero()[:, 0])
    assert (result.labels[~matched] == 3).all()


@pytest.mark.parametrize("assigner", [EVERY[x] for x in ("atss", "simota", "tal")])
def test_order_of_objects_does_not_matter(assigner):
    targets = make_targets([random_boxes(20, 96, 128)])
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    predictions = make_predictions(1, ANCHORS)
    result = labels(assigner, predictions, targets)
    shuffled = Targets(targets.boxes[order], targets.classes[order], *targets[2:])
    permuted = labels(assigner, predictions, shuffled)
    assert torch.equal(permuted.labels, result.labels)
    assert torch.equal(torch.where(permuted.gt >= 0, order[permuted.gt], -1), result.gt)


@every
def test_a_batch_is_its_images(assigner):
    sizes = [(96, 128), (90, 60), (33, 128)]
    boxes = [random_boxes(9, height, width, height) for height, width in sizes]
    targets = make_targets(boxes, sizes)
    predictions = make_predictions(3, ANCHORS)
    batch = labels(assigner, predictions, targets)
    for i in range(3):
        mine = targets.image == i
        single = Targets(
            targets.boxes[mine],
            targets.classes[mine],
            targets.image[mine] * 0,
            targets.image_sizes[[i]],
        )
        own = predictions._map(lambda x, i=i: x[i : i + 1])
        result = labels(assigner, own, single)
        assert torch.equal(result.labels[0], batch.labels[i])
        assert torch.equal(torch.where(result.gt >= 0, result.gt + 9 * i, -1)[0], batch.gt[i])


@every
def test_no_objects_are_all_background(assigner):
    result = labels(assigner, make_predictions(2, ANCHORS), make_targets([[], []]))
    assert (result.labels == 3).all() and (result.gt == -1).all()


@every
def test_an_object_outside_the_image_changes_no_labels(assigner):
    inside, outside = [10.0, 10, 60, 70], [900.0, 900, 910, 910]
    predictions = make_predictions(1, ANCHORS)
    alone = labels(assigner, predictions, make_targets([[inside]]))
    result = labels(assigner, predictions, make_targets([[inside, outside]]))
    assert torch.equal(result.gt == 0, alone.gt == 0) and (alone.gt == 0).any()


@every
def test_a_thousand_objects(assigner):
    targets = make_targets([random_boxes(1000, 96, 128)])
    result = labels(assigner, make_predictions(1, ANCHORS), targets)
    assert len(result.gt[result.gt >= 0].unique()) > 20


@learning
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_predictions_that_are_not_finite_become_positives(assigner, bad):
    predictions = make_predictions(1, ANCHORS).detach()
    targets = make_targets([[[10.0, 10, 60, 70]]])
    anchor = assigner.candidates(ANCHORS, targets).anchor[-1]
    predictions.scores[0, anchor] = bad
    predictions.regression[0, anchor] = bad
    assert labels(assigner, predictions, targets).gt[0, anchor] == 0
    predictions.scores.fill_(bad)
    assert (labels(assigner, predictions, targets).gt == 0).any()


@learning
@pytest.mark.parametrize("indicator", [StdMean(), Fisher()], ids=["stdmean", "fisher"])
@pytest.mark.parametrize("scope", SCOPES)
def test_every_switch_works_where_objects_share_candidates(assigner, scope, indicator):
    boxes = [random_boxes(12, 96, 128), [], [[20.0, 20, 60, 60], [24.0, 22, 62, 58]]]
    targets = make_targets(boxes)
    candidates = assigner.candidates(ANCHORS, targets)
    key = (candidates.gt * 10 + candidates.level) * len(ANCHORS.boxes) + candidates.anchor
    assert (key.diff() > 0).all(), "ordered by object, level, anchor, no pair twice"
    student, teacher = (
        assigner.cost(make_predictions(3, ANCHORS, seed=i), targets, candidates).cost
        for i in range(2)
    )
    switch = RoleSwitch(indicator=indicator, scope=scope)
    chosen, record = switch(student, teacher, candidates, targets, 3)
    back, _ = switch(teacher, student, candidates, targets, 3)
    assert chosen.shape == candidates.gt.shape
    assert record.student.isfinite() and record.teacher.isfinite()
    groups = switch.groups(candidates, targets, 3).of_candidate
    count = torch.bincount(groups)[groups]
    assert (chosen | back)[count > 1].all(), "one of them teaches; on a tie the student"
    assert (chosen ^ back).double().mean() > 0.5


@every
@pytest.mark.parametrize(
    "make",
    [make_paa, make_gfl, make_retinanet, make_fcos],
    ids=["paa", "gfl", "retinanet", "fcos"],
)
def test_trains_every_detector(assigner, make):
    model = make(assigner=assigner)
    losses = train_step(model, BATCH)
    assert next(v for k, v in losses.items() if k in ("loss_box_reg", "loss_fcos_loc")) > 0
    train_step(model, make_batch([[], []]))


@learning
def test_trains_under_label_assignment_distillation(assigner):
    for switch in (None, RoleSwitch(indicator=StdMean())):
        assert train_step(LAD(**networks(assigner), switch=switch), BATCH)["loss_box_reg"] > 0
    model = CoLAD(**networks(assigner), switch=RoleSwitch(indicator=Fisher(), scope="level"))
    assert train_step(model, BATCH)["teacher/loss_box_reg"] > 0
    assert all(p.grad is not None for p in model.parameters())
    train_step(model, make_batch([[], []]))


@learning
def test_what_belongs_to_a_cost_comes_from_the_same_network(assigner):
    targets = make_targets([random_boxes(9, 96, 128)])
    candidates = assigner.candidates(ANCHORS, targets)
    student, teacher = (
        assigner.cost(make_predictions(1, ANCHORS, seed=i), targets, candidates) for i in range(2)
    )
    mask = torch.arange(len(student.cost)) % 2 == 0
    mixed = student.where(mask, teacher)
    for name in ("cost", "iou"):
        ours, one, other = (getattr(x, name) for x in (mixed, student, teacher))
        if ours is not None:
            assert torch.equal(ours[mask], one[mask]) and torch.equal(ours[~mask], other[~mask])
    result = assigner.assign(mixed, candidates, ANCHORS, targets)
    assert not torch.equal(result.gt, assigner.assign(teacher, candidates, ANCHORS, targets).gt)
    assert not torch.equal(result.gt, assigner.assign(student, candidates, ANCHORS, targets).gt)


@every
def test_anchors_without_a_regular_layout_get_the_same_labels(assigner):
    targets = make_targets([random_boxes(20, 96, 128), [], random_boxes(9, 96, 128, 1)])
    predictions = make_predictions(3, ANCHORS)
    expected = labels(assigner, predictions, targets)
    result = labels(assigner, predictions._replace(anchors=generic(ANCHORS)), targets)
    assert torch.equal(result.labels, expected.labels) and torch.equal(result.gt, expected.gt)


def test_a_static_assigner_cannot_be_taught():
    message = "model.student.assigner: ATSSAssigner is static.* choose PAAAssigner"
    with pytest.raises(ValueError, match=message):
        LAD(**networks(EVERY["atss"]))
    with pytest.raises(ValueError, match=message):
        CoLAD(**networks(EVERY["atss"]), switch=RoleSwitch(indicator=StdMean()))
    model = SoftLabel(**networks(EVERY["atss"]), distill_losses=[SoftLabelLoss(min_iou=0.01)])
    train_step(model, BATCH)
