import copy

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage

from helpers import (
    make_anchors,
    make_batch,
    make_distributions,
    make_gfl,
    make_paa,
    make_retinanet,
    make_targets,
    random_boxes,
    train_step,
)
from lad.assignment.atss import ATSSAssigner
from lad.assignment.candidates import nearest_candidates
from lad.assignment.indicators import StdMean
from lad.assignment.switch import RoleSwitch
from lad.checkpoint import export_network
from lad.modeling.anchor_generator import AnchorGenerator
from lad.modeling.distill_losses.ld import LD, valuable_region
from lad.modeling.distillation import LAD, CoLAD, Distillation, SoftLabel
from lad.ops.boxes import paired_diou, paired_iou
from lad.ops.coders import DistributionCoder
from lad.structures import Assignment, DensePredictions, Targets

ANCHORS = make_anchors()
TARGETS = make_targets([[[10.0, 10, 60, 70]], [[5.0, 5, 70, 90], [60.0, 20, 110, 80]]])
BATCH = make_batch([[[5.0, 5, 40, 50], [50.0, 10, 90, 60]], [[10.0, 10, 30, 30]]])


def assign(targets=TARGETS, anchors=ANCHORS) -> Assignment:
    """ATSS's labels."""
    assigner = ATSSAssigner(num_classes=3)
    candidates = assigner.candidates(anchors, targets)
    predictions = make_distributions(len(targets.image_sizes), anchors)
    costs = assigner.cost(predictions, targets, candidates)
    return assigner.assign(costs, candidates, anchors, targets)


def distill(student, teacher, targets=TARGETS, **options) -> dict[str, torch.Tensor]:
    return LD(**options).between(student, teacher, targets, assign(targets))


def pair() -> dict:
    return {"student": make_gfl(0), "teacher": make_gfl(1)}


def test_by_hand():
    """Two anchors, the first the only positive, the second valuable; three bins."""
    anchors = AnchorGenerator(strides=(8,), scale=2)([(1, 2)])  # 16 px at (0, 0) and (8, 0)
    targets = Targets(
        torch.tensor([[-8.0, -8.0, 8.0, 8.0]]),
        torch.tensor([0]),
        torch.tensor([0]),
        torch.tensor([[32, 32]]),
    )
    logits = np.array([[[1.0, 0, -1], [0, 2, 0]], [[0.5, 0.5, 3], [0, 0, 1]]])  # network, anchor

    def predict(network):
        regression = torch.tensor(logits[network]).float()[:, None].expand(2, 4, 3)
        scores = torch.tensor([[[0.4], [0.9]]]).logit()  # the second is no positive: it has no say
        coder = DistributionCoder(num_bins=3)
        return DensePredictions(
            scores, "sigmoid", regression.reshape(1, 2, 12), None, anchors, coder
        )

    assignment = Assignment(torch.tensor([[0, 1]]), torch.tensor([[0, -1]]))
    losses = LD(vlr_share=0.2).between(predict(0), predict(1), targets, assignment)
    powers = np.exp(logits / 10)
    s, t = powers / powers.sum(axis=-1, keepdims=True)
    kl = (t * np.log(t / s)).sum(axis=-1) * 100 / 3  # the mean over the bins; all sides are equal
    assert losses["loss_ld"].item() == pytest.approx(0.25 * 2 * 0.4 * kl[0], rel=1e-3)
    # IoUs 1 and 1/3: the threshold is 2/3 + 0.47. The second's DIoU, 1/3 - 64/832, is in 0.23 to
    # 1.14; the first's too, but it is a positive.
    weight = 1 / 3
    assert losses["loss_ld_vlr"].item() == pytest.approx(0.25 / 4 * 2 * weight * kl[1], rel=1e-3)


def test_equal_networks_have_no_loss():
    predictions = make_distributions(2, ANCHORS)
    losses = distill(predictions, predictions.detach())
    for value in losses.values():
        assert value.item() == pytest.approx(0.0, abs=1e-4)
    sum(losses.values()).backward()
    assert predictions.regression.grad.abs().max() < 1e-5


