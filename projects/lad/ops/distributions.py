"""Losses of distributions over the bins 0, 1, ..., n of a distance, given as logits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def distribution_focal(logits: Tensor, distances: Tensor) -> Tensor:
    """Distribution focal loss (arXiv 2006.04388, equation 6).

    The cross-entropy of the two bins around the distance, each weighted by the other's offset.

    Example: at distance 3.2 it is -(0.8 log p(3) + 0.2 log p(4)), lowest for p(3) = 0.8 and p(4) =
    0.2, whose mean is the distance.

    Args:
        logits: (..., n + 1), float32.
        distances: (...,) in bins, from 0 to below n.

    Returns:
        (...,) losses.
    """
    lower = distances.floor()
    index, upper_share = lower.long(), distances - lower
    log_p = F.log_softmax(logits, dim=-1)
    at_lower, at_upper = (log_p.gather(-1, bins[..., None])[..., 0] for bins in (index, index + 1))
    return (upper_share - 1) * at_lower - upper_share * at_upper


def distribution_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Returns KL(teacher || student) of two distributions at a temperature, times its square.

    The square keeps the size of the gradients at any temperature.

    Args:
        student: (..., n + 1) logits, float32.
        teacher: the same.
        temperature: divides both logits.

    Returns:
        (...,) divergences, summed over the bins.
    """
    log_p, log_t = (F.log_softmax(x / temperature, dim=-1) for x in (student, teacher))
    return (log_t.exp() * (log_t - log_p)).sum(dim=-1) * temperature**2
