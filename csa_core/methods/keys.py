"""Keys that several methods share: those of the losses, class weights, and when what is deferred starts."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from csa_core.config import Supervised

OF_LOSS: dict[str, set[str]] = {
    "cross_entropy": set(),
    "logit_adjustment": {"logit_adjustment_strength"},
    "focal": {"focal_exponent"},
    "vs": {"vs_exponent", "logit_adjustment_strength"},
    "ldam": {"ldam_margin", "ldam_scale"},
}
"""What each loss of `csa_core.ops.losses.LOSSES` reads."""


def unread_of_losses(config: Supervised, *names: str) -> set[str]:
    """Return the keys of losses that a configuration has and that none of the named ones reads."""
    every, read = set().union(*OF_LOSS.values()), set().union(*(OF_LOSS[name] for name in names))
    return every & set(type(config).model_fields) - read


class LogitAdjustmentKeys(Supervised):
    """Of logit adjustment."""

    logit_adjustment_strength: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the log prior (tau)."""


class FocalKeys(Supervised):
    """Of the focal loss."""

    focal_exponent: Annotated[float, Field(ge=0)] = 1.0
    """Focal loss: how strongly it discounts images that the network is sure of; 0 is cross-entropy (g)."""


class VsKeys(LogitAdjustmentKeys):
    """Of the vector-scaling loss."""

    vs_exponent: Annotated[float, Field(ge=0)] = 0.1
    """VS: the logit of class c is divided by (n_max / n_c) ** this; with logit_adjustment_strength 0 it is CDT."""


class LdamKeys(Supervised):
    """Of LDAM."""

    ldam_margin: Annotated[float, Field(ge=0, le=2)] = 0.5
    """LDAM: margin of the smallest class, in units of the cosine; class c has this times (n_min / n_c) ** (1/4)."""
    ldam_scale: Annotated[float, Field(gt=0)] = 30.0
    """LDAM: logits are this times the cosine between feature and class weight (s)."""


class DeferredKeys(Supervised):
    """Of what starts late in the training."""

    deferred_until: Annotated[int, Field(ge=0)] | None = None
    """Epochs before re-weighting or re-sampling starts; null is four fifths of them, as published (160 of 200)."""

    @property
    def start(self) -> int:
        """The first epoch, numbered from 0, with what was deferred."""
        return 4 * self.epochs // 5 if self.deferred_until is None else self.deferred_until

    @model_validator(mode="after")
    def _comes(self) -> Self:
        if self.start >= self.epochs and "deferred_until" not in self.unread():
            raise ValueError(
                f"deferred_until {self.start} never comes in {self.epochs} epochs; lower it, or leave it at null"
            )
        return self

    def read(self) -> dict[str, Any]:
        """Return what determines the result: the epoch itself, however it was given."""
        fields = super().read()
        return fields | ({"deferred_until": self.start} if "deferred_until" in fields else {})


class ReweightingKeys(DeferredKeys):
    """Of class weights in the loss."""

    reweighting: Literal["none", "always", "deferred"] = "none"
    """Weight classes by their effective number: never, in all epochs, or from deferred_until on (DRW)."""
    effective_number_beta: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    """Weight of class c = (1 - this) / (1 - this ** n_c), scaled to a mean of 1; near 1 it is 1 / n_c (beta)."""

    def unread(self) -> set[str]:
        """Return the keys that have no effect with the values of the others."""
        keys = {"none": {"effective_number_beta", "deferred_until"}, "always": {"deferred_until"}, "deferred": set()}
        return super().unread() | keys[self.reweighting]


class AnyLossKeys(LdamKeys, VsKeys, FocalKeys, ReweightingKeys):
    """Of a method that goes with any loss."""

    loss: Literal["cross_entropy", "logit_adjustment", "focal", "vs", "ldam"] = "cross_entropy"
    """What is minimised; logit_adjustment of strength 1 is the balanced softmax, ldam brings its cosine head."""

    def unread(self) -> set[str]:
        """Return the keys that have no effect with the values of the others."""
        return super().unread() | unread_of_losses(self, self.loss)
