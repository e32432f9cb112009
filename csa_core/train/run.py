"""A run: all that one training holds on its device, and nothing outside it."""

import os
import warnings
from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from csa_core.config import METHOD_HEADS, RunConfig
from csa_core.data.augment import evaluation_batches, training_images
from csa_core.data.batch import Batch
from csa_core.data.dataset import Dataset
from csa_core.data.listed import ImageList
from csa_core.data.plan import plan_epoch
from csa_core.data.ranks import gather_rows, rank, ranks
from csa_core.data.split import Split
from csa_core.errors import UserError
from csa_core.method.bank import ContextBank
from csa_core.method.losses import log_prior, make_loss
from csa_core.models.resnet import Network, make_network
from csa_core.store import Tensors
from csa_core.train.evaluate import predict, with_ensemble
from csa_core.train.guard import Guard
from csa_core.train.memory import check_bank_fits
from csa_core.train.precision import resolve
from csa_core.train.replay import Replay, captured
from csa_core.train.schedule import Phase, learning_rate, phase
from csa_core.train.step import LOSSES, Stats, streams, train_step


class Trainee:
    """What every run holds: data, a network and its optimizer, saved and restored to the bit.

    Several runs can live in one process: no state lies outside them.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    epochs: int
    is_compiled: bool = False
    seconds_of_others: float = 0.0
    """Time that other runs of the same process took in between."""

    def __init__(self, config: RunConfig, dataset: Dataset | ImageList, split: Split, device: torch.device) -> None:
        self.config = config
        self.dataset = dataset
        self.split = split
        self.device = device
        self.precision = resolve(config.precision, device, config.model, dataset.image_size)
        """What the body computes in: `auto` is decided here, once."""

    def features(self, images_bchw: Tensor) -> Tensor:
        """Return the last feature maps, in float32; the body alone computes in the run's precision."""
        body: Any = self.network.body
        if self.precision != "bfloat16":
            return body(images_bchw)
        with torch.autocast(self.device.type, torch.bfloat16):
            features: Tensor = body(images_bchw)
        return features.float()

    def place(self, network: nn.Module) -> Any:
        """Put a network on the device, in the memory format that convolutions are fastest in."""
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @cached_property
    def guard(self) -> Guard:
        """What stops the run before something that is not finite reaches the weights."""
        return Guard(self.network, self.optimizer, self.device)

    def update(self, loss: Tensor) -> None:
        """Take one optimizer step; a head that the loss does not reach stays as it is."""
        self.optimizer.zero_grad(set_to_none=True)
        self.guard.watch("loss", loss)
        loss.backward()
        self.guard.check()
        self.optimizer.step()

    def steps(self, epoch: int) -> Iterator[Stats]:
        """Train one epoch (numbered from 0), a step at a time."""
        raise NotImplementedError

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch."""
        raise NotImplementedError

    def set_learning_rate(self, rate: float) -> None:
        """Train on with this learning rate; on a GPU it stays where a captured step reads it."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def row(self, epoch: int, sums: dict[str, float], steps: int) -> dict[str, Any]:
        """Return an epoch's line of the history from the sums over its steps."""
        raise NotImplementedError

    def test_logits(self) -> dict[str, np.ndarray]:
        """Return what the history scores now and then: (N, K) logits on the test set by name."""
        raise NotImplementedError

    def final_logits(self) -> dict[str, np.ndarray]:
        """Return what the results are made from: (N, K) logits on the test set by head."""
        raise NotImplementedError

    def state(self) -> Tensors:
        """Return everything that the next epoch depends on, as arrays."""
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            momentum = self.optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum/{name}"] = momentum
        # Copies: training goes on.
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}

    def load(self, tensors: Tensors) -> None:
        """Take over a `state()` of the same configuration."""
        self.network.load_state_dict(part(tensors, "network/"))
        momentum = part(tensors, "momentum/")
        for name, parameter in self.network.named_parameters():
            if name in momentum:
                buffer = torch.empty_like(parameter).copy_(momentum[name])
                self.optimizer.state[parameter]["momentum_buffer"] = buffer


