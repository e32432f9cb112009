"""Density weights against scikit-learn's kernel density estimate."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.neighbors import KernelDensity

from csa_core.ops import density
from csa_core.ops.density import density_weights, median_distance

RNG = np.random.default_rng(0)
# A crowd in one direction, a few in another.
FEATURES = np.concatenate([RNG.normal([4, 0, 0, 0], 1, (70, 4)), RNG.normal([0, 5, 0, 0], 1, (8, 4))])


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("chunk", [16, 1024])
def test_weights_are_of_scikit_learns_density(exponent: float, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density, "CHUNK", chunk)
    unit = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    estimate = KernelDensity(kernel="gaussian", bandwidth=np.median(pdist(unit)), rtol=1e-12).fit(unit)
    wanted = np.exp(estimate.score_samples(unit)) ** -exponent
    weights = density_weights(torch.from_numpy(FEATURES), exponent).numpy()
    # torch's median of an even number of distances is the lower of the two in the middle.
    np.testing.assert_allclose(weights, wanted / wanted.mean(), rtol=2e-3)
    assert weights.mean() == pytest.approx(1) and weights[70:].min() > np.median(weights[:70])


def test_an_exponent_of_zero_weighs_all_the_same() -> None:
    assert torch.equal(density_weights(torch.from_numpy(FEATURES), 0.0), torch.ones(len(FEATURES)))


def test_the_median_is_exact_up_to_a_size_and_near_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.from_numpy(FEATURES)
    exact = float(median_distance(features))
    assert exact == pytest.approx(np.median(pdist(FEATURES)), rel=1e-2)
    monkeypatch.setattr(density, "MEDIAN_OVER", 40)
    assert float(median_distance(features)) == pytest.approx(exact, rel=0.1)


def test_equal_features_weigh_the_same() -> None:
    assert torch.equal(density_weights(torch.ones(5, 3), 1.0), torch.ones(5))
