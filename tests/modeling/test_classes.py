"""Teachers with other classes: matching by name, the class layer, labels and soft labels."""

from __future__ import annotations

import pytest
import torch

from helpers import make_batch, make_fcos, make_paa, make_retinanet
from lad.assignment.indicators import StdMean
from lad.assignment.switch import RoleSwitch
from lad.checkpoint import load_initial_weights, load_weights
from lad.checkpoint.classes import select_classes
from lad.modeling.classes import ClassMap, describe, match_classes
from lad.modeling.distill_losses.bckd import BCKD
from lad.modeling.distill_losses.soft_label import SoftLabelLoss
from lad.modeling.distillation import LAD, CoLAD, SoftLabel

STUDENT, TEACHER = ["car", "kiosk", "cat"], ["cat", "dog", "bus", "car", "bird"]
BOXES = [[[5.0, 5, 40, 50], [50.0, 10, 90, 60]], [[10.0, 10, 30, 30]]]


def batch(label):
    """Two images whose objects all have one class."""
    inputs = make_batch(BOXES)
    for x in inputs:
        x["instances"].gt_classes[:] = label
    return inputs


def named(method=LAD, **options):
    """A student of three classes and a teacher that knows two of them."""
    pair = {"student": make_paa(0), "teacher": make_paa(1)}
    names = {"student_classes": STUDENT, "teacher_classes": TEACHER}
    return method(**pair, **names, **options).train()


def same(losses, other):
    assert losses.keys() == other.keys()
    return all(torch.equal(losses[name], other[name]) for name in losses)


def test_names_are_matched_as_in_the_example():
    student, teacher = ["Traffic_Light", "kiosk", "cat"], ["cat", "dog", "traffic light"]
    classes = match_classes(student, teacher)
    assert classes == ClassMap(3, (2, -1, 0))
    assert describe(classes, student, teacher) == (
        "The teacher knows 2 of the student's 3 classes, not kiosk, for which it gives neither "
        "labels nor soft labels; 1 of its own 3 are not used: dog"
    )


def test_equal_classes_in_another_order():
    classes = match_classes(["a", "b", "c"], ["c", "a", "b"])
    assert classes == ClassMap(3, (1, 2, 0))
    assert describe(classes, "abc", "cab") == "The teacher knows 3 of the student's 3 classes"


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (["a"], ["b"], r"none of the student's classes \(a\) is one of the teacher's \(b\)"),
        (["a"], [], "none of the student's classes"),
        ([], ["a"], "none of the student's classes"),
        (["a", "A "], ["a"], "model.student_classes: several of its classes are named 'a'"),
        (["a"], ["b_c", "b c"], "model.teacher_classes: several of its classes are named 'b c'"),
    ],
)
def test_names_that_do_not_match(student, teacher, message):
    with pytest.raises(ValueError, match=message):
        match_classes(student, teacher)


def test_rows_of_the_class_layer_by_hand():
    """Two anchors per cell: the classes of the first, then those of the second."""
    state = {
        "head.cls_score.weight": torch.arange(6.0)[:, None],
        "head.cls_score.bias": torch.arange(6.0),
        "head.bbox_pred.bias": torch.arange(6.0),
    }
    found = select_classes(state, ClassMap(3, (2, -1)))
    assert found["head.cls_score.weight"].flatten().tolist() == [2, 0, 5, 0]
    assert found["head.cls_score.bias"].tolist() == [2, -20, 5, -20]
    assert torch.equal(found["head.bbox_pred.bias"], state["head.bbox_pred.bias"])
    with pytest.raises(ValueError, match="model.teacher_classes names 4 classes, but head.cls_sc"):
        select_classes(state, ClassMap(4, (2, -1)))


@pytest.mark.parametrize("make", [make_paa, make_retinanet, make_fcos])
def test_a_loaded_teacher_scores_as_the_original(make, tmp_path):
    original, teacher = make(1, num_classes=5).eval(), make(0).eval()
    torch.save({"model": original.state_dict()}, tmp_path / "teacher.pth")
    classes = match_classes(STUDENT, TEACHER)
    load_weights(teacher, str(tmp_path / "teacher.pth"), complete=True, class_map=classes)
    scores = []
    for network in (original, teacher):
        images = network.preprocess_image(batch(0))
        scores.append(network.run(images).predictions.class_probabilities())
    torch.testing.assert_close(scores[1][..., [0, 2]], scores[0][..., [3, 0]])
    assert scores[1][..., 1].max() < 1e-8


