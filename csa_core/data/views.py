"""The two views of SimSiam: random resized crop, flip, colour jitter and grey, each image with its own picks.

The picks of an epoch are drawn up front, like those of supervised training; applying them to a
batch is tensor work of one shape. Crops are torchvision's (checked against it image by image);
colours are kornia's, whose functions take a factor for each image where torchvision takes one for all.
"""

import math
from dataclasses import dataclass, fields
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from csa_core.config import PretrainingConfig
from csa_core.data.plan import EpochPlan
from csa_core.data.streams import keyed_generator

# Chen and He, 2021, appendix D, without blur: strengths of brightness, contrast, saturation and hue.
JITTER = np.array([0.4, 0.4, 0.4, 0.1])
JITTER_SHARE, GREY_SHARE = 0.8, 0.2
ASPECTS = (3 / 4, 4 / 3)
ORDERS = np.array(list(permutations(range(4))))  # in which the four changes of colour may come


@dataclass(frozen=True)
class View:
    """How one view of each image is made; every field is (steps, B, ...) or (B, ...)."""

    index: Tensor
    """Which images, counted within the long-tailed training set."""
    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    """The crop, in pixels."""
    flip: Tensor
    is_jittered: Tensor
    is_grey: Tensor
    factor: Tensor
    """(..., 4) float32: brightness, contrast, saturation (1 changes nothing) and hue (0 changes nothing)."""
    order: Tensor
    """A permutation of the batch: image order[j] has its colours changed in the order ORDERS[j % 24]."""

    def __getitem__(self, part: Any) -> "View":
        return View(*(getattr(self, field.name)[part] for field in fields(self)))


def plan_views(
    recipe: PretrainingConfig,
    seed: int,
    flip: bool,
    images: int,
    size: tuple[int, int],
    epoch: int,
    device: torch.device,
) -> EpochPlan[View]:
    """Draw the plan of one epoch (numbered from 0) over `images` training images of `size` pixels.

    Streams `first` and `second` are two views of the same images: a fresh permutation of the training set,
    without what does not fill a batch. Draw `index` says which images they are, (steps, B).
    """
    batch = recipe.batch_size
    steps = images // batch
    permutation = keyed_generator(seed, "pretraining", epoch).permutation(images)[: steps * batch]
    index = torch.from_numpy(permutation.reshape(steps, batch)).to(device)
    rng = keyed_generator(seed, "views", epoch)

    def view() -> View:
        drawn = _draw_views(rng, steps * batch, size, recipe.smallest_crop, flip)
        # Every order as often as any other, so that each step has the same shapes.
        drawn.append(rng.random((steps, batch)).argsort(axis=1).ravel())
        return View(index, *(torch.from_numpy(a.reshape(steps, batch, *a.shape[1:])).to(device) for a in drawn))

    return EpochPlan({"first": view(), "second": view()}, {"index": index})


def _draw_views(
    rng: np.random.Generator, count: int, size: tuple[int, int], smallest: float, flip: bool
) -> list[np.ndarray]:
    """Draw the fields of `View` for `count` images, all but `index` and `order`."""
    factor = 1 + rng.uniform(-1, 1, (count, 4)) * JITTER
    factor[:, 3] -= 1
    return [
        *crop_boxes(rng.random((count, 22)), np.array(size[0]), np.array(size[1]), smallest),
        (rng.random(count) < 0.5) & flip,
        rng.random(count) < JITTER_SHARE,
        rng.random(count) < GREY_SHARE,
        factor.astype(np.float32),
    ]


