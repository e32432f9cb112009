"""Judge what the appendix says in words, from the numbers of the table it speaks of.

A contrast of cells is tested against zero (Student's t, two-sided). It is *supported* when its 95 %
interval lies above zero, *contradicted* when below, and else *cannot be told*. "The best of m" must
beat every rival, each 95 % interval above zero (an intersection-union test needs no correction); it
is contradicted when a rival is better by Holm's method over all of them. "Insensitive" is an
equivalence: every rival's 90 % interval within the margin (two one-sided tests at 5 %). Both speak of
the rows that the appendix has: where one is missing there is no verdict, and others are no rivals.

Differences are seed by seed (*paired*); within a sweep they are also judged with the spread of all
its rows (*pooled*, see `workflow.report.estimates`). Only directions are judged, not words such as
"a lot", and each claim by itself, without a correction over all claims.
"""

import math
from typing import Any

import numpy as np
import pandas as pd

from workflow.report.chance import remarks, rows_of
from workflow.report.estimates import Estimate, holm, paired, pooled
from workflow.report.power import ALPHA, POWER, seeds_needed
from workflow.report.verdicts import CONTRADICTED, NOT_RUN, OPEN, SUPPORTED
from workflow.rows import name_of

SCOPE = "judged alone, no correction over claims; one training split, one test set"
COLUMNS = ["table", "section", "claim", "kind", "estimate", "low", "high", "confidence", "p"]
COLUMNS += ["seeds", "verdict", "interval"]
COLUMNS += ["pooled_estimate", "pooled_low", "pooled_high", "pooled_confidence", "pooled_p", "pooled_verdict"]
COLUMNS += ["seeds_needed", "seeds_needed_low", "seeds_needed_high", "scope", "note"]
Line = dict[str, Any]
Terms = list[tuple[str, str, int]]  # cells, by row and column, with their signs
Pools = dict[str, int | None]  # the sweep of a row
Layouts = dict[Any, pd.DataFrame]  # (rows, seeds) of each sweep and column


class NoVerdictError(Exception):
    """The rows that a claim speaks of are not there; the message says which."""


def judge_all(table: dict[str, Any], values: pd.DataFrame, said: dict[str, str] | None = None) -> pd.DataFrame:
    """Return a line for each claim of a table, in percentage points.

    Args:
        table: what `Plan.declaration` returns.
        values: what `collect` returns.
        said: what `at_chance` returns, to be said of each claim that speaks of such a row.
    """
    cells = values.pivot(index=["name", "column"], columns="seed", values="value") * 100
    pools = {name_of(row): row["pool"] for row in table["rows"]}
    sweep_of = [-1 if pools[name] is None else pools[name] for name, _ in cells.index]
    sweeps = cells.groupby([sweep_of, cells.index.get_level_values("column")])
    layouts = {key: part.droplevel("column") for key, part in sweeps}
    lines = []
    for claim in table["claims"]:
        line = {"table": table["name"], "section": claim["section"], "claim": claim["text"], "kind": claim["kind"]}
        try:
            line |= _judged(claim, cells, pools, layouts)
        except NoVerdictError as reason:
            line |= {"verdict": NOT_RUN, "note": str(reason)}
        line["note"] = "; ".join(filter(None, [*remarks(said or {}, rows_of(claim)), line["note"]]))
        lines.append(line | {"interval": claim["interval"], "scope": SCOPE})
    return pd.DataFrame(lines, columns=COLUMNS)


def _judged(claim: dict[str, Any], cells: pd.DataFrame, pools: Pools, layouts: Layouts) -> Line:
    """Return the verdict by the interval that the claim asks for, and beside it the pooled one."""
    differences, note = _differences(claim, cells)
    judge = {"contrast": _contrast, "best": _best, "insensitive": _insensitive}[claim["kind"]]
    by_seed = {name: _difference(cells, terms) for name, terms in differences.items()}
    by_sweep = {name: _pooled(terms, pools, layouts) for name, terms in differences.items()}
    told = {name: estimate for name, estimate in by_sweep.items() if estimate is not None}
    together = judge(claim, told) if len(told) == len(by_sweep) else None
    if claim["interval"] == "pooled" and together is None:
        raise NoVerdictError("no pooled interval: it needs every row of one sweep, with every seed and some spread")
    line = judge(claim, by_seed) if claim["interval"] == "paired" else together
    assert line is not None
    notes = [line["note"], note]
    if together:
        line = line | {
            f"pooled_{key}": together[key] for key in ("estimate", "low", "high", "confidence", "p", "verdict")
        }
        # Another rival may be the closest.
        notes.insert(1, f"pooled: {together['note']}" if together["note"] != line["note"] else "")
    return line | {"note": "; ".join(filter(None, notes))}


def _contrast(claim: dict[str, Any], estimates: dict[str, Estimate]) -> Line:
    (estimate,) = estimates.values()
    low, high = estimate.interval(1 - ALPHA)
    return _line(estimate, 1 - ALPHA, SUPPORTED if low > 0 else CONTRADICTED if high < 0 else OPEN)


def _best(claim: dict[str, Any], rivals: dict[str, Estimate]) -> Line:
    raw = {name: 1.0 if math.isnan(e.p) else e.p for name, e in rivals.items()}
    p = dict(zip(rivals, holm(list(raw.values())), strict=True))
    better = [name for name, e in rivals.items() if p[name] < ALPHA and e.mean < 0]
    if better:
        name = min(better, key=lambda n: p[n])
        note = f"better among {len(rivals)} rivals: {name}; p and level of the interval by Holm's method"
        left = sum(value >= raw[name] for value in raw.values())  # hypotheses at this step
        return _line(rivals[name], 1 - ALPHA / left, CONTRADICTED) | {"p": p[name], "note": note}
    lows = {name: e.interval(1 - ALPHA)[0] for name, e in rivals.items()}
    # A rival without an interval stands first: it cannot be told from the row.
    name = min(lows, key=lambda n: -np.inf if np.isnan(lows[n]) else lows[n])
    line = _line(rivals[name], 1 - ALPHA, SUPPORTED if lows[name] > 0 else OPEN)
    return line | {"note": _joined(f"closest of {len(rivals)} rivals: {name}", line)}


