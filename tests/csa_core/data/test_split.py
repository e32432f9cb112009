"""Long-tailed splits: the totals that must come out, nesting, and files that are checked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csa_core.config import DataConfig
from csa_core.data.dataset import Dataset
from csa_core.data.split import class_counts, group_of_class, make_split, read_split, write_split
from csa_core.errors import UserError
from csa_core.store import digest, read_json, write_json

CIFAR100, CIFAR10 = np.full(100, 500), np.full(10, 5000)


@pytest.mark.parametrize(
    ("available", "ratio", "total"),
    [
        (CIFAR100, 100, 10_847),
        (CIFAR100, 50, 12_608),
        (CIFAR100, 10, 19_573),
        (CIFAR10, 100, 12_406),
        (CIFAR10, 50, 13_996),
        (CIFAR10, 10, 20_431),
    ],
)
def test_totals_of_the_field(available: np.ndarray, ratio: float, total: int) -> None:
    counts = class_counts("exponential", available, ratio, None)
    assert counts.sum() == total
    assert counts[0] == available[0] and counts[-1] == available[0] // ratio


def test_step_profile() -> None:
    assert class_counts("step", CIFAR10, 100, None).tolist() == [5000] * 5 + [50] * 5


def test_as_is_takes_everything() -> None:
    assert class_counts("as_is", np.array([3, 9, 1]), 100, None).tolist() == [3, 9, 1]


@pytest.mark.parametrize(
    ("available", "ratio", "largest", "match"),
    [
        (np.array([10, 3]), 1, None, "asks for 10 images of class 1, which has 3"),
        (np.array([10, 10]), 20, None, "imbalance_ratio: 20 leaves class 1 without images"),
        (np.array([10, 10]), 1, 11, "max_class_count"),
        (np.array([10, 10]), 1, 10**23, "max_class_count"),
    ],
)
def test_impossible_profiles_say_so(available: np.ndarray, ratio: float, largest: int | None, match: str) -> None:
    with pytest.raises(UserError, match=match):
        class_counts("exponential", available, ratio, largest)


def config(**changes: object) -> DataConfig:
    return DataConfig(source="demo", **({"imbalance_ratio": 10.0} | changes))  # type: ignore[arg-type]


def test_splits_are_nested_and_classes_are_kept_apart(dataset: Dataset) -> None:
    large, small = (make_split(dataset, config(imbalance_ratio=ratio)) for ratio in (3.0, 10.0))
    assert set(small.indices) < set(large.indices)
    assert len(set(large.indices)) == len(large.indices)
    for split in (large, small):
        assert np.array_equal(dataset.train_labels[split.indices], np.repeat(np.arange(4), split.class_counts))


def test_which_images_depends_on_the_split_seed_alone(dataset: Dataset) -> None:
    one, same, other = (make_split(dataset, config(split_seed=seed)) for seed in (0, 0, 1))
    assert one.digest == same.digest and np.array_equal(one.indices, same.indices)
    assert one.digest != other.digest and set(one.indices) != set(other.indices)


def test_written_and_read_again(dataset: Dataset, tmp_path: Path) -> None:
    split = make_split(dataset, config())
    write_split(tmp_path / "split.json", split, dataset, config())
    again = read_split(tmp_path / "split.json", dataset, config())
    assert np.array_equal(split.indices, again.indices) and split.digest == again.digest


def test_a_changed_file_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    write_split(path, make_split(dataset, config()), dataset, config())
    content = json.loads(path.read_text())
    content["indices"]["a"][0] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="split.json: content does not match its SHA-256"):
        read_split(path, dataset, config())
    path.write_text("{}")
    with pytest.raises(UserError, match="is not a split file"):
        read_split(path, dataset, config())


def test_a_split_of_another_recipe_or_data_set_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    write_split(path, make_split(dataset, config()), dataset, config())
    with pytest.raises(UserError, match="was made with"):
        read_split(path, dataset, config(imbalance_ratio=5.0))
    other = Dataset(
        "demo",
        dataset.class_names,
        dataset.train_images + 1,
        dataset.train_labels,
        dataset.test_images,
        dataset.test_labels,
    )
    with pytest.raises(UserError, match="is a split of data"):
        read_split(path, other, config())


@pytest.mark.parametrize("data", [None, 7.5, True, {"a": []}])
def test_a_split_that_names_no_data_is_refused_though_its_sha256_is_right(
    data: Any, dataset: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "split.json"
    write_split(path, made := make_split(dataset, config()), dataset, config())
    content = read_json(path) | {"data": data}
    resealed = {"indices": made.indices.tolist(), "counts": made.class_counts.tolist(), "recipe": content["recipe"]}
    write_json(path, content | {"sha256": digest(resealed | {"data": data})})
    with pytest.raises(UserError, match="is a split of data"):
        read_split(path, dataset, config())


def test_groups_by_count() -> None:
    assert group_of_class("by_count", np.array([500, 101, 100, 20, 19, 1])) == [
        "many",
        "many",
        "medium",
        "medium",
        "few",
        "few",
    ]


def test_groups_of_the_paper_reproduce_its_all() -> None:
    """Row "Ours" of Table 1: 64.3 / 49.7 / 18.2 gives 45.8 with 36/35/29 classes, 45.4 with 35/35/30."""
    counts = class_counts("exponential", CIFAR100, 100, None)

    def printed_all(groups: str) -> float:
        names = group_of_class(groups, counts)
        return sum({"many": 64.3, "medium": 49.7, "few": 18.2}[name] for name in names) / 100

    assert round(printed_all("cifar100_paper"), 1) == 45.8
    assert round(printed_all("by_count"), 1) == 45.4
    names = group_of_class("cifar100_paper", counts)
    assert names == ["many"] * 36 + ["medium"] * 35 + ["few"] * 29
    with pytest.raises(UserError, match="cifar100_paper needs 100 classes, there are 2"):
        group_of_class("cifar100_paper", np.array([5, 5]))


def test_groups_of_the_field_for_ten_classes() -> None:
    """By the rule for counts CIFAR10-LT has eight classes of many images and none of few."""
    counts = class_counts("exponential", np.full(10, 5000), 100, None)
    assert [group_of_class("by_count", counts).count(name) for name in ("many", "medium", "few")] == [8, 2, 0]
    assert group_of_class("cifar10_field", counts) == ["many"] * 3 + ["medium"] * 4 + ["few"] * 3
    with pytest.raises(UserError, match="cifar10_field needs 10 classes, there are 100"):
        group_of_class("cifar10_field", np.full(100, 5))