def crop_boxes(
    uniform: np.ndarray, full_height: np.ndarray, full_width: np.ndarray, smallest: float
) -> list[np.ndarray]:
    """Turn uniform numbers into random resized crops: top, left, height and width, each (N,) int64.

    As torchvision draws them: a share of the area from [smallest, 1] and an aspect ratio from
    [3/4, 4/3], uniform in its logarithm; the first of ten tries that fits, else the whole image cut
    to the nearest of these ratios.

    Args:
        uniform: (N, 22) in [0, 1): ten tries of the share, ten of the aspect, and the place.
        full_height, full_width: sizes of the images, (N,) or scalars.
        smallest: smallest share of the area.
    """
    count = len(uniform)
    height, width = (np.broadcast_to(size, count).astype(np.float64) for size in (full_height, full_width))
    area = (height * width)[:, None] * (smallest + (1 - smallest) * uniform[:, :10])
    low, high = np.log(ASPECTS)
    aspect = np.exp(low + (high - low) * uniform[:, 10:20])
    wide, tall = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (wide > 0) & (wide <= width[:, None]) & (tall > 0) & (tall <= height[:, None])
    first, none = (np.arange(count), fits.argmax(1)), ~fits.any(1)
    nearest = np.clip(width / height, *ASPECTS)
    crop_height = np.where(none, np.minimum(height, np.rint(width / nearest)), tall[first])
    crop_width = np.where(none, np.minimum(width, np.rint(height * nearest)), wide[first])
    place = np.where(none[:, None], 0.5, uniform[:, 20:22])
    # The middle rounds down, and a number just below 1 is the last place and not one beyond.
    top = np.floor(place[:, 0] * (height - crop_height + ~none))
    left = np.floor(place[:, 1] * (width - crop_width + ~none))
    return [a.astype(np.int64) for a in (top, left, crop_height, crop_width)]


def crops(images_bchw: Tensor, view: View) -> Tensor:
    """Cut each image's crop, resize it bilinearly to the full size, and flip it where that was drawn.

    Resizing is linear in each direction, so a crop is two small matrix products an image.
    """
    rows = _resampling(view.top, view.height, images_bchw.shape[2])
    columns = _resampling(view.left, view.width, images_bchw.shape[3])
    columns = torch.where(view.flip[:, None, None], columns.flip(1), columns)
    return rows[:, None] @ images_bchw @ columns[:, None].mT


def _resampling(start_b: Tensor, length_b: Tensor, size: int) -> Tensor:
    """Return the bilinear weights, (B, size, size), from pixels to the resized pixels of a crop."""
    place = torch.arange(size, device=start_b.device)
    centre = (place + 0.5) * (length_b / size)[:, None] - 0.5
    source = start_b[:, None] + centre.clamp(min=0).minimum(length_b[:, None] - 1)  # the crop ends at its border
    return (1 - (source[:, :, None] - place).abs()).clamp(min=0)


def colours(images_bchw: Tensor, view: View) -> Tensor:
    """Jitter the colours of images in [0, 1], each in its own order, and turn some grey."""
    from kornia import color, enhance

    def hue(images: Tensor, shift: Tensor) -> Tensor:
        return enhance.adjust_hue(images, 2 * math.pi * shift)

    kinds = [
        enhance.adjust_brightness_accumulative,
        enhance.adjust_contrast_with_mean_subtraction,
        enhance.adjust_saturation_with_gray_subtraction,
        hue,
    ]
    images, factor = images_bchw[view.order], view.factor[view.order]
    for groups in _groups(len(images), images.device):
        for kind, (mine, adjust) in enumerate(zip(groups, kinds, strict=True)):
            images[mine] = adjust(images[mine], factor[mine, kind])
    jittered = images_bchw.index_copy(0, view.order, images)
    jittered = torch.where(view.is_jittered[:, None, None, None], jittered, images_bchw)
    return torch.where(view.is_grey[:, None, None, None], color.rgb_to_grayscale(jittered), jittered)


@cache
def _groups(batch: int, device: torch.device) -> list[list[Tensor]]:
    """Return, for each place in the order and each of the four changes, which of a batch have it there."""
    order = ORDERS[np.arange(batch) % len(ORDERS)]
    return [
        [torch.from_numpy(np.flatnonzero(order[:, place] == kind)).to(device) for kind in range(4)]
        for place in range(4)
    ]
