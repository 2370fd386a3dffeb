import copy
import math

import pytest
import torch

from helpers import make_batch, make_paa
from lad.assignment.indicators import Fisher, StdMean
from lad.assignment.switch import RoleSwitch
from lad.modeling.anchor_generator import AnchorGenerator
from lad.modeling.distill_losses.soft_label import SoftLabelLoss
from lad.modeling.distillation import LAD, CoLAD, Distillation, SoftLabel
from lad.modeling.heads import ConditionalObjectness
from lad.structures import Targets

BATCH = make_batch([[[5.0, 5, 40, 50], [50.0, 10, 90, 60]], [[10.0, 10, 30, 30]]])
EMPTY = make_batch([[], []])


def networks(**teacher) -> dict:
    return {"student": make_paa(0), "teacher": make_paa(1, **teacher)}


def switch(scope="iteration", indicator=None) -> RoleSwitch:
    return RoleSwitch(indicator=indicator or StdMean(), scope=scope)


def backward(model, batch=BATCH) -> dict[str, torch.Tensor]:
    model.train()
    losses = model(batch)
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    return losses


def unweighted(detector, batch=BATCH) -> dict[str, torch.Tensor]:
    """A detector's losses on its own labels, boxes not weighted by IoU."""
    output = detector.run(detector.preprocess_image(batch))
    targets = Targets.from_instances([x["instances"] for x in batch])
    assignment = detector.assign(output.predictions, targets)
    return detector.losses(output.predictions, assignment._replace(distilled=True), targets)


def test_lad_trains_the_student_on_the_teachers_assignment():
    model = LAD(**networks())
    losses = backward(model)
    student, teacher = model.student, model.teacher
    images = student.preprocess_image(BATCH)
    targets = Targets.from_instances([x["instances"] for x in BATCH])
    assignment = teacher.assign(teacher.run(images).predictions, targets)
    predictions = student.run(images).predictions
    expected = student.losses(predictions, assignment._replace(distilled=True), targets)
    assert losses.keys() == expected.keys()
    assert all(torch.equal(losses[name], expected[name]) for name in losses)
    own = student.losses(predictions, assignment, targets)
    assert not torch.equal(own["loss_box_reg"], losses["loss_box_reg"]), "not weighted by IoU"


def test_a_teacher_equal_to_the_student_is_paa_with_unweighted_boxes():
    pair = networks()
    pair["teacher"] = copy.deepcopy(pair["student"])
    losses, expected = LAD(**pair)(BATCH), unweighted(pair["student"])
    assert all(torch.equal(losses[name], expected[name]) for name in expected)


def test_without_a_method_the_student_learns_from_its_own_assignment():
    student = make_paa()
    for teacher in (None, make_paa(1)):
        losses = Distillation(student=student, teacher=teacher)(BATCH)
        expected = student(BATCH)
        assert all(torch.equal(losses[name], expected[name]) for name in expected)
    model = Distillation(student=student, teacher=make_paa(1), distill_losses=[SoftLabelLoss()])
    assert backward(model).keys() == expected.keys() | {
        "loss_soft_cls",
        "loss_soft_box",
        "loss_soft_quality",
    }


def test_the_frozen_teacher_stays_as_it_is():
    model = LAD(**networks(), distill_losses=[SoftLabelLoss(min_iou=0.1)])
    before = copy.deepcopy(model.teacher.state_dict())
    losses = backward(model)
    assert {"loss_soft_cls", "loss_soft_box", "loss_soft_quality"} < losses.keys()
    assert not model.teacher.training and model.student.training
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    assert all(p.grad is not None for p in model.student.parameters())
    assert all(torch.equal(before[k], v) for k, v in model.teacher.state_dict().items())


def test_pure_soft_label_has_no_hard_label_loss():
    model = SoftLabel(**networks(), distill_losses=[SoftLabelLoss(min_iou=0.01)])
    assert backward(model).keys() == {"loss_soft_cls", "loss_soft_box", "loss_soft_quality"}


def test_colad_trains_both_networks_on_one_assignment():
    model = CoLAD(**networks(), switch=switch())
    losses = backward(model)
    assert {name.split("/")[0] for name in losses} == {"student", "teacher"} and len(losses) == 6
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("role", [True, False])
def test_colad_uses_the_costs_of_the_network_that_teaches(role):
    pair = networks()
    model = CoLAD(**pair, switch=switch())
    model.roles.forced = role
    student, teacher = pair["student"], pair["teacher"]
    # The student on its own labels, or on the teacher's, which is LAD.
    expected = unweighted(student) if role else LAD(student=student, teacher=teacher)(BATCH)
    losses = model(BATCH)
    for name, value in expected.items():
        torch.testing.assert_close(losses[f"student/{name}"], value)
    assert bool(model.roles.student_teaches) is role and model.roles.record is not None


@pytest.mark.parametrize("batch", [BATCH, EMPTY])
def test_own_labels_train_each_network_as_if_alone(batch):
    pair = networks()
    colad, lad = CoLAD(**pair, switch=switch()), LAD(**pair, switch=switch())
    expected = {name: network.train()(batch) for name, network in pair.items()}
    colad.roles.own_labels = lad.roles.own_labels = True
    losses, of_student = colad(batch), lad(batch)
    for name, alone in expected.items():
        for key, value in alone.items():
            torch.testing.assert_close(losses[f"{name}/{key}"], value)
    for key, value in expected["student"].items():
        torch.testing.assert_close(of_student[key], value)
    assert colad.roles.record is None, "nothing was decided"


