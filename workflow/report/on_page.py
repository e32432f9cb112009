"""What the page shows of a table, so that it need not read every run again."""

from typing import Any

import pandas as pd

from workflow.report.collect import first_column, folder_of
from workflow.report.wording import explanation, heading

OWN = ("folder", "image_list")  # a person's own images


def on_page(
    table: dict[str, Any],
    values: pd.DataFrame,
    summary: pd.DataFrame,
    frame: pd.DataFrame,
    bold: list[list[int]],
    claims: pd.DataFrame,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Return text of the cells and which are bold, the runs behind each row, the claims, and the recipe.

    Args:
        table: what `Plan.declaration` returns.
        values, facts: what `collect` returns.
        summary: what `tables.tidy` makes of them.
        frame: the cells as text.
        bold: of each row the places of the cells that are bold.
        claims: what `judge_all` returns.
    """
    own = values[values["column"] == first_column(table)]
    runs: dict[int, list[Any]] = {number: [] for number in own["row"].unique()}
    for number, seed, accuracy in zip(own["row"], own["seed"], own["value"], strict=True):
        # Paths on the page are relative to it.
        path = (folder_of(table, table["rows"][number], seed) / "metrics.json").relative_to(table["results"])
        runs[number].append([int(seed), path.as_posix(), None if pd.isna(accuracy) else 100 * accuracy])
    needed = [name for name in claims if name.startswith("seeds_needed")]
    claims[needed] = claims[needed].astype(float).clip(upper=1e9)  # infinity is no JSON
    data, counts = facts["recipe"]["data"], facts["recipe_counts"]
    is_own = data.get("source") in OWN and not data.get("selection")
    test_images = values.loc[values["row"] == facts["recipe_row"], "test_images"].max()
    return {key: table[key] for key in ("name", "title", "protocol", "overrides", "seeds", "note")} | {
        "heading": heading(table, facts, with_source=not is_own),
        "explanation": explanation(table, summary, facts),
        "header": list(frame.columns),
        "names": 1 + ("" in frame),
        "rows": list(zip(frame.to_numpy().tolist(), runs.values(), bold, strict=True)),
        "claims": claims.astype(object).where(claims.notna(), None).to_dict("records"),
        "digests": facts["digests"],
        "recipe": facts["recipe"],
        "images": {"train": sum(counts), "classes": len(counts), "largest": max(counts), "smallest": min(counts)}
        | {"test": None if pd.isna(test_images) else int(test_images)},
        "own_data": is_own,
        "is_partial": bool(facts["missing"]),
    }
