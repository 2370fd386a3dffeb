"""What every loss between two networks has to do, with each kind of detector."""

from __future__ import annotations

import pytest
import torch
from detectron2.utils.events import EventStorage

from helpers import make_batch, make_fcos, make_gfl, make_paa, make_retinanet
from lad.assignment.costs import PAACost
from lad.assignment.indicators import StdMean
from lad.assignment.paa import PAAAssigner
from lad.assignment.switch import RoleSwitch
from lad.checkpoint import export_network
from lad.modeling.distill_losses.bckd import BCKD
from lad.modeling.distill_losses.crosskd import CrossKD
from lad.modeling.distill_losses.pgd import PGD
from lad.modeling.distill_losses.pkd import PKD
from lad.modeling.distillation import LAD, CoLAD, Distillation
from lad.modeling.heads import ConditionalObjectness, ImplicitObjectness

LOSSES = [PKD, BCKD, CrossKD, PGD]
NAMES = {
    PKD: ["loss_pkd"],
    BCKD: ["loss_bckd_cls", "loss_bckd_box"],
    CrossKD: ["loss_cross_cls", "loss_cross_box", "loss_cross_quality", "loss_cross_dfl"],
    PGD: ["loss_pgd_cls", "loss_pgd_box"],
}
BATCH = make_batch([[[5.0, 5, 40, 50], [50.0, 10, 90, 60]], [[10.0, 10, 30, 30]]])
EMPTY = make_batch([[], []])
CROWD = make_batch([[[x, y, x + 6.0, y + 9.0] for x in range(0, 84, 9) for y in range(0, 50, 7)]])


def networks(kind, seed=0, num_convs=2, **options):
    if kind in ("paa", "gfl"):
        make = make_paa if kind == "paa" else make_gfl
        return make(seed, num_convs=num_convs, **options)
    assigner = PAAAssigner(cost=PAACost(), num_classes=3) if kind.endswith("paa") else None
    make = make_retinanet if kind.startswith("retinanet") else make_fcos
    return make(seed, num_convs=num_convs, assigner=assigner)


def model(loss, student="paa", teacher=None, method=LAD, **options):
    """A student, another network of the same kind as teacher, and a loss."""
    pair = {"student": networks(student), "teacher": teacher or networks(student, seed=1)}
    torch.manual_seed(0)
    return method(**pair, distill_losses=[loss()], **options).train()


def named(losses, loss):
    return {name: value for name, value in losses.items() if name in NAMES[loss]}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["paa", "gfl", "retinanet", "fcos", "retinanet_paa", "fcos_paa"])
def test_losses_are_finite_and_reach_the_student_alone(loss, kind):
    trained = model(loss, kind, method=LAD if "paa" in kind else Distillation)
    with EventStorage():
        losses = trained(BATCH)
    own = named(losses, loss)
    lacks = {"loss_cross_quality"} if "retinanet" in kind or kind == "gfl" else set()
    lacks |= {"loss_cross_dfl"} if kind != "gfl" else set()
    assert own.keys() == set(NAMES[loss]) - lacks
    assert all(value.isfinite() and value > 0 for value in own.values())
    sum(own.values()).backward()
    reached = {name for name, p in trained.student.named_parameters() if p.grad is not None}
    assert "backbone.fpn_output3.weight" in reached
    assert all(p.grad.isfinite().all() for p in trained.student.parameters() if p.grad is not None)
    assert all(p.grad is None for p in trained.teacher.parameters())
    assert not trained.teacher.training


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("batch", [EMPTY, BATCH[:1] + EMPTY[:1], CROWD], ids=["no", "one", "many"])
def test_images_with_no_and_many_objects(loss, batch):
    losses = model(loss)(batch)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("objectness", [ConditionalObjectness, ImplicitObjectness])
