"""Collect the metrics of a table's runs, and refuse to mix what does not belong together."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from csa_core.errors import Missing, UserError, untrusted
from csa_core.store import canonical, read_sealed
from workflow.report.chance import guessing
from workflow.report.recount import GROUPS, wrong_predictions, wrong_scores
from workflow.rows import name_of
from workflow.sources import stated_digest

MEASURES = ("balanced", "harmonic_mean", "geometric_mean", "worst_class", "ece")
CHOOSES = "validation_balanced"  # what values are chosen by: validation images are as long-tailed as the training set
VALIDATION = ("validation_all", CHOOSES)
HEADINGS = {
    "all": "All",
    "many": "Many",
    "medium": "Med.",
    "few": "Few",
    "balanced": "Balanced",
    "harmonic_mean": "Harmonic mean",
    "geometric_mean": "Geometric mean",
    "worst_class": "Worst class",
    "ece": "ECE",
    "validation_all": "All, validation",
    "validation_balanced": "Balanced, validation",
}


def first_column(table: dict[str, Any]) -> str:
    """Return the first column of a table that is no count: what figures draw, and the page shows of each run."""
    return next(name for name in table["columns"] if name in HEADINGS)


def folder_of(table: dict[str, Any], row: dict[str, Any], seed: int) -> Path:
    """Return the folder of a row's run."""
    return Path(table["results"], "runs", row["run"], f"seed={seed}")


