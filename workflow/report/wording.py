"""What a table says beside its numbers: what was run, and what the numbers are."""

from typing import Any

import pandas as pd

from csa_core import store
from workflow.report.computed import computed
from workflow.report.numbers import shown
from workflow.rows import name_of

COMPARABLE = "paper"  # heading of values that are of the same recipe
EXPLANATION = "Top-1 accuracy in percent on the test set after the last epoch, mean ± sd over seeds."
COMPARISON = (
    "− ref.: difference from the protocol's reference run (the row without it), seed by seed, with its 95 % interval, "
    "each row by itself, without a correction for the number of rows or claims."
)
POOLED = (
    "Pooled: the 95 % interval of the same difference with the spread of all rows of the sweep taken together "
    "({:g} degrees of freedom in place of {:g}); it assumes that all rows spread alike and that no seed favours some."
)
BOLD = "Bold: the best of its column, where its 95 % interval against every other row lies on the better side of zero."
OF_THE_PAPER = "− paper: 95 % interval of the difference from our standard error and that ± (Welch)."
PUBLISHED = (
    "Published by others: mostly from one run each, with other schedules and learning rates, often at the best test "
    "epoch; for orientation only, so no differences are shown."
)
EXPLAINED = {
    "balanced": "Balanced: mean of the accuracies of the classes.",
    "shifted_steps": "Shifted steps: training steps with context shift, mean over seeds.",
    "harmonic_mean": "Harmonic mean: of the accuracies of the classes.",
    "geometric_mean": "Geometric mean: of the accuracies of the classes.",
    "worst_class": "Worst class: the lowest accuracy of a class, mean over seeds.",
    "ece": "ECE: expected calibration error in 15 bins, lower is better.",
    "validation_balanced": (
        "Validation: accuracy on images that are neither trained nor tested on. They may be as long-tailed as the "
        "training set, so values are chosen by the mean over classes (Balanced)."
    ),
}


def heading(table: dict[str, Any], facts: dict[str, Any], with_source: bool = True) -> str:
    """Return what was run, in two sentences, and where the paper has it."""
    data, counts = facts["config"]["data"], facts["class_counts"]
    overrides = f" with {store.canonical(table['overrides'])}" if table["overrides"] else ""
    groups = ", ".join(f"{facts['groups'].count(group)} {group}" for group in ("many", "medium", "few"))
    several = " Rows differ in their data; these numbers are of the first." if len(facts["splits"]) > 1 else ""
    partial = _partial(table, facts) if facts["missing"] else ""
    name = data.get("source") or f"selection {data['selection']}"  # of the same images from any source
    held_out = f" (and {facts['validation_images']:,} to validate on)" if facts.get("validation_images") else ""
    return (
        f"Protocol {table['protocol']}{overrides}; data {name}, {sum(counts):,} training images{held_out} in "
        f"{len(counts)} classes of {max(counts)} to {min(counts)} ({groups}); "
        f"seeds {', '.join(map(str, table['seeds']))}; {computed(facts['computed'])}."
        f"{several}{partial}" + (f" {table['source']}." if with_source else "")
    )


def _partial(table: dict[str, Any], facts: dict[str, Any]) -> str:
    """Say which runs are missing, and how many seeds each row has."""
    missing, seeds = facts["missing"], facts["seeds_of"]
    counts = [f"{name_of(row)} {seeds.get(name_of(row), 0)}" for row in table["rows"]]
    return (
        f" PARTIAL: without {', '.join(missing[:5])}{', ...' if missing[5:] else ''}. Seeds finished, of "
        f"{len(table['seeds'])}: {', '.join(counts)}."
    )


def explanation(table: dict[str, Any], summary: pd.DataFrame, facts: dict[str, Any]) -> list[str]:
    """Return what the numbers are, in sentences."""
    texts = [EXPLANATION]
    errors = summary["test_error_percent"].dropna()
    if len(errors):
        ends = " to ".join(dict.fromkeys((shown(errors.min()), shown(errors.max()))))
        texts.append(
            f"One training split and one test set of {summary['test_images'].max():,.0f} images are behind them: the "
            f"test set's own standard error of All, sqrt(p(1 − p)/n), is {ends} points and not in the sd."
        )
    if any(row["reference"] for row in table["rows"]):
        texts.append(COMPARISON)
    if (pooled := summary["pooled_freedom"].dropna()).any():
        texts.append(POOLED.format(pooled.max(), summary["seeds"].max() - 1))
    if summary["paper_sd_percent"].notna().any():
        texts.append(
            f"The paper's values are of one run each; ± {table['paper_sd']:g} is the sd over seeds of public "
            "CIFAR100-LT runs, not the paper's own."
        )
        if table["paper_heading"] == COMPARABLE:
            texts.append(OF_THE_PAPER)
    if any(row.get("published") for row in table["rows"]):
        texts.append(PUBLISHED)
    texts += [text for column, text in EXPLAINED.items() if column in table["columns"]]
    return [*texts, *filter(None, [facts.get("worst_classes")]), *rows_of_one_run(table)]


def rows_of_one_run(table: dict[str, Any]) -> list[str]:
    """Return which rows are the same run, in sentences: an override may take away what tells them apart."""
    why = ": the overrides leave nothing that tells them apart" if table["overrides"] else ""
    names: dict[tuple[str, str | None], list[str]] = {}
    for row in table["rows"]:
        names.setdefault((row["run"], row["head"]), []).append(f"'{name_of(row)}'")
    return [f"{' and '.join(alike)} are one run here{why}." for alike in names.values() if len(alike) > 1]
