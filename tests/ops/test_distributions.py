import numpy as np
import pytest
import torch

from lad.ops.distributions import distribution_focal, distribution_kl

LOGITS = np.array([[0.5, -1.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
OTHERS = np.array([[1.5, 0.0, -1.0, 0.3], [0.0, 2.0, 0.0, 0.0]])


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return powers / powers.sum(axis=-1, keepdims=True)


def test_distribution_focal_loss_by_hand():
    p = softmax(LOGITS)
    expected = [
        -(0.75 * np.log(p[0, 1]) + 0.25 * np.log(p[0, 2])),  # 1.25 lies between bins 1 and 2
        -np.log(p[1, 0]),  # a whole bin
    ]
    found = distribution_focal(torch.tensor(LOGITS).float(), torch.tensor([1.25, 0.0]))
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_distribution_focal_gradient_is_prediction_minus_target():
    """So it is zero where the two bins around the distance share as the distance does."""
    logits = torch.tensor(LOGITS).float().requires_grad_()
    distribution_focal(logits, torch.tensor([1.25, 2.5])).sum().backward()
    target = torch.tensor([[0, 0.75, 0.25, 0], [0, 0, 0.5, 0.5]])
    torch.testing.assert_close(logits.grad, logits.detach().softmax(dim=-1) - target)
    best = torch.tensor([[1e-9, 0.75, 0.25, 1e-9]]).log().requires_grad_()
    distribution_focal(best, torch.tensor([1.25])).sum().backward()
    torch.testing.assert_close(best.grad, torch.zeros(1, 4), atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_kl_by_hand(temperature):
    s, t = softmax(LOGITS / temperature), softmax(OTHERS / temperature)
    expected = (t * np.log(t / s)).sum(axis=-1) * temperature**2
    student, teacher = (torch.tensor(x).float() for x in (LOGITS, OTHERS))
    found = distribution_kl(student, teacher, temperature)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_kl_of_equal_distributions_is_zero():
    logits = torch.tensor(LOGITS).float()
    found = distribution_kl(logits, logits + 3.0, 10.0)  # a shift is no change
    torch.testing.assert_close(found, torch.zeros(2), atol=1e-5, rtol=0)


def test_kl_gradient_keeps_its_size_at_any_temperature():
    """At high temperatures it is the difference of the centered logits over the bins."""
    student, teacher = torch.tensor(LOGITS).float().requires_grad_(), torch.tensor(OTHERS).float()
    distribution_kl(student, teacher, 1000.0).sum().backward()
    difference = student.detach() - teacher
    expected = (difference - difference.mean(dim=-1, keepdim=True)) / 4
    torch.testing.assert_close(student.grad, expected, rtol=0.02, atol=1e-3)


def test_far_logits_stay_finite():
    far = torch.tensor([[1000.0, 0.0, -1000.0]])
    assert distribution_kl(far, far.flip(-1), 1.0).isfinite().all()
    assert distribution_focal(far, torch.tensor([1.99])).isfinite().all()


def test_nothing_gives_nothing():
    assert distribution_focal(torch.zeros(0, 4, 17), torch.zeros(0, 4)).shape == (0, 4)
    assert distribution_kl(torch.zeros(0, 4, 17), torch.zeros(0, 4, 17), 10.0).shape == (0, 4)
