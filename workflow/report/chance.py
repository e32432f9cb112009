"""Which rows are no better than guessing, or start from what is: a difference between such rows says little."""

from pathlib import Path
from typing import Any

import pandas as pd

from csa_core.errors import untrusted
from csa_core.store import read_sealed
from workflow.report.numbers import shown
from workflow.rows import name_of

LIMIT = 1.645  # standard errors of the test set: one-sided, at 5 %
PROBES = {"knn": "its kNN probe", "linear": "its linear probe"}


def at_chance(table: dict[str, Any], values: pd.DataFrame) -> dict[str, str]:
    """Return what is to be said of each row that is at chance, or starts from a run that is, by name.

    Args:
        table: what `Plan.declaration` returns.
        values: what `collect` returns.
    """
    said = {}
    scored = values[values["column"] == "all"].groupby("name", sort=False)[["value", "test_images", "chance"]].mean()
    for line in scored.reset_index().to_dict("records"):
        if _is_chance(line["value"], line["test_images"], line["chance"]):
            said[line["name"]] = f"at chance: {_against(line['value'], line['chance'])}"
    for row in table["rows"]:
        if row.get("parent") and (text := _start(table, row)):
            said[name_of(row)] = text
    return said


def rows_of(claim: dict[str, Any]) -> list[str]:
    """Return the names of the rows that a claim speaks of."""
    if claim["kind"] == "contrast":
        return [term["row"] for term in claim["more"] + claim["less"]]
    return [claim["row"], *claim["among"]]


def remarks(said: dict[str, str], names: list[str]) -> list[str]:
    """Return what is said of these rows, those of which the same is said together."""
    texts: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        if name in said:
            texts.setdefault(said[name], []).append(f"'{name}'")
    return [f"{', '.join(names[:5])}{', ...' if names[5:] else ''}: {text}" for text, names in texts.items()]


def guessing(images: list[int]) -> float | None:
    """Return the accuracy of naming one class every time, the most frequent one; None where there are no counts."""
    return max(images) / sum(images) if any(images) else None


def _start(table: dict[str, Any], row: dict[str, Any]) -> str:
    """Return what is to be said of the runs that a row starts from; nothing where they are not here."""
    scores = []
    for seed in table["seeds"]:
        path = Path(table["results"], "runs", row["parent"], f"seed={seed}", "metrics.json")
        if path.exists():
            metrics = read_sealed(path)
            with untrusted(f"{path}: lacks scores; delete {path.parent} and run snakemake again"):
                head = metrics["predicts"]
                images = metrics["heads"][head].get("images", [])
                scores.append((metrics["heads"][head]["accuracy"]["all"], sum(images), guessing(images)))
    if not scores or any(chance is None for *_, chance in scores):
        return ""
    value, images, chance = (sum(column) / len(scores) for column in zip(*scores, strict=True))
    if not _is_chance(value, images, chance):
        return ""
    of = row["parent"].split("/")[0]
    return f"starts from {of}, and {PROBES.get(head, 'that')} is at chance: {_against(value, chance)}"


def _is_chance(value: float, images: float, chance: float) -> bool:
    return bool(value - LIMIT * (value * (1 - value) / images) ** 0.5 <= chance) if images > 0 else False


def _against(value: float, chance: float) -> str:
    return f"{shown(100 * value)} %, where naming one class every time gives {shown(100 * chance)} %"
