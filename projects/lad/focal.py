"""Sigmoid focal loss (arXiv 1708.02002) of one class in its two halves, on logits or probabilities.

A dense detector has one positive class in a row of K, and most rows have none. With halves apart
the loss of a row is the sum of all negative halves plus a correction at the positive class: no
one-hot targets of the size of the predictions.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def focal_negative(scores: Tensor, probabilities: bool, alpha: float, gamma: float) -> Tensor:
    """Loss of scores whose target is 0, elementwise.

    Args:
        scores: logits or probabilities, any shape, float32.
        probabilities: which of the two. Their cross-entropy clamps logarithms at -100.
        alpha: weight of the positive half; this one weighs 1 - alpha.
        gamma: focusing exponent.
    """
    probability = scores if probabilities else scores.sigmoid()
    entropy = (
        F.binary_cross_entropy(scores, scores.new_zeros(()).expand_as(scores), reduction="none")
        if probabilities
        else F.softplus(scores)
    )
    return (1 - alpha) * probability**gamma * entropy


def focal_positive(scores: Tensor, probabilities: bool, alpha: float, gamma: float) -> Tensor:
    """Loss of scores whose target is 1, elementwise; arguments as `focal_negative`."""
    if not probabilities:
        return alpha * (-scores).sigmoid() ** gamma * F.softplus(-scores)
    entropy = F.binary_cross_entropy(
        scores, scores.new_ones(()).expand_as(scores), reduction="none"
    )
    return alpha * (1 - scores) ** gamma * entropy
