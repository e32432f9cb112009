"""Data sets too large for memory: list files with a line `path label` for each image, as ImageNet-LT's."""

import os
import re
import stat
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from csa_core import store
from csa_core.config import DataConfig
from csa_core.data.dataset import check_class_names, note_untested
from csa_core.data.listfile import Line, read_lines
from csa_core.data.same import Part, check_same, file_keys
from csa_core.errors import UserError, untrusted

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
    """Bytes of every file, training before test before validation: a changed file is noticed without reading it."""
    workers: int = 0
    """Processes that decode; 0 decodes in the training process itself."""
    source: str = "image_list"
    val_paths: np.ndarray | None = None
    val_labels: np.ndarray | None = None
    """Validation images, by which values are chosen; None without."""
    resize: str = "crop"
    """How images become square, as `data.resize` says it."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of lists, labels, class names, file sizes and resize; not of where the images lie."""
        return store.tensors_digest(self._tensors(), self._meta())

    @cached_property
    def validation(self) -> "ImageList | None":
        """The same data set with the validation images in place of the test images; None without."""
        if self.val_paths is None or self.val_labels is None:
            return None
        train, _, val = self._sizes()
        return replace(
            self,
            test_paths=self.val_paths,
            test_labels=self.val_labels,
            val_paths=None,
            val_labels=None,
            sizes=np.concatenate([train, val]),
        )

    def holding_out(self, indices: np.ndarray) -> "ImageList":
        """Return the same data set with some training images for validation; its digest stays."""
        kept = np.delete(np.arange(len(self.train_labels)), indices)
        train, test, _ = self._sizes()
        held = replace(
            self,
            train_paths=self.train_paths[kept],
            train_labels=self.train_labels[kept],
            val_paths=self.train_paths[indices],
            val_labels=self.train_labels[indices],
            sizes=np.concatenate([train[kept], test, train[indices]]),
        )
        vars(held)["digest"] = self.digest
        return held

    def same_keys(self, indices: np.ndarray) -> list[Hashable]:
        """Return a key for each of some training images, equal where they are one file or have the same bytes.

        Raises:
            UserError: a file is not there.
        """
        paths = [self.root / os.fsdecode(name) for name in self.train_paths[indices]]
        try:
            return file_keys(paths, [path.stat() for path in paths])
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read ({error.strerror}); is data.root right?") from None

    def _sizes(self) -> list[np.ndarray]:
        """Return the sizes of training, test and validation images."""
        train = len(self.train_paths)
        return np.split(self.sizes, [train, train + len(self.test_paths)])

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
        parts = [part for part in ("train", "test", "val") if getattr(self, f"{part}_paths") is not None]
        text = {f"{part}_paths": _as_bytes(getattr(self, f"{part}_paths")) for part in parts}
        return text | {name: getattr(self, name) for name in [*(f"{part}_labels" for part in parts), "sizes"]}

    def _meta(self) -> dict[str, object]:
        resize = {} if self.resize == "crop" else {"resize": self.resize}
        return {"source": self.source, "class_names": list(self.class_names), "side": self.side} | resize


