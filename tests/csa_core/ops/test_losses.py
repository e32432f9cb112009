"""Losses against NumPy."""

import numpy as np
import torch

from csa_core.ops.losses import log_prior, make_loss

COUNTS = np.array([50, 20, 5])
LOGITS = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 2, 1, 0, 2])


def by_hand(strength: float) -> float:
    z = LOGITS.double().numpy() + strength * np.log(COUNTS / 75)
    log_probability = z - np.log(np.exp(z).sum(1, keepdims=True))
    return float(-log_probability[np.arange(7), LABELS.numpy()].mean())


def loss(name: str, strength: float) -> torch.Tensor:
    return make_loss(name, log_prior(COUNTS, torch.device("cpu")), strength)(LOGITS, LABELS)


def test_cross_entropy() -> None:
    assert abs(float(loss("cross_entropy", 1.0)) - by_hand(0.0)) < 1e-6


def test_logit_adjustment() -> None:
    for strength in (0.5, 1.0, 2.0):
        assert abs(float(loss("logit_adjustment", strength)) - by_hand(strength)) < 1e-6


def test_logit_adjustment_of_strength_zero_is_cross_entropy() -> None:
    assert torch.equal(loss("logit_adjustment", 0.0), loss("cross_entropy", 1.0))
