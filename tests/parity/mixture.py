"""The mixture against exact fits: recorded vectors, and fresh ones fitted by scikit-learn."""

from pathlib import Path

import numpy as np
import torch

from lad.assignment.mixture import MixtureFit, fit_mixtures, fit_mixtures_sklearn
from parity.report import Report


def pad(vectors: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (B, T) samples and the mask of those present."""
    length = max(len(v) for v in vectors)
    samples = torch.zeros(len(vectors), length, dtype=torch.float64)
    present = torch.zeros(len(vectors), length, dtype=torch.bool)
    for row, vector in enumerate(vectors):
        samples[row, : len(vector)] = torch.from_numpy(np.asarray(vector, dtype=np.float64))
        present[row, : len(vector)] = True
    return samples, present


def peak_positives(fit: MixtureFit) -> torch.Tensor:
    """Returns the (B, T) positives of the released code's rule on ascending samples."""
    peak = fit.density.masked_fill(~fit.lower, -torch.inf).argmax(dim=1, keepdim=True)
    return fit.lower & (torch.arange(fit.lower.shape[1]) <= peak)


def decided(fit: MixtureFit) -> torch.Tensor:
    """Rows (B,) whose two best foreground densities differ by more than 1e-6."""
    density = fit.density.masked_fill(~fit.lower, -torch.inf)
    best = density.topk(min(2, density.shape[1]), dim=1).values
    return (best[:, 0] - best[:, -1]).nan_to_num(posinf=np.inf) > 1e-6


def log_odds(samples: torch.Tensor, fit: MixtureFit) -> torch.Tensor:
    """Log-odds (B, T) of component 0; zero but for rounding where both components are one."""
    x, means, variances = samples[..., None], fit.means[:, None], fit.variances[:, None]
    terms = fit.weights.log()[:, None] - 0.5 * (variances.log() + (x - means) ** 2 / variances)
    return terms[..., 0] - terms[..., 1]


def compare_vectors(path: Path, report: Report) -> None:
    """Compares our fits with the recorded float64 fits of the same vectors."""
    data = np.load(path)
    starts = data["length"].cumsum()[:-1]
    samples, present = pad(np.split(data["full64_sorted"], starts))
    fit = fit_mixtures(samples, present)
    report.equal("component", fit.lower[present], data["full64_assign"] == 0)
    report.compare("density", fit.density[present], data["full64_score"])
    report.compare("means", fit.means, data["full64_means"])
    report.compare("variances", fit.variances, data["full64_vars"])
    report.compare("weights", fit.weights, data["full64_weights"])
    report.equal("iterations", fit.iterations, data["full64_n_iter"])
    official = torch.zeros_like(present)
    orders = np.split(data["full64_order"], starts)
    chosen = np.split(data["full64_pos"], data["full64_pos_len"].cumsum()[:-1])
    for row, (order, positive) in enumerate(zip(orders, chosen, strict=True)):
        official[row, : len(order)] = torch.from_numpy(np.isin(order, positive))
    rows = decided(fit)
    report.equal("positives", peak_positives(fit)[rows], official[rows])


def compare_random(count: int, seed: int, report: Report) -> None:
    """Compares our fits with scikit-learn's on fresh vectors of every kind."""
    rng = np.random.default_rng(seed)
    samples, present = pad([_random_costs(rng) for _ in range(count)])
    ours, official = fit_mixtures(samples, present), fit_mixtures_sklearn(samples, present)
    apart = present & (log_odds(samples, official).abs() > 1e-9)
    report.equal("component", ours.lower[apart], official.lower[apart])
    report.compare("density", ours.density[present], official.density[present])
    report.compare("means", ours.means, official.means)
    report.compare("variances", ours.variances, official.variances)
    report.compare("weights", ours.weights, official.weights)
    report.equal("iterations", ours.iterations, official.iterations)
    rows = decided(official) & (apart == present).all(dim=1)
    report.equal("positives", peak_positives(ours)[rows], peak_positives(official)[rows])


def _random_costs(rng: np.random.Generator) -> np.ndarray:
    """An ascending cost vector: spread, tied, near-constant, well separated or with outliers."""
    length = int(rng.integers(2, 46))
    kind = rng.integers(5)
    costs = rng.gamma(2.0, 1.0, length)
    if kind == 1:
        costs = costs.round(1)
    elif kind == 2:
        costs = rng.uniform(0.5, 50) + rng.normal(0, 10.0 ** rng.integers(-7, -2), length)
    elif kind == 3:
        costs = np.where(rng.random(length) < rng.random(), 0.5, 3.0) + rng.normal(0, 0.1, length)
    elif kind == 4:
        costs[rng.integers(length)] *= 10.0 ** rng.integers(1, 4)
    return np.sort(costs.astype(np.float32).astype(np.float64))
