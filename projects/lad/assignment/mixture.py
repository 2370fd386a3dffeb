"""Two-component one-dimensional Gaussian mixtures, all objects at once (PAA paper 3.2).

The same model, initialisation, regularisation and convergence rule as scikit-learn's
``GaussianMixture(2, covariance_type="full", tol=1e-3, max_iter=100, reg_covar=1e-6)`` with start
means at the minimum and maximum, start weights 1/2 and start precisions 1. In one dimension "full"
and "diag" are the same model; computing in float64 makes the result independent of the form.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 1e-3
MAX_ITERATIONS = 100
REGULARISATION = 1e-6
_WEIGHT_EPS = 10 * torch.finfo(torch.float64).eps
_LOG_2PI = math.log(2 * math.pi)


class MixtureFit(NamedTuple):
    """B mixtures, each fitted to up to T samples.

    Attributes:
        lower: (B, T) bool: component 0, the one that started at the minimum, is more probable.
        density: (B, T) float64 log-likelihood of each sample under its mixture.
        means: (B, 2) float64.
        variances: (B, 2) float64.
        weights: (B, 2) float64.
        iterations: (B,) int64, 1 to 100.
    """

    lower: Tensor
    density: Tensor
    means: Tensor
    variances: Tensor
    weights: Tensor
    iterations: Tensor


def fit_mixtures(samples: Tensor, present: Tensor) -> MixtureFit:
    """Fits every row's mixture by expectation maximisation; each row stops by its own rule.

    Args:
        samples: (B, T) values, finite where present.
        present: (B, T) bool: False marks padding. Rows without samples give any finite values.
    """
    x = samples.double().masked_fill(~present, 0.0)
    mask = present.double()
    count = mask.sum(dim=1).clamp(min=1)
    minimum = x.masked_fill(~present, math.inf).amin(dim=1)
    maximum = x.masked_fill(~present, -math.inf).amax(dim=1)
    means = torch.stack([minimum, maximum], dim=1).nan_to_num(posinf=0.0, neginf=0.0)
    variances = torch.ones_like(means)
    weights = torch.full_like(means, 0.5)
    bound = torch.full_like(count, -math.inf)
    iterations = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    active = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for _ in range(MAX_ITERATIONS):
        log_odds, density = _expect(x, means, variances, weights)
        new_bound = (density * mask).sum(dim=1) / count
        update = _maximise(x, mask, log_odds, count)
        keep = active[:, None]
        means, variances, weights = (
            torch.where(keep, new, old)
            for new, old in zip(update, (means, variances, weights), strict=True)
        )
        iterations += active
        active = active & ~((new_bound - bound).abs() < TOLERANCE)
        bound = new_bound
        if (
            x.device.type == "cpu" and not active.any()
        ):  # a GPU is not asked: that would wait for it
            break
    log_odds, density = _expect(x, means, variances, weights)
    return MixtureFit((log_odds >= 0) & present, density, means, variances, weights, iterations)


def fit_mixtures_sklearn(samples: Tensor, present: Tensor) -> MixtureFit:
    """The reference for `fit_mixtures`: one scikit-learn fit per row, on the CPU. Slow.

    Rows with fewer than two samples, which scikit-learn refuses, are left to `fit_mixtures`.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    fit = fit_mixtures(samples.cpu(), present.cpu())
    for row in (present.sum(dim=1) >= 2).nonzero()[:, 0].tolist():
        x = samples[row][present[row]].double().cpu().numpy()[:, None]
        mixture = GaussianMixture(
            2,
            tol=TOLERANCE,
            max_iter=MAX_ITERATIONS,
            reg_covar=REGULARISATION,
            weights_init=[0.5, 0.5],
            means_init=[x.min(axis=0), x.max(axis=0)],
            precisions_init=np.ones((2, 1, 1)),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(x)
        where = present[row].cpu()
        fit.lower[row, where] = torch.from_numpy(mixture.predict(x) == 0)
        fit.density[row, where] = torch.from_numpy(mixture.score_samples(x))
        fit.means[row] = torch.from_numpy(mixture.means_[:, 0])
        fit.variances[row] = torch.from_numpy(mixture.covariances_[:, 0, 0])
        fit.weights[row] = torch.from_numpy(mixture.weights_)
        fit.iterations[row] = mixture.n_iter_
    return MixtureFit(*(x.to(samples.device) for x in fit))


def _expect(x: Tensor, means: Tensor, variances: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """E-step: (B, T) log-odds of component 0 and log-likelihood of every sample."""
    constant = weights.log() - 0.5 * (variances.log() + _LOG_2PI)
    squared = (x[:, None] - means[..., None]) ** 2 / variances[..., None]
    lower, upper = (constant[..., None] - 0.5 * squared).unbind(dim=1)
    return lower - upper, torch.logaddexp(lower, upper)


def _maximise(
    x: Tensor, mask: Tensor, log_odds: Tensor, count: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """M-step: means, variances and weights, (B, 2) each."""
    share = torch.stack([log_odds, -log_odds], dim=1).sigmoid() * mask[:, None]
    total = share.sum(dim=2) + _WEIGHT_EPS
    means = (share * x[:, None]).sum(dim=2) / total
    squared = (x[:, None] - means[..., None]) ** 2
    variances = (share * squared).sum(dim=2) / total + REGULARISATION
    return means, variances, total / total.sum(dim=1, keepdim=True)
