"""A right digest says who wrote a file, not that it is true: what is cheap is made again and compared."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csa_core import store
from csa_core.config import DataConfig
from csa_core.data.dataset import Dataset
from csa_core.data.listed import read_lists
from csa_core.data.sources import read_dataset
from csa_core.data.split import Split, make_split, read_split, write_split
from csa_core.errors import UserError
from csa_core.evaluation.scores import pack, score
from tests.conftest import listed
from tests.helpers.workflows import metrics, table
from workflow.report.collect import collect

SPLIT = DataConfig(source="demo", imbalance_ratio=4, max_class_count=16)


def moved(indices: np.ndarray) -> np.ndarray:
    """Another image of the same class in place of the first."""
    return np.concatenate([[next(i for i in range(30) if i not in indices)], indices[1:]])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda i: np.concatenate([i[:1], i[:1], i[2:]]), id="one twice"),
        pytest.param(moved, id="another one of the class"),
        pytest.param(lambda i: np.concatenate([i[1::-1], i[2:]]), id="another order"),
    ],
)
def test_a_split_of_other_images_under_its_recipe(
    change: Callable[[np.ndarray], np.ndarray], dataset: Dataset, tmp_path: Path
) -> None:
    from csa_core.data.split import _split, recipe

    kept, path = make_split(dataset, SPLIT), tmp_path / "split.json"
    write_split(path, kept, dataset, SPLIT)
    assert read_split(path, dataset, SPLIT).digest == kept.digest
    other = _split(change(kept.indices), kept.class_counts, recipe(SPLIT), dataset.digest)
    write_split(path, other, dataset, SPLIT)
    with pytest.raises(UserError, match=r"its images are not those that its recipe keeps; make it again"):
        read_split(path, dataset, SPLIT)


@pytest.mark.parametrize(
    "indices", ['{"a": [1e999]}', f'{{"a": [{10**400}]}}', '{"a": [-1]}', "{}", '{"a": ["x"]}', "[1]", "null", "NaN"]
)
def test_a_split_of_no_numbers(indices: str, dataset: Dataset, split: Split, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    write_split(path, split, dataset, SPLIT)
    path.write_text(path.read_text().replace('"indices": {', f'"indices": {indices}, "were": {{'))
    with pytest.raises(UserError, match=r"split.json: (is not a split file|is not JSON|content does not match)"):
        read_split(path, dataset, SPLIT)


LISTS: dict[str, Callable[[store.Tensors], dict[str, Any]]] = {
    "a label outside the classes": lambda t: {"train_labels": t["train_labels"] + 1},
    "a negative label": lambda t: {"test_labels": t["test_labels"] - 1},
    "labels of another type": lambda t: {"train_labels": t["train_labels"].astype(np.float32)},
    "a label too few": lambda t: {"train_labels": t["train_labels"][1:]},
    "a path from the root": lambda t: {"train_paths": path_in(t["train_paths"], b"/etc/passwd")},
    "a path that climbs": lambda t: {"test_paths": path_in(t["test_paths"], b"test/../../etc/passwd")},
    "a path with NUL": lambda t: {"test_paths": path_in(t["test_paths"], b"te\0st")},
    "a size too many": lambda t: {"sizes": np.append(t["sizes"], 1)},
    "sizes as text": lambda t: {"sizes": t["sizes"].astype("f8")},
}


def path_in(paths: np.ndarray, name: bytes) -> np.ndarray:
    return np.frombuffer(b"\n".join([name, *paths.tobytes().split(b"\n")[1:]]), dtype=np.uint8)


@pytest.mark.parametrize("case", LISTS)
def test_a_list_that_is_not_of_its_classes_or_leads_elsewhere(case: str, image_lists: Path, tmp_path: Path) -> None:
    data = DataConfig(**listed(image_lists)["data"])  # type: ignore[arg-type]
    whole = read_lists(data)
    path = tmp_path / "list.safetensors"
    whole.write(path)
    assert read_dataset(path, data).digest == whole.digest
    tensors, meta, _ = store.read_tensors(path)
    store.write_tensors(path, tensors | LISTS[case](tensors), meta)
    with pytest.raises(UserError, match=r"list.safetensors: is not a data set file"):
        read_dataset(path, data)


@pytest.mark.parametrize("names", [[], ["a"], [1, 2, 3, 4], "abcd", None])
def test_a_data_set_without_classes(names: Any, dataset: Dataset, tmp_path: Path) -> None:
    tensors = {name: getattr(dataset, name) for name in ("train_images", "train_labels", "test_images", "test_labels")}
    if not names:
        tensors = {name: array[:0] for name, array in tensors.items()}
    store.write_tensors(tmp_path / "d", tensors, {"source": "demo", "class_names": names})
    if names == "abcd":  # four letters are four names
        assert read_dataset(tmp_path / "d", DataConfig(source="demo")).class_names == tuple("abcd")
        return
    with pytest.raises(UserError, match="/d: (is not a data set file|[01] classes; at least two)"):
        read_dataset(tmp_path / "d", DataConfig(source="demo"))


SCORES: dict[str, tuple[dict[str, Any], str]] = {
    "more than all": ({"accuracy": {"all": 7.5}}, "all is 7.5, no fraction"),
    "less than none": ({"accuracy": {"few": -0.1}}, "few is -0.1, no fraction"),
    "a truth value": ({"accuracy": {"few": "high"}}, "few is 'high', no fraction"),
    "calibration": ({"ece": 2}, "ece is 2, no fraction"),
    "other than its counts": ({"correct": [9, 1], "images": [10, 10]}, "accuracy of all is 0.8, its counts say 0.5"),
    "groups": ({"correct": [10, 6], "images": [10, 10]}, "accuracy of few is 0.4, its counts say 0.8"),
    "more right than there are": ({"correct": [12, 4], "images": [10, 10]}, "counts of correct images"),
    "a mean over classes": (
        {"accuracy": {"few": 0.8}, "correct": [10, 6], "images": [10, 10], "balanced": 0.8, "worst_class": 0.7},
        "worst_class is 0.7, its counts say 0.6",
    ),
    "no counts": ({"correct": "many", "images": [10, 10]}, "lacks what table row"),
    "no images": ({"images": None}, "lacks what table row"),
    "other classes": ({"correct": [8] * 3, "images": [10] * 3}, "lacks what table row"),
}


@pytest.mark.parametrize("case", SCORES)
def test_a_table_of_what_cannot_be(case: str, tmp_path: Path) -> None:
    changes, match = SCORES[case]
    shown = table(results=str(tmp_path), seeds=[2])
    shown["rows"] = shown["rows"][1:]
    shown["rows"][0]["digests"] = ["ce-2"]
    value = metrics("ce", 2, 1)
    value["heads"]["single"]["accuracy"].update(all=0.8, few=0.4, medium=None)
    value["heads"]["single"]["accuracy"].update(changes.get("accuracy", {}))
    value["heads"]["single"].update({key: part for key, part in changes.items() if key != "accuracy"})
    store.write_json(tmp_path / "runs/ce/seed=2/metrics.json", store.sealed(value))
    with pytest.raises(UserError, match=match):
        collect(shown)


LABELS = np.repeat([0, 1], 10)
NAMED = np.r_[np.zeros(9, int), np.ones(11, int)]
"""Which class a network names each image as: one of the first class is mistaken."""
HONEST = {head: np.eye(2, dtype=np.float32)[NAMED] for head in ("uniform", "resampling")}


def published(folder: Path, logits: np.ndarray, head: str = "uniform") -> dict[str, Any]:
    """Write a run of two heads with its predictions and data set, and metrics that state scores of some logits."""
    data = folder / "data/demo/dataset.safetensors"
    store.write_tensors(data, {"test_labels": LABELS, "test_images": np.zeros((20, 1))}, {})
    shown = table(results=str(folder / "demo"), seeds=[2])
    shown["rows"] = [shown["rows"][1] | {"digests": ["ce-2"], "parents": [None], "data": "demo", "head": head}]
    value = metrics("ce", 2, 1)
    value["digests"] |= {"data": store.read_header(data)["sha256"]}
    value["groups"] = ["few", "few"]
    value["heads"] = {name: score(logits, LABELS, value["groups"]) for name in (*HONEST, "ensemble")}
    run = folder / "demo/runs/ce/seed=2"
    store.write_tensors(run / "predictions.safetensors", HONEST, {"digests": value["digests"]})
    store.write_json(run / "metrics.json", store.sealed(value))
    return shown


@pytest.mark.parametrize("head", ["uniform", "ensemble"])
@pytest.mark.parametrize("there", ["all", "without the data set", "another data set", "as published"])
def test_metrics_that_are_sound_in_themselves_and_not_those_of_the_predictions(
    there: str, head: str, tmp_path: Path
) -> None:
    def there_is(shown: dict[str, Any]) -> dict[str, Any]:
        data, run = tmp_path / "data/demo/dataset.safetensors", tmp_path / "demo/runs/ce/seed=2"
        if there == "without the data set":
            data.unlink()
        elif there == "another data set":
            store.write_tensors(data, {"test_labels": LABELS[::-1]}, {})
        elif there == "as published":
            (run / "predictions.safetensors").unlink()
        return shown

    values, _ = collect(there_is(published(tmp_path, HONEST["uniform"], head)))
    assert values.set_index("column").loc["all", "value"] == 0.95
    perfect = there_is(published(tmp_path, np.eye(2, dtype=np.float32)[LABELS], head))
    if there == "as published":  # nothing is left to say otherwise
        assert len(collect(perfect)[0])
        return
    with pytest.raises(UserError, match=rf"its counts of {head} are not those of its predictions; delete .* again"):
        collect(perfect)


@pytest.mark.parametrize("there", ["held out", "of a folder", "another split", "without a split"])
def test_validation_scores_that_are_not_those_of_the_predictions(there: str, tmp_path: Path) -> None:
    """Labels of images held out of training are in the split, class by class, and others in the data set."""
    shown = published(tmp_path, HONEST["uniform"])
    run, data = tmp_path / "demo/runs/ce/seed=2", tmp_path / "data/demo/dataset.safetensors"
    if there == "of a folder":
        store.write_tensors(data, {"test_labels": LABELS, "val_labels": LABELS}, {})
    cats = 5 if there == "another split" else 10
    held = {"sha256": "s", "validation": {"cat": list(range(cats)), "dog": list(range(cats, 20))}}
    if there != "without a split":
        store.write_json(tmp_path / "data/demo/half.json", held)
    shown["rows"][0]["split"] = "half"
    value = store.read_sealed(run / "metrics.json")
    value["digests"] |= {"data": store.read_header(data)["sha256"], "split": "t" if there == "another split" else "s"}
    value["config"]["data"] |= {} if there == "of a folder" else {"validation": 0.1}
    kept = HONEST | {f"validation/{head}": logits for head, logits in HONEST.items()}
    store.write_tensors(run / "predictions.safetensors", kept, {"digests": value["digests"]})

    def states(logits: np.ndarray) -> dict[str, Any]:
        value["validation"] = {head: score(logits, LABELS, value["groups"]) for head in HONEST}
        store.write_json(run / "metrics.json", store.sealed(value))
        return shown

    values, _ = collect(states(HONEST["uniform"]))
    assert values.set_index("column").loc["validation_all", "value"] == 0.95
    with pytest.raises(UserError, match="its counts of validation/uniform are not those of its predictions"):
        collect(states(np.eye(2, dtype=np.float32)[LABELS]))


def test_predictions_of_another_run(tmp_path: Path) -> None:
    shown = published(tmp_path, HONEST["uniform"])
    run = tmp_path / "demo/runs/ce/seed=2"
    stated = store.read_sealed(run / "metrics.json")["digests"]
    store.write_tensors(run / "predictions.safetensors", HONEST, {"digests": stated | {"config": "ce-3"}})
    with pytest.raises(UserError, match="its predictions are of another run"):
        collect(shown)


def test_confusion_counts_of_other_classes(tmp_path: Path) -> None:
    shown = published(tmp_path, HONEST["uniform"])
    path = tmp_path / "demo/runs/ce/seed=2/metrics.json"
    value = store.read_sealed(path)
    value["heads"]["uniform"]["confusion"] = pack(np.array([[10, 0], [0, 10]]))
    store.write_json(path, store.sealed(value))
    with pytest.raises(UserError, match="its confusion counts are not those of its classes"):
        collect(shown)
