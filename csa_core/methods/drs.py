"""Deferred re-sampling (DRS; Cao et al., 2019): images drawn uniformly, and at the end by class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from csa_core import ops
from csa_core.config import Supervised
from csa_core.methods.keys import DeferredKeys
from csa_core.methods.single import CrossEntropy

if TYPE_CHECKING:
    import numpy as np


class DrsConfig(DeferredKeys):
    """Training on images that are re-sampled from some epoch on."""

    method: Literal["drs"] = "drs"
    balance_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Class c is drawn in proportion to n_c ** (1 - this) (gamma)."""


class Drs(CrossEntropy):
    """Cross-entropy on uniformly drawn images, and on re-sampled ones from epoch `deferred_until`."""

    Config: ClassVar[type[Supervised]] = DrsConfig

    def phase(self, epoch: int) -> str:
        """Name what the steps do."""
        return "resampled" if epoch >= self.config.start else "single"

    def streams(self, epoch: int) -> dict[str, np.ndarray | None]:
        """Return the stream of images that the epoch's steps read."""
        if epoch < self.config.start:
            return {"uniform": None}
        return {"resampled": ops.class_weights(self.class_counts, self.config.balance_ratio)}
