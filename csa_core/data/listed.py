"""Data sets too large for memory: list files with a line `path label` for each image, as ImageNet-LT's."""

import stat
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from csa_core import store
from csa_core.config import DataConfig
from csa_core.errors import Missing, UserError, untrusted
from csa_core.files import read_text

MOST_LIST = 2**29
"""Bytes of the longest list; ImageNet's has 60 million."""
IMAGENET_MEAN_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@dataclass(frozen=True)
class ImageList:
    """A data set as lists: paths below `root`, labels as (N,) int64 in [0, K), K class names.

    Classes are numbered by falling training count, as the head-to-tail figures of the field have
    them; their names are the folders of their images where these tell classes apart, else the labels.
    """

    root: Path
    side: int
    class_names: tuple[str, ...]
    train_paths: np.ndarray
    train_labels: np.ndarray
    test_paths: np.ndarray
    test_labels: np.ndarray
    sizes: np.ndarray
    """Bytes of every file, training before test: a changed file is noticed without reading all of them."""
    workers: int = 0
    """Processes that decode; 0 decodes in the training process itself."""
    source: str = "image_list"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of lists, labels, class names and file sizes; not of where the images lie."""
        return store.tensors_digest(self._tensors(), self._meta())

    @property
    def mean_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Channel mean and standard deviation that ImageNet is normalised with, (3,) each."""
        return IMAGENET_MEAN_STD

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width that images are cropped to."""
        return self.side, self.side

    def write(self, path: Path, made_from: str = "") -> None:
        """Write lists, labels and sizes as one file; the images stay where they are."""
        store.write_tensors(path, self._tensors(), self._meta(), made_from)

    def _tensors(self) -> store.Tensors:
        text = {name: _as_bytes(getattr(self, name)) for name in ("train_paths", "test_paths")}
        return text | {name: getattr(self, name) for name in ("train_labels", "test_labels", "sizes")}

    def _meta(self) -> dict[str, object]:
        return {"source": self.source, "class_names": list(self.class_names), "side": self.side}


def read_lists(data: DataConfig) -> ImageList:
    """Read the list files of `data` and see that every file is there.

    Raises:
        UserError: naming the list and its line: no label, a label out of range, a missing file.
    """
    root = Path(data.root)
    if not root.is_dir():
        raise UserError(
            f"data.root {root}: no such folder; set it to the folder that the paths of the lists start from"
        )
    train_paths, train_labels, train_sizes = _read_list(Path(str(data.train_list)), root)
    counts = np.bincount(train_labels)
    if (missing := np.flatnonzero(counts == 0)).size:
        raise UserError(
            f"{data.train_list}: label {missing[0]} has no images, but label {len(counts) - 1} has; "
            "number classes 0 to K - 1"
        )
    test_paths, test_labels, test_sizes = _read_list(Path(str(data.test_list)), root, len(counts))
    if (missing := np.flatnonzero(np.bincount(test_labels, minlength=len(counts)) == 0)).size:
        raise UserError(f"{data.test_list}: label {missing[0]} has no images there, but some in {data.train_list}")
    if (both := np.intersect1d(train_paths, test_paths)).size:
        raise UserError(f"{data.test_list}: {both[0].decode()} is in {data.train_list} too; take it out of one")
    order = np.argsort(-counts, kind="stable")
    number = np.argsort(order)
    return ImageList(
        root=root,
        side=data.side,
        class_names=_class_names(train_paths, train_labels, order),
        train_paths=train_paths,
        train_labels=number[train_labels],
        test_paths=test_paths,
        test_labels=number[test_labels],
        sizes=np.concatenate([train_sizes, test_sizes]),
    )


def from_file(path: Path, tensors: store.Tensors, meta: dict[str, object], data: DataConfig) -> ImageList:
    """Return what `ImageList.write` wrote, with its images below `data.root`."""
    with untrusted(f"{path}: is not a data set file; make it with `python -m csa_core data`"):
        listed = ImageList(
            root=Path(data.root),
            side=int(str(meta["side"])),
            class_names=tuple(meta["class_names"]),  # type: ignore[arg-type]
            train_paths=_from_bytes(tensors["train_paths"]),
            train_labels=tensors["train_labels"],
            test_paths=_from_bytes(tensors["test_paths"]),
            test_labels=tensors["test_labels"],
            sizes=tensors["sizes"],
        )
        _check(listed)
    if not listed.root.is_dir():
        raise UserError(f"data.root {listed.root}: no such folder; set it to the folder that the lists start from")
    return listed


def _check(listed: ImageList) -> None:
    """See that labels are of the classes, and paths below the root, whoever wrote the file.

    Raises:
        ValueError: they are not.
    """
    classes = len(listed.class_names)
    if listed.sizes.shape != (len(listed.train_paths) + len(listed.test_paths),) or listed.sizes.dtype != np.int64:
        raise ValueError("sizes")
    for paths, labels in ((listed.train_paths, listed.train_labels), (listed.test_paths, listed.test_labels)):
        if (
            labels.shape != paths.shape
            or labels.dtype != np.int64
            or not np.array_equal(np.unique(labels), range(classes))
        ):
            raise ValueError("labels")
        if any(name.startswith(b"/") or b".." in name.split(b"/") or b"\0" in name for name in paths.tolist()):
            raise ValueError("paths")
    if not all(isinstance(name, str) for name in listed.class_names):
        raise ValueError("class names")


def _read_list(path: Path, root: Path, classes: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return paths (bytes), labels and sizes of the files that a list names."""
    try:
        lines = read_text(path, MOST_LIST).splitlines()
    except Missing:
        raise UserError(f"{path}: cannot be read; set data.train_list and data.test_list to the list files") from None
    names, labels, sizes = [], [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where, (name, _, label) = f"{path}: line {number}", line.strip().rpartition(" ")
        if not name or not label.isdecimal() or len(label) > 9:
            raise UserError(f"{where}: '{line.strip()[:60]}' has no label; write 'path label'")
        if classes is not None and int(label) >= classes:
            raise UserError(f"{where}: label {label} is outside 0..{classes - 1}, the classes of the training list")
        if name.startswith("/") or ".." in Path(name).parts:
            raise UserError(f"{where}: {name} leads out of data.root; write paths below it")
        try:
            found = (root / name).stat()
            if not stat.S_ISREG(found.st_mode):  # to open a pipe is to wait for who writes to it
                raise UserError(f"{where}: {root / name}: no regular file; take its line out of the list")
            sizes.append(found.st_size)
        except (OSError, ValueError):
            raise UserError(f"{where}: {root / name}: no such file; is data.root right?") from None
        names.append(name.encode())
        labels.append(int(label))
    if not names:
        raise UserError(f"{path}: names no images; write a line 'path label' for each")
    if classes is None and max(labels) >= len(labels):
        number = int(np.argmax(labels))
        raise UserError(
            f"{path}: label {labels[number]} of {names[number].decode()} is outside 0..K-1; number classes from 0"
        )
    return np.array(names), np.array(labels, dtype=np.int64), np.array(sizes, dtype=np.int64)


def _class_names(paths: np.ndarray, labels: np.ndarray, order: np.ndarray) -> tuple[str, ...]:
    """Name each class, in the order of its number, by the folder of its images, or else by its label."""
    folders = {(int(label), Path(name.decode()).parent.name) for name, label in zip(paths, labels, strict=True)}
    names = dict(folders)
    if len(folders) == len(names) == len(set(names.values())) == len(order):
        return tuple(names[int(k)] for k in order)
    return tuple(str(k) for k in order)


def _as_bytes(names: np.ndarray) -> np.ndarray:
    return np.frombuffer(b"\n".join(names.tolist()), dtype=np.uint8)


def _from_bytes(content: np.ndarray) -> np.ndarray:
    return np.array(content.tobytes().split(b"\n"))


def with_workers(dataset: ImageList, workers: int) -> ImageList:
    """Return the data set with this many decoding processes."""
    return replace(dataset, workers=workers)