@pytest.mark.parametrize("scope", ["iteration", "image", "object", "level"])
@pytest.mark.parametrize("indicator", [StdMean(), Fisher()])
def test_every_scope_and_indicator_trains_also_without_objects(scope, indicator):
    for batch in (BATCH, EMPTY):
        backward(CoLAD(**networks(), switch=switch(scope, indicator)), batch)
        backward(LAD(**networks(), switch=switch(scope, indicator)), batch)


def test_lad_with_switch_uses_the_students_costs_where_its_indicator_is_higher():
    pair = networks()
    model = LAD(**pair, switch=switch())
    model.roles.forced = True
    losses, expected = model(BATCH), unweighted(pair["student"])
    assert all(torch.equal(losses[name], expected[name]) for name in expected)


def test_the_last_role_stays_in_a_batch_without_objects():
    model = CoLAD(**networks(), switch=switch())
    for role in (True, False):
        model.roles.forced = role
        model(BATCH)
        model.roles.forced = None
        model(EMPTY)
        assert bool(model.roles.student_teaches) is role


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("with_switch", [False, True])
def test_a_teacher_that_diverged_shows_in_the_losses(with_switch, bad):
    model = LAD(**networks(), switch=switch() if with_switch else None)
    assert all(x.isfinite() for x in model(BATCH).values())
    torch.nn.init.constant_(model.teacher.head.deltas.bias, bad)
    assert model(BATCH)["loss_cls"].isnan()
    if with_switch:
        model.roles.forced = True
        assert model(BATCH)["loss_cls"].isnan(), "also where the student's costs are chosen"


def test_networks_of_other_widths_and_heads_work_together():
    pair = networks(width=16, quality=False, objectness=ConditionalObjectness(channels=32))
    losses = backward(LAD(**pair, distill_losses=[SoftLabelLoss(min_iou=0.1)]))
    assert "loss_soft_quality" not in losses


def test_other_normalization_of_the_teacher_is_respected():
    pair = networks()
    pair["teacher"] = copy.deepcopy(pair["student"])
    expected = LAD(**copy.deepcopy(pair))(BATCH)["loss_cls"]
    teacher = pair["teacher"]
    # The same network on pixels of twice the scale: its first convolution takes half.
    teacher.pixel_std /= 2
    with torch.no_grad():
        teacher.backbone.bottom_up.stem.conv1.weight /= 2
    torch.testing.assert_close(LAD(**pair)(BATCH)["loss_cls"], expected)


def test_evaluation_delegates_to_one_network():
    pair = networks()
    torch.nn.init.constant_(pair["teacher"].head.class_logits.bias, 1.0)
    for name in ("student", "teacher"):
        model = LAD(**pair, eval_network=name).eval()
        expected = pair[name].eval()(BATCH)[0]["instances"]
        assert torch.equal(model(BATCH)[0]["instances"].scores, expected.scores)
        assert model.info().evaluated == {"": name}
    evaluated = CoLAD(**pair, switch=switch()).info().evaluated
    assert evaluated == {"student": "student", "teacher": "teacher"}


def test_checkpoints_hold_both_networks_or_leave_the_teacher_out():
    def prefixes(model):
        return {key.split(".")[0] for key in model.state_dict()}

    assert prefixes(LAD(**networks())) == {"student", "teacher"}
    assert prefixes(LAD(**networks(), save_teacher=False)) == {"student"}


@pytest.mark.parametrize(
    ("teacher", "message"),
    [({"num_classes": 5}, "need equal classes, but have 3 and 5")],
)
def test_networks_that_do_not_fit_are_refused(teacher, message):
    with pytest.raises(ValueError, match=message):
        LAD(**networks(**teacher))


def test_other_anchors_or_eval_network_are_refused():
    pair = networks()
    pair["teacher"].anchor_generator = AnchorGenerator(strides=(8, 16, 32), scale=8)
    with pytest.raises(ValueError, match="need equal anchors"):
        LAD(**pair)
    with pytest.raises(ValueError, match="eval_network='both': choose"):
        LAD(**networks(), eval_network="both")


def test_parts_that_do_not_fit_are_refused():
    pair = networks()
    with pytest.raises(ValueError, match="model.switch=null"):
        CoLAD(**pair, switch=None)
    with pytest.raises(ValueError, match="model.save_teacher=false"):
        CoLAD(**pair, switch=switch(), save_teacher=False)
    with pytest.raises(ValueError, match="model.switch: SoftLabel assigns without"):
        SoftLabel(**pair, switch=switch())
    for method in (LAD, SoftLabel):
        with pytest.raises(ValueError, match="model.teacher=null"):
            method(student=make_paa())
    with pytest.raises(ValueError, match="SoftLabel has no other losses; add a SoftLabelLoss"):
        SoftLabel(student=make_paa(0), teacher=make_paa(1))
    with pytest.raises(ValueError, match="soft labels come from a teacher"):
        Distillation(student=make_paa(), distill_losses=[SoftLabelLoss()])
    with pytest.raises(ValueError, match="the teacher has no IoU branch"):
        SoftLabel(student=make_paa(), teacher=make_paa(quality=False))
    pair["teacher"].backbone._size_divisibility = 64
    with pytest.raises(ValueError, match="multiples of 32 and 64"):
        LAD(**pair)


def test_training_without_ground_truth_is_refused():
    with pytest.raises(ValueError, match="ground truth is needed"):
        LAD(**networks())([{"image": BATCH[0]["image"]}])
