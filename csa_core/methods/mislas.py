"""The second stage of MiSLAS (Zhong et al., 2021): calibrated where the head classes are over-confident.

A copy of the first stage's head learns on with a scale for each class, from class-balanced images and with labels that
are smoothed more the more images their class has. The body's weights are frozen; its batch norm is not: it computes
with the statistics of class-balanced batches, and the running ones move to them (the paper's "shift learning"). The
paper's first stage is mixup; whichever method `first_stage` names is taken.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from csa_core import ops
from csa_core.config import Strict
from csa_core.methods.base import Setting
from csa_core.methods.first_stage import StagedConfig
from csa_core.methods.second_stage import ClassifierRetraining, LearnedScales

if TYPE_CHECKING:
    from torch import Tensor, nn


class CalibrationConfig(Strict):
    """The second stage. Defaults: the released configuration for CIFAR100-LT, ratio 100, with 200 epochs before it."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Epochs of class-balanced images, each as many as the training set has."""
    lr: Annotated[float, Field(gt=0)] = 0.1
    """Learning rate of SGD at the start, for the scales; it falls to zero along a cosine."""
    head_lr_factor: Annotated[float, Field(gt=0)] = 0.2
    """The head learns at this times that rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 2e-4
    """Weight decay of SGD, on the weights that are trained."""
    smooth_head: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Share of its label that the largest class gives to the others; classes between follow a sine."""
    smooth_tail: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of its label that the smallest class gives to the others."""

    @model_validator(mode="after")
    def _head_is_smoothed_more(self) -> Self:
        if self.smooth_head < self.smooth_tail:
            raise ValueError(f"smooth_head {self.smooth_head} is below smooth_tail {self.smooth_tail}; raise it")
        return self


class MislasConfig(StagedConfig):
    """Label-aware smoothing and learned scales."""

    method: Literal["mislas"] = "mislas"
    mislas: CalibrationConfig = CalibrationConfig()
    """Second stage of MiSLAS."""

    @property
    def total_epochs(self) -> int:
        """How many epochs the second stage trains."""
        return self.mislas.epochs

    @property
    def cost(self) -> str:
        """What the time of an epoch depends on, beside the data and the machine."""
        return f"a head on a frozen {self.model}"


class Mislas(LearnedScales):
    """The first stage's head and a scale for each class, label-aware smoothing on class-balanced images."""

    Config: ClassVar[type[StagedConfig]] = MislasConfig

    def __init__(self, config: Any, setting: Setting) -> None:
        super().__init__(config, setting)
        stage, device = config.mislas, setting.device
        self.criterion = ops.label_aware_loss(self.class_counts, stage.smooth_head, stage.smooth_tail, device)

    def network(self) -> Any:
        """Build the network; head and scales train."""
        network = super().network()
        network.heads.requires_grad_(True)
        return network

    def trained(self, network: Any) -> list[list[nn.Parameter]]:
        """Return what trains: the head, and the scales at a rate of their own."""
        head = network.heads["single"]
        return [list(head.linear.parameters()), [head.scale]]

    def rate_factors(self) -> list[float]:
        """Return what the learning rates of head and scales are multiplied by."""
        return [self.config.mislas.head_lr_factor, 1.0]

    def sgd(self) -> dict[str, float]:
        """Return the settings of SGD: lr, momentum, weight_decay."""
        stage = self.config.mislas
        return {"lr": stage.lr, "momentum": self.config.momentum, "weight_decay": stage.weight_decay}

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate of the scales: half a cosine from its start to zero."""
        stage = self.config.mislas
        return float(stage.lr * (1 + math.cos(math.pi * epoch / stage.epochs)) / 2)

    def features(self, network: Any, images_bchw: Tensor) -> Tensor:
        """Return the last feature maps with the batch's statistics, to which the running ones move."""
        return super(ClassifierRetraining, self).features(network, images_bchw)
