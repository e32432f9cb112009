"""SGD in torch's fused kernel, by torch's function: the first call of its class imports the compiler, seconds long."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd


class Sgd:
    """SGD with momentum and weight decay; attributes are named as in `torch.optim.SGD`, which gives the same bits."""

    found_inf: Tensor | None = None
    """Where this is 1 the kernel leaves everything as it is."""

    def __init__(
        self, groups: Iterable[Iterable[nn.Parameter]], lr: float | Tensor, momentum: float, weight_decay: float
    ) -> None:
        """Train `groups` of parameters, each of which has gradients all together or not at all."""
        rates = ((list(group), lr.clone() if isinstance(lr, Tensor) else lr) for group in groups)
        self.param_groups: list[dict[str, Any]] = [{"params": group, "lr": rate} for group, rate in rates]
        self.state: dict[nn.Parameter, dict[str, Any]] = {}
        self._settings: dict[str, Any] = {"momentum": momentum, "weight_decay": weight_decay, "fused": True}
        self._settings |= {"dampening": 0.0, "nesterov": False, "maximize": False}

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def step(self) -> None:
        """Move each parameter that has a gradient, by the learning rate of its group."""
        for group in self.param_groups:
            moving = [parameter for parameter in group["params"] if parameter.grad is not None]
            buffers = [self.state.get(parameter, {}).get("momentum_buffer") for parameter in moving]
            gradients = [parameter.grad for parameter in moving]
            with torch.no_grad():
                sgd(moving, gradients, buffers, lr=group["lr"], found_inf=self.found_inf, **self._settings)
            if self._settings["momentum"]:
                self.state |= {p: {"momentum_buffer": b} for p, b in zip(moving, buffers, strict=True)}
