"""mixup (Zhang et al., 2018), and what methods share that train on two images made one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from csa_core import data, ops
from csa_core.config import Supervised
from csa_core.methods.base import Stats, Watch
from csa_core.methods.keys import AnyLossKeys
from csa_core.methods.reweighting import Reweighting

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from csa_core.data.batch import Batch


class MixupKeys(AnyLossKeys):
    """Of pairs of images."""

    mixup_alpha: Annotated[float, Field(gt=0)] = 1.0
    """An image's share in its pair is drawn from Beta(this, this), once a step (alpha)."""


class MixupConfig(MixupKeys):
    """Training on pairs of images, mixed."""

    method: Literal["mixup"] = "mixup"


class Mixed(Reweighting):
    """Training on images that have two labels each."""

    def loss_name(self) -> str:
        """Name the loss."""
        name: str = self.config.loss
        return name

    def mixed(self, batch: Batch, phase: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return images, (B, 3, H, W), their two labels, (B,), and what the first counts, a scalar or (B,)."""
        raise NotImplementedError

    def loss(self, network: Any, batch: Batch, phase: str, watch: Watch) -> tuple[Tensor, Stats]:
        """Return the loss of the one branch, and scalars for the history: accuracy is by the first label.

        Of class weights each label has a weighted mean of its own, as in the released code of CMO; that of
        imbalanced-DL divides by the number of images.
        """
        images, labels, others, share = self.mixed(batch, phase)
        logits = network.head("single", self.features(network, images))
        loss = self.mean(logits, labels, phase, share) + self.mean(logits, others, phase, 1 - share)
        return self.counted(loss, logits, labels)


class Mixup(Mixed):
    """The images of a batch mixed with those of the same batch in another order."""

    Config: ClassVar[type[Supervised]] = MixupConfig

    def draws(self, generator: Callable[[str], np.random.Generator], steps: int) -> dict[str, np.ndarray]:
        """Return each image's partner in the whole batch, (steps, B), and its own share, (steps,) (lambda)."""
        config = self.config
        return data.draw_pairs(generator, config.mixup_alpha, steps, config.batch_size)

    def mixed(self, batch: Batch, phase: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return mixed images, their two labels, and the share of the first image."""
        images, labels = batch.streams["uniform"]
        others, their_labels = data.partners(images, labels, batch.draws["pairs"])
        share = batch.draws["share"]
        return ops.mixup(images, others, share), labels, their_labels, share
