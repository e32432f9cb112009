"""The two views of SimSiam: random resized crop, flip, colour jitter and grey, each image with its own picks.

The picks of an epoch are drawn up front, like those of supervised training; applying them to a
batch is tensor work of one shape. Crops are torchvision's (checked against it image by image);
colours are kornia's, whose functions take a factor for each image where torchvision takes one for all.
"""

import math
from dataclasses import dataclass, fields
from functools import cache
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from csa_core.config import RunConfig
from csa_core.data.streams import keyed_generator

# Chen and He, 2021, appendix D, without blur: strengths of brightness, contrast, saturation and hue.
JITTER = np.array([0.4, 0.4, 0.4, 0.1])
JITTER_SHARE, GREY_SHARE = 0.8, 0.2
ASPECTS = (3 / 4, 4 / 3)
ORDERS = np.array(list(permutations(range(4))))  # in which the four changes of colour may come


@dataclass(frozen=True)
class Views:
    """How one view of each image is made; every field is (steps, B, ...) or (B, ...)."""

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

    def __getitem__(self, step: int) -> "Views":
        return Views(*(getattr(self, field.name)[step] for field in fields(self)))


@dataclass(frozen=True)
class PretrainingPlan:
    """All picks of one pre-training epoch, on the run's device."""

    index: Tensor
    """(steps, B): a fresh permutation of the training set, without what does not fill a batch."""
    first: Views
    second: Views

    @property
    def steps(self) -> int:
        """Steps in the epoch."""
        return len(self.index)


def plan_pretraining_epoch(
    config: RunConfig, images: int, size: tuple[int, int], epoch: int, device: torch.device
) -> PretrainingPlan:
    """Draw the plan of one epoch (numbered from 0) over `images` training images of `size` pixels."""
    batch = config.pretraining.batch_size
    steps = images // batch
    index = keyed_generator(config.seed, "pretraining", epoch).permutation(images)[: steps * batch]
    rng = keyed_generator(config.seed, "views", epoch)

    def views() -> Views:
        drawn = _draw_views(rng, steps * batch, size, config.pretraining.smallest_crop, config.horizontal_flip)
        # Every order as often as any other, so that each step has the same shapes.
        drawn.append(rng.random((steps, batch)).argsort(axis=1).ravel())
        return Views(*(torch.from_numpy(a.reshape(steps, batch, *a.shape[1:])).to(device) for a in drawn))

    return PretrainingPlan(torch.from_numpy(index.reshape(steps, batch)).to(device), views(), views())


def _draw_views(
    rng: np.random.Generator, count: int, size: tuple[int, int], smallest: float, flip: bool
) -> list[np.ndarray]:
    """Draw the fields of `Views` for `count` images, all but `order`."""
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


def crops(images_bchw: Tensor, views: Views) -> Tensor:
    """Cut each image's crop, resize it bilinearly to the full size, and flip it where that was drawn.

    Resizing is linear in each direction, so a crop is two small matrix products an image.
    """
    rows = _resampling(views.top, views.height, images_bchw.shape[2])
    columns = _resampling(views.left, views.width, images_bchw.shape[3])
    columns = torch.where(views.flip[:, None, None], columns.flip(1), columns)
    return rows[:, None] @ images_bchw @ columns[:, None].mT


def _resampling(start_b: Tensor, length_b: Tensor, size: int) -> Tensor:
    """Return the bilinear weights, (B, size, size), from pixels to the resized pixels of a crop."""
    place = torch.arange(size, device=start_b.device)
    centre = (place + 0.5) * (length_b / size)[:, None] - 0.5
    source = start_b[:, None] + centre.clamp(min=0).minimum(length_b[:, None] - 1)  # the crop ends at its border
    return (1 - (source[:, :, None] - place).abs()).clamp(min=0)


def colours(images_bchw: Tensor, views: Views) -> Tensor:
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
    images, factor = images_bchw[views.order], views.factor[views.order]
    for groups in _groups(len(images), images.device):
        for kind, (mine, adjust) in enumerate(zip(groups, kinds, strict=True)):
            images[mine] = adjust(images[mine], factor[mine, kind])
    jittered = images_bchw.index_copy(0, views.order, images)
    jittered = torch.where(views.is_jittered[:, None, None, None], jittered, images_bchw)
    return torch.where(views.is_grey[:, None, None, None], color.rgb_to_grayscale(jittered), jittered)


@cache
def _groups(batch: int, device: torch.device) -> list[list[Tensor]]:
    """Return, for each place in the order and each of the four changes, which of a batch have it there."""
    order = ORDERS[np.arange(batch) % len(ORDERS)]
    return [
        [torch.from_numpy(np.flatnonzero(order[:, place] == kind)).to(device) for kind in range(4)]
        for place in range(4)
    ]
