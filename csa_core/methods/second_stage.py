"""A classifier learned anew on a finished run's body, from class-balanced images (Kang et al., 2020).

*cRT* learns a new linear head from scratch; *LWS* keeps the head that is there and learns one scale for each class. The
body's weights are frozen. With `batch_norm: frozen` so are the running statistics of its batch norms: it computes in
evaluation mode, so that the head learns on the very features that it is scored on, and the body stays the first
stage's to the bit. With `batch_norm: moving`, as in the paper's released code, it computes with the statistics of
class-balanced batches, and the running ones move to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from csa_core import models, ops
from csa_core.config import Strict
from csa_core.methods.first_stage import FIRST_STAGES, StagedConfig
from csa_core.methods.single import CrossEntropy

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


class StageConfig(Strict):
    """Schedule of the second stage. Defaults: Bag of Tricks' after 200 epochs, without rise and Nesterov."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 30
    """Epochs of class-balanced images, each as many as the training set has."""
    lr: Annotated[float, Field(gt=0)] = 0.1
    """Learning rate of SGD at the start; there is no rise."""
    lr_drops: tuple[Annotated[int, Field(ge=1)], ...] = (10, 20)
    """Epochs after which the learning rate is divided by 10."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Weight decay of SGD, on the weights that are trained."""

    @model_validator(mode="after")
    def _drops_fit(self) -> Self:
        drops = list(self.lr_drops)
        if drops != sorted(set(drops)) or (drops and drops[-1] >= self.epochs):
            raise ValueError(f"lr_drops {drops} must rise and come within {self.epochs} epochs; move them, or write []")
        return self


class SecondStageConfig(StagedConfig):
    """What the methods of two stages share; momentum, batch size and augmentation are those of the first stage."""

    second_stage: StageConfig = StageConfig()
    """Schedule of the second stage."""
    batch_norm: Literal["frozen", "moving"] = "frozen"
    """Batch norm of the frozen body: the first stage's statistics, or those of each batch (as in released code)."""

    @property
    def total_epochs(self) -> int:
        """How many epochs the second stage trains."""
        return self.second_stage.epochs

    @property
    def cost(self) -> str:
        """What the time of an epoch depends on, beside the data and the machine."""
        return f"a head on a frozen {self.model}"


class ClassifierRetrainingConfig(SecondStageConfig):
    """A new classifier."""

    method: Literal["crt"] = "crt"


class LearnedScalesConfig(SecondStageConfig):
    """A learned scale for each class."""

    method: Literal["lws"] = "lws"


class ClassifierRetraining(CrossEntropy):
    """cRT: a new linear head, cross-entropy on class-balanced images."""

    Config: ClassVar[type[StagedConfig]] = ClassifierRetrainingConfig

    def network(self) -> Any:
        """Build the network, its body frozen."""
        network = super().network()
        network.body.requires_grad_(False)
        return network

    def trained(self, network: Any) -> list[list[nn.Parameter]]:
        """Return what trains: the head."""
        return [[parameter for parameter in network.heads.parameters() if parameter.requires_grad]]

    def sgd(self) -> dict[str, float]:
        """Return the settings of SGD: lr, momentum, weight_decay."""
        stage = self.config.second_stage
        return {"lr": stage.lr, "momentum": self.config.momentum, "weight_decay": stage.weight_decay}

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate: divided by 10 at each drop."""
        stage = self.config.second_stage
        return float(stage.lr * 0.1 ** sum(epoch >= drop for drop in stage.lr_drops))

    def phase(self, epoch: int) -> str:
        """Name what the steps do."""
        return "second_stage"

    def streams(self, epoch: int) -> dict[str, np.ndarray | None]:
        """Return the one class-balanced stream, drawn independently of those of the first stage."""
        return {"second_stage": ops.class_weights(self.class_counts, 1.0)}

    def features(self, network: Any, images_bchw: Tensor) -> Tensor:
        """Return the last feature maps as a test sees them, or with the batch's statistics."""
        if self.config.batch_norm == "moving":
            return super().features(network, images_bchw)
        with models.evaluation_mode(network):
            return super().features(network, images_bchw)


class LearnedScales(ClassifierRetraining):
    """LWS: the logits of the first stage's head, each class times a scale that is learned from 1 on."""

    Config: ClassVar[type[StagedConfig]] = LearnedScalesConfig

    def network(self) -> Any:
        """Build the network; of its head the scales alone train."""
        network = super().network()
        network.heads["single"] = models.ScaledLinear(network.heads["single"].requires_grad_(False))
        return network

    def start_from(self, network: Any, parent: dict[str, Tensor]) -> None:
        """Take over the body, and the head that learned from uniformly drawn images where there are several."""
        super().start_from(network, parent)
        name = FIRST_STAGES[self.config.first_stage].heads[0]
        head = {key: parent[f"heads.{name}.{key}"] for key in ("weight", "bias")}
        network.heads["single"].linear.load_state_dict(head)
