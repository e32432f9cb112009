"""The plan of an epoch: every random pick, drawn before the first step.

A step is then a pure function of the run's state and its slice of the plan: nothing random happens
inside, an epoch can be repeated or resumed exactly, and every step has the same shapes.
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from csa_core.config import RunConfig
from csa_core.data.streams import keyed_generator

# Uniform numbers for an image of a list: 10 tries of a crop's area and of its aspect, its place (2), flip, the
# strengths (3) and the order (3) of brightness, contrast and saturation.
LISTED_DRAWS = 29


@dataclass(frozen=True)
class Picks:
    """Which images, and how each is cropped and flipped; every field is (steps, B) or (B,).

    `index` counts within the long-tailed training set; `top` and `left` are pixels into the
    zero-padded image.
    """

    index: Tensor
    top: Tensor
    left: Tensor
    flip: Tensor

    def __getitem__(self, part: Any) -> "Picks":
        return Picks(self.index[part], self.top[part], self.left[part], self.flip[part])


@dataclass(frozen=True)
class ListedPicks:
    """The same for images of a list, whose sizes are not known before they are decoded.

    `draws`, (..., 29) float32, are the uniform numbers that crop, flip and jitter are made from.
    """

    index: Tensor
    draws: Tensor

    def __getitem__(self, part: Any) -> "ListedPicks":
        return ListedPicks(self.index[part], self.draws[part])


P = TypeVar("P", Picks, ListedPicks)


@dataclass(frozen=True)
class EpochPlan(Generic[P]):
    """All picks of one epoch, on the run's device; `slot` and `mix` serve the context shift."""

    uniform: P
    """A fresh permutation of the training set, completed to whole batches with its own start."""
    resampled: P
    """Images drawn with replacement, class c in proportion to n_c ** (1 - balance_ratio)."""
    slot: Tensor
    """(steps, B) int64: places in the full bank, without repetition within a step (line 19). With bank_start: batch
    (steps, V): an order of all places, whose first B that hold a context are taken."""
    mix: Tensor
    """(steps,) float32: one mixing weight a step (lambda, line 20)."""

    @property
    def steps(self) -> int:
        """Steps in the epoch."""
        return len(self.uniform.index)

    def of_step(self, number_1: Tensor) -> "EpochPlan[P]":
        """Return the plan of one step, whose number, (1,) int64, lies on the device and is not asked for."""
        return EpochPlan(self.uniform[number_1], self.resampled[number_1], self.slot[number_1], self.mix[number_1])

    def copy_(self, other: "EpochPlan[P]") -> None:
        """Take over the picks of another epoch, in place."""
        for mine, theirs in zip(self._tensors(), other._tensors(), strict=True):
            mine.copy_(theirs)

    def _tensors(self) -> list[Tensor]:
        return [*vars(self.uniform).values(), *vars(self.resampled).values(), self.slot, self.mix]

    def of_rank(self, rank: int, ranks: int) -> "EpochPlan[P]":
        """Return the plan of one of several ranks: its part of every batch, in the order of the ranks.

        `slot` stays whole: which places a batch takes may depend on what the bank holds at its step.
        """
        each = self.uniform.index.shape[1] // ranks
        part = (slice(None), slice(rank * each, (rank + 1) * each))
        return EpochPlan(self.uniform[part], self.resampled[part], self.slot, self.mix)


def plan_epoch(config: RunConfig, class_counts: np.ndarray, epoch: int, device: torch.device) -> EpochPlan[Any]:
    """Draw the plan of one epoch (numbered from 0): ceil(N / B) steps of exactly B images."""
    batch, images = config.batch_size, int(class_counts.sum())
    steps = -(-images // batch)
    size = steps * batch

    def generator(stream: str) -> np.random.Generator:
        return keyed_generator(config.seed, stream, epoch)

    def picks(rng: np.random.Generator, index: np.ndarray) -> Picks | ListedPicks:
        if config.data.source == "image_list":
            draws = rng.random((size, LISTED_DRAWS), dtype=np.float32)
            draws[:, 22] += not config.horizontal_flip  # below a half it is flipped
            drawn = draws.reshape(steps, batch, LISTED_DRAWS)
            return ListedPicks(torch.from_numpy(index.reshape(steps, batch)), torch.from_numpy(drawn))
        top, left = rng.integers(0, 2 * config.crop_padding + 1, (2, size))
        flip = (rng.random(size) < 0.5) & config.horizontal_flip
        return Picks(*(torch.from_numpy(a.reshape(steps, batch)).to(device) for a in (index, top, left, flip)))

    uniform, resampled = generator("uniform"), generator("resampled")
    permutation = np.resize(uniform.permutation(images), size)
    volume = max(config.bank_batches, 1) * batch
    slots = generator("bank").random((steps, volume)).argsort(axis=1)
    slots = slots if config.bank_start == "batch" else slots[:, :batch]
    return EpochPlan(
        picks(uniform, permutation),
        picks(resampled, draw_resampled(resampled, class_counts, config.balance_ratio, size)),
        torch.from_numpy(slots.copy()).to(device),
        torch.from_numpy(draw_mix(generator("mix"), config.mix, steps)).to(device),
    )


def draw_resampled(rng: np.random.Generator, class_counts: np.ndarray, balance_ratio: float, size: int) -> np.ndarray:
    """Draw `size` images with replacement: a class, then an image of it uniformly; (size,) int64.

    Class c comes with probability proportional to n_c ** (1 - balance_ratio): 1 is class-balanced,
    0 uniform over images. Images are numbered class by class, as `Split.indices` has them.
    """
    weight = class_counts.astype(np.float64) ** (1 - balance_ratio)
    classes = rng.choice(len(class_counts), size, p=weight / weight.sum())
    first = np.cumsum(class_counts) - class_counts
    return first[classes] + (rng.random(size) * class_counts[classes]).astype(np.int64)


def draw_mix(rng: np.random.Generator, mix: tuple[str, float, float], size: int) -> np.ndarray:
    """Draw `size` mixing weights from [uniform, a, b] or [beta, a, b]; (size,) float32 in [0, 1]."""
    name, a, b = mix
    drawn = rng.uniform(a, b, size) if name == "uniform" else rng.beta(a, b, size)
    return drawn.astype(np.float32)