def test_heads_with_objectness(loss, objectness):
    pair = [make_paa(x, num_convs=2, objectness=objectness(channels=32)) for x in (0, 1)]
    trained = LAD(student=pair[0], teacher=pair[1], distill_losses=[loss()]).train()
    losses = trained(BATCH)
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in trained.student.parameters() if p.grad is not None)


@pytest.mark.parametrize("loss", [PKD, CrossKD, PGD])
def test_a_teacher_of_other_channels_gets_a_convolution(loss):
    teacher = make_paa(1, num_convs=3, channels=64)
    trained = model(loss, teacher=teacher)
    losses = trained(BATCH)
    sum(named(losses, loss).values()).backward()
    adapters = list(trained.distill_losses[0].adapters)
    assert adapters and all(x.weight.shape[:2] == (64, 32) for x in adapters)
    assert all(x.weight.grad.abs().sum() > 0 for x in adapters)
    assert not list(model(loss).distill_losses[0].parameters())


@pytest.mark.parametrize("loss", LOSSES)
def test_a_teacher_of_another_kind(loss):
    """RetinaNet with PAA's anchors, towers without norm, and no IoU branch."""
    teacher = make_retinanet(1, num_anchors=1, num_convs=3)
    losses = model(loss, teacher=teacher)(BATCH)
    assert all(value.isfinite() for value in losses.values())
    assert "loss_cross_quality" not in losses


@pytest.mark.parametrize("loss", LOSSES)
def test_in_colad_the_student_alone_is_pulled(loss):
    switch = RoleSwitch(indicator=StdMean())
    trained = model(loss, method=CoLAD, switch=switch)
    sum(named(trained(BATCH), loss).values()).backward()
    assert all(p.grad is None for p in trained.teacher.parameters())
    assert all(p.requires_grad for p in trained.teacher.parameters())
    assert trained.student.backbone.fpn_output3.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_on_top_of_the_switch_labels_stay_those_of_the_method(loss):
    plain = LAD(
        student=networks("paa"),
        teacher=networks("paa", seed=1),
        switch=RoleSwitch(indicator=StdMean()),
    ).train()(BATCH)
    losses = model(loss, switch=RoleSwitch(indicator=StdMean()))(BATCH)
    assert losses.keys() - plain.keys() == set(NAMES[loss]) - {"loss_cross_dfl"}
    assert all(torch.equal(losses[name], value) for name, value in plain.items())


@pytest.mark.parametrize("loss", LOSSES)
def test_computed_in_float32_under_autocast(loss):
    trained = model(loss)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = named(trained(BATCH), loss)
    expected = named(model(loss)(BATCH), loss)
    for name, value in losses.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name], rtol=0.1, atol=0.02)


@pytest.mark.parametrize("loss", LOSSES)
def test_without_a_teacher(loss):
    with pytest.raises(ValueError, match=f"{loss.__name__} needs a teacher: set model.teacher"):
        Distillation(student=networks("paa"), distill_losses=[loss()])


@pytest.mark.parametrize("loss", LOSSES)
def test_the_exported_student_has_nothing_of_it(loss, tmp_path):
    trained = model(loss, teacher=make_paa(1, num_convs=2, channels=64))
    torch.save({"model": trained.state_dict()}, tmp_path / "lad.pth")
    export_network(str(tmp_path / "lad.pth"), "student", str(tmp_path / "student.pth"))
    exported = torch.load(tmp_path / "student.pth", weights_only=True)["model"]
    assert exported.keys() == trained.student.state_dict().keys()


@pytest.mark.parametrize("loss", LOSSES)
def test_two_trainings_are_equal_to_the_bit(loss):
    def train():
        trained = model(loss, teacher=make_paa(1, num_convs=2, channels=64))
        optimizer = torch.optim.SGD([p for p in trained.parameters() if p.requires_grad], 0.01)
        for _ in range(2):
            optimizer.zero_grad()
            losses = trained(BATCH)
            sum(losses.values()).backward()
            optimizer.step()
        return losses

    first, second = train(), train()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
