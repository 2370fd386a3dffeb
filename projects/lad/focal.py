"""Sigmoid focal loss (arXiv 1708.02002) of one class in its two halves, on logits or probabilities.

A dense detector has one positive class in a row of K, and most rows have none. With halves apart
the loss of a row is the sum of all negative halves plus a correction at the positive class: no
one-hot targets of the size of the predictions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS = 8192  # that `focal_negative_sum` takes at a time


def focal_negative(scores: Tensor, probabilities: bool, alpha: float, gamma: float) -> Tensor:
    """Loss of scores whose target is 0, elementwise.

    Args:
        scores: logits or probabilities, any shape, float32.
        probabilities: which of the two. Their cross-entropy clamps logarithms at -100.
        alpha: weight of the positive half; this one weighs 1 - alpha.
        gamma: focusing exponent.
    """
    probability = scores if probabilities else scores.sigmoid()
    return (1 - alpha) * probability**gamma * _negative_entropy(scores, probabilities)


def focal_negative_sum(scores: Tensor, probabilities: bool, alpha: float, gamma: float) -> Tensor:
    """Row sums of `focal_negative`, outside the autograd graph.

    A few thousand rows at a time and in place: on a CPU large intermediate results cost more than
    the arithmetic.

    Args:
        scores: (P, K) logits or probabilities.
        probabilities: which of the two.
        alpha: as in `focal_negative`.
        gamma: focusing exponent.

    Returns:
        (P,) sums.
    """
    sums = []
    for rows in scores.detach().split(_ROWS):
        probability = rows if probabilities else rows.sigmoid()
        entropy = _negative_entropy(rows, probabilities)
        sums.append(entropy.mul_(probability**gamma).sum(dim=1))
    return torch.cat(sums).mul_(1 - alpha)


def focal_positive(scores: Tensor, probabilities: bool, alpha: float, gamma: float) -> Tensor:
    """Loss of scores whose target is 1, elementwise; arguments as `focal_negative`."""
    if not probabilities:
        return alpha * (-scores).sigmoid() ** gamma * F.softplus(-scores)
    entropy = F.binary_cross_entropy(
        scores, scores.new_ones(()).expand_as(scores), reduction="none"
    )
    return alpha * (1 - scores) ** gamma * entropy


def _negative_entropy(scores: Tensor, probabilities: bool) -> Tensor:
    """Cross-entropy of scores whose target is 0, elementwise."""
    if not probabilities:
        return F.softplus(scores)
    return F.binary_cross_entropy(scores, scores.new_zeros(()).expand_as(scores), reduction="none")
