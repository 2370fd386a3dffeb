"""LGD as a distillation loss: gradients, schedule, with every method and detector."""

import copy

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from helpers import ToyLoss, make_batch, make_fcos, make_lgd, make_paa, make_retinanet
from lad.assignment.indicators import StdMean
from lad.assignment.switch import RoleSwitch
from lad.checkpoint import export_network, load_weights
from lad.modeling.distill_losses.lgd.loss import feature_distance
from lad.modeling.distill_losses.lgd.oracle import Oracle
from lad.modeling.distill_losses.soft_label import SoftLabelLoss
from lad.modeling.distillation import LAD, CoLAD, Distillation, SoftLabel

BATCH = make_batch([[[5.0, 5, 40, 50], [50.0, 10, 90, 60]], [[10.0, 10, 30, 30]]])
EMPTY = make_batch([[], []])
DETECTORS = {"paa": make_paa, "retinanet": make_retinanet, "fcos": make_fcos}
every_detector = pytest.mark.parametrize("make", DETECTORS.values(), ids=DETECTORS)


@pytest.fixture(autouse=True)
def storage():
    with EventStorage():
        yield


def make_model(make=make_paa, *, teacher=(), **loss) -> Distillation:
    lgd = make_lgd(loss=loss, **dict(teacher))
    return Distillation(student=make(0), distill_losses=[lgd]).train()


class SameFeatures(nn.Module):
    """A teacher that gives the student's own features."""

    def forward(self, features, targets, image_size):
        """Returns the features."""
        return features


def parts(model) -> dict[str, list[nn.Parameter]]:
    loss = model.distill_losses[0]
    modules = {
        "backbone": model.student.backbone,
        "head": model.student.head,
        "teacher": loss.teacher,
        "adapter": loss.adapter,
    }
    return {name: list(module.parameters()) for name, module in modules.items()}


