import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import sigmoid_focal_loss

from lad.ops import focal
from lad.ops.focal import focal_negative, focal_negative_sum, focal_positive, quality_focal

LOGITS = torch.linspace(-6, 6, 41)
activations = pytest.mark.parametrize("activation", ["sigmoid", "none"])


def scores_of(logits: torch.Tensor, activation: str) -> torch.Tensor:
    return logits.clone() if activation == "sigmoid" else logits.sigmoid()


@activations
def test_halves_equal_fvcores_focal_loss_and_gradient(activation):
    for half, target in ((focal_negative, 0.0), (focal_positive, 1.0)):
        logits = LOGITS.clone().requires_grad_()
        scores = scores_of(logits, activation)
        ours = half(scores, activation, 0.25, 2.0)
        theirs = sigmoid_focal_loss(logits, torch.full_like(logits, target), 0.25, 2.0)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        gradients = [
            torch.autograd.grad(x.sum(), logits, retain_graph=True)[0] for x in (ours, theirs)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@activations
def test_only_a_score_that_is_nan_has_a_loss_that_is(activation):
    scores = scores_of(LOGITS[:3], activation)
    scores[1] = torch.nan
    found = [half(scores, activation, 0.25, 2.0) for half in (focal_negative, focal_positive)]
    found.append(focal_negative_sum(scores[:, None], activation, 0.25, 2.0))
    found.append(quality_focal(scores, activation, torch.full((3,), 0.5), 2.0))
    for loss in found:
        assert loss.isnan().tolist() == [False, True, False]


def test_gamma_zero_is_weighted_cross_entropy():
    expected = F.binary_cross_entropy_with_logits(LOGITS, torch.ones_like(LOGITS), reduction="none")
    torch.testing.assert_close(focal_positive(LOGITS, "sigmoid", 0.25, 0.0), 0.25 * expected)


@activations
def test_row_sums_are_the_sums_of_the_rows(activation, monkeypatch):
    monkeypatch.setattr(focal, "_ROWS", 3)  # in more than one piece
    logits = LOGITS[:40].reshape(8, 5)
    scores = scores_of(logits, activation)
    for gamma in (2.0, 1.5, 0.0):
        expected = focal_negative(scores, activation, 0.25, gamma).sum(dim=1)
        sums = focal_negative_sum(scores, activation, 0.25, gamma)
        torch.testing.assert_close(sums, expected)
    assert torch.equal(scores, scores_of(logits, activation)), "left as they were"
    scores[1, 2] = 200.0 if activation == "sigmoid" else 1.0  # beyond what exp can hold
    expected = focal_negative(scores, activation, 0.25, 2.0).sum(dim=1)
    torch.testing.assert_close(focal_negative_sum(scores, activation, 0.25, 2.0), expected)
    assert focal_negative_sum(scores[:0], activation, 0.25, 2.0).shape == (0,)


@activations
def test_row_sums_are_float32(activation):
    scores = LOGITS[:40].reshape(8, 5).sigmoid().bfloat16()
    sums = focal_negative_sum(scores, activation, 0.25, 2.0)
    expected = focal_negative(scores.float(), activation, 0.25, 2.0).sum(dim=1)
    torch.testing.assert_close(sums, expected)


@pytest.mark.filterwarnings("error")
def test_row_sums_of_diverged_logits_are_not_finite():
    logits = torch.tensor([[1.0, torch.nan], [torch.inf, 0.0], [-torch.inf, 0.0]])
    sums = focal_negative_sum(logits, "sigmoid", 0.25, 2.0)
    assert sums.isfinite().tolist() == [False, False, True]
    torch.testing.assert_close(sums[2], focal_negative(torch.zeros(()), "sigmoid", 0.25, 2.0))


def test_impossible_probabilities_stay_finite():
    scores = torch.tensor([0.0, 1.0])
    assert focal_negative(scores, "none", 0.25, 2.0).tolist() == [0.0, 75.0]  # 0.75 x 100
    assert focal_positive(scores, "none", 0.25, 2.0).tolist() == [25.0, 0.0]


@activations
def test_quality_focal_loss_by_hand(activation):
    probability, quality = np.array([0.2, 0.7, 0.5]), np.array([0.9, 0.7, 0.0])
    entropy = -quality * np.log(probability) - (1 - quality) * np.log(1 - probability)
    expected = torch.from_numpy(abs(quality - probability) ** 2 * entropy).float()
    scores = torch.from_numpy(np.log(probability / (1 - probability))).float()
    loss = quality_focal(
        scores_of(scores, activation), activation, torch.tensor(quality).float(), 2.0
    )
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-7)
    assert loss[1] == pytest.approx(0, abs=1e-7), "the score is the quality"


@activations
def test_quality_focal_loss_of_quality_0_and_1_is_a_focal_loss(activation):
    scores = scores_of(LOGITS, activation)
    zero, one = torch.zeros_like(scores), torch.ones_like(scores)
    torch.testing.assert_close(
        quality_focal(scores, activation, zero, 2.0), focal_negative(scores, activation, 0.0, 2.0)
    )
    torch.testing.assert_close(
        quality_focal(scores, activation, one, 2.0), focal_positive(scores, activation, 1.0, 2.0)
    )


def test_nothing_gives_nothing():
    assert quality_focal(torch.zeros(0), "sigmoid", torch.zeros(0), 2.0).shape == (0,)
    assert focal_negative(torch.zeros(0, 3), "sigmoid", 0.25, 2.0).shape == (0, 3)
