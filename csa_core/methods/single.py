"""One branch and one head: cross-entropy, class-balanced re-sampling, logit adjustment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from csa_core import ops
from csa_core.config import Supervised
from csa_core.methods.base import Method, Setting, Stats, Watch
from csa_core.methods.keys import LogitAdjustmentKeys

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from csa_core.data.batch import Batch


class CrossEntropyConfig(Supervised):
    """Plain training."""

    method: Literal["ce"] = "ce"


class ClassBalancedConfig(Supervised):
    """Training on re-sampled images."""

    method: Literal["class_balanced"] = "class_balanced"
    balance_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Class c is drawn in proportion to n_c ** (1 - this) (gamma)."""


class LogitAdjustmentConfig(LogitAdjustmentKeys):
    """Training with the log prior added to the logits."""

    method: Literal["logit_adjustment"] = "logit_adjustment"


class CrossEntropy(Method):
    """Cross-entropy on uniformly drawn images."""

    Config: ClassVar[type[Supervised]] = CrossEntropyConfig

    def __init__(self, config: Any, setting: Setting) -> None:
        super().__init__(config, setting)
        self.criterion = ops.make_loss(self.loss_name(), self.class_counts, setting.device, config)
        """The loss of (logits, labels), see `csa_core.ops.losses`."""

    def loss_name(self) -> str:
        """Name the loss among `csa_core.ops.losses.LOSSES`."""
        return "cross_entropy"

    def loss(self, network: Any, batch: Batch, phase: str, watch: Watch) -> tuple[Tensor, Stats]:
        """Return the loss of the one branch, and scalars for the history."""
        ((images, labels),) = batch.streams.values()
        logits = network.head("single", self.features(network, images))
        loss = self.criterion(logits, labels)
        return loss, {"loss": loss.detach(), "correct": (logits.detach().argmax(1) == labels).sum()}


class ClassBalanced(CrossEntropy):
    """Cross-entropy on re-sampled images."""

    Config: ClassVar[type[Supervised]] = ClassBalancedConfig

    def streams(self, epoch: int) -> dict[str, np.ndarray | None]:
        """Return the one re-sampled stream."""
        return {"resampled": ops.class_weights(self.class_counts, self.config.balance_ratio)}


class LogitAdjustment(CrossEntropy):
    """Logit-adjusted cross-entropy on uniformly drawn images (Menon et al., 2021)."""

    Config: ClassVar[type[Supervised]] = LogitAdjustmentConfig

    def loss_name(self) -> str:
        """Name the loss."""
        return "logit_adjustment"
