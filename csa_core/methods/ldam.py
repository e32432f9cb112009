"""Label-distribution-aware margins: LDAM, and with deferred class weights LDAM-DRW."""

from typing import ClassVar, Literal

from csa_core.config import Supervised
from csa_core.methods.keys import LdamKeys, ReweightingKeys
from csa_core.methods.reweighting import Reweighting


class LdamConfig(LdamKeys, ReweightingKeys):
    """Training with a margin for each class."""

    method: Literal["ldam"] = "ldam"


class Ldam(Reweighting):
    """Margins Delta_k = m (n_min / n_k)^(1/4) on a cosine head (Cao et al., 2019); deferred weights: LDAM-DRW.

    The released code trains with lr 0.1 and divides it by 100 at epochs 160 and 180; here the protocol's
    schedule holds, as for every method.
    """

    Config: ClassVar[type[Supervised]] = LdamConfig

    def loss_name(self) -> str:
        """Name the loss."""
        return "ldam"
