"""One notion of the same image: one file under two names, the same bytes, or the same pixels once decoded.

Each source says which images are the same, by a key for each; what follows from it is decided here.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from csa_core.errors import UserError, say

MOST_SHARED = 0.01
TAIL = 4096


@dataclass(frozen=True)
class Part:
    """Training, test or validation images: keys, equal where images are the same; labels; where each is named."""

    keys: Sequence[Hashable]
    labels: Sequence[int] | np.ndarray
    place: Callable[[int], str]


def check_same(train: Part, test: Part, how: str, validation: Part | None = None) -> None:
    """See that no image is of two parts, has two labels, or is there twice.

    Even CIFAR-100 has a few: a note names them. More than one in a hundred that are in two parts, or have two
    labels, would make a score a test of memory or of chance, or a choice one by the test set, and are refused. The
    same image twice under one label is a note however often.

    Args:
        how: by what images are the same, as `pixel by pixel`.
    """
    parts = {"training": train, "test": test} | ({"validation": validation} if validation else {})
    for (of, other), (name, part) in combinations(parts.items(), 2):
        there = _first(other.keys)
        both = [(i, there[key]) for i, key in enumerate(part.keys) if key in there]
        pairs = [(part.place(i), other.place(j)) for i, j in both[:1]]
        _say(pairs, len(both), len(part.keys), f"{name} images are {of} images, {how}", "take them out of one")
    for name, part in parts.items():
        first = _first(part.keys)
        twice = [(i, first[key]) for i, key in enumerate(part.keys) if first[key] != i]
        two_labels = [(i, j) for i, j in twice if part.labels[i] != part.labels[j]]
        same_label = [(i, j) for i, j in twice if part.labels[i] == part.labels[j]]
        for found, what, remedy in (
            (two_labels, f"{name} images carry two labels, {how}", "give each one label"),
            (same_label, f"{name} images are there twice, {how}", None),
        ):
            pairs = [(part.place(i), part.place(j)) for i, j in found[:1]]
            _say(pairs, len(found), len(part.keys), what, remedy)


def _first(keys: Sequence[Hashable]) -> dict[Hashable, int]:
    first: dict[Hashable, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    return first


def _say(pairs: list[tuple[str, str]], count: int, total: int, what: str, remedy: str | None) -> None:
    if not pairs:
        return
    line = f"{count} of {total} {what}: {pairs[0][0]} is {pairs[0][1]}"
    if remedy and count > MOST_SHARED * total:
        raise UserError(f"{line}; {remedy}")
    say(f"note: {line}")


def pixels_key(image: np.ndarray) -> bytes:
    """Return the key of a decoded image, (H, W, 3) uint8."""
    return hashlib.sha256(f"{image.shape}:".encode() + image.tobytes()).digest()


def file_keys(paths: Sequence[Path], stats: Sequence[os.stat_result]) -> list[Hashable]:
    """Return a key for each file, equal where two are one file (links, `./`) or have the same bytes.

    Only files of one size are read: first their ends, whole only where these are equal.
    """
    one = [(s.st_dev, s.st_ino) if s.st_ino else str(path) for path, s in zip(paths, stats, strict=True)]
    place = _first(one)
    kinds: dict[Hashable, Hashable] = {file: stats[i].st_size for file, i in place.items()}
    for end in (TAIL, None):
        counts = Counter(kinds.values())
        alike = [file for file, kind in kinds.items() if counts[kind] > 1]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            contents = list(pool.map(lambda file, end=end: _content(paths[place[file]], end), alike))
        kinds |= {file: (kinds[file], content) for file, content in zip(alike, contents, strict=True)}
    return [kinds[file] for file in one]


def _content(path: Path, end: int | None) -> Hashable:
    """Return a digest of a file, or of its last bytes."""
    try:
        with path.open("rb") as file:
            if end is None:
                return hashlib.file_digest(file, "sha256").digest()
            file.seek(max(os.fstat(file.fileno()).st_size - end, 0))
            return hashlib.sha256(file.read()).digest()
    except OSError:  # decoding it will say why
        return str(path)
