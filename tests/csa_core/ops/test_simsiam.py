"""SimSiam's loss: the formula by hand, symmetry, and where no gradient flows."""

import numpy as np
import pytest
import torch

from csa_core.ops.simsiam import output_spread, symmetric_loss

G = torch.Generator().manual_seed(0)
P1, P2, Z1, Z2 = (torch.randn(6, 5, generator=G, dtype=torch.float64) for _ in range(4))


def test_the_loss_is_the_formula() -> None:
    wanted = []
    for p1, p2, z1, z2 in zip(*(t.numpy() for t in (P1, P2, Z1, Z2)), strict=True):
        one = -(p1 / np.linalg.norm(p1)) @ (z2 / np.linalg.norm(z2))
        other = -(p2 / np.linalg.norm(p2)) @ (z1 / np.linalg.norm(z1))
        wanted.append(one / 2 + other / 2)
    np.testing.assert_allclose(symmetric_loss(P1, P2, Z1, Z2).numpy(), wanted, rtol=1e-12)


def test_the_views_may_change_places() -> None:
    torch.testing.assert_close(symmetric_loss(P1, P2, Z1, Z2), symmetric_loss(P2, P1, Z2, Z1), rtol=0, atol=0)


def test_no_gradient_flows_into_a_target() -> None:
    leaves = [t.clone().requires_grad_() for t in (P1, P2, Z1, Z2)]
    symmetric_loss(*leaves).sum().backward()
    assert all(leaf.grad is not None and leaf.grad.abs().sum() > 0 for leaf in leaves[:2])
    assert leaves[2].grad is None and leaves[3].grad is None


def test_predicting_exactly_is_the_lowest_loss() -> None:
    torch.testing.assert_close(symmetric_loss(Z2 * 3, Z1 / 2, Z1, Z2), torch.full((6,), -1.0, dtype=torch.float64))


def test_the_collapse_monitor() -> None:
    assert float(output_spread(torch.ones(64, 32) * 7)) == pytest.approx(0, abs=1e-7)
    spread = float(output_spread(torch.randn(4096, 256, generator=G)))
    assert spread == pytest.approx(1 / np.sqrt(256), rel=0.01)
    z = Z1.numpy() / np.linalg.norm(Z1.numpy(), axis=1, keepdims=True)
    assert float(output_spread(Z1)) == pytest.approx(z.std(0, ddof=1).mean())
