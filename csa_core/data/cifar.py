"""CIFAR-10 and CIFAR-100 through torchvision, which downloads them and checks the MD5 of each file."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from csa_core.data.dataset import Dataset
from csa_core.data.same import Part, check_same, pixels_key
from csa_core.errors import UserError


def read_cifar(source: str, root: Path) -> Dataset:
    """Return CIFAR from its unpacked folder, its archive, or the network, whichever there is first.

    Raises:
        UserError: none of them, a damaged one, or a folder that it cannot be unpacked to.
    """
    from csa_core.vision import torchvision

    kind = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[source]
    parts = []
    for train in (True, False):
        try:
            parts.append(kind(str(root), train=train, download=not _is_unpacked(kind, root)))
        except (OSError, RuntimeError, EOFError) as error:  # no network, no space, or a damaged copy
            wanted = f"put {kind.filename} (MD5 {kind.tgz_md5}), from {kind.url}, or its unpacked folder"
            wanted += f" {kind.base_folder} there"
            raise UserError(
                f"data.root {root}: no whole copy of {source}: {_reason(kind, root, error)}; {wanted}"
            ) from None
    train_part, test_part = (
        (part.data, np.asarray(part.targets, dtype=np.int64), _keyed(part, name))
        for part, name in zip(parts, ("image", "test image"), strict=True)
    )
    check_same(train_part[2], test_part[2], "pixel by pixel")
    return Dataset(source, tuple(parts[0].classes), *train_part[:2], *test_part[:2])


def _keyed(part: Any, name: str) -> Part:
    keys = [pixels_key(image) for image in part.data]
    return Part(keys, part.targets, lambda number: f"{name} {number} ({part.classes[part.targets[number]]})")


def _is_unpacked(kind: Any, root: Path) -> bool:
    """Whether the unpacked files are there, so that a run without network never asks for one."""
    folder = root / kind.base_folder
    return all((folder / name).is_file() for name, _ in kind.train_list + kind.test_list)


def _reason(kind: Any, root: Path, error: Exception) -> str:
    """Return what is wrong with what is there, else what went wrong with the download."""
    folder, archive = root / kind.base_folder, root / kind.filename
    for name, md5 in [*kind.train_list, *kind.test_list, [kind.meta["filename"], kind.meta["md5"]]]:
        if _is_unpacked(kind, root) and _md5(folder / name) != md5:
            return f"{folder / name} is damaged or missing"
    if archive.is_file() and (found := _md5(archive)) != kind.tgz_md5:
        with archive.open("rb") as file:
            start = file.read(512).lstrip().lower()
        if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
            return f"{archive} is a web page, not the archive; delete it"
        what = "half there or damaged" if start.startswith(b"\x1f\x8b") else "no gzip archive"
        return f"{archive} is {what} ({archive.stat().st_size:,} bytes, MD5 {found}); delete it"
    if isinstance(error, OSError) and error.errno and error.filename:
        return f"{error.filename}: {error.strerror}"
    what = "unpacking it failed" if archive.is_file() else "downloading it failed"
    return f"{what} ({str(error).splitlines()[0] if str(error) else type(error).__name__})"


def _md5(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError:
        return ""
