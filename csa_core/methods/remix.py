"""Remix (Chou et al., 2020): mixup whose labels favour the smaller class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from csa_core import ops
from csa_core.config import Supervised
from csa_core.methods.base import Setting
from csa_core.methods.mixup import Mixup, MixupKeys

if TYPE_CHECKING:
    from torch import Tensor

    from csa_core.data.batch import Batch


class RemixConfig(MixupKeys):
    """Training on pairs of images, mixed, the smaller class favoured."""

    method: Literal["remix"] = "remix"
    remix_ratio: Annotated[float, Field(gt=1)] = 3.0
    """How many times larger the one class must be than the other for its label to yield (kappa)."""
    remix_limit: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the pixels below which the label of the larger class does not count (tau)."""


class Remix(Mixup):
    """mixup, but where one class is much smaller and has most of the pixels the label is its alone."""

    Config: ClassVar[type[Supervised]] = RemixConfig

    def __init__(self, config: Any, setting: Setting) -> None:
        super().__init__(config, setting)
        self.sizes = ops.class_sizes(self.class_counts, setting.device)

    def mixed(self, batch: Batch, phase: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return mixed images, their two labels, and what the first label of each counts."""
        images, labels, others, share = super().mixed(batch, phase)
        config, sizes = self.config, self.sizes
        favoured = ops.remix_share(share, sizes[labels], sizes[others], config.remix_ratio, config.remix_limit)
        return images, labels, others, favoured
