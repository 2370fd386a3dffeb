"""Images without labels in a training step."""

from __future__ import annotations

import pytest
import torch
from detectron2.utils.events import EventStorage

from helpers import (
    ToyLoss,
    make_anchors,
    make_batch,
    make_lgd,
    make_paa,
    make_predictions,
    make_retinanet,
    make_targets,
)
from lad.assignment.costs import PAACost
from lad.assignment.indicators import StdMean
from lad.assignment.paa import PAAAssigner
from lad.assignment.switch import RoleSwitch
from lad.modeling.distill_losses.soft_label import SoftLabelLoss
from lad.modeling.distillation import LAD, CoLAD, Distillation, SoftLabel
from lad.structures import Targets

BOXES = [[[5.0, 5, 40, 50], [50.0, 10, 90, 60]], [[10.0, 10, 30, 30]]]
LABELED = make_batch(BOXES)


def unlabeled(number=1, seed=5):
    inputs = make_batch([[]] * number, seed=seed)
    return [{"image": x["image"], "unlabeled": True} for x in inputs]


def networks():
    return {"student": make_paa(0), "teacher": make_paa(1)}


class SeesAll(ToyLoss):
    """Counts the images that it gets."""

    takes_unlabeled = True

    def forward(self, student, teacher, targets, assignment):
        """Returns their number."""
        assert len(assignment.labels) == 2
        sizes = {len(x) for x in (*student.tensors(), *teacher.tensors())}
        return {"loss_seen": torch.tensor(float(sizes.pop() if len(sizes) == 1 else -1))}


@pytest.mark.parametrize(
    "model",
    [
        LAD(**networks()),
        LAD(**networks(), distill_losses=[ToyLoss()]),
        LAD(**networks(), switch=RoleSwitch(indicator=StdMean())),
        CoLAD(**networks(), switch=RoleSwitch(indicator=StdMean())),
        Distillation(student=make_paa(0), distill_losses=[make_lgd()]),
    ],
)
def test_losses_on_labels_and_their_normalizers_skip_them(model):
    expected = model.train()(LABELED)
    first, *others = LABELED
    found = model([first, *unlabeled(2), *others])
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def test_the_moving_normalizer_of_retinanet_skips_them():
    states = []
    for batch in (LABELED, [*LABELED, *unlabeled(3)]):
        assigner = PAAAssigner(cost=PAACost(), num_classes=3)
        student = make_retinanet(assigner=assigner, num_anchors=1)
        with EventStorage():
            LAD(student=student, teacher=make_paa(1)).train()(batch)
        states.append(student.training_state())
    assert states[0] == states[1] != {}


def test_losses_that_take_them_get_them_behind_the_others():
    model = LAD(**networks(), distill_losses=[SeesAll()]).train()
    assert model(LABELED)["loss_seen"] == 2
    assert model([*unlabeled(3), *LABELED])["loss_seen"] == 5


@pytest.mark.parametrize("method", [LAD, SoftLabel])
def test_soft_labels_learn_from_them(method):
    model = method(**networks(), distill_losses=[SoftLabelLoss(min_iou=0.1, min_score=0.0)])
    labeled = model.train()(LABELED)
    both = model([*LABELED, *unlabeled()])
    assert model.info().takes_unlabeled
    assert not torch.equal(both["loss_soft_cls"], labeled["loss_soft_cls"])
    sum(both.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.student.parameters())


def test_anchors_of_unlabeled_images_by_hand():
    """The first image's anchors are selected by IoU, the second's by the teacher's score."""
    anchors = make_anchors(64, 64, strides=(32,), scale=1.0)  # 2 x 2 anchors of 32 px
    targets = make_targets([[[0.0, 0, 16, 16]]], sizes=[(64, 64)]).with_unlabeled([(64, 64)])
    assert targets.labeled.tolist() == [True, False] and len(targets.boxes) == 1
    teacher = make_predictions(2, anchors, num_classes=2)
    scores = torch.full((2, 4, 2), 0.01)
    scores[0, 3, 0] = 0.9  # an image with labels: its scores do not count
    scores[1, 1] = torch.tensor([0.2, 0.6])
    scores[1, 2, 0] = 0.3
    teacher = teacher._replace(scores=scores.logit())
    boxes = anchors.boxes.expand(2, -1, -1).clamp(min=0, max=64)
    weight, selected = SoftLabelLoss(min_iou=0.5, min_score=0.3).select(teacher, boxes, targets)
    assert selected.nonzero().tolist() == [[0, 0], [1, 1]]
    torch.testing.assert_close(weight[selected], torch.tensor([1.0, 0.6]))


def test_without_unlabeled_images_the_loss_is_the_same_to_the_bit():
    targets = make_targets(BOXES)
    student, teacher = (make_predictions(2, make_anchors(), seed=seed) for seed in (0, 1))
    expected = SoftLabelLoss(min_iou=0.1).between(student, teacher, targets)
    marked = targets._replace(labeled=torch.ones(2, dtype=torch.bool))
    found = SoftLabelLoss(min_iou=0.1).between(student, teacher, marked)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_batch_needs_an_image_with_labels():
    with pytest.raises(ValueError, match="a batch has unlabeled images only"):
        LAD(**networks()).train()(unlabeled(2))


def test_targets_keep_what_they_know():
    targets = make_targets(BOXES)
    assert targets.with_unlabeled([]) is targets
    more = targets.with_unlabeled([(10, 20), (30, 40)]).to("cpu")
    assert more.labeled.tolist() == [True, True, False, False]
    assert more.image_sizes[2:].tolist() == [[10, 20], [30, 40]]
    some = more.of_classes(torch.tensor([True, False, False]))
    assert isinstance(some, Targets) and some.classes.tolist() == [0] and some.image.tolist() == [0]
    assert torch.equal(some.image_sizes, more.image_sizes)
