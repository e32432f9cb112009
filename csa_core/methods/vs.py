"""The vector-scaling loss (VS), and class-dependent temperatures (CDT), which are VS without the log prior."""

from typing import ClassVar, Literal

from csa_core.config import Supervised
from csa_core.methods.keys import ReweightingKeys, VsKeys
from csa_core.methods.reweighting import Reweighting


class VsConfig(VsKeys, ReweightingKeys):
    """Training with logits scaled and shifted by class."""

    method: Literal["vs"] = "vs"


class Vs(Reweighting):
    """Vector-scaling loss (Kini et al., 2021); at logit_adjustment_strength 0: CDT (Ye et al., 2020)."""

    Config: ClassVar[type[Supervised]] = VsConfig

    def loss_name(self) -> str:
        """Name the loss."""
        return "vs"
