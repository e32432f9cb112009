"""Decoding images as they are needed, in worker processes beside the device that trains.

What is random about a sample is drawn in the plan of its epoch and travels to the worker with its
number, so the samples of a step are the same with any number of workers and ranks.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader

from csa_core.config import DataConfig
from csa_core.data.batch import Batch, Labelled, Normaliser
from csa_core.data.listed import ImageList, read_lists
from csa_core.data.plan import EpochPlan, ListedPicks
from csa_core.data.split import Split
from csa_core.data.views import crop_boxes
from csa_core.errors import UserError

SMALLEST_CROP = 0.08
PREFETCHED = 4  # batches a worker
FORMATS = ("JPEG", "PNG", "WEBP")
# A JPEG is decoded at half, a quarter or an eighth of its size where the crop stays this much larger than asked for.
# On photographs that changes a pixel by about 1 of 255 levels, as much as the JPEG itself, and is about twice as fast.
REDUCED_MARGIN = 1.5


def find_undecodable(data: DataConfig, workers: int) -> Iterator[str]:
    """Decode every image of both lists; yield a line for each that cannot be, naming its list and line."""
    listed = read_lists(data)
    line_of = {}
    for name in (data.train_list, data.test_list):
        for line, text in enumerate(Path(str(name)).read_text(encoding="utf-8").splitlines(), 1):
            line_of[text.strip().rpartition(" ")[0]] = f"{name}: line {line}"
    files = _Files(listed.root, np.concatenate([listed.train_paths, listed.test_paths]), listed.sizes, None)
    for number, error in enumerate(DataLoader(files, batch_size=None, num_workers=workers)):  # type: ignore[arg-type]
        if error:
            yield f"{line_of[files.paths[number].decode()]}: {error}"


class ListedImages:
    """The training images of a split, decoded by worker processes while the device trains."""

    def __init__(self, dataset: ImageList, split: Split, device: torch.device, jitter: float) -> None:
        self.dataset, self.device = dataset, device
        self.height, self.width = dataset.image_size
        self.normalise = Normaliser(dataset.mean_std, device)
        self._labels = torch.from_numpy(dataset.train_labels[split.indices])
        paths, sizes = dataset.train_paths[split.indices], dataset.sizes[split.indices]
        self._files = _Files(dataset.root, paths, sizes, dataset.side, jitter)

    def batches(self, plan: EpochPlan[ListedPicks]) -> Iterator[Batch]:
        """Yield the steps of an epoch."""
        streams = plan.streams
        items = [_items(list(streams.values()), step) for step in range(plan.steps)]
        for step, pixels in enumerate(_loader(self._files, items, self.dataset.workers)):
            parts = self._on_device(pixels).split([len(picks.index[step]) for picks in streams.values()])
            made: dict[str, Labelled] = {}
            for (name, picks), part in zip(streams.items(), parts, strict=True):
                made[name] = self.normalise(part), self._labels[picks.index[step].cpu()].to(self.device)
            yield Batch(made, {name: drawn[step] for name, drawn in plan.draws.items()})

    def _on_device(self, pixels: "Tensor | UserError") -> Tensor:
        if isinstance(pixels, UserError):
            raise pixels
        return pixels.to(self.device, non_blocking=True)


def listed_evaluation_batches(dataset: ImageList, numbers: np.ndarray, device: torch.device) -> Iterator[Tensor]:
    """Yield test images: the shorter side resized to 256 / 224 of what is cut from the middle, normalised."""
    normalise = Normaliser(dataset.mean_std, device)
    files = _Files(dataset.root, dataset.test_paths, dataset.sizes[len(dataset.train_paths) :], dataset.side)
    parts = np.array_split(numbers, -(-len(numbers) // 100))
    for pixels in _loader(files, [[(int(n), None) for n in part] for part in parts], dataset.workers):
        if isinstance(pixels, UserError):
            raise pixels
        yield normalise(pixels.to(device, non_blocking=True))


Item = tuple[int, np.ndarray | None]


def _items(picks: list[ListedPicks], step: int) -> list[Item]:
    """Return what the workers must know of a step: numbers of images, and their random draws."""
    both = [(p.index[step].tolist(), p.draws[step].numpy()) for p in picks]
    return [(number, drawn) for index, draws in both for number, drawn in zip(index, draws, strict=True)]


def _loader(files: "_Files", batches: list[list[Item]], workers: int) -> "DataLoader[Tensor | UserError]":
    return DataLoader(
        files,  # type: ignore[arg-type]
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_stack,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=PREFETCHED if workers else None,
    )


def _stack(images: list[np.ndarray | UserError]) -> Tensor | UserError:
    """Return (B, H, W, 3) uint8, or the first error: a worker's exception would come with its traceback."""
    for image in images:
        if isinstance(image, UserError):
            return image
    return torch.from_numpy(np.stack(images))  # type: ignore[arg-type]


