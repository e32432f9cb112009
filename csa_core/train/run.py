"""A run: its method, network and optimizer on their device, saved and restored to the bit, and nothing outside it."""

import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from csa_core.config import RunConfig
from csa_core.data.batch import Batch
from csa_core.data.dataset import Dataset
from csa_core.data.listed import ImageList
from csa_core.data.ranks import rank, ranks
from csa_core.data.split import Split
from csa_core.errors import UserError
from csa_core.evaluation.scores import with_ensemble
from csa_core.methods import METHODS
from csa_core.methods.base import Method, Setting, Stats, Watch
from csa_core.models.precision import allow_tf32, device_named, place, resolve
from csa_core.store import Tensors
from csa_core.train.guard import Guard
from csa_core.train.replay import Replay, captured
from csa_core.train.sgd import Sgd


class Run:
    """One training: what a step works with, and what the loop around it asks. No state lies outside it."""

    is_compiled: bool = False

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset | ImageList,
        split: Split,
        device: torch.device,
        parent: Tensors | None = None,
    ) -> None:
        self.config, self.dataset, self.split, self.device = config, dataset, split, device
        self.precision = resolve(config.precision, device, config.model, dataset.image_size)
        """What the body computes in: `auto` is decided here, once."""
        setting = Setting(dataset, split, device, self.precision)
        self.method: Method = METHODS[config.method](config, setting)
        self.images = self.method.images()
        network = self.method.network()
        if parent is not None:
            self.method.start_from(network, {name: torch.from_numpy(array) for name, array in parent.items()})
        self.network = place(network, device)
        self.optimizer = make_optimizer(self.method, self.network, device)
        self.guard = Guard(self.network, self.optimizer, device)
        """What stops the run before something that is not finite reaches the weights."""
        self.watch: Watch = self.guard.watch
        self.check = self.guard.check
        self.objective: Any = Objective(self.method, self.network, self.watch)
        # A graph wants the whole step on one GPU: images in memory, and no other rank to talk to.
        is_whole = device.type == "cuda" and isinstance(dataset, Dataset) and ranks() == 1
        self.replay: Replay | None = None
        if is_whole:
            stream = torch.cuda.Stream(device)
            self.replay = Replay(self._step_of, self.method.is_steady, device, captured, stream)
        if ranks() > 1:
            self._share_gradients()

    def _share_gradients(self) -> None:
        sync = self.config.sync_batch_norm  # type: ignore[attr-defined]
        if sync and self.device.type != "cuda":
            raise UserError("sync_batch_norm: works on GPUs only; set it to false")
        if sync:
            self.objective = nn.SyncBatchNorm.convert_sync_batchnorm(self.objective)
            self.network = self.objective.network
        with warnings.catch_warnings():  # newer versions call broadcast_buffers otherwise
            warnings.simplefilter("ignore", FutureWarning)
            # A phase may leave a head without a gradient.
            self.objective = nn.parallel.DistributedDataParallel(
                self.objective, broadcast_buffers=False, find_unused_parameters=len(self.network.heads) > 1
            )

    def steps(self, epoch: int) -> Iterator[Stats]:
        """Train one epoch (numbered from 0), a step at a time."""
        phase = self.method.phase(epoch)
        self.method.start_epoch(epoch)
        plan = self.method.plan(epoch)
        if self.replay is not None:
            yield from self.replay.steps(plan, phase)
            return
        for batch in self.images.batches(plan.of_rank(rank(), ranks())):
            yield self.method.step(self, batch, phase)

    def _step_of(self, plan: Any, phase: str) -> Stats:
        """Train on the one step of a plan."""
        return self.method.step(self, self.images.at(plan, 0), phase)

    def update(self, loss: Tensor) -> None:
        """Take one optimizer step; a head that the loss does not reach stays as it is."""
        self.optimizer.zero_grad()
        self.watch("loss", loss)
        loss.backward()
        self.check()
        self.optimizer.step()

    def set_learning_rate(self, epoch: int) -> float:
        """Train on with the learning rate of an epoch; on a GPU it stays where a captured step reads it."""
        rate = self.method.learning_rate(epoch)
        groups = self.optimizer.param_groups
        for group, factor in zip(groups, self.method.rate_factors() or [1.0] * len(groups), strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(factor * rate)
            else:
                group["lr"] = factor * rate
        return rate

    def scored_logits(self) -> dict[str, dict[str, np.ndarray]]:
        """Return (N, K) logits by part (`test`, `validation`) and head, an ensemble among them; all ranks share it."""
        parts = self.method.logits_by_part(self.network, final=False)
        has_ensemble = self.method.scored_as(self.config).ensemble
        return {part: with_ensemble(logits) if has_ensemble else logits for part, logits in parts.items()}

    def state(self) -> Tensors:
        """Return everything that the next epoch depends on, as arrays."""
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            momentum = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum/{name}"] = momentum
        tensors |= {f"method/{name}": tensor for name, tensor in self.method.state().items()}
        # Copies: training goes on.
        return {name: tensor.detach().to("cpu", copy=True).numpy() for name, tensor in tensors.items()}

    def load(self, tensors: Tensors) -> None:
        """Take over a `state()` of the same configuration."""
        self.network.load_state_dict(part(tensors, "network/"))
        momentum = part(tensors, "momentum/")
        for name, parameter in self.network.named_parameters():
            if name in momentum:
                buffer = torch.empty_like(parameter).copy_(momentum[name])
                self.optimizer.state[parameter] = {"momentum_buffer": buffer}
        self.method.load(part(tensors, "method/"))


class Objective(nn.Module):
    """The loss of a method as a module, which is what several ranks can share the gradient of."""

    def __init__(self, method: Method, network: nn.Module, watch: Watch) -> None:
        super().__init__()
        self.network = network
        self._method, self._watch = method, watch

    def forward(self, batch: Batch, phase: str) -> tuple[Tensor, Stats]:
        """Return the loss of one batch, and scalars for the history."""
        return self._method.loss(self.network, batch, phase, self._watch)


def part(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with `prefix`, under the rest of their names."""
    return {key.removeprefix(prefix): torch.from_numpy(a) for key, a in tensors.items() if key.startswith(prefix)}


def make_optimizer(method: Method, network: nn.Module, device: torch.device) -> Sgd:
    """Return the optimizer of a method's network."""
    settings: dict[str, Any] = method.sgd()
    if device.type == "cuda":  # a captured step reads the learning rate from the device
        settings["lr"] = torch.tensor(settings["lr"], device=device)
    return Sgd(method.trained(network), **settings)


def choose_device(name: str, precision: str = "float32") -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, set up to repeat itself.

    Args:
        precision: of a run; float32 is meant in full, which torch alone does not mean in convolutions.

    Raises:
        UserError: no such device here, or it does not know the precision.
    """
    # cuBLAS repeats itself only with a workspace of fixed size, set before its first use.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = device_named(name)
    if precision == "tf32" and device.type != "cuda":
        raise UserError(f"precision: tf32 is for NVIDIA GPUs, not for {device.type}; use float32")
    if device.type == "cuda":
        allow_tf32(precision == "tf32")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device
