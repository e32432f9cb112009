"""Class weights in the loss, throughout or late: re-weighting and DRW, and what other losses build on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from csa_core import data, models, ops
from csa_core.config import Supervised
from csa_core.methods.base import Setting, Stats, Watch
from csa_core.methods.keys import ReweightingKeys
from csa_core.methods.single import CrossEntropy

if TYPE_CHECKING:
    from torch import Tensor

    from csa_core.data.batch import Batch

WEIGHTED = "reweighted"


class ReweightingConfig(ReweightingKeys):
    """Training with weights by class."""

    method: Literal["reweighting"] = "reweighting"
    reweighting: Literal["always", "deferred"] = "always"
    """Weight classes by their effective number in all epochs, or from deferred_until on (DRW)."""


class Reweighting(CrossEntropy):
    """Cross-entropy weighted by the effective number of a class (Cui et al., 2019); deferred: DRW (Cao et al., 2019).

    The paper of DRW weighs by 1 / n, its code as here.
    """

    Config: ClassVar[type[Supervised]] = ReweightingConfig

    def __init__(self, config: Any, setting: Setting) -> None:
        super().__init__(config, setting)
        self.weights = ops.effective_number_weights(self.class_counts, config.effective_number_beta, setting.device)
        self.starts: float = {"none": float("inf"), "always": 0, "deferred": config.start}[config.reweighting]

    def network(self) -> Any:
        """Build the network, with a cosine head where the loss is LDAM."""
        scale = self.config.ldam_scale if self.loss_name() == "ldam" else None
        classes = len(self.setting.dataset.class_names)
        return models.make_network(self.config.model, self.heads, classes, self.config.seed, scale)

    def phase(self, epoch: int) -> str:
        """Name what the steps do, and whether classes weigh differently."""
        kind = self.kind(epoch)
        if epoch < self.starts:
            return kind
        return WEIGHTED if kind == "single" else f"{kind}_{WEIGHTED}"

    def kind(self, epoch: int) -> str:
        """Name what the steps do, whatever classes weigh."""
        return "single"

    def loss(self, network: Any, batch: Batch, phase: str, watch: Watch) -> tuple[Tensor, Stats]:
        """Return the loss of the one branch, and scalars for the history."""
        images, labels = batch.streams["uniform"]
        logits = network.head("single", self.features(network, images))
        return self.counted(self.mean(logits, labels, phase), logits, labels)

    def mean(self, logits: Tensor, labels: Tensor, phase: str, share: Tensor | None = None) -> Tensor:
        """Return the mean of the losses, by class weights where the phase has them, times what each label counts.

        With weights it is the weighted mean over the batch of all ranks, as torch has it: the sum of the weighted
        losses over the sum of the weights.

        Args:
            share: what the label counts, a scalar or (B,), 1 where it is not given.
        """
        weights = self.weights if phase.endswith(WEIGHTED) else None
        if weights is None and share is None:
            return self.criterion(logits, labels)
        each = self.criterion(logits, labels, weight=weights, reduction="none")
        mean: Tensor = (each if share is None else share * each).mean()
        return mean if weights is None else mean / weights[data.gather(labels)].mean()

    def counted(self, loss: Tensor, logits: Tensor, labels: Tensor) -> tuple[Tensor, Stats]:
        """Return a loss, and scalars for the history."""
        return loss, {"loss": loss.detach(), "correct": (logits.detach().argmax(1) == labels).sum()}
