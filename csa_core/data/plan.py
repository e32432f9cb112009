"""The plan of an epoch: every random pick, drawn before the first step.

A step is then a pure function of the run's state and its slice of the plan: nothing random happens
inside, an epoch can be repeated or resumed exactly, and every step has the same shapes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from csa_core.config import Supervised
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


P = TypeVar("P")


@dataclass(frozen=True)
class EpochPlan(Generic[P]):
    """All picks of one epoch, on the run's device, by the names that the method gave them."""

    streams: dict[str, P]
    """How the images of each stream are picked; every field is (steps, B, ...)."""
    draws: dict[str, Tensor]
    """What else is drawn, (steps, ...)."""

    @property
    def steps(self) -> int:
        """Steps in the epoch."""
        first: Any = next(iter(self.streams.values()))
        return len(first.index)

    def of_step(self, number_1: Tensor) -> "EpochPlan[P]":
        """Return the plan of one step, whose number, (1,) int64, lies on the device and is not asked for."""
        streams: dict[str, Any] = {name: picks[number_1] for name, picks in self.streams.items()}  # type: ignore[index]
        return EpochPlan(streams, {name: drawn[number_1] for name, drawn in self.draws.items()})

    def of_rank(self, rank: int, ranks: int) -> "EpochPlan[P]":
        """Return the plan of one of several ranks: its part of every batch, in the order of the ranks.

        Draws stay whole: what a batch takes of them may depend on what the bank holds at its step.
        """
        batch = next(iter(self.streams.values())).index.shape[1]  # type: ignore[attr-defined]
        part: Any = (slice(None), slice(rank * (batch // ranks), (rank + 1) * (batch // ranks)))
        return EpochPlan({name: picks[part] for name, picks in self.streams.items()}, self.draws)  # type: ignore[index]

    def copy_(self, other: "EpochPlan[P]") -> None:
        """Take over the picks of another epoch, in place."""
        for mine, theirs in zip(self._tensors(), other._tensors(), strict=True):
            mine.copy_(theirs)

    def _tensors(self) -> list[Tensor]:
        return [tensor for picks in self.streams.values() for tensor in vars(picks).values()] + [*self.draws.values()]


def plan_epoch(
    config: Supervised,
    class_counts: np.ndarray,
    streams: dict[str, np.ndarray | None],
    draws: Callable[[Callable[[str], np.random.Generator], int], dict[str, np.ndarray]],
    epoch: int,
    device: torch.device,
) -> EpochPlan[Any]:
    """Draw the plan of one epoch (numbered from 0): ceil(N / B) steps of exactly B images.

    Args:
        streams: class weights, (K,), of a stream that is drawn with replacement; None stands for a fresh
            permutation of the training set, completed to whole batches with its own start.
        draws: what else to draw, see `csa_core.methods.base.Method.draws`.
    """
    batch, images = config.batch_size, int(class_counts.sum())
    steps = -(-images // batch)
    size = steps * batch

    def generator(name: str) -> np.random.Generator:
        return keyed_generator(config.seed, name, epoch)

    def picks(rng: np.random.Generator, index: np.ndarray) -> Picks | ListedPicks:
        if config.data.source == "image_list":
            draws = rng.random((size, LISTED_DRAWS), dtype=np.float32)
            draws[:, 22] += not config.horizontal_flip  # below a half it is flipped
            drawn = draws.reshape(steps, batch, LISTED_DRAWS)
            return ListedPicks(torch.from_numpy(index.reshape(steps, batch)), torch.from_numpy(drawn))
        top, left = rng.integers(0, 2 * config.crop_padding + 1, (2, size))
        flip = (rng.random(size) < 0.5) & config.horizontal_flip
        return Picks(*(torch.from_numpy(a.reshape(steps, batch)).to(device) for a in (index, top, left, flip)))

    planned = {}
    for name, weights in streams.items():
        rng = generator(name)
        if weights is None:
            planned[name] = picks(rng, np.resize(rng.permutation(images), size))
        else:
            planned[name] = picks(rng, draw_resampled(rng, class_counts, weights, size))
    others = {name: torch.from_numpy(drawn).to(device) for name, drawn in draws(generator, steps).items()}
    return EpochPlan(planned, others)


def draw_resampled(rng: np.random.Generator, class_counts: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Draw `size` images with replacement: a class by its weight, then an image of it uniformly; (size,) int64.

    Images are numbered class by class, as `Split.indices` has them.
    """
    classes = rng.choice(len(class_counts), size, p=weights / weights.sum())
    first = np.cumsum(class_counts) - class_counts
    return first[classes] + (rng.random(size) * class_counts[classes]).astype(np.int64)


def draw_places(rng: np.random.Generator, steps: int, volume: int) -> np.ndarray:
    """Draw an order of all places of a bank for each step; (steps, volume) int64."""
    return rng.random((steps, volume)).argsort(axis=1)


def draw_mix(rng: np.random.Generator, mix: tuple[str, float, float], size: int) -> np.ndarray:
    """Draw `size` mixing weights from [uniform, a, b] or [beta, a, b]; (size,) float32 in [0, 1]."""
    name, a, b = mix
    drawn = rng.uniform(a, b, size) if name == "uniform" else rng.beta(a, b, size)
    return drawn.astype(np.float32)


def draw_pairs(
    generator: Callable[[str], np.random.Generator], alpha: float, steps: int, batch: int
) -> dict[str, np.ndarray]:
    """Draw for each step every image's partner, a permutation of the batch, and an image's share from a beta law.

    Returns:
        `pairs`, (steps, batch) int64, and `share`, (steps,) float32 in [0, 1].
    """
    share = draw_mix(generator("mixup"), ("beta", alpha, alpha), steps)
    return {"pairs": draw_places(generator("pairs"), steps, batch), "share": share}


def draw_boxes(
    rng: np.random.Generator, count: int, alpha: float, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw boxes as CutMix does, and what each leaves of an image.

    A box has the sides of the image times sqrt(1 - lambda), lambda from Beta(alpha, alpha), and a centre that is
    uniform over the pixels; what sticks out is cut off.

    Returns:
        Top, bottom, left, right, (count, 4) int64, bottom and right the first pixels beyond; and the share of
        the pixels outside it, (count,) float32: lambda corrected to the area.
    """
    side = np.sqrt(1 - rng.beta(alpha, alpha, count))
    edges = []
    for length in size:
        centre, half = rng.integers(0, length, count), (length * side).astype(np.int64) // 2
        edges += [np.clip(centre - half, 0, length), np.clip(centre + half, 0, length)]
    top, bottom, left, right = edges
    kept = 1 - (bottom - top) * (right - left) / (size[0] * size[1])
    return np.stack(edges, axis=1), kept.astype(np.float32)