class Run(Trainee):
    """A supervised run: beside network and optimizer its bank, training images and losses."""

    network: Network

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset | ImageList,
        split: Split,
        device: torch.device,
        encoder: Tensors | None = None,
    ) -> None:
        super().__init__(config, dataset, split, device)
        self.epochs = config.epochs
        self.class_counts: np.ndarray = split.class_counts
        self.images: Any = training_images(dataset, split, config, device)
        network = make_network(config.model, METHOD_HEADS[config.method], len(dataset.class_names), config.seed)
        if encoder is not None:
            network.body.load_state_dict(part(encoder, "body."))
        self.network = self.place(network)
        self.optimizer = make_optimizer(config, self.network)
        self.bank: ContextBank | None = None
        if config.method == "csa" and config.bank_batches:
            size = (self.images.height, self.images.width)
            volume = config.bank_batches * config.batch_size
            check_bank_fits(config, size, device)
            self.bank = ContextBank(volume, size, device)
        prior = log_prior(split.class_counts, device)
        strength = config.logit_adjustment_strength
        single = "logit_adjustment" if config.method == "logit_adjustment" else "cross_entropy"
        self.single_loss = make_loss(single, prior, strength)
        self.uniform_loss = make_loss(config.uniform_loss, prior, strength)
        self.resampling_loss = make_loss(config.resampling_loss, prior, strength)
        self.objective: Any = Objective(self)
        # A graph wants the whole step on one GPU: images in memory, and no other rank to talk to.
        is_whole = device.type == "cuda" and isinstance(dataset, Dataset) and ranks() == 1
        self.replay = Replay(self, captured) if is_whole else None
        if ranks() > 1:
            if config.sync_batch_norm and device.type != "cuda":
                raise UserError("sync_batch_norm: works on GPUs only; set it to false")
            if config.sync_batch_norm:
                self.objective = nn.SyncBatchNorm.convert_sync_batchnorm(self.objective)
                self.network = self.objective.network
            with warnings.catch_warnings():  # newer versions call broadcast_buffers otherwise
                warnings.simplefilter("ignore", FutureWarning)
                # While the bank fills, nothing reaches the re-sampling head.
                self.objective = nn.parallel.DistributedDataParallel(
                    self.objective, broadcast_buffers=False, find_unused_parameters=config.method == "csa"
                )

    def steps(self, epoch: int) -> Iterator[Stats]:
        """Train one epoch (numbered from 0), a step at a time."""
        now = phase(self.config, epoch)
        if self.bank and self.config.bank_reset == "epoch":
            self.bank.empty()
        plan = plan_epoch(self.config, self.class_counts, epoch, self.device)
        if self.replay is not None:
            yield from self.replay.steps(plan, now)
            return
        plan = plan.of_rank(rank(), ranks())
        for batch in self.images.batches(plan, streams(self.config.method, now)):
            yield train_step(self, batch, now)

    def asks_the_device_nothing(self, phase: Phase) -> bool:
        """Whether the next step is the same operations as the one before: all are, once the bank was full."""
        return phase != "context_shift" or self.bank is None or self.bank.is_full()

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch."""
        return learning_rate(self.config, epoch)

    def row(self, epoch: int, sums: dict[str, float], steps: int) -> dict[str, Any]:
        """Return an epoch's line of the history from the sums over its steps."""
        images = steps * self.config.batch_size
        row: dict[str, Any] = {
            "phase": phase(self.config, epoch),
            "loss": sums["loss"] / steps,
            "train_accuracy": sums["correct"] / images,
        }
        if self.config.method == "csa":
            row["resampling_loss"] = sums["resampling_loss"] / steps
            row["confident"] = sums["confident"] / images
            row["shifted"] = int(sums["shifted"])
            row["bank_fill"] = float(self.bank.fill()) / self.bank.volume if self.bank else 0.0
        return row

    def test_logits(self) -> dict[str, np.ndarray]:
        """Return the logits of every head, and of their ensemble, on the test set; every rank works on its part."""
        logits = predict(self.network, evaluation_batches(self.dataset, self.device))
        count = len(self.dataset.test_labels)
        return with_ensemble({head: gather_rows(rows, count, self.device) for head, rows in logits.items()})

    def final_logits(self) -> dict[str, np.ndarray]:
        """Return the logits that the results are made from.

        Raises:
            UserError: the re-sampling head was never trained, because the bank never filled.
        """
        if not all(parameter in self.optimizer.state for parameter in self.network.parameters()):
            raise UserError(
                f"the bank never filled (threshold {self.config.threshold:g}, {self.config.bank_batches} batches), so "
                "the head that predicts was never trained; lower threshold or bank_batches, or raise plain_epochs"
            )
        return {head: logits for head, logits in self.test_logits().items() if head != "ensemble"}

    def state(self) -> Tensors:
        """Return everything that the next epoch depends on, as arrays."""
        bank = self.bank.state() if self.bank else {}
        return super().state() | {f"bank/{name}": tensor.cpu().numpy().copy() for name, tensor in bank.items()}

    def load(self, tensors: Tensors) -> None:
        """Take over a `state()` of the same configuration."""
        super().load(tensors)
        if self.bank:
            self.bank.load(part(tensors, "bank/"))


class Objective(nn.Module):
    """The loss of a run as a module, which is what several ranks can share the gradient of."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.network = run.network
        self._loss = partial(LOSSES[run.config.method], run)

    def forward(self, batch: Batch, phase: Phase) -> tuple[Tensor, Stats]:
        """Return the loss of one batch, and scalars for the history."""
        return self._loss(batch, phase)


def part(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with `prefix`, under the rest of their names."""
    return {key.removeprefix(prefix): torch.from_numpy(a) for key, a in tensors.items() if key.startswith(prefix)}


def make_optimizer(config: RunConfig, network: torch.nn.Module) -> torch.optim.SGD:
    """Return SGD with momentum, fused.

    The re-sampling head is a group of its own: while nothing reaches it, it has no gradient, and
    the fused kernel wants all or none of a group to have one.
    """
    late = [p for name, p in network.named_parameters() if name.startswith("heads.resampling")]
    early = [p for name, p in network.named_parameters() if not name.startswith("heads.resampling")]
    groups = [{"params": group} for group in (early, late) if group]
    device = next(network.parameters()).device
    # A captured step reads the learning rate from the device.
    lr = torch.tensor(config.lr, device=device) if device.type == "cuda" else config.lr
    return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True)


def choose_device(name: str, precision: str = "float32") -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, set up to repeat itself.

    Args:
        precision: of a run; float32 is meant in full, which torch alone does not mean in convolutions.

    Raises:
        UserError: no such device here, or it does not know the precision.
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
    if precision == "tf32" and device.type != "cuda":
        raise UserError(f"precision: tf32 is for NVIDIA GPUs, not for {device.type}; use float32")
    if device.type == "cuda":
        multiplication = "tf32" if precision == "tf32" else "ieee"
        torch.backends.cuda.matmul.fp32_precision = multiplication
        torch.backends.cudnn.conv.fp32_precision = multiplication  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device
