"""CrossKD: the alignment and the cross-head by hand, and its identities."""

import pytest
import torch
import torch.nn.functional as F

from helpers import make_batch, make_gfl, make_paa
from lad.modeling.distill_losses.crosskd import CrossKD, align
from lad.modeling.distillation import Distillation
from lad.ops.boxes import paired_giou
from lad.structures import Assignment

BATCH = make_batch([[[5.0, 5, 40, 50]], [[10.0, 10, 60, 50]]])


def model(student, teacher):
    return Distillation(student=student, teacher=teacher, distill_losses=[CrossKD()]).train()


def outputs(trained):
    found = trained.run(BATCH)
    return found.student, found.teacher.detach()


def test_alignment_by_hand():
    student = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2)
    teacher = torch.tensor([10.0, 30.0]).view(1, 1, 1, 2)
    torch.testing.assert_close(align(student, teacher), teacher)
    torch.testing.assert_close(align(-student, teacher), teacher.flip(-1))
    single = torch.ones(1, 2, 1, 1, requires_grad=True)
    result = align(single, torch.full((1, 2, 1, 1), 5.0))
    result.sum().backward()
    assert (result == 5).all() and single.grad.isfinite().all()


@pytest.mark.parametrize("convs", [2, 3])
def test_cross_head_by_hand(convs):
    """From the input of the towers, with the teacher's layers called one by one."""
    trained = model(make_paa(0, num_convs=convs), make_paa(1, num_convs=3))
    student, teacher = outputs(trained)
    cross = trained.distill_losses[0].cross_predictions(student, teacher)
    own, head = trained.student.head, trained.teacher.head
    before = [x[: 3 * (convs - 1) - 1] for x in (own.class_tower, own.box_tower)]
    targets = [x[:5] for x in (head.class_tower, head.box_tower)]
    scores, deltas = [], []
    for level, (feature, other) in enumerate(zip(student.features, teacher.features, strict=True)):
        towers = []
        for mine, theirs, tower in zip(before, targets, trained_towers(head), strict=True):
            # Copies, as ReLU works in place.
            aligned = align(mine(feature).clone(), theirs(other).clone())
            towers.append(tower[6:](F.relu(aligned)))
        scores.append(head.class_logits(towers[0]))
        deltas.append(head.deltas(towers[1]) * head.scales[level].scale)
    flat = torch.cat([x.permute(0, 2, 3, 1).flatten(1, 2) for x in scores], 1)
    torch.testing.assert_close(cross.scores, flat)
    flat = torch.cat([x.permute(0, 2, 3, 1).flatten(1, 2) for x in deltas], 1)
    torch.testing.assert_close(cross.regression, flat)


def trained_towers(head):
    return head.class_tower, head.box_tower


def test_equal_networks_have_the_teachers_own_entropy():
    """The cross-head is the teacher itself: no gap, boxes agree, quality has its own entropy."""
    trained = model(make_paa(0, num_convs=2), make_paa(0, num_convs=2))
    student, teacher = outputs(trained)
    cross = trained.distill_losses[0].cross_predictions(student, teacher)
    torch.testing.assert_close(cross.scores, teacher.predictions.scores, rtol=1e-3, atol=1e-4)
    losses = trained(BATCH)
    for name in ("loss_cross_cls", "loss_cross_box"):
        torch.testing.assert_close(losses[name], torch.tensor(0.0), rtol=0, atol=1e-2)


def test_losses_by_hand():
    trained = model(make_paa(0, num_convs=2), make_paa(1, num_convs=2))
    student, teacher = outputs(trained)
    loss = trained.distill_losses[0]
    cross, other = loss.cross_predictions(student, teacher), teacher.predictions
    labels = torch.full(cross.scores.shape[:2], 3)
    labels[0, 5], labels[1, 6:8], labels[1, 0] = 1, 2, -1
    found = loss.between(cross, other, Assignment(labels, torch.zeros_like(labels)))
    c, t = cross.scores.sigmoid(), other.scores.sigmoid()
    entropy = -(t * c.log() + (1 - t) * (1 - c).log())
    counted = labels >= 0
    expected = ((t - c).abs() * entropy).sum(-1)[counted].sum() / 3
    torch.testing.assert_close(found["loss_cross_cls"], expected)
    positive = (labels >= 0) & (labels < 3)
    expected = F.binary_cross_entropy_with_logits(
        cross.quality[positive], other.quality[positive].sigmoid(), reduction="sum"
    )
    torch.testing.assert_close(found["loss_cross_quality"], expected / 3)
    labels[...] = -1
    found = loss.between(cross, other, Assignment(labels, torch.zeros_like(labels)))
    assert all(value == 0 for value in found.values())


def test_distributions_by_hand():
    trained = model(make_gfl(0, num_convs=2), make_gfl(1, num_convs=2))
    student, teacher = outputs(trained)
    loss = trained.distill_losses[0]
    cross, other = loss.cross_predictions(student, teacher), teacher.predictions
    labels = torch.full(cross.scores.shape[:2], 3)
    labels[0, 5], labels[1, 0] = 1, -1
    found = loss.between(cross, other, Assignment(labels, torch.zeros_like(labels)))
    weights = other.scores.sigmoid().amax(-1) * (labels >= 0)
    log_c, log_t = (x.regression.unflatten(-1, (4, -1)).log_softmax(-1) for x in (cross, other))
    divergence = (log_t.exp() * (log_t - log_c)).sum(-1).sum(-1) / 4
    expected = 3 * (divergence * weights).sum() / weights.sum()
    torch.testing.assert_close(found["loss_cross_dfl"], expected)
    distance = 1 - paired_giou(cross.boxes(), other.boxes())
    expected = 2 * (distance * weights).sum() / weights.sum()
    torch.testing.assert_close(found["loss_cross_box"], expected)


def test_statistics_of_the_teacher_stay():
    teacher = make_paa(1, num_convs=2, norm="BN")
    trained = model(make_paa(0, num_convs=2), teacher)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    sum(trained(BATCH).values()).backward()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_heads_of_one_convolution_are_refused():
    with pytest.raises(ValueError, match="CrossKD needs towers of at least 2 convolutions"):
        model(make_paa(0, num_convs=2), make_paa(1, num_convs=1))
