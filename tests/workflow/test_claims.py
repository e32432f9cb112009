"""Verdicts on claims, from numbers whose answer is known."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import integrate, stats
from statsmodels.stats.multitest import multipletests

from workflow.declarations import load_tables
from workflow.report.claims import judge_all
from workflow.report.estimates import holm, paired, pooled
from workflow.report.numbers import level
from workflow.report.power import seeds_needed

SEEDS = [1, 2, 3, 4, 5]
NOISE = np.array([0.3, -0.2, 0.1, -0.3, 0.1])


def values(**rows: Any) -> pd.DataFrame:
    """Accuracies in percent by row, one a seed, as `collect` returns them."""
    lines = [
        {"name": name, "column": "all", "seed": seed, "value": value / 100}
        for name, row in rows.items()
        for seed, value in zip(SEEDS, np.broadcast_to(row, 5), strict=True)
    ]
    return pd.DataFrame(lines)


def judge(accuracies: pd.DataFrame, sweep: bool = True, **claim: Any) -> Any:
    """Judge a claim over rows of one sweep; the appendix's own are those of `among`, or all that are there."""
    names = list(dict.fromkeys(accuracies["name"]))
    empty: dict[str, Any] = {
        "text": "",
        "section": "C",
        "kind": "contrast",
        "more": [],
        "less": [],
        "row": "",
        "apart": [],
        "margin": 1,
        "among": names,
        "interval": "paired",
    }
    rows = [{"series": "", "label": name, "pool": 0 if sweep else None} for name in names]
    table = {"name": "t", "protocol": "demo", "claims": [empty | claim], "rows": rows}
    return judge_all(table, accuracies).iloc[0]


def term(row: str) -> list[dict[str, str]]:
    return [{"row": row, "column": "all"}]


@pytest.mark.parametrize(
    ("shift", "verdict"), [(5.0, "supported"), (-5.0, "contradicted"), (0.1, "cannot be told"), (0.0, "cannot be told")]
)
def test_a_contrast(shift: float, verdict: str) -> None:
    ours = 50 + shift + NOISE + np.array([1, 2, 3, 4, 5])
    line = judge(values(a=ours, b=50 + np.array([1, 2, 3, 4, 5])), more=term("a"), less=term("b"))
    difference = shift + NOISE
    interval = stats.t.interval(0.95, 4, difference.mean(), stats.sem(difference))
    assert line["verdict"] == verdict and line["seeds"] == 5
    assert (line["estimate"], line["low"], line["high"]) == (
        pytest.approx(difference.mean()),
        pytest.approx(interval[0]),
        pytest.approx(interval[1]),
    )
    assert line["p"] == pytest.approx(stats.ttest_rel(ours, 50 + np.array([1, 2, 3, 4, 5])).pvalue)


def test_a_difference_of_differences() -> None:
    """Few-shot classes lose more than many-shot ones: (a - b) - (c - d)."""
    accuracies = values(a=20 + NOISE, b=10, c=60, d=61 - NOISE)
    more, less = term("a") + term("d"), term("b") + term("c")
    assert judge(accuracies, more=more, less=less)["estimate"] == pytest.approx(11)


def test_seeds_needed_are_those_that_give_the_power() -> None:
    line = judge(values(a=50.1 + NOISE, b=50), more=term("a"), less=term("b"))
    effect = (0.1 + NOISE).mean() / (0.1 + NOISE).std(ddof=1)

    def power(n: int) -> float:  # from the noncentral t distribution
        limit = stats.t.ppf(0.975, n - 1)
        return float(stats.nct.sf(limit, n - 1, effect * n**0.5) + stats.nct.cdf(-limit, n - 1, effect * n**0.5))

    needed = int(line["seeds_needed"])
    assert power(needed) >= 0.8 > power(needed - 1)


