"""Images in folders: `root/train/<class>/*` and `root/test/<class>/*`, classes in the order of their names.

Validation images may lie in a third folder of the same kind.
"""

import os
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from csa_core.data.dataset import Dataset, check_class_names, note_untested
from csa_core.data.images import fitted, note_not_square, opened, rgb
from csa_core.data.same import Part, check_same, pixels_key
from csa_core.errors import UserError, nearest, say, several
from csa_core.layout import PARTS, below

SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp"}
VALIDATION = {"val", "valid", "validation"}
NEAR = {"train": {"training", "trn"}, "test": {"testing", "tst", "eval", "dev", *VALIDATION}}


def read_folder(root: Path, side: int | None, val_folder: str | None = None, resize: str = "stretch") -> Dataset:
    """Read the images of a folder, resized to `side` pixels where that is given.

    Args:
        val_folder: name of the folder beside train and test that holds validation images, if any does.
        resize: how they become square, see `csa_core.data.images.fitted`.

    Raises:
        UserError: folders or files are not as they must be, sizes differ, or too many images are the same.
    """
    parts = (*PARTS, val_folder) if val_folder else PARTS
    folders = {part: _classes(root, part, parts) for part in parts}
    names = tuple(folders["train"])
    check_class_names(names, str(root / "train"))
    if len(names) < 2:
        raise UserError(f"{root / 'train'}: {len(names)} class folders; at least two are needed")
    for part in parts:
        for name in folders[part]:
            if name not in names:
                raise UserError(f"{root / part}: class '{name}' is not in train, {nearest(name, names)}")
    found = {part: [(path, k) for k, n in enumerate(names) for path in _files(folders[part], n)] for part in parts}
    _check_suffixes(root, [path for part in parts for path, _ in found[part]])
    for k, name in enumerate(names):
        if all(label != k for _, label in found["train"]):
            raise UserError(f"{folders['train'][name]}: class without images; add some or remove the folder")
    for part, what in zip(parts[1:], ("test", "validate"), strict=False):
        if not found[part]:
            raise UserError(f"{root / part}: no images to {what} on; add some")
    images = _decoded({part: [path for path, _ in found[part]] for part in parts}, side, resize)
    shapes = sorted({image.shape for part in parts for image in images[part]})
    if len(shapes) > 1:
        a, b = (f"{shape[1]} x {shape[0]}" for shape in shapes[:2])
        raise UserError(f"{root}: images of several sizes ({a}, {b} px, ...); set data.image_size")
    labels = {part: np.array([label for _, label in found[part]], dtype=np.int64) for part in parts}
    train, test, *val = (_part(found[part], images[part]) for part in parts)
    check_same(train, test, "pixel by pixel", *val)
    for part, what in zip(parts[1:], ("test", "validation"), strict=False):
        note_untested(names, labels[part], what)
    stacked = {part: np.stack(each) for part, each in images.items()}
    if unread := [path.name for path in below(root) if path.name.lower() in VALIDATION and path.name not in parts]:
        say(f"note: {root / unread[0]} is not read; data.val_folder: {unread[0]} validates on its images")
    return Dataset(
        "folder",
        names,
        stacked["train"],
        labels["train"],
        stacked["test"],
        labels["test"],
        val_images=stacked[val_folder] if val_folder else None,
        val_labels=labels[val_folder] if val_folder else None,
        resize=resize,
    )


def _part(files: Sequence[tuple[Path, int]], images: Sequence[np.ndarray]) -> Part:
    keys = [pixels_key(image) for image in images]
    return Part(keys, [label for _, label in files], lambda number: str(files[number][0]))


def _classes(root: Path, part: str, parts: Sequence[str]) -> dict[str, Path]:
    """Return the folders of the classes by name; two ways to write one accent are one name."""
    folder = root / part
    if not folder.is_dir():
        held = "/<class>/, ".join(parts[:-1]) + f"/<class>/ and {parts[-1]}/<class>/"
        near = _near(root, part, parts)
        raise UserError(f"{folder}: no such folder; data.root must hold {held}{near}")
    for path in below(folder):
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path}: leads to no folder; mend or remove the link")
    classes: dict[str, Path] = {}
    for path in below(folder):
        name = unicodedata.normalize("NFC", path.name)
        if path.is_dir() and classes.setdefault(name, path) != path:
            raise UserError(f"{folder}: two folders are called '{name}', their accents written in two ways; join them")
    beside = [path.name for path in below(folder) if path.suffix.lower() in SUFFIXES and not path.is_dir()]
    if classes and beside:
        say(f"note: {folder}: {several(beside)} in no folder of a class, and not read")
    return classes


def _near(root: Path, part: str, parts: Sequence[str]) -> str:
    """Return what a person may have meant: a folder of nearly this name, or this name one folder down."""
    if not root.is_dir():
        return ""
    folders = [path for path in below(root) if path.is_dir()]
    if root.name in PARTS and (root.absolute().parent / part).is_dir():
        return f"; set data.root to {root.absolute().parent}"
    for path in folders:
        if path.name not in parts and path.name.lower() in {part.lower(), *NEAR.get(part, VALIDATION)}:
            return f"; rename '{path.name}' to '{part}'" + ("" if part in NEAR else ", or name it in data.val_folder")
    for path in folders:
        if (path / part).is_dir():
            return f"; set data.root to {path}"
    return f", and holds {several([path.name for path in folders])}" if folders else ""


def _files(folders: dict[str, Path], name: str) -> list[Path]:
    return below(folders[name]) if name in folders else []


def _check_suffixes(root: Path, paths: Sequence[Path]) -> None:
    """See that all files of the classes are images, by their names."""
    found = [path for path in paths if path.suffix.lower() not in SUFFIXES or path.is_dir()]
    others = [str(path.relative_to(root)) for path in found]
    if found and all(path.is_dir() for path in found):
        raise UserError(f"{root}: folders within a class: {several(others)}; move their images into the class's folder")
    if others:
        raise UserError(f"{root}: not a PNG, JPEG or WebP image: {several(others)}; remove or convert them")


def _decoded(paths: dict[str, list[Path]], side: int | None, resize: str) -> dict[str, list[np.ndarray]]:
    """Return the images of each part, (H, W, 3) uint8 each; say how many were not square and are now."""
    every = [path for part in paths.values() for path in part]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter lock
        found = list(pool.map(lambda path: _decode(path, side, resize), every))
    errors = [str(image) for image in found if isinstance(image, UserError)]
    if errors:
        raise UserError(errors[0] + (f" (and {len(errors) - 1} more: {several(errors[1:])})" if errors[1:] else ""))
    images = [image for image in found if not isinstance(image, UserError)]
    if side is not None:
        note_not_square(sum(not is_square for _, is_square in images), len(images), resize)
    rest = iter(pixels for pixels, _ in images)
    return {part: list(islice(rest, len(each))) for part, each in paths.items()}


def _decode(path: Path, side: int | None, resize: str) -> tuple[np.ndarray, bool] | UserError:
    """Return the pixels of an image, and whether it was square."""
    try:
        with opened(path) as file:
            image = rgb(file)
    except UserError as error:
        return error
    is_square = image.width == image.height
    return np.asarray(image if side is None else fitted(image, (side, side), resize)), is_square
