"""What runs say of single classes: names, accuracies, and which is taken for which."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import csa_core
from csa_core.errors import Damaged, Missing, UserError
from csa_core.files import read_text
from csa_core.store import read_header, read_sealed
from workflow.report.collect import folder_of

SELECTIONS = Path(csa_core.__file__).parent / "data" / "selections"
NAMED = 3  # worst classes that are named, of those that are equally bad


class NoCountsError(UserError):
    """A run is of a version that did not keep counts by class."""


def runs_of(values: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each row and seed: name, run, seed, head."""
    return values.drop_duplicates(["row", "seed"])[["name", "run", "seed", "head"]]


def recalls(table: dict[str, Any], values: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy of each class that has test images, a line a row, seed and class.

    Columns: name (of the row), class (number), label (the class's name), images (for training), seed, percent.
    """
    lines = []
    labels_of: dict[str, dict[int, str]] = {}  # rows may be of different data
    for row in runs_of(values).to_dict("records"):
        path = folder_of(table, row, row["seed"]) / "metrics.json"
        metrics = read_sealed(path)
        data = metrics["digests"]["data"]
        labels = labels_of[data] = labels_of.get(data) or class_names(table, row)
        scores = metrics["heads"][row["head"]]
        if "correct" not in scores:
            raise NoCountsError(f"{path}: holds no counts by class; delete {path.parent} and run snakemake again")
        for k, count in enumerate(metrics["class_counts"]):
            if scores["images"][k]:
                percent = 100 * scores["correct"][k] / scores["images"][k]
                line = {"name": row["name"], "class": k, "label": labels.get(k, f"class {k}"), "images": count}
                lines.append(line | {"seed": row["seed"], "percent": percent})
    return pd.DataFrame(lines)


def worst_classes(table: dict[str, Any], values: pd.DataFrame) -> str:
    """Return which class each row recognises least, over its seeds, in words; nothing where no counts are kept."""
    try:
        singles = recalls(table, values)
    except NoCountsError:
        return ""
    texts = []
    for name, part in singles.groupby("name", sort=False):
        means = part.groupby(["class", "label"], sort=False)["percent"].mean()
        worst = [str(label) for _, label in means.index[np.isclose(means, means.min())]]
        more = f" and {len(worst) - NAMED} more" if len(worst) > NAMED else ""
        texts.append(f"{', '.join(worst[:NAMED])}{more} ({name})")
    return f"Worst classes, by their mean over seeds: {'; '.join(texts)}."


def class_names(table: dict[str, Any], row: dict[Any, Any]) -> dict[int, str]:
    """Return the names of the classes of a run by number; `class 3` where nothing here knows them.

    Metrics hold them. For those from before they did, a run's weights, its data set or its selection may.

    Args:
        table: what `Plan.declaration` returns.
        row: one of `runs_of`.
    """
    folder = folder_of(table, row, row["seed"])
    metrics = read_sealed(folder / "metrics.json")
    data = next((each.get("data") for each in table["rows"] if each["run"] == row["run"]), None)
    files = (folder / "weights.safetensors", Path(table["results"]).parent / "data" / str(data) / "dataset.safetensors")
    counts = metrics["class_counts"]
    for names in (metrics.get("class_names"), *map(_of_file, files), _of_selection(metrics)):
        if isinstance(names, list) and len(names) == len(counts) and all(isinstance(name, str) for name in names):
            return dict(enumerate(names))
    return {k: f"class {k}" for k in range(len(counts))}


def _of_file(path: Path) -> Any:
    try:
        meta = read_header(path)["meta"]
    except (Missing, Damaged, KeyError):
        return None
    return meta.get("class_names") or (meta.get("use") or {}).get("class_names")


def _of_selection(metrics: dict[str, Any]) -> list[str] | None:
    """Return the classes of a selection that comes with the package, if it is that of the run's images."""
    try:
        lines = read_text(SELECTIONS / f"{metrics['config']['data']['selection']}.txt").splitlines()
    except (Missing, KeyError, TypeError):
        return None
    counts = Counter(line.rpartition(" ")[0] for line in lines if not line.startswith("#"))
    is_of_it = f"# data {metrics['digests']['data']}" in lines and [*counts.values()] == metrics["class_counts"]
    return list(counts) if is_of_it else None