def collect(table: dict[str, Any], partial: bool = False) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the measures of every run in tidy form, and what the runs have in common.

    The frame has a line for each (row, seed, column): row (number), name (series and label), series,
    label, run, seed, head, test_images, chance (accuracy of naming one class every time), shifted_steps (NaN for
    other methods than csa), column (a group of classes, a measure, or one of `VALIDATION` where a run has validation
    images), value (a fraction; NaN for a group without classes).

    Args:
        table: what `Plan.declaration` returns.
        partial: leave out runs that are not there instead of refusing.

    Raises:
        UserError: a run is missing or damaged, is of another configuration or code, or the runs
            of the table are of different data or splits.
    """
    lines: list[dict[str, Any]] = []
    common: dict[tuple[str, str], tuple[str, Path]] = {}
    facts: dict[str, Any] = {}
    missing: dict[str, None] = {}
    computed: dict[str, dict[str, Any]] = {}
    if len(set(table["seeds"])) < len(table["seeds"]):
        raise UserError(f"{table['name']}: seeds {table['seeds']} names a seed twice; name each once")
    images = _images_there(table) if partial else []
    for number, row in enumerate(table["rows"]):
        code, made = row["code"], _images_of(table, row)
        for seed, config, parent in zip(table["seeds"], row["digests"], row["parents"], strict=True):
            path = folder_of(table, row, seed) / "metrics.json"
            if partial and not is_of(path, {"config": config, "code": code} | images[number]):
                missing[str(path.parent)] = None
                continue
            try:
                metrics = read_sealed(path)
            except Missing:
                target = f"{table['results']}/{table['name']}.csv"
                raise UserError(f"{path.parent}: is not finished; run snakemake --cores all {target}") from None
            again = f"delete {path.parent} and run snakemake again"
            with untrusted(f"{path}: lacks what table row '{row['label']}' needs; {again}"):
                head = row["head"] or metrics["predicts"]
                scores = metrics["heads"][head]
                values = {name: scores["accuracy"][name] for name in GROUPS}
                values["balanced"] = scores.get("balanced")  # results from before it was measured have none
                values |= {name: scores[name] for name in MEASURES[1:]}
                validated = metrics.get("validation", {}).get(head, {})
                wrong_there = ""
                if validated:
                    groups = {name: validated["accuracy"][name] for name in GROUPS}
                    own = {"validation_all": groups["all"], CHOOSES: validated["balanced"]}
                    wrong_there = wrong_scores(groups | own, validated, metrics["groups"], path)
                    values |= own
                stated = {key: str(metrics["digests"][key]) for key in ("config", "code", "data", "split")}
                facts = facts or {key: metrics[key] for key in ("class_counts", "groups", "config")}
                if row["reference"] or "recipe" not in facts:
                    facts |= {
                        "recipe": metrics["config"],
                        "recipe_row": number,
                        "recipe_counts": metrics["class_counts"],
                    }
                facts["splits"] = facts.get("splits", set()) | {stated["split"]}
                asked = canonical(metrics["config"]["data"])
                started_from = str(metrics["digests"]["parent"]) if parent else ""
                wrong = wrong_scores(values, scores, metrics["groups"], path)
                wrong = wrong or _wrong_count(metrics.get("shifted_steps"))
                wrong = wrong or wrong_predictions(path.parent, made["data"], made["split"], metrics, head)
                wrong = wrong or (f"of its validation images: {wrong_there}" if wrong_there else "")
                facts.setdefault("validation_images", sum(validated["images"]) if validated else 0)
                facts.setdefault("images_of", {})[number] = stated["data"], stated["split"]
                tested = scores.get("images", [])
                counted = {"test_images": sum(tested) or math.nan, "chance": guessing(tested) or math.nan}
                counted |= {"shifted_steps": metrics.get("shifted_steps", math.nan)}
                how = {"asked": metrics["config"].get("precision"), "run": row["run"], "seed": seed}
                computed[str(path)] = how | (metrics.get("computed") or {})
            if wrong:
                raise UserError(f"{path}: {wrong}; {again}")
            for key, wanted in (("config", config), ("code", code)):
                if stated[key] != wanted:
                    raise UserError(f"{path}: {key} digest is {stated[key][:12]}, expected {wanted[:12]}; {again}")
            # Rows may ask for different data or parents; runs that ask for the same must have had the same.
            checked = [(asked, key, stated[key]) for key in ("data", "split")]
            if parent:
                checked.append((parent, "parent", started_from))
            for asked, key, value in checked:
                first, where = common.setdefault((asked, key), (value, path))
                if first != value:
                    raise UserError(f"{path}: {key} digest differs from that of {where}; {again}")
            line = {"row": number, "name": name_of(row), "series": row["series"], "label": row["label"]}
            line |= {"run": row["run"], "seed": seed, "head": head} | counted
            for column, value in values.items():
                lines.append(line | {"column": column, "value": math.nan if value is None else value})
    if not lines:
        raise UserError(
            f"{table['name']}: none of its runs is finished; run snakemake {table['results']}/{table['name']}.csv"
        )
    facts["missing"] = list(missing)
    facts["seeds_of"] = dict(Counter(name for name, _ in {(line["name"], line["seed"]) for line in lines}))
    facts["computed"] = list(computed.values())
    shown = {key: value for (_, key), (value, _) in reversed(common.items()) if key != "parent"}
    facts["digests"] = shown | _codes(table)
    return pd.DataFrame(lines), facts


def is_finished(table: dict[str, Any]) -> Iterator[bool]:
    """Yield whether each run of a table is there and of its configuration, its code and the images that are there."""
    for row, same in zip(table["rows"], _images_there(table), strict=True):
        for seed, config in zip(table["seeds"], row["digests"], strict=True):
            wanted = {"config": config, "code": row["code"]} | same
            yield is_of(folder_of(table, row, seed) / "metrics.json", wanted)


def _images_of(table: dict[str, Any], row: dict[str, Any]) -> dict[str, Path]:
    """Return the files of a row's data set and split."""
    folder = Path(table["results"]).parent / "data" / str(row.get("data"))
    return {"data": folder / "dataset.safetensors", "split": folder / f"{row.get('split')}.json"}


def _images_there(table: dict[str, Any]) -> list[dict[str, str]]:
    """Return the SHA-256 that data set and split of each row state; nothing of those that are not there."""
    files = [_images_of(table, row) for row in table["rows"]]
    known = {path: stated_digest(path) for path in {path for each in files for path in each.values()}}
    return [{name: known[path] for name, path in each.items() if known[path]} for each in files]


def _wrong_count(value: Any) -> str:
    return "" if value is None or (isinstance(value, int) and value >= 0) else f"shifted_steps is {value!r}, no count"


def is_of(path: Path, digests: dict[str, str]) -> bool:
    """Whether a run is finished, with these digests."""
    with untrusted(f"{path}: says of no run what it is of; delete it and run snakemake again"):
        return path.exists() and digests.items() <= dict(read_sealed(path).get("digests", {})).items()


def _codes(table: dict[str, Any]) -> dict[str, str]:
    """Return the version of the code that the runs of each method carry; one where all have the same."""
    codes = {row["run"].split("/")[0]: row["code"] for row in table["rows"]}
    if len(set(codes.values())) == 1:
        return {"code": next(iter(codes.values()))}
    return {f"code of {method}": code for method, code in codes.items()}
