"""Detectron2's RetinaNet and FCOS: alone, in LAD and in CoLAD."""

import copy

import pytest
import torch
from detectron2.modeling.meta_arch.fcos import FCOS as Detectron2FCOS
from detectron2.modeling.meta_arch.retinanet import RetinaNet as Detectron2RetinaNet
from detectron2.utils.events import EventStorage

from helpers import make_batch, make_fcos, make_paa, make_retinanet, random_boxes
from lad.assignment.costs import PAACost
from lad.assignment.indicators import Fisher, StdMean
from lad.assignment.paa import PAAAssigner
from lad.assignment.simota import SimOTAAssigner
from lad.assignment.switch import RoleSwitch
from lad.assignment.tal import TALAssigner
from lad.modeling.distill_losses.soft_label import SoftLabelLoss
from lad.modeling.distillation import LAD, CoLAD
from lad.structures import Targets

BATCH = make_batch([[[5.0, 5, 40, 50], [50.0, 10, 90, 60]], [[10.0, 10, 30, 30]]])
MIXED = make_batch([[[5.0, 5, 40, 50], [20.0, 10, 90, 60]], []])
EMPTY = make_batch([[], []])
ASSIGNERS = {
    "paa": PAAAssigner(cost=PAACost(), num_classes=3),
    "simota": SimOTAAssigner(num_classes=3),
    "tal": TALAssigner(num_classes=3),
}
every_assigner = pytest.mark.parametrize("assigner", ASSIGNERS.values(), ids=ASSIGNERS)


@pytest.fixture(autouse=True)
def storage():
    with EventStorage():
        yield


def step(model, batch=BATCH) -> dict[str, torch.Tensor]:
    losses = model.train()(batch)
    assert all(value.isfinite() for value in losses.values())
    model.zero_grad()
    sum(losses.values()).backward()
    return losses


def as_detectron2(model, base):
    """The same network as Detectron2's own class."""
    twin = copy.deepcopy(model)
    twin.__class__ = base
    return twin


@pytest.mark.parametrize(
    ("make", "base"), [(make_retinanet, Detectron2RetinaNet), (make_fcos, Detectron2FCOS)]
)
def test_alone_it_trains_and_detects_to_the_bit_as_detectron2s_own_class(make, base):
    for _ in range(2):  # Detectron2's compiled focal loss rounds otherwise in its first calls
        step(make(0))
    ours = make(0)
    theirs = as_detectron2(ours, base)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    optimizers = [torch.optim.SGD(x.parameters(), 0.01) for x in (ours, theirs)]
    scene = make_batch([random_boxes(9, 64, 96), random_boxes(4, 64, 96, 1)])
    for batch in (BATCH, scene, BATCH):  # the moving normalizer moves along
        losses, expected = step(ours, batch), step(theirs, batch)
        assert losses.keys() == expected.keys()
        assert all(torch.equal(losses[name], value) for name, value in expected.items())
        for optimizer in optimizers:
            optimizer.step()
    for name, weight in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weight)
    for model in (ours, theirs):
        torch.nn.init.constant_(model.head.cls_score.bias, 0.0)  # everything is detected
    found, expected = (x.eval()(BATCH)[0]["instances"] for x in (ours, theirs))
    assert len(found) and torch.equal(found.scores, expected.scores)
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)


@pytest.mark.parametrize("make", [make_retinanet, make_fcos])
def test_images_without_objects_are_background(make):
    losses = step(make(0), MIXED)
    assert len(losses) >= 2
    step(make(0), EMPTY)
    model = make(0)
    output = model.run(model.preprocess_image(MIXED))
    targets = Targets.from_instances([x["instances"] for x in MIXED])
    assignment = model.assign(output.predictions, targets)
    assert (assignment.labels[1] == 3).all() and (assignment.gt[1] == -1).all()
    found = assignment.gt[0] >= 0
    assert found.any()
    assert torch.equal(assignment.labels[0][found], targets.classes[assignment.gt[0][found]])


@pytest.mark.parametrize("make", [make_retinanet, make_fcos])
@every_assigner
def test_any_assigner_replaces_the_static_rule(make, assigner):
    model = make(0, assigner=assigner)
    for batch in (BATCH, MIXED, EMPTY):
        step(model, batch)
    output = model.run(model.preprocess_image(BATCH))
    targets = Targets.from_instances([x["instances"] for x in BATCH])
    assignment = model.assign(output.predictions, targets)
    assert len(assignment.gt.unique()) > 2, "objects have positives"


@pytest.mark.parametrize("make", [make_retinanet, make_fcos])
@pytest.mark.parametrize("assigner", [None, ASSIGNERS["paa"]], ids=["static", "paa"])
def test_losses_are_float32_under_autocast(make, assigner):
    model = make(0, assigner=assigner)
    expected = step(copy.deepcopy(model))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = step(model)
    for name, value in expected.items():
        assert losses[name].dtype == torch.float32
        if assigner is None:  # else other predictions make other labels
            torch.testing.assert_close(losses[name], value, rtol=0.05, atol=0.01)


