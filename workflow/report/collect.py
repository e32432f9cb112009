"""Collect the metrics of a table's runs, and refuse to mix what does not belong together."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from csa_core.errors import UserError
from csa_core.store import read_json

GROUPS = ("all", "many", "medium", "few")


def collect(table: dict[str, Any], code: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return accuracies in tidy form and what their runs have in common.

    The frame has a line for each (row, seed, group): columns row (number), label, run, seed, head,
    group, accuracy (a fraction; NaN for a group without classes).

    Raises:
        UserError: a run is missing or damaged, is of another configuration or code, or the runs
            of the table are of different data or splits.
    """
    lines: list[dict[str, Any]] = []
    common: dict[str, tuple[str, Path]] = {}
    facts: dict[str, Any] = {}
    for number, row in enumerate(table["rows"]):
        for seed, config in zip(table["seeds"], row["digests"], strict=True):
            path = Path("results/runs", row["run"], f"seed={seed}", "metrics.json")
            metrics = read_json(path)
            again = f"delete {path.parent} and run snakemake again"
            try:
                digests, head = metrics["digests"], row["head"] or metrics["predicts"]
                accuracy = metrics["heads"][head]["accuracy"]
                facts = facts or {
                    "class_counts": metrics["class_counts"],
                    "groups": metrics["groups"],
                    "config": metrics["config"],
                }
                stated = {key: digests[key] for key in ("config", "code", "data", "split")}
            except (KeyError, TypeError):
                raise UserError(f"{path}: lacks what table row '{row['label']}' needs; {again}") from None
            for key, wanted in (("config", config), ("code", code)):
                if stated[key] != wanted:
                    raise UserError(f"{path}: {key} digest is {stated[key][:12]}, expected {wanted[:12]}; {again}")
            for key in ("data", "split"):
                first, where = common.setdefault(key, (stated[key], path))
                if first != stated[key]:
                    raise UserError(f"{path}: {key} digest differs from that of {where}; {again}")
            for group in GROUPS:
                value = accuracy[group]
                if value is not None and not (isinstance(value, float | int) and math.isfinite(value)):
                    raise UserError(f"{path}: accuracy of {group} is {value!r}; {again}")
                line = {"row": number, "label": row["label"], "run": row["run"], "seed": seed, "head": head}
                lines.append(line | {"group": group, "accuracy": math.nan if value is None else value})
    facts["digests"] = {key: value for key, (value, _) in common.items()} | {"code": code}
    return pd.DataFrame(lines), facts
