"""What a method is: all that tells one from another, and all that a training asks of it."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from csa_core import data, evaluation, models
from csa_core.config import RunConfig
from csa_core.methods.schedule import learning_rate

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from csa_core.data.batch import Batch
    from csa_core.data.dataset import Dataset
    from csa_core.data.listed import ImageList
    from csa_core.data.plan import EpochPlan
    from csa_core.data.split import Split

Stats = dict[str, "Tensor"]
"""Scalars of a step on the device, without gradient; an epoch adds them up."""
Row = dict[str, Any]
"""A line of the history: an epoch."""
Watch = Callable[[str, "Tensor"], None]
"""Names a tensor that must be finite before the weights move."""


@dataclass(frozen=True)
class Setting:
    """What a run trains on and with; `precision` is that of the network's body."""

    dataset: Dataset | ImageList
    split: Split
    device: torch.device
    precision: str


class Optimizer(Protocol):
    """What a step may ask of the optimizer."""

    def zero_grad(self) -> None:
        """Forget all gradients."""

    def step(self) -> None:
        """Move each parameter that has a gradient."""


class Trainer(Protocol):
    """The part of a training that a step works with."""

    network: Any
    watch: Watch
    objective: Callable[[Batch, str], tuple[Tensor, Stats]]
    """The method's loss, its gradient shared where several ranks train."""

    @property
    def optimizer(self) -> Optimizer:
        """What moves the weights."""

    def check(self) -> None:
        """See that all that is watched, and all gradients, are finite."""

    def update(self, loss: Tensor) -> None:
        """Take one step of the optimizer down the gradient of `loss`."""


