"""Long-tailed splits: which training images are kept, written as indices with a SHA-256."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csa_core import store
from csa_core.config import DataConfig
from csa_core.data.dataset import Dataset
from csa_core.data.listed import ImageList
from csa_core.data.streams import keyed_generator
from csa_core.errors import UserError, untrusted

GROUP_SIZES = {"cifar100_paper": (36, 35, 29), "cifar10_field": (3, 4, 3)}
"""Classes of many, medium and few, in label order."""


@dataclass(frozen=True)
class Split:
    """The kept training images, class by class.

    `indices` is (N,) int64 into the training images, grouped by class in label order;
    `class_counts` is (K,) int64; `digest` is the SHA-256 of both and of how they were made.
    """

    indices: np.ndarray
    class_counts: np.ndarray
    digest: str


def class_counts(
    profile: str, available: np.ndarray, ratio: float, largest: int | None, names: Sequence[str] | None = None
) -> np.ndarray:
    """Images per class of a long-tailed profile, (K,) int64, classes in label order.

    exponential: n_k = int(n_max * ratio ** (-k / (K - 1))); step: n_max for the first half of the
    classes, int(n_max / ratio) for the rest; as_is: all that is there.

    Raises:
        UserError: a class would have more images than there are, or none.
    """
    if profile in ("as_is", "selection"):
        return available.astype(np.int64)
    classes = len(available)
    n_max = int(available[0]) if largest is None else largest
    if n_max > available.max():
        raise UserError(f"data.max_class_count: {n_max} images asked for, no class has more than {available.max()}")
    if profile == "exponential":
        # The small addend undoes rounding: 500 * 100 ** -1 must be 5 and not 4.999...
        shares = ratio ** (-np.arange(classes) / (classes - 1))
    else:
        shares = np.where(np.arange(classes) < classes // 2, 1.0, 1 / ratio)
    counts = np.floor(n_max * shares + 1e-9).astype(np.int64)
    if (short := np.flatnonzero(counts > available)).size:
        k = short[0]
        name = f"class {k}" if names is None else f"class '{names[k]}'"
        raise UserError(
            f"data: profile {profile} asks for {counts[k]} images of {name}, which has {available[k]}; "
            "write data.profile: as_is to take the images as they are, or lower data.max_class_count"
        )
    if (empty := np.flatnonzero(counts == 0)).size:
        name = f"class {empty[0]}" if names is None else f"class '{names[empty[0]]}'"
        raise UserError(
            f"data.imbalance_ratio: {ratio:g} leaves {name} without images ({n_max} in the largest); "
            f"use at most {n_max}"
        )
    return counts


def make_split(dataset: Dataset | ImageList, data: DataConfig) -> Split:
    """Choose the kept images: the first n_k of a permutation per class, so splits are nested.

    The conventional subset is that of the code of LDAM-DRW (Cao et al., 2019) and of the many that took it over:
    NumPy's legacy generator, seeded with 0, shuffles the images of each class, in their original order, one class
    after the other.
    """
    classes = len(dataset.class_names)
    available = np.bincount(dataset.train_labels, minlength=classes)
    counts = class_counts(data.profile, available, data.imbalance_ratio, data.max_class_count, dataset.class_names)
    indices = []
    shared = np.random.RandomState(0)
    for k in range(classes):
        members = np.flatnonzero(dataset.train_labels == k)
        if data.subset == "conventional":
            shared.shuffle(members)
        elif data.profile not in ("as_is", "selection"):
            members = keyed_generator(data.split_seed, "split", k).permutation(members)
        indices.append(members[: counts[k]])
    return _split(np.concatenate(indices), counts, recipe(data), dataset.digest)


def recipe(data: DataConfig) -> dict[str, Any]:
    """Return the keys of `data` that decide a split."""
    fields = data.model_dump(mode="json", include={"profile", "imbalance_ratio", "max_class_count", "split_seed"})
    if data.subset == "conventional":
        del fields["split_seed"]
        return fields | {"subset": data.subset}
    return {"profile": data.profile} if data.profile in ("as_is", "selection") else fields


def write_split(path: Path, split: Split, dataset: Dataset | ImageList, data: DataConfig) -> None:
    """Write a split as JSON: what it is made from, class counts, indices by class, SHA-256."""
    by_class = np.split(split.indices, np.cumsum(split.class_counts)[:-1])
    content = {
        "sha256": split.digest,
        "data": dataset.digest,
        "recipe": recipe(data),
        "class_counts": split.class_counts.tolist(),
        "indices": {name: part.tolist() for name, part in zip(dataset.class_names, by_class, strict=True)},
    }
    store.write_json(path, content)


def read_split(path: Path, dataset: Dataset | ImageList, data: DataConfig) -> Split:
    """Read a split and check it against its SHA-256, the data set and the configuration.

    Raises:
        UserError: damaged, of another data set, made by another recipe, or an index out of range.
    """
    content = store.read_json(path)
    with untrusted(f"{path}: is not a split file; make it with `python -m csa_core split`"):
        indices = np.concatenate([np.asarray(part, dtype=np.int64) for part in content["indices"].values()])
        counts = np.asarray(content["class_counts"], dtype=np.int64)
        split = _split(indices, counts, content["recipe"], content["data"])
        stated = content["sha256"]
        expected = np.repeat(np.arange(len(dataset.class_names)), counts)
    again = "make it again with `python -m csa_core split`"
    if split.digest != stated:
        raise UserError(f"{path}: content does not match its SHA-256; {again}")
    if content["data"] != dataset.digest:
        raise UserError(f"{path}: is a split of data {content['data'][:12]}, not {dataset.digest[:12]}; {again}")
    if content["recipe"] != recipe(data):
        raise UserError(f"{path}: was made with {content['recipe']}, the run asks for {recipe(data)}; {again}")
    if not len(indices) or indices.min() < 0 or indices.max() >= len(dataset.train_labels):
        raise UserError(f"{path}: an index lies outside the {len(dataset.train_labels)} training images; {again}")
    if not np.array_equal(dataset.train_labels[indices], expected):
        raise UserError(f"{path}: indices do not match the labels of the data set; {again}")
    if not np.array_equal(indices, make_split(dataset, data).indices):  # whoever wrote the file and its SHA-256
        raise UserError(f"{path}: its images are not those that its recipe keeps; {again}")
    return split


def _split(indices: np.ndarray, counts: np.ndarray, made_by: dict[str, Any], data_digest: str) -> Split:
    content = {"indices": indices.tolist(), "counts": counts.tolist(), "recipe": made_by, "data": data_digest}
    return Split(indices, counts, store.digest(content))


def group_of_class(groups: str, counts: np.ndarray) -> list[str]:
    """Name the group of each class, many/medium/few.

    by_count: more than 100 / 20 to 100 / fewer than 20 training images. cifar100_paper: classes
    0-35 / 36-70 / 71-99, the grouping that reproduces the "All" of the paper's tables. cifar10_field: classes
    0-2 / 3-6 / 7-9, as papers on CIFAR10-LT have them.

    Raises:
        UserError: the data set has another number of classes than the grouping.
    """
    if groups == "by_count":
        return ["many" if n > 100 else "medium" if n >= 20 else "few" for n in counts]
    many, medium, few = GROUP_SIZES[groups]
    if len(counts) != many + medium + few:
        needed = f"{groups} needs {many + medium + few} classes"
        raise UserError(f"data.groups: {needed}, there are {len(counts)}; use by_count")
    return ["many"] * many + ["medium"] * medium + ["few"] * few
