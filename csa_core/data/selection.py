"""Selections: exactly these training images, named by their pixels, from whichever source holds them.

A split by seed names images by their number in the original archive; a folder has lost that order.
A selection names each by class and pixels, so that an archive and a folder give the same data set to
the bit, its SHA-256 included.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from csa_core import store
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.errors import UserError
from csa_core.files import read_text

SHIPPED = Path(__file__).parent / "selections"
LENGTH = 16  # hexadecimal digits a line; the header's SHA-256 is over all pixels


def find_selection(name: str) -> Path:
    """Return the file of a selection: one that comes with the package, by its name, or a path."""
    shipped = SHIPPED / f"{name}.txt"
    return shipped if shipped.is_file() else Path(name)


def select(dataset: Dataset, name: str) -> Dataset:
    """Return the data set whose training images are those of a selection, in its order.

    Test images are all there are, ordered by class and pixels.

    Raises:
        UserError: the selection is missing or malformed, or the images are not all there.
    """
    path = find_selection(name)
    stated, lines = _read(path)
    label_of = {name: label for label, name in enumerate(dataset.class_names)}
    there: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index, key in enumerate(_keys(dataset.train_images, dataset.train_labels)):
        there[key].append(index)
    chosen = []
    for number, (class_name, pixels) in lines:
        if class_name not in label_of:
            raise UserError(f"{path}: line {number}: class '{class_name}' is not in the images' source")
        # The same pixels twice in a class are two images, and two lines.
        same = there.get((label_of[class_name], pixels))
        if not same:
            raise UserError(
                f"{path}: line {number}: no image of class {class_name} has the pixels {pixels}; name the original "
                "images, neither resized nor compressed again"
            )
        chosen.append(same.pop(0))
    selected = _selected(dataset, chosen)
    if selected.digest != stated:
        raise UserError(
            f"{path}: its training images are here, but the test images are not those that it was made with"
        )
    return selected


def write_selection(path: Path, dataset: Dataset, split: Split) -> None:
    """Write the images of a split as a selection, a line each, in the split's order."""
    whole = _selected(dataset, split.indices)
    keys = _keys(whole.train_images, whole.train_labels)
    lines = [f"{dataset.class_names[label]} {pixels}" for label, pixels in keys]
    header = [
        "# A selection of csa_core: the training images, in order, by class and SHA-256 of their H x W x 3 bytes.",
        f"# data {whole.digest}",
    ]
    store.write_bytes(path, ("\n".join(header + lines) + "\n").encode())


def _selected(dataset: Dataset, indices: Sequence[int] | np.ndarray) -> Dataset:
    """Return a data set of some training images, in this order, and of all test images by class and pixels."""
    tests = _keys(dataset.test_images, dataset.test_labels)
    order = sorted(range(len(tests)), key=tests.__getitem__)
    return Dataset(
        "selection",
        dataset.class_names,
        dataset.train_images[indices],
        dataset.train_labels[indices],
        dataset.test_images[order],
        dataset.test_labels[order],
    )


def _keys(images: np.ndarray, labels: np.ndarray) -> list[tuple[int, str]]:
    """Return label and the first digits of the SHA-256 of the pixels of each image."""
    return [
        (int(label), hashlib.sha256(image.tobytes()).hexdigest()[:LENGTH])
        for image, label in zip(images, labels, strict=True)
    ]


def _read(path: Path) -> tuple[str, list[tuple[int, tuple[str, str]]]]:
    """Return the SHA-256 of the data set that a selection makes, and (line number, (class, pixels)) of each image."""
    try:
        text = read_text(path).splitlines()
    except UserError:
        shipped = ", ".join(sorted(each.stem for each in SHIPPED.glob("*.txt")))
        raise UserError(f"data.selection: no readable file '{path}'; name one, or {shipped}") from None
    stated, lines = "", []
    for number, line in enumerate(text, 1):
        class_name, _, pixels = line.rpartition(" ")
        is_image = bool(class_name) and len(pixels) == LENGTH
        if line.startswith("#") and not is_image:  # a class may be called #1
            word, _, rest = line[1:].strip().partition(" ")
            stated = rest if word == "data" else stated
        elif line.strip():
            if not is_image:
                raise UserError(f"{path}: line {number}: expected a class and {LENGTH} hexadecimal digits")
            lines.append((number, (class_name, pixels)))
    if not stated or not lines:
        raise UserError(f"{path}: is not a selection; make one with `python -m csa_core selection`")
    return stated, lines
