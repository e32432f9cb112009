"""Context-shift augmentation: its keys, and Algorithm 1 in `Csa.loss`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from csa_core import data, models, ops
from csa_core.methods.base import Method, Row, Setting, Stats, Watch
from csa_core.methods.keys import FocalKeys, VsKeys, unread_of_losses
from csa_core.methods.shifted import check, check_possible, counts, remark

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from csa_core.data.batch import Batch

LossName = Literal["cross_entropy", "logit_adjustment", "focal", "vs"]
Mix = tuple[Literal["uniform", "beta"], float, float]


class CsaConfig(VsKeys, FocalKeys):
    """Training with context-shift augmentation. Defaults: the appendix's."""

    method: Literal["csa"] = "csa"
    warmup_epochs: Annotated[int, Field(ge=0)] = 10
    """First epochs that train the uniform branch alone."""
    plain_epochs: Annotated[int, Field(ge=0)] = 3
    """Last epochs without context shift, re-sampled images as they are."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Confidence from which a context enters the bank (delta)."""
    bank_batches: Annotated[int, Field(ge=0, le=1024)] = 1
    """Volume of the context bank in batches (V / B); 0 is csa without the bank."""
    bank_reset: Literal["never", "epoch"] = "never"
    """Empty the bank never (Algorithm 1) or at each epoch (released code)."""
    bank_start: Literal["full", "batch"] = "full"
    """Shift once the bank is full (Algorithm 1), or once it holds a batch (released code)."""
    mix: Mix = ("uniform", 0.0, 1.0)
    """Distribution of the mixing weight (lambda), [uniform, a, b] or [beta, a, b]."""
    activation_map: Literal["gradcam", "cam", "box"] = "gradcam"
    """How the object is found; box: not at all, and a random box takes its place, drawn as in CutMix and CMO."""
    mask_exponent: Annotated[float, Field(gt=0)] = 2.0
    """Background mask = (1 - activation map) ** this."""
    mask_forward: Literal["shared", "eval"] = "shared"
    """Mask and confidence from the training forward, or from a second one in eval mode."""
    balance_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Class c is drawn in proportion to n_c ** (1 - this) (gamma)."""
    uniform_loss: LossName = "cross_entropy"
    """Loss of the uniform branch (l_u)."""
    resampling_loss: LossName = "cross_entropy"
    """Loss of the re-sampling branch (l_b)."""
    resampling_prior: Literal["training_set", "sampled"] = "training_set"
    """Prior of its logit adjustment: n_c (Table 7), or n_c ** (1 - balance_ratio), how often the branch sees c."""
    uniform_mixup: Annotated[float, Field(ge=0)] = 0.0
    """mixup on the uniform branch, shares from Beta(this, this) (released code: 1.0), masks then by eval; 0 is none."""

    @field_validator("uniform_loss", "resampling_loss", mode="before")
    @classmethod
    def _has_a_linear_head(cls, name: Any) -> Any:
        if name == "ldam":
            raise ValueError(
                "ldam has a cosine head, and Grad-CAM in closed form and the confidence are of a linear one; "
                "use cross_entropy, logit_adjustment, focal or vs"
            )
        return name

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs} of {self.epochs} epochs: the head that predicts would never "
                "be trained; lower it"
            )
        if self.warmup_epochs + self.plain_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs + plain_epochs is {self.warmup_epochs + self.plain_epochs}, "
                f"more than epochs ({self.epochs}): lower one of the two"
            )
        if self.bank_batches and self.warmup_epochs + self.plain_epochs == self.epochs:
            raise ValueError(
                f"warmup_epochs + plain_epochs is all {self.epochs} epochs: none is left for the context shift; lower "
                "one of the two, or set bank_batches: 0"
            )
        name, a, b = self.mix
        if name == "uniform" and not 0 <= a <= b <= 1:
            raise ValueError(f"mix [uniform, {a}, {b}] needs 0 <= a <= b <= 1")
        if name == "beta" and not (a > 0 and b > 0):
            raise ValueError(f"mix [beta, {a}, {b}] needs a > 0 and b > 0")
        return self

    def unread(self) -> set[str]:
        """Return the keys that have no effect with the values of the others."""
        keys = super().unread()
        if self.bank_batches == 0:
            keys |= {"threshold", "bank_reset", "bank_start", "mix", "activation_map", "mask_forward", "mask_exponent"}
        if self.activation_map == "box":
            keys |= {"mask_exponent"}
        if self.uniform_mixup:  # the training forward sees mixed images, the masks are of whole ones
            keys |= {"mask_forward"}
        if self.resampling_loss not in ("logit_adjustment", "vs"):
            keys |= {"resampling_prior"}
        return keys | unread_of_losses(self, self.uniform_loss, self.resampling_loss)

    @property
    def cost(self) -> str:
        """What the time of an epoch depends on, beside the data and the machine."""
        return f"two branches of {self.model}"


class Csa(Method):
    """A uniform and a re-sampling branch on one body, and the context bank between them."""

    Config = CsaConfig
    heads: ClassVar[tuple[str, ...]] = ("uniform", "resampling")
    predicts: ClassVar[str] = "resampling"  # section C.3
    branches: ClassVar[int] = 2
    ensemble: ClassVar[bool] = True

    def __init__(self, config: CsaConfig, setting: Setting) -> None:
        super().__init__(config, setting)
        size, device = setting.dataset.image_size, setting.device
        self.bank = None
        if config.bank_batches:
            start = 1 if config.bank_start == "batch" else config.bank_batches
            self.bank = ops.make_bank(config.bank_batches, start, config.batch_size, size, device)
        self.uniform_loss = ops.make_loss(config.uniform_loss, self.class_counts, device, config)
        sampled = config.resampling_prior == "sampled"
        seen = ops.class_weights(self.class_counts, config.balance_ratio) if sampled else None
        self.resampling_loss = ops.make_loss(config.resampling_loss, self.class_counts, device, config, seen)

    def phase(self, epoch: int) -> str:
        """Name what the steps do: uniform branch alone; both; both without the shift."""
        if epoch < self.config.warmup_epochs:
            return "warmup"
        return "plain" if epoch >= self.config.epochs - self.config.plain_epochs else "context_shift"

    def start_epoch(self, epoch: int) -> None:
        """Empty the bank where it is the bank of one epoch."""
        if self.bank and self.config.bank_reset == "epoch":
            self.bank.empty()

    def streams(self, epoch: int) -> dict[str, np.ndarray | None]:
        """Return the uniform stream, and once the second branch trains the re-sampled one."""
        if self.phase(epoch) == "warmup":
            return {"uniform": None}
        return {"uniform": None, "resampled": ops.class_weights(self.class_counts, self.config.balance_ratio)}

    def draws(self, generator: Callable[[str], np.random.Generator], steps: int) -> dict[str, np.ndarray]:
        """Return places in the bank, none twice in a step, and mixing weights, (steps,) (lambda).

        Of a full bank they are (steps, B); with `bank_start: batch` (steps, V), an order of all places, whose
        first B that hold a context are taken. Every rank has them all: what is taken depends on the bank.
        With mixup the pairs of the uniform branch; with `activation_map: box` a box for each of its images.
        """
        config = self.config
        more: dict[str, np.ndarray] = {}
        if config.uniform_mixup:
            more |= data.draw_pairs(generator, config.uniform_mixup, steps, config.batch_size)
        if config.bank_batches and config.activation_map == "box":
            count, size = steps * config.batch_size, self.setting.dataset.image_size
            more["boxes"] = data.draw_boxes(generator("box"), count, 1.0, size)[0].reshape(steps, config.batch_size, 4)
        volume = max(config.bank_batches, 1) * config.batch_size
        places = data.draw_places(generator("bank"), steps, volume)
        places = places if config.bank_start == "batch" else places[:, : config.batch_size].copy()
        return {"places": places, "mix": data.draw_mix(generator("mix"), config.mix, steps)} | more

    def loss(self, network: Any, batch: Batch, phase: str, watch: Watch) -> tuple[Tensor, Stats]:
        """Return the loss of both modules on one batch each (lines 6-28), and scalars for the history.

        In `warmup` the uniform module works alone and already fills the bank; in `plain` the
        re-sampled images are not shifted and the bank rests.
        """
        bank = self.bank if phase != "plain" else None
        images, labels = batch.streams["uniform"]  # line 6

        # Uniform module (lines 8-16).
        features, logits, uniform_loss = self.uniform_module(network, batch, phase)
        confident = shifted = resampling_steps = labels.new_zeros(())
        if bank:
            is_confident, masks = self.find_contexts(network, batch, features, logits)
            watch("background mask", masks)
            bank.push(data.gather(images), data.gather(masks), data.gather(is_confident))  # line 13
            confident = is_confident.sum()

        # Balanced re-sampling module (lines 17-28).
        resampling_loss = uniform_loss.new_zeros(())
        if phase != "warmup" and (bank is None or bank.is_ready()):  # line 18
            resampled, their_labels = batch.streams["resampled"]  # line 7
            if bank:
                places = bank.places(batch.draws["places"], self.config.batch_size)
                contexts, masks = bank.draw(data.own_rows(places))  # line 19
                watch("image in the bank", contexts)
                watch("mask in the bank", masks)
                resampled = ops.context_shift(resampled, contexts, masks, batch.draws["mix"])  # lines 20-22
                shifted = labels.new_ones(())
            resampled_logits = network.head("resampling", self.features(network, resampled))
            resampling_loss = self.resampling_loss(resampled_logits, their_labels)
            resampling_steps = labels.new_ones(())

        return uniform_loss + resampling_loss, {
            "loss": uniform_loss.detach(),
            "resampling_loss": resampling_loss.detach(),
            "correct": (logits.detach().argmax(1) == labels).sum(),
            "confident": confident,
            "shifted": shifted,
            "resampling_steps": resampling_steps,
        }

    def uniform_module(self, network: Any, batch: Batch, phase: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return feature maps, logits and loss of the uniform module, in pairs where there is mixup.

        As in the released code, the last epochs, `plain`, have no mixup.
        """
        images, labels = batch.streams["uniform"]
        is_mixed = bool(self.config.uniform_mixup) and phase != "plain"
        if is_mixed:
            others, their_labels = data.partners(images, labels, batch.draws["pairs"])
            share = batch.draws["share"]
            images = ops.mixup(images, others, share)
        features = self.features(network, images)
        logits = network.head("uniform", features)
        loss = self.uniform_loss(logits, labels)
        if is_mixed:
            loss = share * loss + (1 - share) * self.uniform_loss(logits, their_labels)
        return features, logits, loss

    def find_contexts(self, network: Any, batch: Batch, features: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return which images are confident, (B,) bool (line 11), and background masks, (B, 1, H, W) (line 12)."""
        config = self.config
        images, labels = batch.streams["uniform"]
        size = (images.shape[2], images.shape[3])
        if config.mask_forward == "eval" or config.uniform_mixup:
            # The released code: a second forward, of whole images and without batch statistics.
            with models.evaluation_mode(network):
                features = self.features(network, images)
                logits = network.head("uniform", features)
        features, logits, weight = features.detach(), logits.detach(), network.weight("uniform").detach()
        confidence = logits.softmax(1).gather(1, labels[:, None])[:, 0]
        if config.activation_map == "box":
            masks = (~ops.inside(data.own_rows(batch.draws["boxes"]), size)).to(images.dtype)
        else:
            activation = ops.activation_map(features, weight, labels, config.activation_map)
            masks = ops.background_mask(ops.object_map(activation, size), config.mask_exponent)
        return confidence >= config.threshold, masks

    def is_steady(self, phase: str) -> bool:
        """Whether a step is the same operations as the one before: always, once the bank was ready."""
        return phase != "context_shift" or self.bank is None or self.bank.is_ready()

    def row(self, sums: dict[str, float], steps: int) -> dict[str, Any]:
        """Return a line of the history from the sums over the steps of an epoch."""
        return super().row(sums, steps) | {
            "resampling_loss": sums["resampling_loss"] / steps,
            "confident": sums["confident"] / (steps * self.config.batch_size),
            "bank_fill": float(self.bank.fill()) / self.bank.volume if self.bank else 0.0,
            "shifted": int(sums["shifted"]),
            "resampling_steps": int(sums["resampling_steps"]),
            "steps": steps,
        }

    def check(self, history: list[Row]) -> None:
        """See that the context shift, and the head that predicts, had the steps that they need by now."""
        check(self.config, history)

    def counts(self, history: list[Row]) -> dict[str, int]:
        """Return the steps with context shift, and those of its phase."""
        return counts(history)

    def remark(self, history: list[Row]) -> str | None:
        """Return a line for a person where few steps had context shift."""
        return remark(self.config, history)

    def state(self) -> dict[str, Tensor]:
        """Return the bank."""
        return {f"bank/{name}": tensor for name, tensor in self.bank.state().items()} if self.bank else {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over a bank."""
        if self.bank:
            self.bank.load({name.removeprefix("bank/"): tensor for name, tensor in state.items()})

    @classmethod
    def check_possible(cls, config: CsaConfig, images: int, size: tuple[int, int]) -> None:
        """See that enough of the training images pass by the bank to fill it, and that they have a background."""
        if config.bank_batches:
            check_possible(config, images, size)

    @classmethod
    def memory(cls, config: CsaConfig, size: tuple[int, int]) -> str:
        """Say what takes memory in a run on images of `size`, by its keys."""
        if not config.bank_batches:
            return super().memory(config, size)
        taken = ops.bank_bytes(config.bank_batches * config.batch_size, size)
        bank = f"a context bank of {taken:,} bytes (bank_batches {config.bank_batches})"
        return f"{super().memory(config, size)} and {bank}"
