"""Decoding images as they are needed, in worker processes beside the device that trains.

What is random about a sample is drawn in the plan of its epoch and travels to the worker with its
number, so the samples of a step are the same with any number of workers and ranks.
"""

import errno
import os
from collections.abc import Hashable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from csa_core.config import DataConfig
from csa_core.data.batch import Batch, Labelled, Normaliser
from csa_core.data.images import fitted, note_not_square, opened, rgb, squared, upright_size
from csa_core.data.listed import ImageList, read_all
from csa_core.data.plan import EpochPlan, ListedPicks
from csa_core.data.same import Part, check_same, pixels_key
from csa_core.data.split import Split
from csa_core.data.views import crop_boxes
from csa_core.errors import UserError

SMALLEST_CROP = 0.08
PREFETCHED = 4  # batches a worker
SHARED = "/dev/shm"  # noqa: S108 - looked at, never written to
SHM_SIZE = "docker run --shm-size=2g"
# A JPEG is decoded at half, a quarter or an eighth of its size where the crop stays this much larger than asked for.
# On photographs that changes a pixel by about 1 of 255 levels, as much as the JPEG itself, and is about twice as fast.
REDUCED_MARGIN = 1.5


def check_images(data: DataConfig, workers: int) -> Iterator[str]:
    """Decode every image of the lists; yield a line for each that cannot be, naming its list and line.

    How many are not square is said at the end.

    Raises:
        UserError: once all are decoded, too many are the same, pixel by pixel.
    """
    parts = read_all(data)
    paths, sizes = (np.concatenate([getattr(part, name) for part in parts]) for name in ("paths", "sizes"))
    lines = [part.line(i) for part in parts for i in range(len(part.paths))]
    files = _Files(Path(data.root), paths, sizes, None, data.resize)
    loader: DataLoader[Any] = DataLoader(files, batch_size=None, num_workers=workers)  # type: ignore[arg-type]
    keys: list[Hashable] = []
    not_square = 0
    for line, found in zip(lines, _whole(loader), strict=True):
        if isinstance(found, UserError):
            keys.append(line)
            yield f"{line}: {found}"
        else:
            keys.append(found[0])
            not_square += not found[1]
    note_not_square(not_square, len(lines), data.resize)
    rest = iter(keys)
    train, test, *val = (Part(list(islice(rest, len(part.paths))), part.labels, part.place) for part in parts)
    check_same(train, test, "pixel by pixel", *val)