class _Files:
    """Decodes images by number; `side` None only sees whether they can be decoded."""

    def __init__(self, root: Path, paths: np.ndarray, sizes: np.ndarray, side: int | None, jitter: float = 0.0) -> None:
        # Bytes, not strings: workers share them without copying on each look.
        self.root, self.paths, self.sizes, self.side, self.jitter = root, paths, sizes, side, jitter

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: Item | int) -> np.ndarray | UserError | str:
        number, drawn = item if isinstance(item, tuple) else (item, None)
        path = self.root / self.paths[number].decode()
        try:
            if path.stat().st_size != self.sizes[number]:
                return self._refused(f"{path}: has changed since its list was read; make the data set file again")
            if self.side is None:
                with Image.open(path, formats=FORMATS) as file:
                    file.convert("RGB")
                return ""
            return evaluated(path, self.side) if drawn is None else trained(path, self.side, drawn, self.jitter)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else "cannot be decoded"
            return self._refused(f"{path}: {reason}; replace it or take its line out of the list")

    def _refused(self, message: str) -> UserError | str:
        return message if self.side is None else UserError(message)


def trained(path: Path, side: int, drawn: np.ndarray, jitter: float = 0.0) -> np.ndarray:
    """Decode an image as it is trained on: random resized crop, flip, jitter; (side, side, 3) uint8.

    Args:
        drawn: the image's uniform numbers in [0, 1), as the plan has them.
        jitter: strength of brightness, contrast and saturation.
    """
    from csa_core.vision import functional

    with Image.open(path, formats=FORMATS) as file:
        width, height = file.size
        top, left, tall, wide = (
            int(a[0]) for a in crop_boxes(drawn[None, :22], np.array([height]), np.array([width]), SMALLEST_CROP)
        )
        is_reduced = _reduce(file, min(tall, wide), side)
        image = file.convert("RGB")
    if is_reduced:
        s = round(width / image.width)  # the last pixels may stand for fewer than s
        box = (left / s, top / s, min(image.width, (left + wide) / s), min(image.height, (top + tall) / s))
        image = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
    else:
        image = functional.resized_crop(image, top, left, tall, wide, [side, side])
    if drawn[22] < 0.5:
        image = functional.horizontal_flip(image)
    if jitter:
        changes = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
        for kind in drawn[26:29].argsort():
            image = changes[kind](image, 1 + jitter * (2 * float(drawn[23 + kind]) - 1))
    return np.array(image)


def evaluated(path: Path, side: int) -> np.ndarray:
    """Decode an image as it is evaluated on: shorter side to side * 256 / 224, middle; (side, side, 3) uint8."""
    from csa_core.vision import functional

    with Image.open(path, formats=FORMATS) as file:
        image = file.convert("RGB")
    image = functional.resize(image, [round(side * 256 / 224)])
    return np.array(functional.center_crop(image, [side, side]))


def _reduce(file: Image.Image, shortest: int, side: int) -> bool:
    """Let a JPEG be decoded at a part of its size where the crop stays large enough; return whether it will be."""
    for scale in (8, 4, 2):
        if shortest >= scale * REDUCED_MARGIN * side and file.format == "JPEG":
            return file.draft("RGB", (file.width // scale, file.height // scale)) is not None
    return False
