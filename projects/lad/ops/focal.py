"""Sigmoid focal loss (arXiv 1708.02002) as two terms, for targets 0 and 1.

A row of K scores has at most one positive class. Its loss is the sum of all negative terms plus a
correction at the positive class, without one-hot targets.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS = 1024  # summed at a time in NumPy, so that intermediate results stay in the cache


def focal_negative(scores: Tensor, activation: str, alpha: float, gamma: float) -> Tensor:
    """Loss of scores whose target is 0, elementwise.

    Args:
        scores: logits or probabilities, any shape, float32.
        activation: "sigmoid" for logits, "none" for probabilities (logarithms clamped at -100).
        alpha: weight of the positive term; the negative term has 1 - alpha.
        gamma: focusing exponent.
    """
    probability = scores.sigmoid() if activation == "sigmoid" else scores
    entropy = (
        F.softplus(scores)
        if activation == "sigmoid"
        else _cross_entropy(scores, scores.new_zeros(()).expand_as(scores))
    )
    return (1 - alpha) * probability**gamma * entropy


def focal_negative_sum(scores: Tensor, activation: str, alpha: float, gamma: float) -> Tensor:
    """Returns the (P,) row sums of `focal_negative` of (P, K) scores, without gradients.

    Logits on a CPU are summed in NumPy, some rows at a time: large intermediate results and
    ``softplus`` would take most of the time of an assignment cost.
    """
    scores = scores.detach().float()
    if scores.device.type == "cpu" and activation == "sigmoid":
        sums = torch.from_numpy(_negative_sum_numpy(scores.numpy(), gamma))
        if sums.isfinite().all():
            return (1 - alpha) * sums
    return focal_negative(scores, activation, alpha, gamma).sum(dim=1)


def _negative_sum_numpy(logits: np.ndarray, gamma: float) -> np.ndarray:
    """Returns the row sums of p^gamma log(1 + odds); NaN where the odds overflow."""
    shape = min(_ROWS, len(logits)), logits.shape[1]
    all_odds, all_total = np.empty(shape, logits.dtype), np.empty(shape, logits.dtype)
    sums, ones = np.empty(len(logits), logits.dtype), np.ones(shape[1], logits.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(logits), _ROWS):
            rows = logits[start : start + _ROWS]
            odds, total = all_odds[: len(rows)], all_total[: len(rows)]
            np.exp(rows, out=odds)
            np.add(odds, 1, out=total)
            odds /= total  # the probability
            if gamma == 2:
                odds *= odds  # a power takes three times as long
            else:
                odds **= gamma
            np.log(total, out=total)
            odds *= total
            np.matmul(odds, ones, out=sums[start : start + _ROWS])
    return sums


def focal_positive(scores: Tensor, activation: str, alpha: float, gamma: float) -> Tensor:
    """Loss of scores whose target is 1, elementwise; arguments as `focal_negative`."""
    if activation == "sigmoid":
        return alpha * (-scores).sigmoid() ** gamma * F.softplus(-scores)
    entropy = _cross_entropy(scores, scores.new_ones(()).expand_as(scores))
    return alpha * (1 - scores) ** gamma * entropy


def cross_entropy(scores: Tensor, activation: str, target: Tensor) -> Tensor:
    """Returns the binary cross-entropy to soft targets, elementwise.

    Args:
        scores: logits or probabilities, any shape, float32.
        activation: "sigmoid" for logits, "none" for probabilities (logarithms clamped at -100).
        target: probabilities of the same shape.
    """
    if activation == "sigmoid":
        return F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    return _cross_entropy(scores, target)


def _cross_entropy(probability: Tensor, target: Tensor) -> Tensor:
    """Returns PyTorch's, but NaN where the probability is: PyTorch fails at one, also on a GPU."""
    entropy = F.binary_cross_entropy(probability.nan_to_num(0.0), target, reduction="none")
    return entropy + 0.0 * probability


def quality_focal(scores: Tensor, activation: str, quality: Tensor, beta: float) -> Tensor:
    """Loss of scores whose target is a quality, elementwise (arXiv 2006.04388, equation 2).

    |y - p|^beta times the cross-entropy of probability p and quality y. With y = 0 it is
    `focal_negative` with alpha 0 and gamma beta.

    Args:
        scores: logits or probabilities, any shape, float32.
        activation: "sigmoid" for logits, "none" for probabilities (logarithms clamped at -100).
        quality: y in 0..1, the same shape, without gradients.
        beta: focusing exponent.
    """
    probability = scores.sigmoid() if activation == "sigmoid" else scores
    entropy = cross_entropy(scores, activation, quality)
    return (quality - probability).abs() ** beta * entropy
