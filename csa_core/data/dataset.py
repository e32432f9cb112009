"""A data set in memory: uint8 images, labels and class names, for training, for test and, if asked for, to validate."""

import unicodedata
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from csa_core import store
from csa_core.data.same import pixels_key
from csa_core.errors import UserError, say, untrusted

UNSHOWABLE = {"Cc", "Cs", "Zl", "Zp"}  # control characters, bytes that are no UTF-8, separators of lines


@dataclass(frozen=True)
class Dataset:
    """Images as (N, H, W, 3) uint8, labels as (N,) int64 in [0, K), K class names."""

    source: str
    class_names: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    digest: str = ""
    """SHA-256 of all the others; computed when not given."""
    val_images: np.ndarray | None = None
    val_labels: np.ndarray | None = None
    """Validation images, by which values are chosen; None without."""
    resize: str = "stretch"
    """How images became square, as `data.resize` says it."""

    def __post_init__(self) -> None:
        if not self.digest:
            object.__setattr__(self, "digest", store.tensors_digest(self._tensors(), self._meta()))

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image."""
        return self.train_images.shape[1], self.train_images.shape[2]

    @cached_property
    def mean_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Channel mean and standard deviation of the training images, (3,) float64, of [0, 1]."""
        # From counts of the 256 levels: exact. A hundred images at a time, as counting takes them as int64.
        levels, counts = np.arange(256) / 255, np.zeros((3, 256), dtype=np.int64)
        for start in range(0, len(self.train_images), 100):
            part = self.train_images[start : start + 100]
            counts += np.stack([np.bincount(part[..., c].ravel(), minlength=256) for c in range(3)])
        mean = counts @ levels / counts.sum(1)
        variance = counts @ levels**2 / counts.sum(1) - mean**2
        return mean, np.sqrt(np.maximum(variance, 1e-12))

    @cached_property
    def validation(self) -> "Dataset | None":
        """The same data set with the validation images in place of the test images; None without."""
        if self.val_images is None or self.val_labels is None:
            return None
        scored = replace(self, test_images=self.val_images, test_labels=self.val_labels)
        vars(scored)["mean_std"] = self.mean_std
        return scored

    def holding_out(self, indices: np.ndarray) -> "Dataset":
        """Return the same data set with some training images for validation; its digest stays."""
        kept = np.delete(np.arange(len(self.train_labels)), indices)
        return replace(
            self,
            train_images=self.train_images[kept],
            train_labels=self.train_labels[kept],
            val_images=self.train_images[indices],
            val_labels=self.train_labels[indices],
        )

    def same_keys(self, indices: np.ndarray) -> list[Hashable]:
        """Return a key for each of some training images, equal where their pixels are."""
        return [pixels_key(image) for image in self.train_images[indices]]

    def check(self, where: str) -> "Dataset":
        """Return self when sound.

        Raises:
            UserError: shapes or types off, a label out of range, a class without training images, a name to refuse.
        """
        classes = len(self.class_names)
        if classes < 2:
            raise UserError(f"{where}: {classes} classes; at least two are needed")
        check_class_names(self.class_names, where)
        parts = [("train", self.train_images, self.train_labels), ("test", self.test_images, self.test_labels)]
        if self.val_images is not None and self.val_labels is not None:
            parts.append(("validation", self.val_images, self.val_labels))
        for part, images, labels in parts:
            if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
                raise UserError(f"{where}: {part} images must be (N, H, W, 3) uint8")
            if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
                raise UserError(
                    f"{where}: {len(images)} {part} images, but labels are {labels.shape} {labels.dtype}; "
                    "there must be one int64 for each image"
                )
            wrong = np.flatnonzero((labels < 0) | (labels >= classes))
            if len(wrong):
                raise UserError(
                    f"{where}: {part} image {wrong[0]} has label {labels[wrong[0]]}, "
                    f"outside 0..{classes - 1}; mend the labels or add the class"
                )
            if not len(labels):
                raise UserError(f"{where}: has no {part} images; add some")
            empty = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
            if len(empty) and part == "train":  # what the test set lacks is left out of the scores
                raise UserError(
                    f"{where}: class '{self.class_names[empty[0]]}' has no {part} images; add some or remove the class"
                )
        for part, images, _ in parts[1:]:
            if self.train_images.shape[1:] != images.shape[1:]:
                raise UserError(
                    f"{where}: train images are {_size(self.train_images)}, {part} images {_size(images)}; "
                    "set data.image_size"
                )
        return self

    def write(self, path: Path, made_from: str = "") -> None:
        """Write the data set as one safetensors file with its digest."""
        store.write_tensors(path, self._tensors(), self._meta(), made_from)

    def _tensors(self) -> store.Tensors:
        names = ("train_images", "train_labels", "test_images", "test_labels", "val_images", "val_labels")
        return {name: array for name in names if (array := getattr(self, name)) is not None}

    def _meta(self) -> dict[str, object]:
        meta: dict[str, object] = {"source": self.source, "class_names": list(self.class_names)}
        return meta if self.resize == "stretch" else meta | {"resize": self.resize}


def from_file(path: Path, tensors: store.Tensors, meta: dict[str, Any], digest: str) -> Dataset:
    """Return what `Dataset.write` wrote; a `UserError` says what is wrong with the file."""
    with untrusted(f"{path}: is not a data set file; make it with `python -m csa_core data`"):
        resize = meta.get("resize", "stretch")
        dataset = Dataset(meta["source"], tuple(meta["class_names"]), **tensors, digest=digest, resize=resize)
        if not all(isinstance(name, str) for name in (dataset.source, resize, *dataset.class_names)):
            raise TypeError
        if (dataset.val_images is None) != (dataset.val_labels is None):
            raise TypeError
    return dataset.check(str(path))


def check_class_names(names: Sequence[str], where: str) -> None:
    """See that class names can be shown and written: UTF-8 without control characters."""
    for name in names:
        if any(unicodedata.category(letter) in UNSHOWABLE for letter in name):
            raise UserError(f"{where}: class {name!a} is not UTF-8 text, or holds a control character; rename it")


def note_untested(names: Sequence[str], labels: np.ndarray, part: str = "test") -> None:
    """Say which classes the test set lacks, or the validation images."""
    if len(empty := np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)):
        some = ", ".join(f"'{names[k]}'" for k in empty[:3]) + (", ..." if len(empty) > 3 else "")
        what = f"{len(empty)} of {len(names)} classes have no {part} images ({some})"
        say(f"note: {what}; means over classes are of the others")


def _size(images: np.ndarray) -> str:
    return f"{images.shape[2]} x {images.shape[1]} px"
