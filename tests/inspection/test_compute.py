"""What the networks would assign is what they are trained on; inspecting changes nothing."""

import copy
import re

import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from helpers import HARDLY_TRAINED, make_batch, make_paa, make_retinanet
from lad import get_config
from lad.assignment.atss import ATSSAssigner
from lad.assignment.indicators import Fisher, Indicator, StdMean
from lad.assignment.simota import SimOTAAssigner
from lad.assignment.switch import SCOPES, RoleSwitch
from lad.inspection.compute import (
    check_inspectable,
    detected_instances,
    inspect_batch,
    training_rule,
)
from lad.modeling.distill_losses.soft_label import SoftLabelLoss
from lad.modeling.distillation import LAD, CoLAD, Distillation, SoftLabel
from lad.structures import Targets

BATCH = make_batch([[[5.0, 5, 40, 50], [50.0, 10, 90, 60]], [[10.0, 10, 30, 30]]])
TARGETS = Targets.from_instances([x["instances"] for x in BATCH])


def make_colad(indicator: Indicator | None = None, scope: str = "iteration", **student) -> CoLAD:
    switch = RoleSwitch(indicator=indicator or StdMean(), scope=scope)
    return CoLAD(student=make_paa(0, **student), teacher=make_paa(1), switch=switch)


def test_both_views_are_the_labels_of_training():
    model = LAD(student=make_paa(0), teacher=make_paa(1)).eval()
    views = inspect_batch(model, BATCH).views
    with torch.no_grad():
        outputs = model.run(BATCH)
    taught = model.assign(outputs, TARGETS)
    assert list(views) == ["student", "teacher"]
    assert torch.equal(views["teacher"].assignment.labels, taught.labels)
    assert torch.equal(views["teacher"].costs.cost, taught.cost)
    own = model.student.assign(outputs.student.predictions, TARGETS)
    assert torch.equal(views["student"].assignment.gt, own.gt)
    assert not torch.equal(own.gt, taught.gt)


def test_a_teachers_unknown_classes_have_the_students_costs():
    classes = {"student_classes": ["a", "b", "c"], "teacher_classes": ["x", "b", "c"]}
    model = LAD(student=make_paa(0), teacher=make_paa(1), **classes).eval()
    views = inspect_batch(model, BATCH).views
    with torch.no_grad():
        taught = model.assign(model.run(BATCH), TARGETS)
    assert torch.equal(views["teacher"].assignment.labels, taught.labels)
    assert torch.equal(views["teacher"].costs.cost, taught.cost)
    same = views["teacher"].costs.cost == views["student"].costs.cost
    assert same.any() and not same.all()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name, indicator", [("std/mean", StdMean()), ("Fisher", Fisher(topk=4))])
def test_decisions_are_those_of_the_switch(scope, name, indicator):
    model = make_colad(indicator, scope).eval()
    inspection = inspect_batch(model, BATCH)
    student, teacher = (x.costs for x in inspection.views.values())
    num_levels = len(inspection.anchors.strides)
    mask, record = RoleSwitch(indicator=indicator, scope=scope)(
        student.cost, teacher.cost, inspection.candidates, TARGETS, num_levels
    )
    groups = model.roles.switch.groups(inspection.candidates, TARGETS, num_levels)
    comparison = inspection.comparisons[name][scope]
    assert torch.equal(comparison.student_teaches[groups.of_candidate], mask)
    present = comparison.size > 0
    assert comparison.student[present].nanmean() == pytest.approx(record.student.item())
    assert set(inspection.comparisons) == {"std/mean", "Fisher"}


def test_the_models_own_indicator_is_shown_too():
    class Mean(StdMean):
        def value(self, sums):
            return sums[:, 1] / sums[:, 0]

    model = make_colad(Mean())
    assert list(inspect_batch(model, BATCH).comparisons) == ["std/mean", "Fisher", "Mean"]
    assert training_rule(model)[1:] == ("iteration", "Mean")


def test_nothing_of_the_model_and_the_random_numbers_changes():
    model = make_colad().train()
    before, numbers = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    inspect_batch(model, BATCH)
    assert model.training and model.student.training and model.roles.record is None
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), numbers)
    lad = LAD(student=make_paa(0), teacher=make_paa(1)).train()
    inspect_batch(lad, BATCH)
    assert lad.student.training and not lad.teacher.training


def test_one_network_and_rules_without_costs():
    views = inspect_batch(make_paa(), BATCH).views
    assert list(views) == ["detector"] and views["detector"].fit is not None
    simota = make_paa(assigner=SimOTAAssigner(num_classes=3))
    view = inspect_batch(simota, BATCH).views["detector"]
    assert view.costs is not None and view.fit is None
    alone = inspect_batch(Distillation(student=make_paa()), BATCH)
    assert list(alone.views) == ["student"] and not alone.comparisons
    for static in (make_retinanet(), make_paa(assigner=ATSSAssigner(num_classes=3))):
        inspection = inspect_batch(static, BATCH)
        assert inspection.candidates is None and inspection.views["detector"].costs is None
        assert set(inspection.views["detector"].assignment.gt.unique().tolist()) == {-1, 0, 1, 2}


def test_images_without_objects():
    inspection = inspect_batch(make_colad(), make_batch([[], []]))
    assert (inspection.views["teacher"].assignment.gt == -1).all()
    assert inspection.comparisons["Fisher"]["iteration"].size.tolist() == [0]


def test_a_diverged_network_and_other_models_are_reported():
    model = make_colad()
    nn.init.constant_(model.teacher.head.class_tower[0].weight, float("nan"))
    with pytest.raises(ValueError, match="costs of the teacher are not finite"):
        inspect_batch(model, BATCH)
    bottom_up = get_config("common/models/backbones.py", "resnet")(10)
    bottom_up.update(width=8, freeze_at=0)
    faster_rcnn = get_config("common/models/rcnn.py", "faster_rcnn")
    two_stages = instantiate(faster_rcnn(bottom_up, num_classes=3, channels=16))
    for other, name in ((nn.Linear(1, 1), "Linear"), (two_stages, "RCNN")):
        with pytest.raises(ValueError, match=f"{name} is no dense detector"):
            check_inspectable(other)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (make_paa, "The detector is trained on its own"),
        (make_retinanet, "depend on the anchors alone"),
        (lambda: Distillation(student=make_paa()), "The student is trained on its own"),
        (lambda: LAD(student=make_paa(), teacher=make_paa(1)), "on the teacher's assignment"),
        (lambda: make_colad(Fisher(), "level"), "Both networks .* Fisher, one decision per level"),
        (
            lambda: SoftLabel(
                student=make_paa(), teacher=make_paa(1), distill_losses=[SoftLabelLoss()]
            ),
            "soft labels alone",
        ),
    ],
)
def test_training_rule(make, text):
    assert re.search(text, training_rule(make()).text)


def test_detections_stand_in_for_labels():
    model = make_colad().train()
    image = BATCH[0]["image"]
    every = detected_instances(model, image, 0.0)
    with torch.no_grad():
        expected = model.eval()([{"image": image}])[0]["instances"]
    assert torch.equal(every.gt_boxes.tensor, expected.pred_boxes.tensor)
    kept = expected.scores >= HARDLY_TRAINED
    some = detected_instances(model, image, HARDLY_TRAINED)
    assert torch.equal(some.gt_classes, expected.pred_classes[kept])
    assert len(detected_instances(model, image, 1.0)) == 0
