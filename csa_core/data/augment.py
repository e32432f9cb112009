"""The training images on the device, and batches cut from them: crop, flip, normalise.

One gather of pixels does the crop and the flip of a whole batch, so augmentation costs about a
millisecond for 128 CIFAR images on one core, where PIL image by image takes twenty.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from csa_core.data.batch import Batch, Labelled, Normaliser
from csa_core.data.dataset import Dataset
from csa_core.data.decode import ListedImages, listed_evaluation_batches
from csa_core.data.listed import ImageList
from csa_core.data.plan import EpochPlan, Picks
from csa_core.data.ranks import own_part
from csa_core.data.split import Split
from csa_core.data.views import View, colours, crops


class TrainingImages:
    """The long-tailed training set as zero-padded uint8 on the device, numbered as the split has it."""

    def __init__(self, dataset: Dataset, split: Split, padding: int, device: torch.device) -> None:
        images = torch.from_numpy(dataset.train_images[split.indices]).to(device)
        self.labels = torch.from_numpy(dataset.train_labels[split.indices]).to(device)
        self.normalise = Normaliser(dataset.mean_std, device)
        self.height, self.width = images.shape[1:3]
        images = pad(images, (0, 0, padding, padding, padding, padding))
        self._padded = images.shape[1:3]
        self._pixels = images.reshape(-1, 3)
        self._rows = torch.arange(self.height, device=device)
        self._columns = torch.arange(self.width, device=device)

    def batches(self, plan: EpochPlan[Any]) -> Iterator[Batch]:
        """Yield the steps of an epoch."""
        return (self.at(plan, step) for step in range(plan.steps))

    def at(self, plan: EpochPlan[Any], step: int) -> Batch:
        """Return one step of an epoch."""
        streams = {name: self.batch(picks[step]) for name, picks in plan.streams.items()}
        return Batch(streams, {name: drawn[step] for name, drawn in plan.draws.items()})

    def batch(self, picks: Picks | View) -> Labelled:
        """Return the images of one step, (B, 3, H, W) float32 channels-last, and labels, (B,)."""
        if isinstance(picks, View):
            return self.view(picks), self.labels[picks.index]
        rows = picks.top[:, None] + self._rows
        columns = torch.where(picks.flip[:, None], self._columns.flip(0), self._columns) + picks.left[:, None]
        height, width = self._padded
        pixel = (picks.index[:, None, None] * height + rows[:, :, None]) * width + columns[:, None, :]
        pixels = self._pixels.index_select(0, pixel.reshape(-1)).view(*pixel.shape, 3)
        return self.normalise(pixels), self.labels[picks.index]

    def view(self, view: View) -> Tensor:
        """Return one pre-training view of each image, (B, 3, H, W) float32 channels-last."""
        padded = self._pixels.view(-1, *self._padded, 3)
        border = (self._padded[0] - self.height) // 2
        images = padded[view.index, border : border + self.height, border : border + self.width]
        images = colours(crops(images.permute(0, 3, 1, 2).float() / 255, view), view)
        return self.normalise(images.permute(0, 2, 3, 1).contiguous() * 255)


def training_images(
    dataset: Dataset | ImageList, split: Split, padding: int, jitter: float, device: torch.device
) -> TrainingImages | ListedImages:
    """Return the training images of a run: in memory on the device, or decoded as they are needed."""
    if isinstance(dataset, ImageList):
        return ListedImages(dataset, split, device, jitter)
    return TrainingImages(dataset, split, padding, device)


def evaluation_batches(dataset: Dataset | ImageList, device: torch.device, size: int = 100) -> Iterator[Tensor]:
    """Yield the normalised test images of this rank (all of them where there is one) in batches of at most `size`.

    On a CPU a hundred CIFAR images are the fastest: the activations of five hundred leave its caches.
    """
    mine = own_part(len(dataset.test_labels))
    if isinstance(dataset, ImageList):
        return listed_evaluation_batches(dataset, mine, device)
    return plain_batches(dataset.test_images[mine[0] : mine[-1] + 1], dataset, device, size)


def plain_batches(images: np.ndarray, dataset: Dataset, device: torch.device, size: int = 100) -> Iterator[Tensor]:
    """Yield images of `dataset` in order, normalised and not augmented, in batches of at most `size`."""
    normalise = Normaliser(dataset.mean_std, device)
    for part in np.array_split(images, -(-len(images) // size)):
        yield normalise(torch.from_numpy(part).to(device))