def test_gradients_reach_the_students_distributions_in_both_regions_alone():
    student, teacher = make_distributions(2, ANCHORS), make_distributions(2, ANCHORS, seed=1)
    losses = distill(student, teacher)
    sum(losses.values()).backward()
    assert teacher.regression.grad is None and teacher.scores.grad is None
    assert student.scores.grad is None, "scores are weights, without gradient"
    positive = assign().gt >= 0
    region = (valuable_region(ANCHORS, TARGETS, 0.25) > 0) | positive
    assert torch.equal(student.regression.grad.abs().sum(dim=-1) > 0, region)
    assert (region & ~positive).any()


def test_without_the_valuable_region():
    student, teacher = make_distributions(2, ANCHORS), make_distributions(2, ANCHORS, seed=1)
    losses = distill(student, teacher, vlr_weight=0.0)
    assert losses.keys() == {"loss_ld"}
    assert torch.equal(losses["loss_ld"], distill(student, teacher)["loss_ld"])


def test_the_losses_size_does_not_depend_on_a_high_temperature():
    student, teacher = make_distributions(2, ANCHORS), make_distributions(2, ANCHORS, seed=1)
    tepid, warm = (distill(student, teacher, temperature=t)["loss_ld"] for t in (20.0, 200.0))
    torch.testing.assert_close(tepid, warm, rtol=0.02, atol=0)
    assert not torch.isclose(distill(student, teacher, temperature=1.0)["loss_ld"], warm, rtol=0.02)


def test_a_batch_is_the_mean_of_its_images():
    """And so two processes with an image each are one with both."""
    student, teacher = make_distributions(2, ANCHORS), make_distributions(2, ANCHORS, seed=1)
    both, alone = distill(student, teacher), []
    for i in range(2):
        own = TARGETS.image == i
        targets = Targets(*(x[own] for x in TARGETS[:3]), TARGETS.image_sizes[[i]])
        targets = targets._replace(image=targets.image * 0)
        networks = (x._map(lambda y, i=i: y[i : i + 1]) for x in (student, teacher))
        alone.append(distill(*networks, targets))
    for name, value in both.items():
        torch.testing.assert_close(value, (alone[0][name] + alone[1][name]) / 2)


def test_images_without_objects_give_zero_connected_to_the_graph():
    student, teacher = make_distributions(2, ANCHORS), make_distributions(2, ANCHORS, seed=1)
    losses = distill(student, teacher, make_targets([[], []]))
    assert losses.keys() == {"loss_ld", "loss_ld_vlr"}
    assert all(value.item() == 0 for value in losses.values())
    sum(losses.values()).backward()
    assert (student.regression.grad == 0).all()


def test_losses_are_float32_under_autocast():
    student, teacher = make_distributions(2, ANCHORS), make_distributions(2, ANCHORS, seed=1)
    expected = distill(student, teacher)
    assignment = assign()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = LD().between(student, teacher, TARGETS, assignment)
    assert all(torch.equal(losses[name], expected[name]) for name in expected)


def test_valuable_region_is_the_rule_of_the_paper():
    """Against a loop over the objects; padding is outside."""
    targets = make_targets(
        [random_boxes(7, 96, 128), [], random_boxes(5, 60, 100, 1)], [(96, 128)] * 2 + [(60, 100)]
    )
    nearest = nearest_candidates(ANCHORS, targets, topk=9)
    expected = torch.zeros(3, len(ANCHORS.boxes))
    for j, (box, image) in enumerate(zip(targets.boxes, targets.image, strict=True)):
        iou = paired_iou(ANCHORS.boxes, box)
        near = iou[nearest.anchor[nearest.gt == j]]
        threshold = near.mean() + near.std()
        diou = paired_diou(ANCHORS.boxes, box)
        inside = (0.25 * threshold <= diou) & (diou < threshold)
        expected[image] = torch.maximum(expected[image], iou * inside)
    expected *= ANCHORS.valid(targets.image_sizes)
    region = valuable_region(ANCHORS, targets, 0.25)
    torch.testing.assert_close(region, expected)
    assert (region[1] == 0).all() and (region[[0, 2]] > 0).sum() > 20
    assert ((valuable_region(ANCHORS, targets, 0.75) > 0) <= (region > 0)).all()
    assert (valuable_region(ANCHORS, targets, 1.0) == 0).all()


