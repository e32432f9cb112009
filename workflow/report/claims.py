"""Judge what the appendix says in words, from the numbers of the table it speaks of.

A contrast of cells is computed seed by seed and tested against zero (Student's t, two-sided). It is
*supported* when its 95 % interval lies above zero, *contradicted* when below, and else *cannot be
told*. "The best of m" must beat every rival, each 95 % interval above zero (an intersection-union
test needs no correction); it is contradicted when a rival is better by Holm's method over all of
them. "Insensitive" is an equivalence: every rival's 90 % interval within the margin (two one-sided
tests at 5 %). Only directions are judged, not words such as "a lot".
"""

import argparse
import math
import sys
from bisect import bisect_left
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import nctdtr, stdtr, stdtrit

from csa_core import store
from workflow.report.summary import has_spread, p_value, paired_interval, standard_error
from workflow.report.verdicts import CONTRADICTED, NOT_RUN, OPEN, SUPPORTED

ALPHA, POWER = 0.05, 0.80
SMALLEST_EFFECT = 0.01  # in sd over seeds; to tell it would take 80,000 of them
COLUMNS = [
    "table",
    "section",
    "claim",
    "kind",
    "estimate",
    "low",
    "high",
    "p",
    "seeds",
    "verdict",
    "seeds_needed",
    "note",
]