def reached(model, names, batch=BATCH) -> set[str]:
    """The parts that get gradients from the losses whose names begin so."""
    model.zero_grad(set_to_none=True)
    losses = model(batch)
    sum(loss for name, loss in losses.items() if name.startswith(names)).backward()
    return {
        name
        for name, parameters in parts(model).items()
        if any(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
    }


@every_detector
@pytest.mark.parametrize("detach", [False, True])
def test_gradients(make, detach):
    model = make_model(make, teacher={"detach_appearance": detach}, start=0.5)
    for share, distilled in ((0.25, set()), (0.75, {"backbone"})):
        model.progress.share = share
        assert reached(model, "loss_lgd") == {"adapter"} | distilled
        own = {"teacher", "head"} | (set() if detach else {"backbone"})
        assert reached(model, "lgd/") == own, "also while the student is not distilled"
    plain = tuple(x for x in model(BATCH) if not x.startswith(("lgd/", "loss_lgd")))
    assert reached(model, plain) == {"backbone", "head"}


def test_the_teachers_losses_can_spare_the_head():
    model = make_model(train_head=False)
    assert reached(model, "lgd/") == {"backbone", "teacher"}
    assert reached(model, "loss_") == {"backbone", "head", "adapter"}
    assert all(p.requires_grad for p in model.student.parameters() if p.ndim == 4)


@pytest.mark.parametrize(
    ("start", "until", "share", "expected"),
    [
        (1 / 6, 1.0, 29_999 / 180_000, False),
        (1 / 6, 1.0, 30_000 / 180_000, True),
        (0.0, 13 / 18, 130_000 / 180_000, True),
        (0.0, 13 / 18, 130_001 / 180_000, False),
        (0.0, 1.0, 0.0, True),
    ],
)
def test_distillation_starts_and_ends_at_the_papers_iterations(start, until, share, expected):
    model = make_model(start=start, until=until)
    model.progress.share = share
    assert ("backbone" in reached(model, "loss_lgd")) == expected


@every_detector
@pytest.mark.parametrize("batch", [BATCH, EMPTY], ids=["objects", "empty"])
def test_on_the_students_own_features_its_losses_come_twice(make, batch):
    for _ in range(2):  # Detectron2's compiled focal loss rounds otherwise in its first calls
        make(0).train()(batch)
    model = make_model(make)
    model.distill_losses[0].teacher = SameFeatures()
    losses = model(batch)
    expected = make(0).train()(batch)
    for name, value in expected.items():
        assert torch.equal(losses[name], value)
        torch.testing.assert_close(losses[f"lgd/{name}"], value, rtol=1e-5, atol=1e-6)


@every_detector
def test_what_lasts_over_steps_counts_once(make):
    plain, model = make(0).train(), make_model(make)
    for _ in range(2):
        plain(BATCH)
        model(BATCH)
    assert model.student.training_state() == plain.training_state()


def test_running_statistics_are_those_of_the_students_features():
    def build():
        student = make_paa(0, norm="BN")
        assert any(isinstance(x, nn.BatchNorm2d) for x in student.head.modules())
        return student.train()

    plain, model = build(), make_model(lambda seed: build())
    plain(BATCH)
    model(BATCH)
    for (name, found), expected in zip(model.student.named_buffers(), plain.buffers(), strict=True):
        if "num_batches" not in name:
            assert torch.equal(found, expected), name
    momenta = {x.momentum for x in model.modules() if isinstance(x, nn.BatchNorm2d)}
    assert momenta == {0.1}, "restored"


def test_weights_scale_the_losses():
    def losses(**weights):
        return make_model(**weights)(BATCH)

    once, scaled = losses(), losses(weight=3.0, teacher_weight=0.5)
    torch.testing.assert_close(scaled["loss_lgd"], 3 * once["loss_lgd"])
    for name in ("loss_cls", "loss_box_reg", "loss_quality"):
        torch.testing.assert_close(scaled[f"lgd/{name}"], 0.5 * once[f"lgd/{name}"])
        assert torch.equal(scaled[name], once[name])


def test_distance_by_hand():
    # Two values each, normalized to -1, 1 and 1, -1; one cell, normalized to 0; and equal maps.
    student = [torch.tensor([[[[0.0, 2]]]]), torch.tensor([[[[7.0]]]]), torch.ones(1, 1, 1, 1)]
    teacher = [torch.tensor([[[[9.0, 5]]]]), torch.tensor([[[[3.0]]]]), torch.ones(1, 1, 1, 1)]
    expected = (2.0**2 + 2.0**2) / 4
    assert feature_distance(student, teacher).item() == pytest.approx(expected, rel=1e-4)


def test_distance_ignores_scale_and_offset_of_a_channel_and_trains_the_student_only():
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 4, 5, requires_grad=True), torch.randn(2, 3, 4, 5, requires_grad=True)
    scale, offset = torch.rand(2, 3, 1, 1) + 0.5, torch.randn(2, 3, 1, 1)
    distance = feature_distance([x], [y])
    torch.testing.assert_close(
        feature_distance([x * scale + offset], [y]), distance, rtol=1e-3, atol=0
    )
    assert feature_distance([x], [x]) == 0
    distance.backward()
    assert x.grad.abs().sum() > 0 and y.grad is None


@pytest.mark.parametrize("batch", [BATCH, EMPTY], ids=["objects", "empty"])
def test_lad_colad_and_further_losses(batch):
    pair = {"student": make_paa(0), "teacher": make_paa(1)}
    switch = RoleSwitch(indicator=StdMean())
    for model in (
        LAD(**pair, distill_losses=[make_lgd()]),
        LAD(**pair, switch=switch, distill_losses=[make_lgd()]),
        LAD(**pair, distill_losses=[SoftLabelLoss(min_iou=0.1), make_lgd(), ToyLoss()]),
        CoLAD(**copy.deepcopy(pair), switch=switch, distill_losses=[make_lgd()]),
    ):
        losses = model.train()(batch)
        assert all(x.isfinite() for x in losses.values())
        sum(losses.values()).backward()
        assert all(p.grad is not None for p in model.distill_losses.parameters())