def _insensitive(claim: dict[str, Any], rivals: dict[str, Estimate]) -> Line:
    margin, confidence = claim["margin"], 1 - 2 * ALPHA
    rivals = {name: Estimate(-e.mean, e.error, e.seeds, e.freedom_a_seed) for name, e in rivals.items()}
    # Outside is judged for each rival, so that its level is divided among them; inside needs all.
    divided = 1 - ALPHA / len(rivals)
    bounds = {name: e.interval(divided) for name, e in rivals.items()}
    outside = [name for name, (low, high) in bounds.items() if low > margin or high < -margin]
    reach = {name: np.abs(e.interval(confidence)).max() for name, e in rivals.items()}
    if outside:
        name = max(outside, key=lambda n: abs(rivals[n].mean))
        line = _line(rivals[name], divided, CONTRADICTED)
        note = f"outside ±{margin:g} points, {len(outside)} of {len(rivals)}, furthest: {name}; level by Bonferroni"
    else:
        name = max(reach, key=lambda n: np.inf if np.isnan(reach[n]) else reach[n])
        line = _line(rivals[name], confidence, SUPPORTED if all(value < margin for value in reach.values()) else OPEN)
        note = f"furthest of {len(rivals)}: {name}; equivalence within ±{margin:g} points, 90 % interval"
    # Both one-sided tests must succeed, for each rival: a lower bound on what all together need.
    needed = pd.DataFrame(seeds_needed(e, margin - abs(e.mean), (1 + POWER) / 2, sides=1) for e in rivals.values())
    line |= needed.max(skipna=False).to_dict()
    p = float(np.max([e.p_equivalent(margin) for e in rivals.values()]))
    return line | {"p": p, "note": _joined(note, line)}


def _joined(note: str, line: Line) -> str:
    return "; ".join(filter(None, (note, line["note"])))


def _line(estimate: Estimate, confidence: float, verdict: str) -> Line:
    low, high = estimate.interval(confidence)
    shown = {"estimate": estimate.mean, "low": low, "high": high, "confidence": 100 * confidence}
    shown |= {"p": estimate.p, "seeds": estimate.seeds}
    note = "seeds too few, or without spread" if math.isnan(estimate.error) else ""
    needed = seeds_needed(estimate, abs(estimate.mean), POWER, sides=2)
    return shown | {"verdict": verdict, "note": note} | needed


def _differences(claim: dict[str, Any], cells: pd.DataFrame) -> tuple[dict[str, Terms], str]:
    """Return the differences that a claim is about, each as cells (row, column) with their signs, and a note.

    Raises:
        NoVerdictError: a row is not there, or has no seed in common with what it is compared with.
    """
    if claim["kind"] == "contrast":
        signed = [(1, term) for term in claim["more"]] + [(-1, term) for term in claim["less"]]
        differences = {"": [(term["row"], term["column"], sign) for sign, term in signed]}
        rows, beside = [term["row"] for _, term in signed], []
    else:
        own, apart = claim["row"], claim["apart"]
        differences = {
            name: [(own, "all", 1), (name, "all", -1)] for name in claim["among"] if name not in (own, *apart)
        }
        rows = [own, *differences]
        beside = [name for name, column in cells.index if column == "all" and name not in (*rows, *apart)]
    present = {name for name, _ in cells.index}
    if missing := [name for name in dict.fromkeys(rows) if name not in present]:
        of = f" ({len(missing)} of the {len(rows)} that it speaks of)" if differences.keys() - {""} else ""
        raise NoVerdictError(f"no row {_few(missing)} in this sweep, or not finished{of}")
    if apart_in_seeds := [name for name, terms in differences.items() if not len(_by_seed(cells, terms))]:
        against = f": {_few(apart_in_seeds)}" if apart_in_seeds != [""] else ""
        raise NoVerdictError(f"no such classes, or no seed that both rows have{against}")
    if not differences:
        raise NoVerdictError(f"no row beside {claim['row']}")
    return differences, f"judged without {_few(beside)}, not among the rows that the claim speaks of" if beside else ""


def _few(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:10]) + (", ..." if names[10:] else "")


def _by_seed(cells: pd.DataFrame, terms: Terms) -> np.ndarray:
    """Return a sum of cells with their signs, one value a seed that all of them have."""
    total = sum(sign * cells.loc[(name, column)] for name, column, sign in terms)
    return total.dropna().to_numpy()


def _difference(cells: pd.DataFrame, terms: Terms) -> Estimate:
    return paired(_by_seed(cells, terms))


def _pooled(terms: Terms, pools: Pools, layouts: Layouts) -> Estimate | None:
    """Return a sum of cells by the spread of their sweep; None where they are not of one column of one sweep."""
    (pool, column), *others = {(pools[name], column) for name, column, _ in terms}
    if pool is None or others:
        return None
    layout = layouts[pool, column]
    weights = pd.Series(0.0, layout.index)
    for name, _, sign in terms:
        weights[name] += sign
    estimate = pooled(layout.to_numpy(), weights.to_numpy())
    return None if math.isnan(estimate.error) else estimate