def powers(size: float, seeds: int, sides: int) -> float:
    """Power by the normal numerator: T > t where chi-square < freedom * ((z + centre) / t) ** 2."""
    freedom, centre = seeds - 1, size * seeds**0.5
    limit = stats.t.ppf(1 - 0.05 / sides, freedom)

    def tail(shift: float) -> float:
        z = np.linspace(max(-shift, -9), 9, 20_001)
        inside = stats.norm.pdf(z) * stats.chi2.cdf(freedom * ((z + shift) / limit) ** 2, freedom)
        return float(integrate.simpson(inside, x=z)) if shift > -9 else 0.0

    return tail(centre) + (tail(-centre) if sides == 2 else 0.0)


@pytest.mark.parametrize(("power", "sides"), [(0.8, 2), (0.9, 1)])
def test_seeds_needed_over_a_grid(power: float, sides: int) -> None:
    """Effects of 0.011 to 300 sd: also where the noncentral t of SciPy is NaN."""
    noise = paired(NOISE)
    for size in np.geomspace(0.011, 300, 70):
        needed = int(seeds_needed(noise, size * noise.sd, power, sides)["seeds_needed"])
        assert powers(size, needed, sides) >= power - 1e-9, size
        assert needed == 2 or powers(size, needed - 1, sides) < power + 1e-9, size


def test_seeds_needed_of_a_pooled_estimate_have_its_freedom() -> None:
    """Four rows: three degrees of freedom a seed, by the noncentral t."""
    estimate = pooled(layouts(1, rows=4)[0], np.array([1.0, -1.0, 0.0, 0.0]))
    for size in (0.4, 0.9, 2.0):
        needed = int(seeds_needed(estimate, size * estimate.sd, 0.8, 2)["seeds_needed"])

        def power(n: int, size: float = size) -> float:
            freedom, shift = 3 * (n - 1), size * n**0.5
            limit = stats.t.ppf(0.975, freedom)
            return float(stats.nct.sf(limit, freedom, shift) + stats.nct.cdf(-limit, freedom, shift))

        assert power(needed) >= 0.8 and (needed == 2 or power(needed - 1) < 0.8), size


def test_the_range_of_seeds_needed_holds_the_truth_as_often_as_it_says() -> None:
    """An effect that needs ten seeds: three seeds give a range, and 95 % of such ranges hold ten."""
    size = next(size for size in np.arange(0.9, 1.1, 0.001) if powers(size, 10, 2) >= 0.8)
    draws = np.random.default_rng(0).normal(size=(500, 3))
    ranges = [seeds_needed(paired(draw), size, 0.8, 2) for draw in draws]
    held = np.mean([r["seeds_needed_low"] <= 10 <= r["seeds_needed_high"] for r in ranges])
    assert 0.93 <= held <= 0.97
    assert all(r["seeds_needed_low"] <= r["seeds_needed"] <= r["seeds_needed_high"] for r in ranges)


def layouts(count: int, rows: int = 10, seeds: int = 3, sd: float = 0.34) -> np.ndarray:
    """Accuracies (count, rows, seeds) of rows that are equal but for the first, 1 point better."""
    rng = np.random.default_rng(0)
    own = np.where(np.arange(rows) == 0, 46.0, 45.0)[:, None]
    return own + rng.normal(0, 0.5, (count, 1, seeds)) + rng.normal(0, sd, (count, rows, seeds))


def test_the_pooled_interval_is_that_of_least_squares() -> None:
    layout = layouts(1, rows=4)[0]
    row, seed = (index.ravel() for index in np.indices(layout.shape))
    design = np.column_stack([row == i for i in range(4)] + [seed == i for i in (1, 2)]).astype(float)
    contrast = np.array([1, 0, -1, 0, 0, 0])
    oracle = sm.OLS(layout.ravel(), design).fit().t_test(contrast)
    estimate = pooled(layout, np.array([1.0, 0, -1, 0]))
    assert estimate.freedom == 6 and estimate.mean == pytest.approx(oracle.effect[0])
    np.testing.assert_allclose(estimate.interval(0.95), oracle.conf_int(0.05)[0])
    assert estimate.p == pytest.approx(float(oracle.pvalue))
    # By hand: solve, residual variance, variance of the contrast.
    solved, (squares,), *_ = np.linalg.lstsq(design, layout.ravel(), rcond=None)
    error = np.sqrt(squares / 6 * (contrast @ np.linalg.inv(design.T @ design) @ contrast))
    assert estimate.mean == pytest.approx(contrast @ solved) and estimate.error == pytest.approx(error)


