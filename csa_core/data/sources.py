"""Data sources: a name and a folder become a `Dataset`."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from csa_core import store
from csa_core.config import DataConfig
from csa_core.data import dataset as in_memory
from csa_core.data import listed
from csa_core.data.dataset import Dataset
from csa_core.data.demo import DIGEST as DEMO_DIGEST
from csa_core.data.demo import make_demo
from csa_core.data.selection import select
from csa_core.errors import UserError, say

MOST_SHARED = 0.01
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


def load_source(data: DataConfig) -> Dataset | listed.ImageList:
    """Load the data set that `data.source` names, and check it.

    Raises:
        UserError: missing or unreadable files, wrong labels, empty classes.
    """
    try:
        if data.source == "image_list":
            return listed.read_lists(data)
        dataset = SOURCES[data.source](data).check(f"data.source {data.source}")
        return select(dataset, data.selection) if data.selection is not None else dataset
    except OSError as error:
        raise UserError(f"{error.filename or data.root}: cannot be read ({error.strerror}); see to it") from None


def read_dataset(path: Path, data: DataConfig) -> Dataset | listed.ImageList:
    """Read a data set file, and check that it is what `data` asks for.

    Raises:
        UserError: missing, damaged, of another source or another size.
    """
    tensors, meta, digest = store.read_tensors(path)
    is_list = isinstance(meta, dict) and meta.get("source") == "image_list"
    read = listed.from_file(path, tensors, meta, data) if is_list else in_memory.from_file(path, tensors, meta, digest)
    wanted = "selection" if data.profile == "selection" else data.source
    if read.source != wanted:
        raise UserError(f"{path}: holds {read.source}, the run asks for data.source {wanted}")
    side = data.side if is_list else data.image_size
    if side and read.image_size != (side, side):
        raise UserError(f"{path}: its images are not {side} x {side} px, as data.image_size asks; make it again")
    return read


def _demo(data: DataConfig) -> Dataset:
    dataset = make_demo()
    if dataset.digest != DEMO_DIGEST:
        raise UserError(
            f"data.source demo: generated with digest {dataset.digest[:12]}, expected {DEMO_DIGEST[:12]}; "
            "install the versions of the lock file (NumPy, torch and scikit-learn make these images)"
        )
    return dataset


def _cifar(data: DataConfig) -> Dataset:
    """CIFAR-10 or CIFAR-100 through torchvision, which downloads and checks the MD5 of each file."""
    from csa_core.vision import torchvision

    kind = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[data.source]
    parts = []
    for train in (True, False):
        try:
            parts.append(kind(data.root, train=train, download=not _has_cifar(kind, data.root)))
        except (OSError, RuntimeError) as error:  # no network, no space, or a damaged copy
            reason = str(error).splitlines()[0]
            raise UserError(
                f"data.root {data.root}: no whole copy of {data.source}, and downloading it failed ({reason}); "
                f"put {kind.filename} (MD5 {kind.tgz_md5}) or its unpacked folder {kind.base_folder} there"
            ) from None
    train_part, test_part = parts
    names = [f"image {i} ({train_part.classes[label]})" for i, label in enumerate(train_part.targets)]
    _note_two_labels(map(_pixels, train_part.data), train_part.targets, names)
    return Dataset(
        data.source,
        tuple(train_part.classes),
        train_part.data,
        np.asarray(train_part.targets, dtype=np.int64),
        test_part.data,
        np.asarray(test_part.targets, dtype=np.int64),
    )


def _has_cifar(kind: Any, root: str) -> bool:
    """Whether the unpacked files are there, so that a run without network never asks for one."""
    folder = Path(root) / kind.base_folder
    return all((folder / name).is_file() for name, _ in kind.train_list + kind.test_list)


def _folder(data: DataConfig) -> Dataset:
    """`root/train/<class>/*` and `root/test/<class>/*`; classes in the order of their names."""
    root = Path(data.root)
    names = _classes(root / "train")
    if names != (test_names := _classes(root / "test")):
        odd = sorted(set(names) ^ set(test_names))[0]
        raise UserError(f"{root}: class '{odd}' is in only one of train and test; give both the same classes")
    parts = []
    trained_on: dict[bytes, Path] = {}
    for part in ("train", "test"):
        files = [(path, label) for label, name in enumerate(names) for path in _images(root / part / name)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter lock
            images = list(pool.map(lambda item: _decode(item[0], data.image_size), files))
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            a, b = (f"{shape[1]} x {shape[0]}" for shape in sorted(shapes)[:2])
            raise UserError(f"{root / part}: images of several sizes ({a}, {b} px, ...); set data.image_size")
        if part == "train":
            pixels = [_pixels(image) for image in images]
            trained_on = {each: path for (path, _), each in zip(files, pixels, strict=True)}
            _note_two_labels(pixels, [label for _, label in files], [str(path) for path, _ in files])
        else:
            _check_overlap(
                [(path, trained_on.get(_pixels(image))) for (path, _), image in zip(files, images, strict=True)]
            )
        parts.append((np.stack(images), np.array([label for _, label in files], dtype=np.int64)))
    return Dataset("folder", names, *parts[0], *parts[1])


def _pixels(image: np.ndarray) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()


def _note_two_labels(pixels: Iterable[bytes], labels: Sequence[int], names: Sequence[str]) -> None:
    """Say how many training images are those of another class, pixel by pixel, and name the first."""
    first: dict[bytes, int] = {}
    seen = [(first.setdefault(each, i), i) for i, each in enumerate(pixels)]
    both = [(i, j) for i, j in seen if labels[i] != labels[j]]
    if both:
        i, j = both[0]
        line = f"{len(both)} training images carry two labels, pixel by pixel: {names[i]} is {names[j]}"
        say(f"note: {line}")


def _check_overlap(tested_on: list[tuple[Path, Path | None]]) -> None:
    """See that test images are not training images, pixel by pixel.

    Even CIFAR-100 has a few: a note names them. More than one in a hundred would make a score a test of
    memory, and are refused.
    """
    both = [(test, train) for test, train in tested_on if train is not None]
    if both:
        test, train = both[0]
        line = f"{len(both)} of {len(tested_on)} test images are training images, pixel by pixel: {test} is {train}"
        if len(both) > MOST_SHARED * len(tested_on):
            raise UserError(f"{line}; take them out of one")
        say(f"note: {line}")


def _classes(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; data.root must hold train/<class>/ and test/<class>/")
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if len(names) < 2:
        raise UserError(f"{folder}: {len(names)} class folders; at least two are needed")
    return names


def _images(folder: Path) -> Iterator[Path]:
    files = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    if not files:
        raise UserError(f"{folder}: class without images; add some or remove the folder")
    for path in files:
        if not path.is_file():  # to open a pipe is to wait for who writes to it
            raise UserError(f"{path}: no regular file; remove it")
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise UserError(f"{path}: not a PNG, JPEG or WebP image; remove it")
        yield path


def _decode(path: Path, side: int | None) -> np.ndarray:
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as file:
            if file.mode.startswith(("I", "F")):
                raise UserError(f"{path}: more than 8 bits a channel; save it with 8")
            image = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError):
        raise UserError(f"{path}: cannot be decoded; replace or remove it") from None
    if side is not None and image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image)


SOURCES = {"demo": _demo, "cifar10": _cifar, "cifar100": _cifar, "folder": _folder}