def test_a_thousand_objects():
    targets = make_targets([random_boxes(1000, 96, 128), []])
    student, teacher = make_distributions(2, ANCHORS), make_distributions(2, ANCHORS, seed=1)
    assert all(value.isfinite() for value in distill(student, teacher, targets).values())


@pytest.mark.parametrize("method", ["alone", "lad", "lad_switch", "colad"])
def test_it_combines_with_methods_and_trains_the_student_alone(method):
    switch = RoleSwitch(indicator=StdMean())
    if method == "alone":
        pair_ = pair()
        pair_["student"].assigner = ATSSAssigner(num_classes=3)
        model = Distillation(**pair_, distill_losses=[LD()])
    elif method == "colad":
        model = CoLAD(**pair(), switch=switch, distill_losses=[LD()])
    else:
        switch = switch if method == "lad_switch" else None
        model = LAD(**pair(), switch=switch, distill_losses=[LD()])
    with EventStorage():
        losses = model.train()(BATCH)
    assert losses["loss_ld"] > 0
    (losses["loss_ld"] + losses["loss_ld_vlr"]).backward()
    assert all(p.grad is None for p in model.teacher.parameters())
    assert model.student.head.deltas.weight.grad.abs().sum() > 0
    assert model.student.head.class_logits.weight.grad is None
    train_step(model, make_batch([[], []]))


def test_training_on_it_alone_brings_the_distributions_together():
    model = LAD(**pair(), distill_losses=[LD()])
    optimizer = torch.optim.Adam(model.student.parameters(), 1e-3)
    found = []
    for _ in range(15):
        losses = model.train()(BATCH)
        optimizer.zero_grad()
        (losses["loss_ld"] + losses["loss_ld_vlr"]).backward()
        optimizer.step()
        found.append(losses["loss_ld_vlr"].item())
    assert found[-1] < 0.7 * found[0]


def test_the_exported_student_is_a_plain_detector(tmp_path):
    model = LAD(**pair(), distill_losses=[LD()])
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    export_network(str(tmp_path / "model.pth"), "student", str(tmp_path / "student.pth"))
    plain = make_gfl(3).eval()
    exported = torch.load(tmp_path / "student.pth", weights_only=True)["model"]
    plain.load_state_dict(exported)
    torch.nn.init.constant_(plain.head.class_logits.bias, 1.0)
    student = copy.deepcopy(model.student).eval()
    torch.nn.init.constant_(student.head.class_logits.bias, 1.0)
    found, expected = (x(BATCH)[0]["instances"] for x in (plain, student))
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert not list(LD().parameters())


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        ({"student": make_gfl(0)}, "LD: box distributions come from a teacher: set model.teacher"),
        (
            {"student": make_paa(0), "teacher": make_gfl(1)},
            "LD: model.student has DeltaCoder and no box distributions: give both",
        ),
        (
            {"student": make_gfl(0), "teacher": make_retinanet(1, num_anchors=1)},
            "LD: model.teacher has TransformCoder and no box distributions",
        ),
        (
            {"student": make_gfl(0), "teacher": make_gfl(1, num_bins=9)},
            r"have \(num_bins, units_per_side\) \(17, 4.0\) and \(9, 4.0\)",
        ),
    ],
)
def test_networks_without_equal_distributions_are_one_line(networks, message):
    with pytest.raises(ValueError, match=message) as error:
        Distillation(**networks, distill_losses=[LD()])
    assert "\n" not in str(error.value)


def test_soft_labels_alone_have_no_positives():
    with pytest.raises(ValueError, match="model.distill_losses.0: LD needs hard labels"):
        SoftLabel(**pair(), distill_losses=[LD()])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"temperature": 0.0}, "temperature=0.0: it"), ({"vlr_share": 2.0}, "vlr_share=2.0: it")],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LD(**options)
