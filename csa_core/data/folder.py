"""Images in folders: `root/train/<class>/*` and `root/test/<class>/*`, classes in the order of their names."""

import os
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from csa_core.data.dataset import Dataset, check_class_names, note_untested
from csa_core.data.images import opened, rgb, stretched
from csa_core.data.same import Part, check_same, pixels_key
from csa_core.errors import UserError, nearest, several
from csa_core.layout import PARTS, below

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
NEAR = {"train": {"training", "trn"}, "test": {"testing", "tst", "val", "valid", "validation", "eval", "dev"}}


def read_folder(root: Path, side: int | None) -> Dataset:
    """Read the images of a folder, resized to `side` pixels where that is given.

    Raises:
        UserError: folders or files are not as they must be, sizes differ, or too many images are the same.
    """
    folders = {part: _classes(root, part) for part in PARTS}
    names = tuple(folders["train"])
    check_class_names(names, str(root / "train"))
    if len(names) < 2:
        raise UserError(f"{root / 'train'}: {len(names)} class folders; at least two are needed")
    for name in folders["test"]:
        if name not in names:
            raise UserError(f"{root / 'test'}: class '{name}' is not in train, {nearest(name, names)}")
    found = {part: [(path, k) for k, n in enumerate(names) for path in _files(folders[part], n)] for part in PARTS}
    _check_suffixes(root, [path for part in PARTS for path, _ in found[part]])
    for k, name in enumerate(names):
        if all(label != k for _, label in found["train"]):
            raise UserError(f"{folders['train'][name]}: class without images; add some or remove the folder")
    if not found["test"]:
        raise UserError(f"{root / 'test'}: no images to test on; add some")
    images = {part: _decoded([path for path, _ in found[part]], side) for part in PARTS}
    shapes = sorted({image.shape for part in PARTS for image in images[part]})
    if len(shapes) > 1:
        a, b = (f"{shape[1]} x {shape[0]}" for shape in shapes[:2])
        raise UserError(f"{root}: images of several sizes ({a}, {b} px, ...); set data.image_size")
    labels = {part: np.array([label for _, label in found[part]], dtype=np.int64) for part in PARTS}
    check_same(_part(found["train"], images["train"]), _part(found["test"], images["test"]), "pixel by pixel")
    note_untested(names, labels["test"])
    train, test = ((np.stack(images[part]), labels[part]) for part in PARTS)
    return Dataset("folder", names, *train, *test)


def _part(files: Sequence[tuple[Path, int]], images: Sequence[np.ndarray]) -> Part:
    keys = [pixels_key(image) for image in images]
    return Part(keys, [label for _, label in files], lambda number: str(files[number][0]))


def _classes(root: Path, part: str) -> dict[str, Path]:
    """Return the folders of the classes by name; two ways to write one accent are one name."""
    folder = root / part
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; data.root must hold train/<class>/ and test/<class>/{_near(root, part)}"
        )
    for path in below(folder):
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path}: leads to no folder; mend or remove the link")
    return {unicodedata.normalize("NFC", path.name): path for path in below(folder) if path.is_dir()}


def _near(root: Path, part: str) -> str:
    """Return what a person may have meant: a folder of nearly this name, or this name one folder down."""
    if not root.is_dir():
        return ""
    folders = [path for path in below(root) if path.is_dir()]
    for path in folders:
        if path.name.lower() in {part, *NEAR[part]}:
            return f"; rename '{path.name}' to '{part}'"
    for path in folders:
        if (path / part).is_dir():
            return f"; set data.root to {path}"
    return f", and holds {several([path.name for path in folders])}" if folders else ""


def _files(folders: dict[str, Path], name: str) -> list[Path]:
    return below(folders[name]) if name in folders else []


def _check_suffixes(root: Path, paths: Sequence[Path]) -> None:
    """See that all files of the classes are images, by their names."""
    others = [str(path.relative_to(root)) for path in paths if path.suffix.lower() not in SUFFIXES or path.is_dir()]
    if others:
        raise UserError(f"{root}: not a PNG, JPEG or WebP image: {several(others)}; remove or convert them")


def _decoded(paths: Sequence[Path], side: int | None) -> list[np.ndarray]:
    """Return the images, (H, W, 3) uint8 each."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter lock
        found = list(pool.map(lambda path: _decode(path, side), paths))
    errors = [str(image) for image in found if isinstance(image, UserError)]
    if errors:
        raise UserError(errors[0] + (f" (and {len(errors) - 1} more: {several(errors[1:])})" if errors[1:] else ""))
    return [image for image in found if not isinstance(image, UserError)]


def _decode(path: Path, side: int | None) -> np.ndarray | UserError:
    try:
        with opened(path) as file:
            image = rgb(file)
    except UserError as error:
        return error
    return np.asarray(image if side is None else stretched(image, (side, side)))
