"""The probes of an encoder against scikit-learn's."""

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from csa_core.evaluation.probe import knn_logits, linear_logits


def test_nearest_neighbours_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), [150, 100, 40, 10])
    features = rng.normal(size=(300, 8)) + 2 * np.eye(8)[labels]
    test = rng.normal(size=(50, 8)) + 2 * np.eye(8)[rng.integers(0, 4, 50)]
    theirs = KNeighborsClassifier(200, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.1))
    shares = theirs.fit(features, labels).predict_proba(test) / np.bincount(labels)
    shares /= shares.sum(1, keepdims=True)
    ours = knn_logits(torch.tensor(features).float(), labels, torch.tensor(test).float(), 4)
    np.testing.assert_allclose(np.exp(ours), np.maximum(shares, 1e-12), atol=1e-4)


def test_the_linear_probe_of_two_classes_has_two_logits() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [40, 5])
    features = torch.tensor(rng.normal(size=(45, 3)) + 3 * labels[:, None]).float()
    logits = linear_logits(features, labels, features)
    assert logits.shape == (45, 2) and (logits.argmax(1) == labels).mean() > 0.9
