"""The guard: nothing that is not finite reaches the weights, and what was not finite is named.

On a CPU each step is checked before the optimizer. A GPU is never waited for: there the same check
tells the fused optimizer to do nothing from the first bad step on, and is read once an epoch.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from csa_core.train.sgd import Sgd


class NotFinite(Exception):
    """A tensor holds NaN or infinity; `step` counts from 1 in its epoch, 0 is the end of the epoch."""

    def __init__(self, name: str, step: int) -> None:
        super().__init__(name, step)
        self.name, self.step = name, step


class Guard:
    """Watches the tensors of each step, in the order in which they come about."""

    def __init__(self, network: nn.Module, optimizer: Sgd, device: torch.device) -> None:
        self._network = network
        # Last layers first: what is wrong in a gradient comes from there.
        self._parameters = list(network.named_parameters())[::-1]
        self._waits = device.type == "cpu"
        self._watched: dict[str, Tensor] = {}
        # On the device, and always the same memory, so that a captured step can be replayed.
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self._bad_step = torch.zeros((), dtype=torch.int64, device=device)
        self._largest: dict[tuple[str, ...], Tensor] = {}
        # The fused kernel leaves everything as it is where this is 1 (torch's GradScaler does the same).
        self._bad = torch.zeros(1, device=device)
        optimizer.found_inf = self._bad

    def start_epoch(self) -> None:
        """Count steps from 1 again."""
        self._watched = {}
        for tensor in (self._step, self._bad_step, self._bad, *self._largest.values()):
            tensor.zero_()

    def watch(self, name: str, tensor: Tensor) -> None:
        """Let the next check look at this, too; the first that is not finite is the one named."""
        self._watched[name] = tensor.detach()

    def check(self) -> None:
        """Look at what is watched and at all gradients, before the optimizer's step.

        Raises:
            NotFinite: on a CPU; elsewhere `end_epoch` raises it.
        """
        gradients = {f"gradient of {name}": parameter.grad for name, parameter in self._parameters}
        named = self._watched | {name: gradient for name, gradient in gradients.items() if gradient is not None}
        self._watched = {}
        # The largest magnitude, not the sum of squares, which overflows before anything is wrong.
        largest = torch.stack(torch._foreach_norm(list(named.values()), math.inf))
        self._step += 1
        if self._waits:
            _name_first(list(named), largest, self._step)
            return
        kind = tuple(named)
        if kind not in self._largest:
            self._largest[kind] = torch.zeros_like(largest)
        kept = self._largest[kind]
        is_bad = ~largest.isfinite().all()
        is_first = is_bad & (self._bad[0] == 0)
        kept.copy_(torch.where(is_first, largest, kept))
        self._bad_step.copy_(torch.where(is_first, self._step, self._bad_step))
        torch.maximum(self._bad, is_bad.float(), out=self._bad)

    def end_epoch(self) -> None:
        """Read what was not read yet, and look at the weights, which the last step may have blown up.

        Raises:
            NotFinite: naming the first tensor and its step.
        """
        for names, largest in self._largest.items():
            _name_first(names, largest, self._bad_step)
        state = {name: tensor for name, tensor in self._network.state_dict().items() if tensor.is_floating_point()}
        largest = torch.stack(torch._foreach_norm(list(state.values()), math.inf))
        _name_first(list(state), largest, torch.zeros_like(self._step))


def _name_first(names: Sequence[str], largest: Tensor, step: Tensor) -> None:
    """Raise `NotFinite` with the first name whose magnitude is not finite; waits for the device."""
    for name, value in zip(names, largest.tolist(), strict=True):
        if not math.isfinite(value):
            raise NotFinite(name, int(step))