def test_the_predictions_are_decoded_as_detectron2_does():
    for model in (make_retinanet(0), make_fcos(0)):
        output = model.run(model.preprocess_image(BATCH))
        predictions = output.predictions
        anchors = predictions.anchors.boxes
        assert len(anchors) == predictions.scores.shape[1]
        expected = model.box2box_transform.apply_deltas(predictions.regression[1], anchors)
        assert torch.equal(predictions.boxes()[1], expected)
        at = torch.tensor([1, 1, 0]), torch.tensor([3, 0, 9])
        torch.testing.assert_close(predictions.boxes(at), predictions.boxes()[at])


def test_regular_anchors_are_known_as_a_grid_and_nine_are_not():
    for model in (make_fcos(0), make_retinanet(0, num_anchors=1)):
        anchors = model.run(model.preprocess_image(BATCH)).predictions.anchors
        start = 0
        for grid, number in zip(anchors.grids, anchors.num_per_level, strict=True):
            assert grid.height * grid.width == number
            last = anchors.boxes[start + number - 1]
            center = torch.tensor([grid.width - 1, grid.height - 1]) * grid.stride + grid.offset
            expected = torch.cat([center - grid.side / 2, center + grid.side / 2])
            torch.testing.assert_close(last, expected)
            start += number
    nine = make_retinanet(0)
    assert nine.run(nine.preprocess_image(BATCH)).predictions.anchors.grids is None


def pairs(assigner) -> dict:
    """Students and teachers that share anchors, of equal and of other kinds."""
    return {
        "nine anchors": (make_retinanet(0, assigner=assigner), make_retinanet(1)),
        "fcos": (make_fcos(0, assigner=assigner), make_fcos(1)),
        "retinanet from paa": (make_retinanet(0, assigner=assigner, num_anchors=1), make_paa(1)),
        "paa from retinanet": (make_paa(0), make_retinanet(1, num_anchors=1)),
    }


@pytest.mark.parametrize("kind", pairs(None))
@every_assigner
def test_lad_between_kinds_of_detectors(kind, assigner):
    student, teacher = pairs(assigner)[kind]
    student.assigner = assigner
    model = LAD(student=student, teacher=teacher, distill_losses=[SoftLabelLoss(min_iou=0.01)])
    losses = step(model)
    assert "loss_soft_cls" in losses
    assert all(p.grad is None for p in teacher.parameters())
    output = teacher.run(teacher.preprocess_image(BATCH)).predictions
    targets = Targets.from_instances([x["instances"] for x in BATCH])
    expected = student.assign(output, targets)
    made = model.assign(model.run(BATCH), targets)
    assert torch.equal(made.labels, expected.labels) and (made.gt >= 0).any()
    step(model, EMPTY)


@pytest.mark.parametrize("kind", pairs(None))
@pytest.mark.parametrize("indicator", [StdMean(), Fisher()], ids=["stdmean", "fisher"])
def test_colad_between_kinds_of_detectors(kind, indicator):
    student, teacher = pairs(ASSIGNERS["paa"])[kind]
    model = CoLAD(student=student, teacher=teacher, switch=RoleSwitch(indicator=indicator))
    losses = step(model)
    assert {name.split("/")[0] for name in losses} == {"student", "teacher"}
    assert all(p.grad is not None for p in model.parameters())
    step(model, EMPTY)


def test_anchors_that_do_not_agree_are_one_line():
    retinanet = make_retinanet(0, assigner=ASSIGNERS["paa"])
    with pytest.raises(ValueError, match="stride 8 has 9 anchor.* and 1 anchor.* of 32x32 px at"):
        LAD(student=retinanet, teacher=make_paa(1))
    with pytest.raises(ValueError, match=r"32x32 px at \(0, 0\) and .* 8x8 px at \(4, 4\)"):
        LAD(student=make_paa(0), teacher=make_fcos(1))


def test_a_static_student_cannot_be_taught_and_classes_must_agree():
    with pytest.raises(ValueError, match="model.student.assigner: null is static"):
        LAD(student=make_retinanet(0), teacher=make_retinanet(1))
    with pytest.raises(ValueError, match="the detector has 3 classes, the assigner 5"):
        make_retinanet(0, assigner=TALAssigner(num_classes=5))


def test_centerness_is_zero_where_an_assigner_chooses_a_center_outside():
    model = make_fcos(0)
    anchors = model.anchor_generator([torch.zeros(1, 1, 2, 2)] * 3)
    number = sum(len(x) for x in anchors)
    box = torch.tensor([0.0, 0.0, 8.0, 16.0])  # the first center, (4, 4), is inside
    targets = model.compute_ctrness_targets(anchors, [type(anchors[0])(box.repeat(number, 1))])
    # left and right 4, top 4, bottom 12
    assert targets[0, 0].item() == pytest.approx((1 * 4 / 12) ** 0.5)
    assert targets[0, 1].item() == 0 and targets.isfinite().all()


@pytest.mark.parametrize("make", [make_retinanet, make_fcos])
def test_the_moving_normalizer_is_state_of_the_training(make):
    model = make(0)
    assert model.training_state() == {}
    step(model)
    state = model.training_state()
    assert state["loss_normalizer"] < 300
    resumed = make(0)
    resumed.load_training_state(state)
    losses, expected = step(resumed), step(model)
    assert all(torch.equal(losses[name], value) for name, value in expected.items())
