"""The focal loss, and with class weights the class-balanced one."""

from typing import ClassVar, Literal

from csa_core.config import Supervised
from csa_core.methods.keys import FocalKeys, ReweightingKeys
from csa_core.methods.reweighting import Reweighting


class FocalConfig(FocalKeys, ReweightingKeys):
    """Training with the focal loss."""

    method: Literal["focal"] = "focal"


class Focal(Reweighting):
    """Focal loss in its softmax form (Lin et al., 2017); `reweighting: always`: class-balanced (Cui et al., 2019)."""

    Config: ClassVar[type[Supervised]] = FocalConfig

    def loss_name(self) -> str:
        """Name the loss."""
        return "focal"
