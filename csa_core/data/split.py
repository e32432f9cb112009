"""Long-tailed splits: which training images are kept, written as indices with a SHA-256."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from csa_core import store
from csa_core.config import DataConfig
from csa_core.data.dataset import Dataset
from csa_core.data.listed import ImageList
from csa_core.data.streams import keyed_generator
from csa_core.data.validation import held_out
from csa_core.errors import UserError, untrusted

GROUP_SIZES = {"cifar100_paper": (36, 35, 29), "cifar10_field": (3, 4, 3)}
"""Classes of many, medium and few, in label order."""
NO_IMAGES = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Split:
    """The kept training images, class by class.

    `indices` is (N,) int64 into the training images, grouped by class in label order;
    `class_counts` is (K,) int64; `validation`, (M,) int64, are those that are held out, class by class, and none of
    the others; `digest` is the SHA-256 of all of them and of how they were made.
    """

    indices: np.ndarray
    class_counts: np.ndarray
    digest: str
    validation: np.ndarray = field(default_factory=lambda: NO_IMAGES)


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

    Validation images are held out of what the profile keeps, see `csa_core.data.validation`.
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
    kept, validation = np.concatenate(indices), NO_IMAGES
    if data.validation:
        is_held = held_out(dataset.same_keys(kept), counts, data.validation, data.validation_seed)
        if not is_held.any():
            raise UserError(f"data.validation: {data.validation:g} holds out no image: no class has two that differ")
        kept, validation = kept[~is_held], kept[is_held]
        counts = np.bincount(dataset.train_labels[kept], minlength=classes)
    return _split(kept, counts, recipe(data), dataset.digest, validation)


def apart(dataset: Dataset | ImageList, split: Split) -> tuple[Dataset | ImageList, Split]:
    """Return a data set whose training images are without those that a split holds out, and the split of it.

    Nothing that is made of it can depend on them but what is scored on them; both keep their digests.
    """
    if not len(split.validation):
        return dataset, split
    left = np.delete(np.arange(len(dataset.train_labels)), split.validation)
    indices = np.searchsorted(left, split.indices)
    return dataset.holding_out(split.validation), Split(indices, split.class_counts, split.digest)


def recipe(data: DataConfig) -> dict[str, Any]:
    """Return the keys of `data` that decide a split."""
    keys = {"profile"} | ({"validation", "validation_seed"} if data.validation else set())
    if data.profile not in ("as_is", "selection"):
        keys |= {"imbalance_ratio", "max_class_count", "subset" if data.subset == "conventional" else "split_seed"}
    return data.model_dump(mode="json", include=keys)


def write_split(path: Path, split: Split, dataset: Dataset | ImageList, data: DataConfig) -> None:
    """Write a split as JSON: what it is made from, class counts, indices by class, SHA-256."""
    content: dict[str, Any] = {
        "sha256": split.digest,
        "data": dataset.digest,
        "recipe": recipe(data),
        "class_counts": split.class_counts.tolist(),
        "indices": _by_class(split.indices, dataset),
    }
    if len(split.validation):
        content["validation"] = _by_class(split.validation, dataset)
    store.write_json(path, content)


def _by_class(indices: np.ndarray, dataset: Dataset | ImageList) -> dict[str, list[int]]:
    counts = np.bincount(dataset.train_labels[indices], minlength=len(dataset.class_names))
    parts = np.split(indices, np.cumsum(counts)[:-1])
    return {name: part.tolist() for name, part in zip(dataset.class_names, parts, strict=True)}


def _together(by_class: dict[str, list[int]]) -> np.ndarray:
    return np.concatenate([np.asarray(part, dtype=np.int64) for part in by_class.values()])


def read_split(path: Path, dataset: Dataset | ImageList, data: DataConfig) -> Split:
    """Read a split and check it against its SHA-256, the data set and the configuration.

    Raises:
        UserError: damaged, of another data set, made by another recipe, or an index out of range.
    """
    content = store.read_json(path)
    with untrusted(f"{path}: is not a split file; make it with `python -m csa_core split`"):
        indices, counts = _together(content["indices"]), np.asarray(content["class_counts"], dtype=np.int64)
        validation = _together(content["validation"]) if "validation" in content else NO_IMAGES
        split = _split(indices, counts, content["recipe"], content["data"], validation)
        stated = content["sha256"]
        expected = np.repeat(np.arange(len(dataset.class_names)), counts)
    again = "make it again with `python -m csa_core split`"
    if split.digest != stated:
        raise UserError(f"{path}: content does not match its SHA-256; {again}")
    if content["data"] != dataset.digest:
        raise UserError(f"{path}: is a split of data {str(content['data'])[:12]}, not {dataset.digest[:12]}; {again}")
    if content["recipe"] != recipe(data):
        raise UserError(f"{path}: was made with {content['recipe']}, the run asks for {recipe(data)}; {again}")
    if not len(indices) or indices.min() < 0 or indices.max() >= len(dataset.train_labels):
        raise UserError(f"{path}: an index lies outside the {len(dataset.train_labels)} training images; {again}")
    if not np.array_equal(dataset.train_labels[indices], expected):
        raise UserError(f"{path}: indices do not match the labels of the data set; {again}")
    again_made = make_split(dataset, data)
    if not (np.array_equal(indices, again_made.indices) and np.array_equal(validation, again_made.validation)):
        # whoever wrote the file and its SHA-256
        raise UserError(f"{path}: its images are not those that its recipe keeps; {again}")
    return split


def _split(
    indices: np.ndarray,
    counts: np.ndarray,
    made_by: dict[str, Any],
    data_digest: str,
    validation: np.ndarray = NO_IMAGES,
) -> Split:
    content = {"indices": indices.tolist(), "counts": counts.tolist(), "recipe": made_by, "data": data_digest}
    content |= {"validation": validation.tolist()} if len(validation) else {}
    return Split(indices, counts, store.digest(content), validation)


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
