"""A run: all that one training holds on its device, and nothing outside it."""

import os

import numpy as np
import torch
from torch import Tensor

from csa_core.config import METHOD_HEADS, RunConfig
from csa_core.data.augment import TrainingImages
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.errors import UserError
from csa_core.method.bank import ContextBank
from csa_core.method.losses import log_prior, make_loss
from csa_core.models.resnet import make_network
from csa_core.store import Tensors


class Run:
    """Network, optimizer, bank, training images and losses of one configuration.

    Several runs can live in one process: no state lies outside them.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, split: Split, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.class_counts: np.ndarray = split.class_counts
        self.images = TrainingImages(dataset, split, config.crop_padding, device)
        network = make_network(config.model, METHOD_HEADS[config.method], len(dataset.class_names), config.seed)
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(config, self.network)
        self.bank: ContextBank | None = None
        if config.method == "csa" and config.bank_batches:
            size = (self.images.height, self.images.width)
            self.bank = ContextBank(config.bank_batches * config.batch_size, size, device)
        prior = log_prior(split.class_counts, device)
        strength = config.logit_adjustment_strength
        single = "logit_adjustment" if config.method == "logit_adjustment" else "cross_entropy"
        self.single_loss = make_loss(single, prior, strength)
        self.uniform_loss = make_loss(config.uniform_loss, prior, strength)
        self.resampling_loss = make_loss(config.resampling_loss, prior, strength)

    def update(self, loss: Tensor) -> None:
        """Take one optimizer step; a head that the loss does not reach stays as it is."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def is_trained(self) -> bool:
        """Whether every head has taken a step; the re-sampling head waits for a full bank."""
        return all(parameter in self.optimizer.state for parameter in self.network.parameters())

    def state(self) -> Tensors:
        """Return everything that the next epoch depends on, as arrays."""
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            momentum = self.optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum/{name}"] = momentum
        if self.bank:
            tensors |= {f"bank/{name}": tensor for name, tensor in self.bank.state().items()}
        return {
            name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()
        }  # copies: training goes on

    def load(self, tensors: Tensors) -> None:
        """Take over a `state()` of the same configuration."""
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "momentum": {}, "bank": {}}
        for name, array in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = torch.from_numpy(array)
        self.network.load_state_dict(parts["network"])
        for name, parameter in self.network.named_parameters():
            if name in parts["momentum"]:
                buffer = torch.empty_like(parameter).copy_(parts["momentum"][name])
                self.optimizer.state[parameter]["momentum_buffer"] = buffer
        if self.bank:
            self.bank.load(parts["bank"])


def make_optimizer(config: RunConfig, network: torch.nn.Module) -> torch.optim.SGD:
    """Return SGD with momentum, fused.

    The re-sampling head is a group of its own: while nothing reaches it, it has no gradient, and
    the fused kernel wants all or none of a group to have one.
    """
    late = [p for name, p in network.named_parameters() if name.startswith("heads.resampling")]
    early = [p for name, p in network.named_parameters() if not name.startswith("heads.resampling")]
    groups = [{"params": group} for group in (early, late) if group]
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True)


def choose_device(name: str) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, set up to repeat itself.

    Raises:
        UserError: no such device here.
    """
    # cuBLAS repeats itself only with a workspace of fixed size, set before its first use.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if name != "cpu" and device.type not in ("cuda", "mps"):
            raise RuntimeError
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UserError(f"device: '{name}' is not available here; use auto or cpu") from None
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device
