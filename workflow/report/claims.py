"""Judge what the appendix says in words, from the numbers of the table it speaks of.

A contrast of cells is computed seed by seed and tested against zero (Student's t, two-sided). It is
*supported* when its 95 % interval lies above zero, *contradicted* when below, and else *cannot be
told*. "The best of m" compares a row with each rival; Holm's method keeps the chance of any false
rejection at 5 %, and the interval shown is that of the closest rival, Bonferroni-wide. "Insensitive"
is an equivalence: every rival's 90 % interval within the margin (two one-sided tests at 5 %).
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from csa_core import store
from workflow.report.summary import paired_interval

ALPHA, POWER = 0.05, 0.80
SMALLEST_EFFECT = 0.01  # in sd over seeds; to tell it would take 80,000 of them
SUPPORTED, OPEN, CONTRADICTED, NOT_RUN = "supported", "cannot be told", "contradicted", "not run"
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
        line = {"table": table["name"], "section": claim["section"], "claim": claim["text"], "kind": claim["kind"]}
        try:
            line |= judges[claim["kind"]](claim, cells)
        except KeyError as missing:
            line |= {"verdict": NOT_RUN, "note": f"no row {missing} in this sweep"}
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
    differences = _rivals(claim, cells)
    p = np.array([_p(d) for d in differences.values()])
    adjusted = multipletests(p, ALPHA, method="holm")[1] if np.isfinite(p).all() else p
    means = {name: d.mean() for name, d in differences.items()}
    closest = min(means, key=lambda name: means[name])
    verdict = OPEN
    rejected = dict(zip(differences, adjusted < ALPHA, strict=True))
    if any(rejected[name] and means[name] < 0 for name in means):
        verdict = CONTRADICTED
    elif all(rejected[name] and means[name] > 0 for name in means):
        verdict = SUPPORTED
    interval = paired_interval(differences[closest], 1 - ALPHA / len(differences))
    p_closest = float(adjusted[list(differences).index(closest)])
    note = f"closest of {len(differences)} rivals: {closest}; p by Holm's method, interval by Bonferroni's"
    return _line(interval, differences[closest], verdict, p_closest, len(differences)) | {"note": note}


def _insensitive(claim: dict[str, Any], cells: pd.DataFrame) -> dict[str, Any]:
    margin = claim["margin"]
    differences = {name: -d for name, d in _rivals(claim, cells).items()}
    within = {name: paired_interval(d, 1 - 2 * ALPHA) for name, d in differences.items()}
    # Outside is judged for each rival, so that its level is divided among them; inside needs all.
    outside = {name: paired_interval(d, 1 - ALPHA / len(differences)) for name, d in differences.items()}
    furthest = max(within, key=lambda name: max(abs(within[name]["low"]), abs(within[name]["high"])))
    verdict = OPEN
    if any(i["low"] > margin or i["high"] < -margin for i in outside.values()):
        verdict = CONTRADICTED
    elif all(-margin < i["low"] and i["high"] < margin for i in within.values()):
        verdict = SUPPORTED
    difference = differences[furthest]
    note = f"furthest of {len(differences)}: {furthest}; equivalence within ±{margin:g} points, 90 % interval"
    p = max(_p_equivalent(d, margin) for d in differences.values())
    return _line(within[furthest], difference, verdict, p) | {
        "seeds_needed": _seeds_needed(margin - abs(difference.mean()), difference, 1, "larger"),
        "note": note,
    }


def _line(interval: dict[str, float], difference: np.ndarray, verdict: str, p: float, tests: int = 1) -> dict[str, Any]:
    return {
        "estimate": interval["difference"],
        "low": interval["low"],
        "high": interval["high"],
        "p": p,
        "seeds": len(difference),
        "verdict": verdict,
        "seeds_needed": _seeds_needed(abs(difference.mean()), difference, tests, "two-sided"),
        "note": "",
    }


def _cell(cells: pd.DataFrame, name: str, column: str) -> pd.Series:
    if (name, column) not in cells.index:
        raise KeyError(name)
    return cells.loc[(name, column)]


def _rivals(claim: dict[str, Any], cells: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the row's difference from each rival, one value a seed, accuracy over all classes."""
    own = _cell(cells, claim["row"], "all")
    names = [name for name, column in cells.index if column == "all" and name not in (claim["row"], *claim["apart"])]
    if not names:
        raise KeyError(f"beside {claim['row']}")
    return {name: (own - cells.loc[(name, "all")]).dropna().to_numpy() for name in names}


def _p(difference: np.ndarray) -> float:
    """Return the two-sided p of a mean of zero; NaN where seeds are too few or have no spread."""
    if len(difference) < 2 or np.ptp(difference) == 0:
        return math.nan
    return float(stats.ttest_1samp(difference, 0).pvalue)


def _p_equivalent(difference: np.ndarray, margin: float) -> float:
    """Return the p of two one-sided tests that the mean lies within the margin."""
    if len(difference) < 2 or np.ptp(difference) == 0:
        return math.nan
    above = stats.ttest_1samp(difference, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(difference, margin, alternative="less").pvalue
    return float(max(above, below))


def _seeds_needed(effect: float, difference: np.ndarray, tests: int, alternative: str) -> float:
    """Return how many seeds would tell `effect` at 80 % power, taking its sd from `difference`."""
    sd = difference.std(ddof=1) if len(difference) > 1 else math.nan
    if not (effect > 0 and sd > 0):
        return math.nan
    power, alpha = TTestPower(), ALPHA / tests
    for seeds in range(2, 20):  # the solver does not converge where few seeds are plenty
        if power.power(effect / sd, seeds, alpha, alternative=alternative) >= POWER:
            return seeds
    if effect / sd < SMALLEST_EFFECT:
        return math.inf
    return float(math.ceil(power.solve_power(effect / sd, alpha=alpha, power=POWER, alternative=alternative)))


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
