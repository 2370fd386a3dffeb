"""Two-component one-dimensional Gaussian mixtures, all objects at once (PAA paper 3.2).

The same model, initialization, regularization and convergence rule as scikit-learn's
``GaussianMixture(2, covariance_type="full", tol=1e-3, max_iter=100, reg_covar=1e-6)`` with start
means at the minimum and maximum, start weights 1/2 and start precisions 1, computed in float64.
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
REGULARIZATION = 1e-6
_WEIGHT_EPS = 10 * torch.finfo(torch.float64).eps
_LOG_2PI = math.log(2 * math.pi)
_MAX_LOG_ODDS = 700.0  # float64 holds exp of it


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


@np.errstate(invalid="ignore")  # of samples that are NaN
def fit_mixtures(samples: Tensor, present: Tensor) -> MixtureFit:
    """Fits every row's mixture by expectation maximization; each row stops by its own rule.

    It uses NumPy, since PyTorch's overhead dominates on so few numbers. Converged rows leave the
    computation, most within ten iterations.

    Example:
        The row [0.9, 1.0, 1.1, 4.9, 5.0, 5.1] gives means 1 and 5, variances 0.02 / 3 + 1e-6,
        weights 1/2, and ``lower`` True for the first three samples.

    Args:
        samples: (B, T) values, finite where present, on any device.
        present: (B, T) bool; False is padding. Rows without samples give arbitrary finite values.

    Returns:
        The fits, on the CPU.
    """
    all_mask = present.cpu().numpy()
    all_x = np.where(all_mask, samples.detach().cpu().numpy(), 0.0).astype(np.float64)
    fitted = np.empty((3, 2, len(all_x)))  # means, variances, weights
    fitted[0, 0] = np.where(all_mask, all_x, np.inf).min(axis=1, initial=np.inf)
    fitted[0, 1] = np.where(all_mask, all_x, -np.inf).max(axis=1, initial=-np.inf)
    fitted[0, :, ~all_mask.any(axis=1)] = 0.0
    fitted[1], fitted[2] = 1.0, 0.5
    iterations = np.full(len(all_x), MAX_ITERATIONS)

    used = all_mask.any(axis=0)
    x, mask = all_x.compress(used, axis=1), all_mask.compress(used, axis=1).astype(np.float64)
    rows = np.arange(len(all_x))
    ones = np.ones(x.shape[1])
    count = np.maximum(mask @ ones, 1)
    bound = np.full(len(x), -np.inf)
    parameters = fitted.copy()
    squared = (x - parameters[0][..., None]) ** 2
    share = np.empty_like(squared)
    for iteration in range(1, MAX_ITERATIONS + 1 if len(x) else 1):
        lower, upper = _log_joint(squared, parameters)
        log_odds = lower - upper
        odds = np.exp(np.minimum(log_odds, _MAX_LOG_ODDS))
        total = 1 + odds
        density = upper + np.maximum(log_odds, np.log(total))
        new_bound = np.vecdot(density, mask) / count
        np.divide(mask, total, out=share[1])
        np.multiply(odds, share[1], out=share[0])
        size = share @ ones + _WEIGHT_EPS
        parameters[0] = np.vecdot(share, x) / size
        np.subtract(x, parameters[0][..., None], out=squared)
        squared *= squared
        parameters[1] = np.vecdot(share, squared) / size + REGULARIZATION
        parameters[2] = size / (size[0] + size[1])
        done = np.abs(new_bound - bound) < TOLERANCE
        bound = new_bound
        if done.any():
            finished, left = rows[done], np.flatnonzero(~done)
            fitted[..., finished], iterations[finished] = parameters[..., done], iteration
            if not len(left):
                break
            rows, x, mask = rows[left], x[left], mask[left]
            count, bound = count[left], bound[left]
            parameters, squared = parameters.take(left, 2), squared.take(left, 1)
            share = np.empty_like(squared)
    else:
        fitted[..., rows] = parameters
    lower, upper = _log_joint((all_x - fitted[0][..., None]) ** 2, fitted)
    density = np.logaddexp(lower, upper) - 0.5 * _LOG_2PI
    tensors = [np.ascontiguousarray(v.T) for v in fitted]
    first = (lower >= upper) & all_mask
    return MixtureFit(*map(torch.from_numpy, (first, density, *tensors, iterations)))


def fit_mixtures_sklearn(samples: Tensor, present: Tensor) -> MixtureFit:
    """The slow reference for `fit_mixtures`: a scikit-learn fit per row of two or more samples."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    samples, present = samples.detach().cpu(), present.cpu()
    fit = fit_mixtures(samples, present)
    for row in (present.sum(dim=1) >= 2).nonzero()[:, 0].tolist():
        x = samples[row][present[row]].double().numpy()[:, None]
        mixture = GaussianMixture(
            2,
            tol=TOLERANCE,
            max_iter=MAX_ITERATIONS,
            reg_covar=REGULARIZATION,
            weights_init=[0.5, 0.5],
            means_init=[x.min(axis=0), x.max(axis=0)],
            precisions_init=np.ones((2, 1, 1)),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(x)
        where = present[row]
        fit.lower[row, where] = torch.from_numpy(mixture.predict(x) == 0)
        fit.density[row, where] = torch.from_numpy(mixture.score_samples(x))
        fit.means[row] = torch.from_numpy(mixture.means_[:, 0])
        fit.variances[row] = torch.from_numpy(mixture.covariances_[:, 0, 0])
        fit.weights[row] = torch.from_numpy(mixture.weights_)
        fit.iterations[row] = mixture.n_iter_
    return fit


def _log_joint(squared: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Returns (2, B, T) log weighted densities of both components, without -log(2 pi) / 2.

    From (2, B, T) squared distances to the means and (3, 2, B) means, variances and weights.
    """
    _, variances, weights = parameters
    log_joint = squared * (-0.5 / variances)[..., None]
    log_joint += np.log(weights / np.sqrt(variances))[..., None]
    return log_joint