def test_without_spread_or_seeds_there_is_no_interval() -> None:
    """Rows and seeds that only add up leave rounding, which is no spread."""
    layout = np.array([45.1, 46.2, 47.3])[:, None] + np.array([0.1, 0.2, 0.7])
    assert np.isnan(pooled(layout, np.array([1.0, -1.0, 0.0])).error)
    nothing = paired(np.array([]))
    assert np.isnan(nothing.mean) and np.isnan(nothing.error) and nothing.seeds == 0


def test_pooled_intervals_hold_the_truth_and_are_shorter() -> None:
    weights = np.array([1.0, -1.0] + [0.0] * 8)
    together = [pooled(layout, weights).interval(0.95) for layout in layouts(2000)]
    alone = [paired(layout[0] - layout[1]).interval(0.95) for layout in layouts(2000)]
    assert 0.94 <= np.mean([low <= 1 <= high for low, high in together]) <= 0.96
    widths = [np.mean([high - low for low, high in intervals]) for intervals in (together, alone)]
    assert widths[0] < 0.6 * widths[1]


def test_a_better_row_is_found_by_pooling_where_three_seeds_alone_find_nothing() -> None:
    found = {"verdict": 0, "pooled_verdict": 0}
    for layout in layouts(25):
        lines = [
            {"name": f"r{row}", "column": "all", "seed": seed, "value": value / 100}
            for (row, seed), value in np.ndenumerate(layout)
        ]
        line = judge(pd.DataFrame(lines), kind="best", row="r0")
        asked = judge(pd.DataFrame(lines), kind="best", row="r0", interval="pooled")
        assert (asked["verdict"], asked["low"]) == (line["pooled_verdict"], line["pooled_low"])
        assert line["interval"] == "paired" and asked["interval"] == "pooled"
        for verdict in found:
            found[verdict] += line[verdict] == "supported"
    assert found["verdict"] <= 3 and found["pooled_verdict"] >= found["verdict"] + 8


def test_rows_of_no_common_sweep_are_not_pooled() -> None:
    accuracies = values(a=50 + NOISE, b=49 - NOISE, c=48 + 2 * NOISE)
    line = judge(accuracies, sweep=False, more=term("a"), less=term("b"))
    assert np.isnan(line["pooled_low"]) and line["verdict"] == "supported"
    line = judge(accuracies, sweep=False, interval="pooled", more=term("a"), less=term("b"))
    assert line["verdict"] == "not run" and "no pooled interval" in line["note"]


@pytest.mark.parametrize("kind", ["best", "insensitive"])
def test_fewer_rows_than_the_appendix_has_give_no_verdict(kind: str) -> None:
    accuracies = values(a=50, b=40 - 2 * NOISE if kind == "best" else 50.1 + NOISE, c=50 + NOISE)
    own: dict[str, Any] = {"among": ["a", "b", "c", "d", "e"], "kind": kind, "row": "a"}
    line = judge(accuracies, **own)
    assert line["verdict"] == "not run" and "'d', 'e'" in line["note"] and "2 of the 5" in line["note"]
    other_seeds = accuracies[(accuracies["name"] != "b") | (accuracies["seed"] > 2)]
    other_seeds = other_seeds[(other_seeds["name"] != "a") | (other_seeds["seed"] < 3)]
    line = judge(other_seeds, **own | {"among": ["a", "b"]})
    assert line["verdict"] == "not run" and "no seed that both rows have: 'b'" in line["note"]


