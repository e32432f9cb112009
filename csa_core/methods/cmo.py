"""CMO (Park et al., 2022): a box of a re-sampled image pasted onto a uniformly drawn one, which is its context."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from csa_core import data, ops
from csa_core.config import Supervised
from csa_core.methods.base import Stats, Watch
from csa_core.methods.keys import AnyLossKeys
from csa_core.methods.mixup import Mixed
from csa_core.methods.reweighting import Reweighting

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from csa_core.data.batch import Batch

Epochs = Annotated[int, Field(ge=0)]


class CmoConfig(AnyLossKeys):
    """Training on images with a box of another one."""

    method: Literal["cmo"] = "cmo"
    paste_probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the steps whose images get a box."""
    paste_alpha: Annotated[float, Field(gt=0)] = 1.0
    """What the box leaves of an image is drawn from Beta(this, this), before the box is cut at the image's edge."""
    unpasted_epochs: tuple[Epochs, Epochs] | None = None
    """First and last epochs without boxes; null is in proportion to the published 4 and 3 of 200."""
    balance_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The image of the box is of class c in proportion to n_c ** (1 - this); 1 draws images by 1 / n_c (gamma)."""

    @property
    def unpasted(self) -> tuple[int, int]:
        """First and last epochs without boxes."""
        return self.unpasted_epochs or (round(4 * self.epochs / 200), round(3 * self.epochs / 200))

    @model_validator(mode="after")
    def _pastes(self) -> Self:
        if sum(self.unpasted) >= self.epochs:
            raise ValueError(
                f"unpasted_epochs {list(self.unpasted)} are all {self.epochs} epochs: none is left with boxes; lower"
                " one of the two"
            )
        return self

    def read(self) -> dict[str, Any]:
        """Return what determines the result: the epochs themselves, however they were given."""
        return super().read() | {"unpasted_epochs": list(self.unpasted)}


class Cmo(Mixed):
    """Context-rich minority oversampling.

    Epochs are counted from 0: with 200 of them boxes are pasted in 4 to 196, as in the released code. That draws
    images with weight 1 / n, and so classes alike.
    """

    Config: ClassVar[type[Supervised]] = CmoConfig

    def kind(self, epoch: int) -> str:
        """Name what the steps do: whether some paste boxes."""
        first, last = self.config.unpasted
        return "pasting" if first <= epoch < self.config.epochs - last else "single"

    def streams(self, epoch: int) -> dict[str, np.ndarray | None]:
        """Return the uniform stream, and where boxes are pasted that of the images that they are of."""
        if self.kind(epoch) == "single":
            return {"uniform": None}
        return {"uniform": None, "foreground": ops.class_weights(self.class_counts, self.config.balance_ratio)}

    def draws(self, generator: Callable[[str], np.random.Generator], steps: int) -> dict[str, np.ndarray]:
        """Return the box of each step, (steps, 4), empty where none is pasted, and what it leaves, (steps,)."""
        config, size = self.config, self.setting.dataset.image_size
        boxes, kept = data.draw_boxes(generator("box"), steps, config.paste_alpha, size)
        is_left_out = generator("paste").random(steps) >= config.paste_probability
        boxes[is_left_out], kept[is_left_out] = 0, 1
        return {"box": boxes, "share": kept}

    def loss(self, network: Any, batch: Batch, phase: str, watch: Watch) -> tuple[Tensor, Stats]:
        """Return the loss of the one branch, of two labels where boxes are pasted, and scalars for the history."""
        if "foreground" in batch.streams:
            return super().loss(network, batch, phase, watch)
        return Reweighting.loss(self, network, batch, phase, watch)

    def mixed(self, batch: Batch, phase: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return images with a box, the labels of image and box, and the share of the image."""
        images, labels = batch.streams["uniform"]
        foreground, their_labels = batch.streams["foreground"]
        pasted = ops.paste(images, foreground, batch.draws["box"])
        return pasted, labels, their_labels, batch.draws["share"]
