import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import sigmoid_focal_loss

from lad import focal
from lad.focal import focal_negative, focal_negative_sum, focal_positive

LOGITS = torch.linspace(-6, 6, 41)


@pytest.mark.parametrize("probabilities", [False, True])
def test_halves_equal_fvcores_focal_loss_and_gradient(probabilities):
    for half, target in ((focal_negative, 0.0), (focal_positive, 1.0)):
        logits = LOGITS.clone().requires_grad_()
        scores = logits.sigmoid() if probabilities else logits
        ours = half(scores, probabilities, 0.25, 2.0)
        theirs = sigmoid_focal_loss(logits, torch.full_like(logits, target), 0.25, 2.0)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        gradients = [
            torch.autograd.grad(x.sum(), logits, retain_graph=True)[0] for x in (ours, theirs)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_gamma_zero_is_weighted_cross_entropy():
    expected = F.binary_cross_entropy_with_logits(LOGITS, torch.ones_like(LOGITS), reduction="none")
    torch.testing.assert_close(focal_positive(LOGITS, False, 0.25, 0.0), 0.25 * expected)


@pytest.mark.parametrize("probabilities", [False, True])
def test_row_sums_are_the_sums_of_the_rows(probabilities, monkeypatch):
    monkeypatch.setattr(focal, "_ROWS", 3)  # in more than one piece
    logits = LOGITS[:40].reshape(8, 5)
    scores = logits.sigmoid() if probabilities else logits.clone()
    for gamma in (2.0, 1.5, 0.0):
        expected = focal_negative(scores, probabilities, 0.25, gamma).sum(dim=1)
        sums = focal_negative_sum(scores, probabilities, 0.25, gamma)
        torch.testing.assert_close(sums, expected)
    assert torch.equal(scores, logits.sigmoid() if probabilities else logits), "left as they were"
    scores[1, 2] = 200.0 if not probabilities else 1.0  # beyond what exp can hold
    expected = focal_negative(scores, probabilities, 0.25, 2.0).sum(dim=1)
    torch.testing.assert_close(focal_negative_sum(scores, probabilities, 0.25, 2.0), expected)
    assert focal_negative_sum(scores[:0], probabilities, 0.25, 2.0).shape == (0,)


@pytest.mark.parametrize("probabilities", [False, True])
def test_row_sums_are_float32(probabilities):
    scores = LOGITS[:40].reshape(8, 5).sigmoid().bfloat16()
    sums = focal_negative_sum(scores, probabilities, 0.25, 2.0)
    expected = focal_negative(scores.float(), probabilities, 0.25, 2.0).sum(dim=1)
    torch.testing.assert_close(sums, expected)


@pytest.mark.filterwarnings("error")
def test_row_sums_of_diverged_logits_are_not_finite():
    logits = torch.tensor([[1.0, torch.nan], [torch.inf, 0.0], [-torch.inf, 0.0]])
    sums = focal_negative_sum(logits, False, 0.25, 2.0)
    assert sums.isfinite().tolist() == [False, False, True]
    torch.testing.assert_close(sums[2], focal_negative(torch.zeros(()), False, 0.25, 2.0))


def test_impossible_probabilities_stay_finite():
    scores = torch.tensor([0.0, 1.0])
    assert focal_negative(scores, True, 0.25, 2.0).tolist() == [0.0, 75.0]  # 0.75 x 100
    assert focal_positive(scores, True, 0.25, 2.0).tolist() == [25.0, 0.0]


def test_nothing_gives_nothing():
    assert focal_negative(torch.zeros(0, 3), False, 0.25, 2.0).shape == (0, 3)