def test_more_rows_than_the_appendix_has_are_no_rivals() -> None:
    rows: dict[str, Any] = {"a": 50 + NOISE, "b": 40 - 2 * NOISE, "c": 41 - 2 * NOISE}
    own: dict[str, Any] = {"among": list(rows), "kind": "best", "row": "a"}
    alone, beside = judge(values(**rows), **own), judge(values(**rows, d=60 - NOISE), **own)
    assert alone["verdict"] == beside["verdict"] == "supported" and alone["low"] == beside["low"]
    assert "judged without 'd'" in beside["note"] and "judged without" not in alone["note"]


def test_a_small_sweep_supports_nothing_of_the_appendix() -> None:
    """As with `sweeps: {threshold: [0.1, 0.8]}` on finished results."""
    import yaml

    from tests.conftest import ROOT
    from workflow.plan import Plan

    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["sweeps"]["threshold"] = [0.1, 0.8]
    table = Plan(config, spell_out=()).declaration("table2")
    judged = judge_all(table, values(**{"0.1": 50.05 + NOISE, "0.8": 50 + 0.9 * NOISE}))
    assert judged["verdict"].tolist() == ["not run", "not run"]
    assert judged["note"].str.contains("'0.0', '0.2', '0.3'").all()
    assert judged["scope"].str.contains("no correction over claims; one training split, one test set").all()


def test_differences_that_are_equal_up_to_rounding_tell_nothing() -> None:
    a, b = np.array([90.0, 92.0, 91.0, 90.5, 90.2]) / 100, np.array([80.0, 82.0, 81.0, 80.5, 80.2]) / 100
    assert np.ptp(a - b) > 0, "rounding must be at work here"
    line = judge(values(a=a * 100, b=b * 100), more=term("a"), less=term("b"))
    assert line["verdict"] == "cannot be told" and np.isnan(line["low"]) and np.isnan(line["p"])
    assert line["estimate"] == pytest.approx(10) and "without spread" in line["note"]


def test_classes_that_are_not_there_are_said() -> None:
    line = judge(values(a=np.nan, b=50 + NOISE), more=term("a"), less=term("b"))
    assert line["verdict"] == "not run" and "no such classes" in line["note"]


def test_a_rival_that_cannot_be_tested_leaves_the_correction_in_place() -> None:
    """One rival among nine is better at p = 0.02; another is the row's own double."""
    rng = np.random.default_rng(0)
    better = next(
        d for d in (rng.normal(0.5, 0.4, 5) for _ in range(1000)) if 0.015 < stats.ttest_1samp(d, 0).pvalue < 0.025
    )
    others = {f"r{i}": 50 + NOISE * (i + 1) - NOISE.mean() for i in range(7)}
    line = judge(values(a=50, b=50 + better, double=50, **others), kind="best", row="a")
    assert line["verdict"] == "cannot be told"


@pytest.mark.parametrize("seed", range(40))
def test_the_best_is_supported_by_its_interval_and_contradicted_by_a_rival_that_holm_finds_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = {name: 50 + rng.normal(0, 1) + rng.normal(0, 0.5, 5) for name in "bcdefg"}
    a = 51.5 + rng.normal(0, 0.3, 5)
    line = judge(values(a=a, **rows), kind="best", row="a")
    assert (line["low"] > 0) == (line["verdict"] == "supported")
    apart = [a - row for row in rows.values()]
    rejected = multipletests([stats.ttest_1samp(d, 0).pvalue for d in apart], method="holm")[0]
    better = any(r and d.mean() < 0 for r, d in zip(rejected, apart, strict=True))
    assert (line["verdict"] == "contradicted") == better


def test_one_seed_tells_nothing() -> None:
    accuracies = values(a=60, b=50)
    line = judge(accuracies[accuracies["seed"] == 1], more=term("a"), less=term("b"))
    assert line["verdict"] == "cannot be told" and np.isnan(line["low"]) and line["estimate"] == pytest.approx(10)


