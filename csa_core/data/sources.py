"""Data sources: a name and a folder become a `Dataset`."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from csa_core.config import DataConfig
from csa_core.data.dataset import Dataset
from csa_core.data.demo import DIGEST as DEMO_DIGEST
from csa_core.data.demo import make_demo
from csa_core.errors import UserError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


def load_source(data: DataConfig) -> Dataset:
    """Load the data set that `data.source` names, and check it.

    Raises:
        UserError: missing or unreadable files, wrong labels, empty classes.
    """
    return SOURCES[data.source](data).check(f"data.source {data.source}")


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
        for (path, _), image in zip(files, images, strict=True):
            pixels = hashlib.sha256(image.tobytes()).digest()
            if part == "train":
                trained_on.setdefault(pixels, path)
            elif pixels in trained_on:
                raise UserError(f"{path}: is the training image {trained_on[pixels]}, pixel by pixel; remove one")
        parts.append((np.stack(images), np.array([label for _, label in files], dtype=np.int64)))
    return Dataset("folder", names, *parts[0], *parts[1])


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
