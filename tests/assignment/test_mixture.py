import numpy as np
import pytest
import torch

from lad.assignment import mixture
from lad.assignment.mixture import fit_mixtures, fit_mixtures_sklearn


def everywhere(samples: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(samples, dtype=torch.bool)


def test_two_clusters_by_hand():
    samples = torch.tensor([[0.9, 1.0, 1.1, 4.9, 5.0, 5.1]])
    fit = fit_mixtures(samples, everywhere(samples))
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
    generator = torch.Generator().manual_seed(0)
    samples = torch.rand(20, 45, generator=generator).sort(dim=1).values * 5
    mask = torch.arange(45) < torch.randint(2, 46, (20, 1), generator=generator)
    together = fit_mixtures(samples, mask)
    for row in range(20):
        length = int(mask[row].sum())
        alone = fit_mixtures(samples[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(together.means[row], alone.means[0], rtol=1e-12, atol=1e-12)
        assert torch.equal(together.iterations[row], alone.iterations[0])
        assert torch.equal(together.lower[row, :length], alone.lower[0])


def test_equal_single_and_absent_samples():
    samples = torch.tensor([[2.0, 2.0], [7.0, 0.0], [0.0, 0.0]])
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    fit = fit_mixtures(samples, mask)
    assert fit.lower.tolist() == [[True, True], [True, False], [False, False]]
    assert all(x.isfinite().all() for x in (fit.means, fit.variances, fit.density))
    nothing = torch.zeros(0, 9)
    assert fit_mixtures(nothing, nothing.bool()).means.shape == (0, 2)


def test_fits_that_are_cut_short_equal_scikit_learn(monkeypatch):
    samples = torch.rand(60, 45, generator=torch.Generator().manual_seed(3)) ** 3 * 9
    mask = torch.arange(45) < torch.arange(2, 62)[:, None]
    for most in (1, 7):
        monkeypatch.setattr(mixture, "MAX_ITERATIONS", most)
        ours, reference = fit_mixtures(samples, mask), fit_mixtures_sklearn(samples, mask)
        assert torch.equal(ours.iterations, reference.iterations)
        assert ours.iterations.max() == most
        for name in ("means", "variances", "weights"):
            torch.testing.assert_close(getattr(ours, name), getattr(reference, name))


def test_order_and_padding_of_samples_do_not_matter():
    samples = torch.rand(5, 12, generator=torch.Generator().manual_seed(1)) * 5
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    fit, permuted = (fit_mixtures(x, everywhere(x)) for x in (samples, samples[:, order]))
    torch.testing.assert_close(permuted.means, fit.means)
    assert torch.equal(permuted.lower, fit.lower[:, order])
    padded = torch.cat([samples, torch.full((5, 3), 1e6)], dim=1)
    mask = torch.arange(15).expand(5, 15) < 12
    torch.testing.assert_close(fit_mixtures(padded, mask).means, fit.means)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_samples_of_a_gpu_are_fitted_on_the_cpu():
    samples = torch.rand(8, 45, device="cuda")
    fit = fit_mixtures(samples, everywhere(samples))
    expected = fit_mixtures(samples.cpu(), everywhere(samples).cpu())
    assert all(torch.equal(x, y) and x.is_cpu for x, y in zip(fit, expected, strict=True))


@pytest.mark.filterwarnings("error")
def test_a_diverged_row_leaves_the_others_alone():
    samples = torch.tensor([[0.9, 1.0, 1.1, 4.9, 5.0, 5.1], [1.0, torch.nan, 2.0, 3.0, 4.0, 5.0]])
    alone = fit_mixtures(samples[:1], everywhere(samples[:1]))
    fit = fit_mixtures(samples, everywhere(samples))
    assert torch.equal(fit.means[0], alone.means[0]) and torch.equal(fit.lower[0], alone.lower[0])