class ListedImages:
    """The training images of a split, decoded by worker processes while the device trains."""

    def __init__(self, dataset: ImageList, split: Split, device: torch.device, jitter: float) -> None:
        self.dataset, self.device = dataset, device
        self.height, self.width = dataset.image_size
        self.normalise = Normaliser(dataset.mean_std, device)
        self._labels = torch.from_numpy(dataset.train_labels[split.indices])
        paths, sizes = dataset.train_paths[split.indices], dataset.sizes[split.indices]
        self._files = _Files(dataset.root, paths, sizes, dataset.side, dataset.resize, jitter)

    def batches(self, plan: EpochPlan[ListedPicks]) -> Iterator[Batch]:
        """Yield the steps of an epoch."""
        streams = plan.streams
        items = [_items(list(streams.values()), step) for step in range(plan.steps)]
        for step, pixels in enumerate(_whole(_loader(self._files, items, self.dataset.workers, self.device))):
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
    """Yield test images as they are evaluated on, normalised."""
    normalise = Normaliser(dataset.mean_std, device)
    sizes = dataset.sizes[len(dataset.train_paths) :]
    files = _Files(dataset.root, dataset.test_paths, sizes, dataset.side, dataset.resize)
    parts = np.array_split(numbers, -(-len(numbers) // 100))
    batches: list[list[Item]] = [[(int(n), None) for n in part] for part in parts]
    for pixels in _whole(_loader(files, batches, dataset.workers, device)):
        if isinstance(pixels, UserError):
            raise pixels
        yield normalise(pixels.to(device, non_blocking=True))


Item = tuple[int, np.ndarray | None]


def _items(picks: list[ListedPicks], step: int) -> list[Item]:
    """Return what the workers must know of a step: numbers of images, and their random draws."""
    both = [(p.index[step].tolist(), p.draws[step].numpy()) for p in picks]
    return [(number, drawn) for index, draws in both for number, drawn in zip(index, draws, strict=True)]


def _loader(
    files: "_Files", batches: list[list[Item]], workers: int, device: torch.device
) -> "DataLoader[Tensor | UserError]":
    """Return a loader of batches; one whose workers' images do not fit their shared memory would wait for ever.

    Raises:
        UserError: they do not.
    """
    needed = (workers * PREFETCHED + 1) * max(map(len, batches), default=0) * 3 * int(files.side or 0) ** 2
    if workers and needed > (free := free_shared_memory()):
        mega = f"{SHARED} has {free / 1e6:.0f} MB free, their images take up to {needed / 1e6:.0f} MB"
        raise UserError(f"--workers {workers}: {mega}; use fewer, 0 uses none; or start the container with {SHM_SIZE}")
    return DataLoader(
        files,  # type: ignore[arg-type]
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_stack,
        pin_memory=device.type == "cuda",
        prefetch_factor=PREFETCHED if workers else None,
    )


def _whole(loader: "DataLoader[Any]") -> Iterator[Any]:
    """Yield what a loader yields; what its workers lack is one line.

    Raises:
        UserError: too little shared memory, through which workers hand over images, or a worker was killed.
    """
    try:
        yield from loader
    except (OSError, RuntimeError) as error:
        text = str(error).lower()
        is_full = getattr(error, "errno", None) == errno.ENOSPC or "shared memory" in text or "bus error" in text
        if loader.num_workers and (is_full or "dataloader worker" in text):
            lack = f"ran out of shared memory ({SHARED})" if is_full else "were killed, perhaps for want of memory"
            more = f"; or start the container with {SHM_SIZE}" if is_full else ""
            raise UserError(f"--workers {loader.num_workers}: they {lack}; use fewer, 0 uses none{more}") from None
        raise


def free_shared_memory() -> float:
    """Return how many bytes are left where processes share memory; infinity where the system does not say."""
    try:
        found = os.statvfs(SHARED)
        return found.f_bavail * found.f_frsize
    except (OSError, AttributeError):
        return float("inf")


def _stack(images: list[np.ndarray | UserError]) -> Tensor | UserError:
    """Return (B, H, W, 3) uint8, or the first error: a worker's exception would come with its traceback."""
    for image in images:
        if isinstance(image, UserError):
            return image
    return torch.from_numpy(np.stack(images))  # type: ignore[arg-type]


class _Files:
    """Decodes images by number; `side` None decodes the whole image and returns its key, and whether it is square."""

    def __init__(
        self,
        root: Path,
        paths: np.ndarray,
        sizes: np.ndarray,
        side: int | None,
        resize: str,
        jitter: float = 0.0,
    ) -> None:
        # Bytes, not strings: workers share them without copying on each look.
        self.root, self.paths, self.sizes, self.side = root, paths, sizes, side
        self.resize, self.jitter = resize, jitter

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: Item | int) -> np.ndarray | UserError | tuple[bytes, bool]:
        number, drawn = item if isinstance(item, tuple) else (item, None)
        path = self.root / os.fsdecode(self.paths[number])
        try:
            with suppress(OSError):
                if path.stat().st_size != self.sizes[number]:
                    return UserError(f"{path}: has changed since its list was read; make the data set file again")
            if self.side is None:
                with opened(path) as file:
                    image = rgb(file)
                return pixels_key(np.asarray(image)), image.width == image.height
            if drawn is None:
                return evaluated(path, self.side, self.resize)
            return trained(path, self.side, drawn, self.jitter, self.resize)
        except UserError as error:
            return error


def trained(path: Path, side: int, drawn: np.ndarray, jitter: float = 0.0, resize: str = "crop") -> np.ndarray:
    """Decode an image as it is trained on: random resized crop, flip, jitter; (side, side, 3) uint8.

    Args:
        drawn: the image's uniform numbers in [0, 1), as the plan has them.
        jitter: strength of brightness, contrast and saturation.
        resize: how the image becomes square before it is cropped; `crop` leaves that to the random crop.
    """
    from csa_core.vision import functional

    with opened(path) as file:
        width, height = upright_size(file)
        if resize != "crop":
            width = height = max(width, height)
        top, left, tall, wide = (
            int(a[0]) for a in crop_boxes(drawn[None, :22], np.array([height]), np.array([width]), SMALLEST_CROP)
        )
        # What is stretched has fewer pixels than its place in the square.
        is_reduced = resize != "stretch" and _reduce(file, min(tall, wide), side)
        image = squared(rgb(file), resize)
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


def evaluated(path: Path, side: int, resize: str = "crop") -> np.ndarray:
    """Decode an image as it is evaluated on, (side, side, 3) uint8: by `crop` its middle, else the whole of it."""
    with opened(path) as file:
        image = rgb(file)
    return np.array(centred(image, side) if resize == "crop" else fitted(image, (side, side), resize))


def centred(image: Image.Image, side: int) -> Image.Image:
    """Resize the shorter side of a decoded image to side * 256 / 224, and cut out the middle, side x side."""
    from csa_core.vision import functional

    cut: Image.Image = functional.center_crop(functional.resize(image, [round(side * 256 / 224)]), [side, side])
    return cut


def _reduce(file: Image.Image, shortest: int, side: int) -> bool:
    """Let a JPEG be decoded at a part of its size where the crop stays large enough; return whether it will be."""
    for scale in (8, 4, 2):
        if shortest >= scale * REDUCED_MARGIN * side and file.format == "JPEG":
            return file.draft("RGB", (file.width // scale, file.height // scale)) is not None
    return False
