"""Sharpness-aware minimisation (Foret et al., 2021): the gradient is taken a small ascent away."""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def ascend(parameters: Sequence[Tensor], radius: float) -> list[Tensor]:
    """Move parameters by rho * g / ||g||, g their gradients together; return where they were.

    The norm is over all parameters at once (equation 2). A gradient of zero moves nothing.
    """
    before = [parameter.detach().clone() for parameter in parameters]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.stack(torch._foreach_norm(gradients)).norm()
    scale = radius / norm.clamp(min=1e-12)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.add_(parameter.grad * scale)
    return before


@torch.no_grad()
def restore(parameters: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    """Put parameters back where `ascend` found them, to the bit; their gradients stay."""
    for parameter, value in zip(parameters, before, strict=True):
        parameter.copy_(value)