def test_teacher_checkpoint_of_other_classes(tmp_path, caplog):
    torch.save({"model": make_paa(1, num_classes=5).state_dict()}, tmp_path / "teacher.pth")
    path = str(tmp_path / "teacher.pth")
    model = LAD(student=make_paa(0), teacher=make_paa(1), teacher_checkpoint=path)
    with pytest.raises(ValueError, match="another number of classes .*model.teacher_classes"):
        load_initial_weights(model, "")
    with caplog.at_level("INFO", logger="lad"):
        load_initial_weights(named(teacher_checkpoint=path), "")
    assert "not kiosk" in caplog.text and "dog, bus, bird" in caplog.text


def test_objects_of_a_class_that_the_teacher_lacks_are_labeled_by_the_student():
    model, plain = named(), LAD(student=make_paa(0), teacher=make_paa(1)).train()
    assert same(model(batch(0)), plain(batch(0)))
    own = LAD(student=make_paa(0), teacher=make_paa(0)).train()
    assert same(model(batch(1)), own(batch(1)))
    assert not same(model(batch(1)), plain(batch(1)))


def test_a_teacher_that_knows_all_classes_changes_nothing():
    names = {"student_classes": ["a", "b", "c"], "teacher_classes": ["d", "c", "b", "a"]}
    model = LAD(student=make_paa(0), teacher=make_paa(1), **names).train()
    plain = LAD(student=make_paa(0), teacher=make_paa(1)).train()
    assert same(model(batch(1)), plain(batch(1)))


def test_the_switch_sees_equal_costs_of_such_objects():
    model = named(switch=RoleSwitch(indicator=StdMean()))
    losses = {}
    for role in (True, False):
        model.roles.forced = role
        losses[role] = model(batch(1))
    assert same(losses[True], losses[False])
    assert model.roles.record.student == model.roles.record.teacher


def test_soft_labels_leave_such_classes_out():
    model = named(distill_losses=[SoftLabelLoss(min_iou=0.01)])
    losses = {k: v for k, v in model(batch(0)).items() if "soft" in k}
    assert all(value > 0 for value in losses.values())
    sum(losses.values()).backward()
    layer = model.student.head.class_logits
    assert layer.bias.grad[1] == 0 and layer.weight.grad[1].abs().sum() == 0
    assert layer.bias.grad[[0, 2]].abs().min() > 0
    losses = {k: v for k, v in model(batch(1)).items() if "soft" in k}
    assert all(value == 0 for value in losses.values()), "its objects select nothing"


def test_bckd_leaves_such_classes_out():
    model = named(distill_losses=[BCKD()])
    losses = {k: v for k, v in model(batch(0)).items() if "bckd" in k}
    losses["loss_bckd_cls"].backward()
    layer = model.student.head.class_logits
    assert layer.bias.grad[1] == 0 and layer.bias.grad[[0, 2]].abs().min() > 0


def test_a_teacher_that_is_trained_learns_all_classes():
    switch = RoleSwitch(indicator=StdMean())
    model = named(CoLAD, switch=switch)
    plain = CoLAD(student=make_paa(0), teacher=make_paa(1), switch=switch).train()
    assert same(model(batch(1)), plain(batch(1)))
    assert model.info().class_maps["teacher"].source == (3, -1, 0)


@pytest.mark.parametrize(
    ("method", "names", "message"),
    [
        (LAD, {"teacher_classes": TEACHER}, "model.student_classes=None: list the names"),
        (
            LAD,
            {"student_classes": STUDENT, "teacher_classes": "coco"},
            "model.teacher_classes=coco: list the names of its classes",
        ),
        (
            LAD,
            {"student_classes": ["cat"], "teacher_classes": TEACHER},
            "names 1 classes, the student has 3",
        ),
        (
            SoftLabel,
            {"student_classes": STUDENT, "teacher_classes": TEACHER},
            "the teacher lacks some of the student's classes, and SoftLabel",
        ),
    ],
)
def test_classes_that_cannot_be_used(method, names, message):
    with pytest.raises(ValueError, match=message):
        method(student=make_paa(0), teacher=make_paa(1), **names)