def judge_all(table: dict[str, Any], values: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each claim of a table, in percentage points.

    Args:
        table: what `Plan.declaration` returns.
        values: what `collect` returns.
    """
    cells = values.pivot(index=["name", "column"], columns="seed", values="value") * 100
    judges = {"contrast": _contrast, "best": _best, "insensitive": _insensitive}
    lines = []
    for claim in table["claims"]:
        line = {"protocol": table["protocol"], "table": table["name"], "section": claim["section"]}
        line |= {"claim": claim["text"], "kind": claim["kind"]}
        try:
            line |= judges[claim["kind"]](claim, cells)
        except KeyError as missing:
            line |= {"verdict": NOT_RUN, "note": f"no row {missing} in this sweep, or not finished"}
        lines.append(line)
    return pd.DataFrame(lines, columns=COLUMNS)


def _contrast(claim: dict[str, Any], cells: pd.DataFrame) -> dict[str, Any]:
    def total(terms: list[dict[str, str]]) -> Any:
        return sum(_cell(cells, term["row"], term["column"]) for term in terms)

    difference = (total(claim["more"]) - total(claim["less"])).dropna().to_numpy()
    interval = paired_interval(difference)
    verdict = SUPPORTED if interval["low"] > 0 else CONTRADICTED if interval["high"] < 0 else OPEN
    return _line(interval, difference, verdict, _p(difference))


def _best(claim: dict[str, Any], cells: pd.DataFrame) -> dict[str, Any]:
    from statsmodels.stats.multitest import multipletests  # half a second that only this kind of claim needs

    rivals = _rivals(claim, cells)
    p = dict(zip(rivals, multipletests([_p(d, if_none=1.0) for d in rivals.values()], method="holm")[1], strict=True))
    better = [name for name, d in rivals.items() if p[name] < ALPHA and d.mean() < 0]
    if better:
        name = min(better, key=lambda n: p[n])
        interval = paired_interval(rivals[name], 1 - ALPHA / len(rivals))
        note = f"better among {len(rivals)} rivals: {name}; p by Holm's method, interval by Bonferroni's"
        return _line(interval, rivals[name], CONTRADICTED, p[name]) | {"note": note}
    intervals = {name: paired_interval(d) for name, d in rivals.items()}
    # A rival without an interval stands first: it cannot be told from the row.
    name = min(intervals, key=lambda n: -np.inf if np.isnan(intervals[n]["low"]) else intervals[n]["low"])
    verdict = SUPPORTED if intervals[name]["low"] > 0 else OPEN
    note = f"closest of {len(rivals)} rivals: {name}"
    return _line(intervals[name], rivals[name], verdict, _p(rivals[name])) | {"note": note}


def _insensitive(claim: dict[str, Any], cells: pd.DataFrame) -> dict[str, Any]:
    margin = claim["margin"]
    rivals = {name: -d for name, d in _rivals(claim, cells).items()}
    within = {name: paired_interval(d, 1 - 2 * ALPHA) for name, d in rivals.items()}
    # Outside is judged for each rival, so that its level is divided among them; inside needs all.
    outside = {name: paired_interval(d, 1 - ALPHA / len(rivals)) for name, d in rivals.items()}
    reach = {name: np.abs([i["low"], i["high"]]).max() for name, i in within.items()}
    furthest = max(reach, key=lambda name: np.inf if np.isnan(reach[name]) else reach[name])
    verdict = OPEN
    if any(i["low"] > margin or i["high"] < -margin for i in outside.values()):
        verdict = CONTRADICTED
    elif all(value < margin for value in reach.values()):
        verdict = SUPPORTED
    p = float(np.max([_p_equivalent(d, margin) for d in rivals.values()]))
    # Both one-sided tests must succeed, for each rival: a lower bound on what all together need.
    needed = [_seeds_needed(margin - abs(d.mean()), d, (1 + POWER) / 2, "larger") for d in rivals.values()]
    note = f"furthest of {len(rivals)}: {furthest}; equivalence within ±{margin:g} points, 90 % interval"
    return _line(within[furthest], rivals[furthest], verdict, p) | {"seeds_needed": float(np.max(needed)), "note": note}


def _line(interval: dict[str, float], difference: np.ndarray, verdict: str, p: float) -> dict[str, Any]:
    if not len(difference):
        return {"verdict": NOT_RUN, "seeds": 0, "note": "no such classes, or no seed that both rows have"}
    return {
        "estimate": interval["difference"],
        "low": interval["low"],
        "high": interval["high"],
        "p": p,
        "seeds": len(difference),
        "verdict": verdict,
        "seeds_needed": _seeds_needed(abs(difference.mean()), difference, POWER, "two-sided"),
        "note": "" if has_spread(difference) else "seeds too few, or without spread",
    }


def _cell(cells: pd.DataFrame, name: str, column: str) -> pd.Series:
    if (name, column) not in cells.index:
        raise KeyError(name)
    return cells.loc[(name, column)]


def _rivals(claim: dict[str, Any], cells: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the row's difference from each rival, one value a seed, accuracy over all classes."""
    own = _cell(cells, claim["row"], "all")
    names = [name for name, column in cells.index if column == "all" and name not in (claim["row"], *claim["apart"])]
    rivals = {name: (own - cells.loc[(name, "all")]).dropna().to_numpy() for name in names}
    rivals = {name: difference for name, difference in rivals.items() if len(difference)}
    if not rivals:
        raise KeyError(f"beside {claim['row']}")
    return rivals


def _p(difference: np.ndarray, if_none: float = math.nan) -> float:
    """Return the two-sided p of a mean of zero; `if_none` where seeds are too few or have no spread."""
    return p_value(difference) if has_spread(difference) else if_none


def _p_equivalent(difference: np.ndarray, margin: float) -> float:
    """Return the p of two one-sided tests that the mean lies within the margin."""
    if not has_spread(difference):
        return math.nan
    mean, error, freedom = difference.mean(), standard_error(difference), len(difference) - 1
    return float(max(stdtr(freedom, -(mean + margin) / error), stdtr(freedom, (mean - margin) / error)))


def _seeds_needed(effect: float, difference: np.ndarray, power: float, alternative: str) -> float:
    """Return how many seeds would tell `effect` with this power, taking its sd from `difference`."""
    if not (effect > 0 and has_spread(difference)):
        return math.nan
    size = effect / difference.std(ddof=1)

    def enough(seeds: int) -> bool:  # by the noncentral t distribution
        centre = size * np.sqrt(seeds)
        limit = stdtrit(seeds - 1, 1 - (ALPHA / 2 if alternative == "two-sided" else ALPHA))
        below = nctdtr(seeds - 1, centre, -limit) if alternative == "two-sided" else 0.0
        return bool(1 - nctdtr(seeds - 1, centre, limit) + below >= power)

    if size < SMALLEST_EFFECT:
        return math.inf
    if few := next(filter(enough, range(2, 20)), None):
        return few
    most = 40
    while not enough(most):  # not at once far beyond the answer, where the distribution is not computed well
        most *= 2
    return float(bisect_left(range(most), True, lo=most // 2, key=enough))


def main(argv: list[str] | None = None) -> int:
    """Run `python -m workflow.report.claims TABLE.claims.csv ... --out claims.csv`: one list of all claims."""
    parser = argparse.ArgumentParser("python -m workflow.report.claims", description=__doc__.split("\n\n")[0])
    parser.add_argument("claims", nargs="+", metavar="TABLE.claims.csv", help="claims judged with each table")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    args = parser.parse_args(argv)
    parts = [pd.read_csv(path, dtype={"section": str, "note": str}) for path in args.claims]
    together = pd.concat([part for part in parts if len(part)], ignore_index=True)
    store.write_bytes(args.out, together.sort_values("section", kind="stable").to_csv(index=False).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
