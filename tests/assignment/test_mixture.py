import numpy as np
import pytest
import torch

from lad.assignment.mixture import fit_mixtures, fit_mixtures_sklearn


def present(samples: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(samples, dtype=torch.bool)


def test_two_clusters_by_hand():
    samples = torch.tensor([[0.9, 1.0, 1.1, 4.9, 5.0, 5.1]])
    fit = fit_mixtures(samples, present(samples))
    assert fit.lower.tolist() == [[True] * 3 + [False] * 3]
    np.testing.assert_allclose(fit.means, [[1.0, 5.0]], atol=1e-6)
    np.testing.assert_allclose(fit.variances, [[0.02 / 3 + 1e-6] * 2], atol=1e-6)
    np.testing.assert_allclose(fit.weights, [[0.5, 0.5]])


@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_learn(seed):
    generator = torch.Generator().manual_seed(seed)
    samples = torch.rand(40, 30, generator=generator).sort(dim=1).values * 5
    samples[:8] = samples[:8].round()  # ties
    samples[8:16] = 3 + samples[8:16] * 1e-4  # near-constant
    lengths = torch.randint(2, 31, (40, 1), generator=generator)
    mask = torch.arange(30) < lengths
    ours, reference = fit_mixtures(samples, mask), fit_mixtures_sklearn(samples, mask)
    assert torch.equal(ours.lower, reference.lower)
    assert torch.equal(ours.iterations, reference.iterations)
    for name in ("means", "variances", "weights"):
        torch.testing.assert_close(getattr(ours, name), getattr(reference, name))
    torch.testing.assert_close(ours.density[mask], reference.density[mask])


def test_every_row_is_fitted_by_itself():
    samples = torch.tensor([[1.0, 1.2, 3.0, 9.0], [0.1, 0.2, 0.3, 8.0], [1.0, 2.0, 0.0, 0.0]])
    mask = torch.tensor([[True] * 4, [True] * 4, [True, True, False, False]])
    together = fit_mixtures(samples, mask)
    for row in range(3):
        length = int(mask[row].sum())
        alone = fit_mixtures(samples[row : row + 1, :length], mask[row : row + 1, :length])
        assert torch.equal(together.means[row], alone.means[0])
        assert torch.equal(together.iterations[row], alone.iterations[0])
        assert torch.equal(together.lower[row, :length], alone.lower[0])


def test_equal_single_and_absent_samples():
    samples = torch.tensor([[2.0, 2.0], [7.0, 0.0], [0.0, 0.0]])
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    fit = fit_mixtures(samples, mask)
    assert fit.lower.tolist() == [[True, True], [True, False], [False, False]]
    assert all(x.isfinite().all() for x in (fit.means, fit.variances, fit.density))
    assert fit_mixtures(torch.zeros(0, 9), torch.zeros(0, 9, dtype=torch.bool)).means.shape == (
        0,
        2,
    )