def test_the_best_must_beat_every_rival() -> None:
    far, near = 40 - 2 * NOISE, 49.9 + NOISE
    assert judge(values(a=50 + NOISE, b=far, c=41 - 2 * NOISE), kind="best", row="a")["verdict"] == "supported"
    line = judge(values(a=50 - NOISE, b=far, c=near), kind="best", row="a")
    assert line["verdict"] == "cannot be told" and "closest of 2 rivals: c" in line["note"]
    assert judge(values(a=50 - NOISE, b=far, c=55 + NOISE), kind="best", row="a")["verdict"] == "contradicted"
    assert judge(values(a=50 - NOISE, b=far, c=55 + NOISE), kind="best", row="a", apart=["c"])["verdict"] == "supported"


def test_rivals_without_spread_say_so() -> None:
    for claim in ({"kind": "best"}, {"kind": "insensitive", "margin": 1}):
        line = judge(values(a=50, b=48, c=48), row="a", **claim)
        assert line["verdict"] == "cannot be told" and "of 2" in line["note"]
        assert line["note"].endswith("; seeds too few, or without spread")


def test_the_best_of_many_pays_for_looking_often() -> None:
    """A rival that is better at p = 0.02 contradicts on its own, and does not among nine."""
    rng = np.random.default_rng(0)
    better = next(
        d for d in (rng.normal(0.5, 0.4, 5) for _ in range(1000)) if 0.015 < stats.ttest_1samp(d, 0).pvalue < 0.025
    )
    assert judge(values(a=50, b=50 + better), kind="best", row="a")["verdict"] == "contradicted"
    others = {f"r{i}": 50 + NOISE * (i + 1) - NOISE.mean() for i in range(8)}
    line = judge(values(a=50, b=50 + better, **others), kind="best", row="a")
    assert line["verdict"] == "cannot be told"


def test_a_contradiction_never_has_an_interval_around_zero() -> None:
    """A rival at p = 0.04, last in Holm's order behind two that are far worse: it is tested at 5 % itself."""
    rng = np.random.default_rng(3)
    better = next(
        d for d in (rng.normal(0.5, 0.4, 5) for _ in range(1000)) if 0.03 < stats.ttest_1samp(d, 0).pvalue < 0.045
    )
    line = judge(values(a=50, b=50 + better, c=40 + NOISE, d=39 + 2 * NOISE), kind="best", row="a")
    assert line["verdict"] == "contradicted" and line["high"] < 0 and line["confidence"] == pytest.approx(95)
    assert line["p"] == pytest.approx(stats.ttest_1samp(better, 0).pvalue)


def test_the_best_of_many_is_judged_by_holm_and_not_by_false_discovery() -> None:
    """Three rivals, each better at about p = 0.022: Holm's smallest is 0.066, a discovery rate would be 0.022."""
    rng = np.random.default_rng(1)
    draws = (rng.normal(0.5, 0.4, 5) for _ in range(3000))
    three = [50 + d for d in draws if 0.020 < stats.ttest_1samp(d, 0).pvalue < 0.024 and d.mean() > 0][:3]
    line = judge(values(a=50, **dict(zip("bcd", three, strict=True))), kind="best", row="a")
    assert line["verdict"] == "cannot be told"


@pytest.mark.parametrize("count", [1, 2, 9, 30])
def test_holm_is_that_of_statsmodels(count: int) -> None:
    p = np.random.default_rng(count).uniform(0, 0.2, count).round(2).tolist()
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], rtol=1e-14)


def test_insensitive_is_an_equivalence_and_not_a_lack_of_evidence() -> None:
    close = judge(values(a=50, b=50.1 + NOISE, c=50 - NOISE), kind="insensitive", row="a")
    assert close["verdict"] == "supported" and close["p"] < 0.05
    noisy = judge(values(a=50, b=50 + 10 * NOISE), kind="insensitive", row="a")
    assert noisy["verdict"] == "cannot be told", "no difference was found, and none was excluded"
    assert noisy["seeds_needed"] > 5
    assert judge(values(a=50, b=55 + NOISE), kind="insensitive", row="a")["verdict"] == "contradicted"
    b = 50.2 + NOISE
    line = judge(values(a=50, b=b), kind="insensitive", row="a")
    interval = stats.t.interval(0.90, 4, (b - 50).mean(), stats.sem(b - 50))
    assert (line["low"], line["high"]) == (pytest.approx(interval[0]), pytest.approx(interval[1]))


