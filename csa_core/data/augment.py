"""The training images on the device, and batches cut from them: crop, flip, normalise.

One gather of pixels does the crop and the flip of a whole batch, so augmentation costs about a
millisecond for 128 CIFAR images on one core, where PIL image by image takes twenty.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from csa_core.data.dataset import Dataset
from csa_core.data.plan import Picks
from csa_core.data.split import Split
from csa_core.data.views import Views, colours, crops


class Normaliser:
    """Turn uint8 pixels into normalised float32: (pixel / 255 - mean) / std, channel by channel."""

    def __init__(self, dataset: Dataset, device: torch.device) -> None:
        mean, std = dataset.mean_std
        self.scale = torch.tensor(1 / (255 * std), dtype=torch.float32, device=device)
        self.shift = torch.tensor(-mean / std, dtype=torch.float32, device=device)

    def __call__(self, pixels_bhwc: Tensor) -> Tensor:
        """Return (B, 3, H, W) in channels-last memory from (B, H, W, 3) uint8."""
        return pixels_bhwc.float().mul_(self.scale).add_(self.shift).permute(0, 3, 1, 2)

    def undo(self, images_bchw: Tensor) -> Tensor:
        """Return images in [0, 1] for a person to look at."""
        return ((images_bchw - self.shift.view(-1, 1, 1)) / (255 * self.scale.view(-1, 1, 1))).clamp(0, 1)


class TrainingImages:
    """The long-tailed training set as zero-padded uint8 on the device, numbered as the split has it."""

    def __init__(self, dataset: Dataset, split: Split, padding: int, device: torch.device) -> None:
        images = torch.from_numpy(dataset.train_images[split.indices]).to(device)
        self.labels = torch.from_numpy(dataset.train_labels[split.indices]).to(device)
        self.normalise = Normaliser(dataset, device)
        self.height, self.width = images.shape[1:3]
        images = pad(images, (0, 0, padding, padding, padding, padding))
        self._padded = images.shape[1:3]
        self._pixels = images.reshape(-1, 3)
        self._rows = torch.arange(self.height, device=device)
        self._columns = torch.arange(self.width, device=device)

    def batch(self, picks: Picks) -> tuple[Tensor, Tensor]:
        """Return the images of one step, (B, 3, H, W) float32 channels-last, and labels, (B,)."""
        rows = picks.top[:, None] + self._rows
        columns = torch.where(picks.flip[:, None], self._columns.flip(0), self._columns) + picks.left[:, None]
        height, width = self._padded
        pixel = (picks.index[:, None, None] * height + rows[:, :, None]) * width + columns[:, None, :]
        pixels = self._pixels.index_select(0, pixel.reshape(-1)).view(*pixel.shape, 3)
        return self.normalise(pixels), self.labels[picks.index]

    def view(self, index: Tensor, views: Views) -> Tensor:
        """Return one pre-training view of each image, (B, 3, H, W) float32 channels-last."""
        padded = self._pixels.view(-1, *self._padded, 3)
        border = (self._padded[0] - self.height) // 2
        images = padded[index, border : border + self.height, border : border + self.width]
        images = colours(crops(images.permute(0, 3, 1, 2).float() / 255, views), views)
        return self.normalise(images.permute(0, 2, 3, 1).contiguous() * 255)


def evaluation_batches(dataset: Dataset, device: torch.device, size: int = 500) -> Iterator[Tensor]:
    """Yield the normalised test set in batches of at most `size` images."""
    return plain_batches(dataset.test_images, dataset, device, size)


def plain_batches(images: np.ndarray, dataset: Dataset, device: torch.device, size: int = 500) -> Iterator[Tensor]:
    """Yield images of `dataset` in order, normalised and not augmented, in batches of at most `size`."""
    normalise = Normaliser(dataset, device)
    for part in np.array_split(images, -(-len(images) // size)):
        yield normalise(torch.from_numpy(part).to(device))