def test_with_lad_both_branches_learn_from_the_teachers_labels():
    model = LAD(student=make_paa(0), teacher=make_paa(1), distill_losses=[make_lgd()]).train()
    model.distill_losses[0].teacher = SameFeatures()
    losses = model(BATCH)
    for name in ("loss_cls", "loss_box_reg", "loss_quality"):
        assert torch.equal(losses[f"lgd/{name}"], losses[name])


def test_in_colad_it_trains_the_student_alone():
    switch = RoleSwitch(indicator=StdMean())
    model = CoLAD(
        student=make_paa(0), teacher=make_paa(1), switch=switch, distill_losses=[make_lgd()]
    ).train()
    losses = model(BATCH)
    sum(x for name, x in losses.items() if "lgd" in name).backward()
    assert all(p.grad is None for p in model.teacher.parameters())
    assert all(p.grad is not None for p in model.student.parameters())


def test_inference_and_export_contain_nothing_of_it(tmp_path):
    model = make_model()
    torch.nn.init.constant_(model.student.head.class_logits.bias, 0.0)
    optimizer = torch.optim.SGD(model.parameters(), 0.001)
    sum(model(BATCH).values()).backward()
    optimizer.step()
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    export_network(str(tmp_path / "model.pth"), "student", str(tmp_path / "student.pth"))
    plain = make_paa(5)
    report = load_weights(plain, str(tmp_path / "student.pth"), complete=True)
    assert not report.unused
    expected = plain.eval()(BATCH)
    for parameter in model.distill_losses.parameters():  # whatever its weights are
        nn.init.constant_(parameter, float("nan"))
    for found, wanted in zip(model.eval()(BATCH), expected, strict=True):
        found, wanted = found["instances"], wanted["instances"]
        assert len(wanted) and torch.equal(found.scores, wanted.scores)
        assert torch.equal(found.pred_boxes.tensor, wanted.pred_boxes.tensor)


@every_detector
def test_the_oracle_detects_on_the_teachers_features(make):
    model = make_model(make)
    scores = model.student.head.class_logits if make is make_paa else model.student.head.cls_score
    nn.init.constant_(scores.bias, 0.0)
    expected = model.eval()(BATCH)[0]["instances"].scores
    oracle = Oracle(model).eval()
    assert len(expected) and not torch.equal(oracle(BATCH)[0]["instances"].scores, expected)
    oracle.lgd.teacher = SameFeatures()
    assert torch.equal(oracle(BATCH)[0]["instances"].scores, expected)
    with pytest.raises(ValueError, match="an input has no 'instances'"):
        oracle([{"image": BATCH[0]["image"]}])
    with pytest.raises(ValueError, match="Distillation has no LGD: add it"):
        Oracle(Distillation(student=make(0)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(dtype):
    model = make_model(train_head=False)
    with torch.autocast("cpu", dtype=dtype):
        losses = model(BATCH)
    assert all(x.dtype == torch.float32 and x.isfinite() for x in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_what_does_not_fit_is_one_line():
    with pytest.raises(ValueError, match="teacher has channels=16, the student's features 32"):
        make_model(teacher={"channels": 16})
    with pytest.raises(ValueError, match="LGD's teacher has num_classes=5, the student 3"):
        make_model(teacher={"num_classes": 5})
    with pytest.raises(ValueError, match=r"start=0.5, until=0.25: shares of the training"):
        make_lgd(loss={"start": 0.5, "until": 0.25})
    with pytest.raises(ValueError, match="model.distill_losses.0: LGD needs hard labels"):
        SoftLabel(student=make_paa(0), teacher=make_paa(1), distill_losses=[make_lgd()])
    with pytest.raises(ValueError, match="LGD with masks=true needs instance masks"):
        make_model(teacher={"masks": True})(BATCH)
