"""SAM on a quadratic, where the answer is known in closed form."""

import torch

from csa_core.ops.sam import ascend, restore

A = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]], dtype=torch.float64)
START = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
RADIUS = 0.3


def test_the_gradient_is_that_of_the_place_uphill() -> None:
    """f = x A x / 2: the gradient of SAM is A (x + rho A x / ||A x||)."""
    x = [START[:1].clone().requires_grad_(), START[1:].clone().requires_grad_()]  # the norm is over both

    def loss() -> torch.Tensor:
        whole = torch.cat(x)
        return whole @ A @ whole / 2

    loss().backward()
    before = ascend(x, RADIUS)
    gradient = A @ START
    torch.testing.assert_close(torch.cat(x).detach(), START + RADIUS * gradient / gradient.norm())
    for part in x:
        part.grad = None
    loss().backward()
    restore(x, before)
    assert torch.equal(torch.cat(x).detach(), START), "to the bit"
    found = torch.cat([part.grad for part in x if part.grad is not None])
    torch.testing.assert_close(found, A @ (START + RADIUS * gradient / gradient.norm()))


def test_without_a_gradient_nothing_moves() -> None:
    x = torch.zeros(3, requires_grad=True)
    (x * 0).sum().backward()
    ascend([x], RADIUS)
    assert torch.equal(x, torch.zeros(3))