def read_lists(data: DataConfig) -> ImageList:
    """Read the list files of `data`, see that every file is there, and that training and other images are apart.

    Raises:
        UserError: naming the list and its line: no label, a label out of range, a missing file, too many the same.
    """
    lists = train, test, *_ = read_all(data)
    val = lists[2] if lists[2:] else None
    check_same(train.part, test.part, "byte by byte", val.part if val else None)
    counts = np.bincount(train.labels)
    if (missing := np.flatnonzero(counts == 0)).size:
        raise UserError(
            f"{data.train_list}: label {missing[0]} has no images, but label {len(counts) - 1} has; "
            "number classes 0 to K - 1"
        )
    order = np.argsort(-counts, kind="stable")
    number = np.argsort(order)
    names = _class_names(train.paths, train.labels, order)
    check_class_names(names, str(data.train_list))
    for each, what in zip(lists[1:], ("test", "validation"), strict=False):
        note_untested(names, number[each.labels], what)
    return ImageList(
        root=Path(data.root),
        side=data.side,
        class_names=names,
        train_paths=train.paths,
        train_labels=number[train.labels],
        test_paths=test.paths,
        test_labels=number[test.labels],
        sizes=np.concatenate([each.sizes for each in lists]),
        val_paths=val.paths if val else None,
        val_labels=number[val.labels] if val else None,
        resize=data.resize,
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
            val_paths=_from_bytes(tensors["val_paths"]) if "val_paths" in tensors else None,
            val_labels=tensors["val_labels"] if "val_paths" in tensors else None,
            resize=str(meta.get("resize", "crop")),
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
    parts = [(listed.train_paths, listed.train_labels), (listed.test_paths, listed.test_labels)]
    if listed.val_paths is not None and listed.val_labels is not None:
        parts.append((listed.val_paths, listed.val_labels))
    if listed.sizes.shape != (sum(len(paths) for paths, _ in parts),) or listed.sizes.dtype != np.int64:
        raise ValueError("sizes")
    if not np.array_equal(np.unique(listed.train_labels), range(classes)):
        raise ValueError("labels")
    for paths, labels in parts:
        if labels.shape != paths.shape or labels.dtype != np.int64 or not np.isin(labels, range(classes)).all():
            raise ValueError("labels")
        if any(name.startswith(b"/") or b".." in name.split(b"/") or b"\0" in name for name in paths.tolist()):
            raise ValueError("paths")
    if not all(isinstance(name, str) for name in listed.class_names):
        raise ValueError("class names")


@dataclass(frozen=True)
class ListFile:
    """What a list names: paths (bytes, below the root), labels, lines; sizes of the files, and which are the same."""

    path: Path
    paths: np.ndarray
    labels: np.ndarray
    lines: list[int]
    sizes: np.ndarray
    keys: list[Hashable]

    @property
    def part(self) -> Part:
        """What tells which of its images are the same."""
        return Part(self.keys, self.labels, self.place)

    def line(self, number: int) -> str:
        """Return which line names an image."""
        return f"{self.path}: line {self.lines[number]}"

    def place(self, number: int) -> str:
        """Return which line names an image, and the image."""
        return f"{self.line(number)} ({os.fsdecode(self.paths[number])})"


def read_all(data: DataConfig) -> list[ListFile]:
    """Read training and test list, and that of validation if any; see that every file is there, and which are the same.

    Raises:
        UserError: naming the list and its line: no label, a label out of range, a missing file.
    """
    root = Path(data.root)
    if not root.is_dir():
        raise UserError(
            f"data.root {root}: no such folder; set it to the folder that the paths of the lists start from"
        )
    lists = [Path(path) for path in (data.train_list, data.test_list, data.val_list) if path is not None]
    found: list[list[tuple[Line, str, os.stat_result]]] = []
    classes = None
    for path in lists:
        found.append([(line, *_find(line, root, path)) for line in read_lines(path)])
        labels = [line.label for line, _, _ in found[-1]]
        if not labels:
            raise UserError(f"{path}: names no images; write a line 'path label' for each")
        for line, name, _ in found[-1]:
            if classes is None and line.label >= len(labels):
                raise UserError(f"{path}: label {line.label} of {name} is outside 0..K-1; number classes from 0")
            if classes is not None and line.label >= classes:
                outside = f"label {line.label} is outside 0..{classes - 1}, the classes of the training list"
                raise UserError(f"{path}: line {line.number}: {outside}")
        classes = classes or max(labels) + 1
    both = [each for part in found for each in part]
    keys = file_keys([root / name for _, name, _ in both], [stat for _, _, stat in both])
    ends = np.cumsum([len(part) for part in found])
    return [
        ListFile(
            path,
            np.array([os.fsencode(name) for _, name, _ in part]),
            np.array([line.label for line, _, _ in part], dtype=np.int64),
            [line.number for line, _, _ in part],
            np.array([stat.st_size for _, _, stat in part], dtype=np.int64),
            keys[end - len(part) : end],
        )
        for path, part, end in zip(lists, found, ends.tolist(), strict=True)
    ]


def _find(line: Line, root: Path, path: Path) -> tuple[str, os.stat_result]:
    """Return the path of a line relative to the root, and what the system says of its file."""
    where = f"{path}: line {line.number}"
    name = os.path.normpath(line.path)
    if Path(name).is_absolute():
        name = os.path.relpath(name, root.absolute())
    if name.split("/")[0] == "..":
        hint = _meant(line.path.lstrip("/"), root) if Path(line.path).is_absolute() else None
        raise UserError(f"{where}: {_short(line.path)} leads out of data.root; {hint or 'write paths below it'}")
    reason = "no such file"
    for each in (name, name.replace("\\", "/")):  # as Windows writes it
        try:
            found = (root / each).stat()
        except (FileNotFoundError, NotADirectoryError, ValueError):  # a NUL within
            continue
        except OSError as error:
            reason = f"cannot be read ({error.strerror})"
            continue
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{where}: {root / each} is not a file; name an image")
        return each, found
    raise UserError(f"{where}: {root / _short(name)}: {reason}; {_meant(name, root) or 'is data.root right?'}")


def _meant(name: str, root: Path) -> str | None:
    """Return what is to be done about a path of a list that leads to no file; None where nobody can tell."""
    if any("\udc80" <= letter <= "\udcff" for letter in name):
        return "the line is no UTF-8; save the list as UTF-8"
    with suppress(OSError, ValueError):  # of the pieces: what is wrong with the path itself is said anyway
        for piece in re.split(r"[\s,;]+", name):
            if piece != name and (root / piece).is_file():
                return f"'{piece}' is there, but the line holds more than a path and a label"
        parts = name.replace("\\", "/").split("/")
        for rest in ("/".join(parts[n:]) for n in range(len(parts))):
            if (root / rest).is_file():
                return f"write '{rest}', the path below data.root"
    return None


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:200]}...{text[-50:]}"


def _class_names(paths: np.ndarray, labels: np.ndarray, order: np.ndarray) -> tuple[str, ...]:
    """Name each class, in the order of its number, by the folder of its images, or else by its label."""
    folders = {(int(label), Path(os.fsdecode(name)).parent.name) for name, label in zip(paths, labels, strict=True)}
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