@pytest.mark.parametrize("claim", [{"kind": "insensitive"}, {"kind": "best"}, {"more": term("a"), "less": term("b")}])
@pytest.mark.parametrize("shift", [0.1, 5.0, -5.0])
def test_an_interval_has_the_level_that_stands_beside_it(claim: dict[str, Any], shift: float) -> None:
    b, c = 50 + shift + NOISE, 50 + shift + NOISE[::-1]
    line = judge(values(a=50, b=b, c=c), row="a", **claim)
    by = {
        sign * one: stats.t.interval(line["confidence"] / 100, 4, sign * (row - 50).mean(), stats.sem(row - 50))
        for one, row in ((1, b), (2, c))
        for sign in (1, -1)
    }
    assert any((line["low"], line["high"]) == (pytest.approx(low), pytest.approx(high)) for low, high in by.values())
    usual = {"insensitive": 90, "best": 95}.get(claim.get("kind", ""), 95)
    is_divided = shift in {"insensitive": (5.0, -5.0), "best": (5.0,)}.get(claim.get("kind", ""), ())
    assert line["confidence"] == pytest.approx(97.5 if is_divided else usual)
    assert level(line["confidence"]) == {95: "", 90: " (90 %)", 97.5: " (97.5 %)"}[round(line["confidence"], 1)]


def test_a_contradiction_shows_the_rival_that_contradicts() -> None:
    """Another may reach further, for it is noisier or has one seed, and contradict nothing."""
    b, noisy = 52 + NOISE, 50 + 20 * NOISE
    line = judge(values(a=50, b=b, c=noisy), kind="insensitive", row="a")
    interval = stats.t.interval(0.975, 4, (b - 50).mean(), stats.sem(b - 50))
    assert line["verdict"] == "contradicted" and "outside ±1 points, 1 of 2, furthest: b" in line["note"]
    assert (line["low"], line["high"]) == (pytest.approx(interval[0]), pytest.approx(interval[1]))
    accuracies = values(a=50, b=b, c=noisy)
    alone = judge(accuracies[(accuracies["name"] != "c") | (accuracies["seed"] == 1)], kind="insensitive", row="a")
    assert alone["verdict"] == "contradicted" and alone["low"] == pytest.approx(interval[0])


def test_of_several_rivals_one_must_be_outside_by_more() -> None:
    """The level of a contradiction is divided among them (Bonferroni); of one rival it is whole."""
    error = stats.sem(NOISE)
    outside = 51 + 3.3 * error + NOISE - NOISE.mean()  # so far beyond the margin p is 0.03, and 0.05 / 3 is less
    alone = judge(values(a=50, b=outside), kind="insensitive", row="a")
    among = judge(values(a=50, b=outside, c=50 + NOISE, d=50 - NOISE), kind="insensitive", row="a")
    assert (alone["verdict"], among["verdict"]) == ("contradicted", "cannot be told")


def test_a_row_that_the_sweep_lacks_is_said() -> None:
    line = judge(values(a=50 + NOISE), more=term("a"), less=term("b"))
    assert line["verdict"] == "not run" and "'b'" in line["note"]


def test_declared_claims_name_rows_that_the_default_sweeps_have() -> None:
    import yaml

    from tests.conftest import ROOT
    from workflow.plan import Plan

    plan = Plan(yaml.safe_load((ROOT / "config.yaml").read_text()))
    claims = 0
    for name, table in load_tables().items():
        if table.protocol is not None:
            continue
        rows = {row.name for row in plan.rows(name)}
        for claim in table.claims:
            named = {t.row for t in claim.more + claim.less} | {*claim.apart, *claim.among}
            named |= {claim.row} if claim.row else set()
            assert named <= rows, f"{name}: {named - rows}"
            claims += 1
    assert claims >= 19
