"""PKD by hand, and what it does not depend on."""

import torch

from helpers import make_batch, make_paa
from lad.modeling.distill_losses.pkd import PKD, decorrelation
from lad.modeling.distillation import Distillation

BATCH = make_batch([[[5.0, 5, 40, 50]], []])


def maps(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def test_golden_value():
    """Four positions: 1 - r by hand, times 3 / 4 for the unbiased deviation."""
    student = torch.tensor([1.0, 2, 3, 4]).view(1, 1, 2, 2)
    teacher = torch.tensor([1.0, 3, 2, 4]).view(1, 1, 2, 2)
    # Deviations from the mean: (-1.5, -.5, .5, 1.5), (-1.5, .5, -.5, 1.5): r = 4 / 5.
    torch.testing.assert_close(decorrelation(student, teacher), torch.tensor(0.2 * 0.75))


def test_it_is_one_minus_the_correlation():
    student, teacher = maps(3, 4, 5, 6), maps(3, 4, 5, 6, seed=1)
    r = [
        torch.corrcoef(torch.stack([student[:, c].flatten(), teacher[:, c].flatten()]))[0, 1]
        for c in range(4)
    ]
    expected = (1 - torch.stack(r).mean()) * 89 / 90
    torch.testing.assert_close(decorrelation(student, teacher), expected, rtol=1e-4, atol=1e-5)


def test_affine_changes_of_channels_change_nothing():
    student, teacher = maps(2, 3, 4, 4), maps(2, 3, 4, 4, seed=1)
    factor, shift = torch.tensor([2.0, 0.5, 9.0]), torch.tensor([-1.0, 0.0, 100.0])
    changed = teacher * factor.view(1, 3, 1, 1) + shift.view(1, 3, 1, 1)
    torch.testing.assert_close(
        decorrelation(student, changed), decorrelation(student, teacher), rtol=1e-4, atol=1e-5
    )
    assert decorrelation(teacher, teacher) == 0
    torch.testing.assert_close(
        decorrelation(-teacher, teacher), torch.tensor(2.0 * 31 / 32), rtol=1e-4, atol=1e-5
    )


def test_constant_channels_and_maps_of_one_position():
    student = torch.zeros(1, 2, 3, 3, requires_grad=True)
    decorrelation(student, maps(1, 2, 3, 3)).backward()
    assert student.grad.isfinite().all()
    single = torch.ones(1, 2, 1, 1, requires_grad=True)
    loss = decorrelation(single, maps(1, 2, 1, 1))
    loss.backward()
    assert loss == 0 and single.grad.isfinite().all()


def test_levels_and_weight():
    pair = make_paa(0), make_paa(1)
    values = []
    for options in ({}, {"num_levels": 1}, {"num_levels": None, "weight": 1.0}):
        model = Distillation(student=pair[0], teacher=pair[1], distill_losses=[PKD(**options)])
        values.append(model.train()(BATCH)["loss_pkd"])
    assert values[1] < values[0]
    torch.testing.assert_close(values[2] * 10, values[0])