class Method:
    """One method in one run; each subclass has a line in `csa_core.methods.METHODS`."""

    Config: ClassVar[type[RunConfig]]
    """Its keys. A run's identity is their values, less those of `unread()`."""
    heads: ClassVar[tuple[str, ...]] = ("single",)
    """What is scored."""
    predicts: ClassVar[str] = "single"
    """The head that predicts."""
    branches: ClassVar[int] = 1
    """Batches that a step trains on."""
    compiles: ClassVar[bool] = True
    """Whether torch.compile was tried on its network."""
    ensemble: ClassVar[bool] = False
    """Whether the mean of the heads' logits is scored, too."""

    @classmethod
    def scored_as(cls, config: Any) -> type[Method]:
        """Return the method whose `heads`, `predicts` and `ensemble` a run has: this one or a first stage's."""
        return cls

    def __init__(self, config: Any, setting: Setting) -> None:
        self.config, self.setting = config, setting
        self.class_counts: np.ndarray = setting.split.class_counts

    # The run.

    def network(self) -> Any:
        """Build the network: a body, and one linear head for each of `heads`."""
        classes = len(self.setting.dataset.class_names)
        return models.make_network(self.config.model, self.scored_as(self.config).heads, classes, self.config.seed)

    def start_from(self, network: Any, parent: dict[str, Tensor]) -> None:
        """Take over what is needed of the weights of the parent run (`RunConfig.parent`)."""
        models.load_body(network.body, parent)

    def trained(self, network: Any) -> list[list[nn.Parameter]]:
        """Return the parameters that train, in groups that have gradients all together or not at all."""
        return [list(module.parameters()) for module in (network.body, *network.heads.values())]

    def rate_factors(self) -> list[float]:
        """Return what the learning rate is multiplied by in each group of `trained`; empty: in none."""
        return []

    def sgd(self) -> dict[str, float]:
        """Return the settings of SGD: lr, momentum, weight_decay."""
        return {key: getattr(self.config, key) for key in ("lr", "momentum", "weight_decay")}

    def images(self) -> Any:
        """Return the training images on the device."""
        config, setting = self.config, self.setting
        jitter = config.colour_jitter
        return data.training_images(setting.dataset, setting.split, config.crop_padding, jitter, setting.device)

    # An epoch, numbered from 0.

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate."""
        return learning_rate(self.config, epoch)

    def phase(self, epoch: int) -> str:
        """Name what the steps do; the history tells phases apart."""
        return "single"

    def start_epoch(self, epoch: int) -> None:
        """Prepare the method's own state for the epoch."""

    def streams(self, epoch: int) -> dict[str, np.ndarray | None]:
        """Return the streams of images that the steps read, by name.

        A stream has the weights, (K,), that a class is drawn with, before one of its images uniformly. None
        stands for a fresh permutation of the training set.
        """
        return {"uniform": None}

    def draws(self, generator: Callable[[str], np.random.Generator], steps: int) -> dict[str, np.ndarray]:
        """Return what else the steps take at random, (steps, ...) by name.

        `generator` gives the generator of a name: it depends on seed, name and epoch alone.
        """
        return {}

    def plan(self, epoch: int) -> EpochPlan[Any]:
        """Draw all picks of the epoch."""
        device, streams = self.setting.device, self.streams(epoch)
        return data.plan_epoch(self.config, self.class_counts, streams, self.draws, epoch, device)

    # A step.

    def features(self, network: Any, images_bchw: Tensor) -> Tensor:
        """Return the last feature maps, (B, C, H', W') float32; the body alone has the run's precision."""
        return models.features(network.body, images_bchw, self.setting.precision)

    def loss(self, network: Any, batch: Batch, phase: str, watch: Watch) -> tuple[Tensor, Stats]:
        """Return the loss of one batch, a scalar, and scalars for the history."""
        raise NotImplementedError

    def step(self, trainer: Trainer, batch: Batch, phase: str) -> Stats:
        """Train on one batch; return scalars for the history."""
        loss, stats = trainer.objective(batch, phase)
        trainer.update(loss)
        return stats

    def is_steady(self, phase: str) -> bool:
        """Whether a step is the same operations as the one before, so that a GPU can replay it."""
        return True

    # What is kept and shown.

    def row(self, sums: dict[str, float], steps: int) -> Row:
        """Return a line of the history from the sums over the steps of an epoch."""
        return {"loss": sums["loss"] / steps, "train_accuracy": sums["correct"] / (steps * self.config.batch_size)}

    def check(self, history: list[Row]) -> None:
        """See, after each epoch, that what had to be trained by now has been.

        Raises:
            UserError: it has not; the remedy is in the line.
        """

    def counts(self, history: list[Row]) -> dict[str, int]:
        """Return what the metrics count of a finished training."""
        return {}

    def remark(self, history: list[Row]) -> str | None:
        """Return a line for a person about a finished training, None where there is nothing to say."""
        return None

    def state(self) -> dict[str, Tensor]:
        """Return what the next epoch depends on beside network and optimizer."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over a `state()`."""

    def logits(self, network: Any, final: bool) -> dict[str, np.ndarray]:
        """Return the logits, (N, K), of the test set by head; `final` ones make the results."""
        return evaluation.predict_test_set(network, self.setting.dataset, self.setting.device)

    def scoring(self, dataset: Dataset | ImageList) -> Self:
        """Return the method with another test set; the rest of what it has stays."""
        other = copy(self)
        other.setting = replace(self.setting, dataset=dataset)
        return other

    def logits_by_part(self, network: Any, final: bool) -> dict[str, dict[str, np.ndarray]]:
        """Return the logits by head of the part `test`, and in the same way of `validation` where there is one."""
        validation = self.setting.dataset.validation
        found = {"test": self.logits(network, final)}
        return found if validation is None else found | {"validation": self.scoring(validation).logits(network, final)}

    @classmethod
    def check_possible(cls, config: Any, images: int, size: tuple[int, int]) -> None:
        """See, before anything is made, that a run on so many training images of `size` can come to a result.

        Raises:
            UserError: it cannot; the remedy is in the line.
        """

    @classmethod
    def memory(cls, config: Any, size: tuple[int, int]) -> str:
        """Say what takes memory in a run on images of `size`, by its keys."""
        return f"batch_size {config.batch_size}"
