"""The step as it is usually written in plain PyTorch, to compare with; the results are the method's, too.

Images go through PIL one by one in a DataLoader; mask and confidence come from a second forward in
eval mode with Grad-CAM by autograd; the bank is concatenated and cut; memory is contiguous.
"""

from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, one_hot
from torch.utils.data import DataLoader, RandomSampler, WeightedRandomSampler

from csa_core.data.dataset import Dataset
from csa_core.models.resnet import Network
from csa_core.vision import torchvision


class Images(torch.utils.data.Dataset):
    """Training images as PIL images through torchvision's transforms."""

    def __init__(self, dataset: Dataset) -> None:
        transforms: Any = torchvision.transforms
        mean, std = dataset.mean_std
        self._images, self._labels = dataset.train_images, dataset.train_labels
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(dataset.image_size, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean.tolist(), std.tolist()),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), int(self._labels[index])


def batches(dataset: Dataset, batch: int, balanced: bool, workers: int) -> Iterator[list[Tensor]]:
    """Yield batches without end: a permutation each epoch, or classes with equal probability."""
    images = Images(dataset)
    labels = torch.from_numpy(dataset.train_labels)
    weight = 1 / torch.bincount(labels).double()[labels]
    sampler: Any = WeightedRandomSampler(weight.tolist(), len(labels)) if balanced else RandomSampler(images)
    loader = DataLoader(images, batch, sampler=sampler, drop_last=True, num_workers=workers)
    while True:
        yield from loader


class Plain:
    """One run: a network with two heads, its optimizer, a bank, and two loaders."""

    def __init__(self, dataset: Dataset, batch: int, device: torch.device, workers: int = 0, lr: float = 0.01) -> None:
        self.network = Network("resnet32", ("uniform", "resampling"), len(dataset.class_names)).to(device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr, momentum=0.9, weight_decay=2e-4)
        self.loaders = [batches(dataset, batch, balanced, workers) for balanced in (False, True)]
        self.device, self.volume = device, batch
        self.images = self.masks = torch.empty(0, device=device)

    def step(self) -> float:
        """Train on one batch of each branch; return the loss, as a loop that prints it does."""
        (x, y), (resampled, their_y) = ([t.to(self.device) for t in next(loader)] for loader in self.loaders)
        confident, masks = self._contexts(x, y)
        self.network.train()
        self.images = torch.cat([self.images, x[confident]])[-self.volume :]
        self.masks = torch.cat([self.masks, masks[confident]])[-self.volume :]
        loss = cross_entropy(self.network.head("uniform", self.network.body(x)), y)
        if len(self.images) == self.volume:
            picked = torch.randperm(self.volume, device=self.device)[: len(resampled)]
            mix = torch.rand(1, device=self.device) * self.masks[picked]
            mixed = mix * self.images[picked] + (1 - mix) * resampled
            loss = loss + cross_entropy(self.network.head("resampling", self.network.body(mixed)), their_y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def _contexts(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return who is confident, (B,), and background masks, (B, 1, H, W): Grad-CAM in a pass of its own."""
        self.network.eval()
        features = self.network.body(x)
        features.retain_grad()
        logits = self.network.head("uniform", features)
        probability = logits.softmax(1).gather(1, y[:, None])[:, 0]
        self.network.zero_grad()
        (logits * one_hot(y, logits.shape[1])).sum().backward()
        assert features.grad is not None
        weight = features.grad.mean((2, 3), keepdim=True)
        cam = nn.functional.relu((weight * features.detach()).sum(1, keepdim=True))
        cam = cam - cam.amin((2, 3), keepdim=True)
        cam = cam / cam.amax((2, 3), keepdim=True).clamp(min=1e-12)
        cam = interpolate(cam, size=x.shape[2:], mode="bicubic", align_corners=False).clamp(0, 1)
        return probability >= 0.0, (1 - cam) ** 2  # every image, so that the bank is full at once
