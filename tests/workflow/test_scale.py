"""Sweeps of thousands of runs: each thing is computed once, and computed many at a time it is the same to the bit."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats
from statsmodels.stats.power import TTestPower

from csa_core.methods import parse
from csa_core.store import write_json
from tests.conftest import ROOT
from tests.helpers.workflows import table
from workflow.plan import Plan
from workflow.report import page, recipe
from workflow.report.drawing import LABELS, label_of, means
from workflow.report.estimates import paired
from workflow.report.numbers import counted
from workflow.report.power import seeds_needed
from workflow.report.summary import paired_interval, paired_intervals, summarise
from workflow.report.tables import write

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())


def sweep(values: int, seeds: int) -> dict[str, Any]:
    """A configuration with so many thresholds and seeds; the tables need runs beside these."""
    thresholds = [round(i / values, 6) for i in range(values)]
    return CONFIG | {"seeds": list(range(seeds)), "sweeps": CONFIG["sweeps"] | {"threshold": thresholds}}


@pytest.mark.long
def test_five_thousand_runs_have_a_name_each() -> None:
    plan = Plan(sweep(500, 10))
    runs = plan.all_runs()
    folders = [run.folder for run in runs]
    assert len(folders) == len(set(folders)) == 10 * (500 + 38)
    assert len({run.json for run in runs}) == len(runs)
    assert len(plan.rows("table2")) == 500 and len(plan.runs_of("table2")) == 5000
    assert folders.count("results/demo/runs/csa/threshold=0.002/seed=9") == 1
    for run in runs[::500]:
        name, seed = run.name, str(run.config.seed)
        assert plan.run_at(name, seed).json == run.json


def test_each_configuration_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def counted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        return parse(*args)

    monkeypatch.setattr("workflow.naming.parse", counted)
    counts = []
    for values in (20, 40):
        calls = 0
        plan = Plan(sweep(values, 5))
        runs = plan.all_runs()
        counts.append(calls)
        for _ in range(3):
            for name in plan.tables:
                plan.declaration(name), plan.drawing(name), plan.runs_of(name), plan.with_parents(plan.runs_of(name))
        assert calls == counts[-1], "asking again parses nothing"
        for _ in range(2):  # what the rules ask of each job
            for run in runs:
                plan.run_at(run.name, str(run.config.seed))
        assert calls <= counts[-1] + len(runs)
    assert counts[1] - counts[0] == 20 * 5, "each run of the sweep once"


def test_a_drawing_job_spells_out_its_own_table_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    full, own = Plan(sweep(50, 2)), Plan(sweep(50, 2), spell_out=())
    assert own.declaration("table4") == full.declaration("table4")
    with monkeypatch.context() as patch:
        patch.setattr("workflow.naming.parse", lambda *_: pytest.fail("parsed again"))
        assert own.drawing("table4") == full.drawing("table4")


def test_a_change_of_a_row_draws_its_tables_again_and_no_others() -> None:
    plan, more = Plan(sweep(500, 3)), Plan(sweep(501, 3))
    assert plan.drawing("table2") != more.drawing("table2")
    assert plan.drawing("table3") == more.drawing("table3")
    pinned = Plan(sweep(500, 3) | {"code_version": "other"})
    assert all(plan.drawing(name) != pinned.drawing(name) for name in plan.tables)


def ragged(seed: int = 0) -> list[np.ndarray]:
    """Differences of none to twelve seeds, some without spread."""
    rng = np.random.default_rng(seed)
    drawn = [rng.normal(rng.normal(), 0.3, int(n)) for n in rng.integers(0, 13, 200)]
    return [*drawn, np.full(5, 0.1), np.array([0.1, 0.1 + 1e-12]), np.array([])]


@pytest.mark.parametrize("confidence", [0.90, 0.95, 1 - 0.05 / 9])
def test_intervals_are_scipys_to_the_bit(confidence: float) -> None:
    differences = ragged()
    together = paired_intervals(differences, confidence)
    for difference, line in zip(differences, together.to_dict("records"), strict=True):
        np.testing.assert_equal(line, paired_interval(difference, confidence))
        if len(difference) > 1 and np.ptp(difference) > 1e-9:
            low, high = stats.ttest_1samp(difference, 0).confidence_interval(confidence)
            assert line == {"difference": difference.mean(), "low": low, "high": high}
            assert paired(difference).p == stats.ttest_1samp(difference, 0).pvalue
            above = stats.ttest_1samp(difference, -0.5, alternative="greater").pvalue
            below = stats.ttest_1samp(difference, 0.5, alternative="less").pvalue
            assert paired(difference).interval(confidence) == (low, high)
            assert paired(difference).p_equivalent(0.5) == max(above, below)
        else:
            assert np.isnan([line["low"], line["high"]]).all()


@pytest.mark.parametrize(("power", "sides", "alternative"), [(0.8, 2, "two-sided"), (0.9, 1, "larger")])
@pytest.mark.parametrize("effect", [0.011, 0.05, 0.3, 1.0, 2.5, 8.0])
def test_seeds_needed_are_those_of_statsmodels(effect: float, power: float, sides: int, alternative: str) -> None:
    difference = np.array([-1.0, 1.0, 0.5, -0.5])
    needed = seeds_needed(paired(difference), effect * difference.std(ddof=1), power, sides)["seeds_needed"]

    def reached(seeds: float) -> Any:
        return TTestPower().power(effect, seeds, 0.05, alternative=alternative)

    assert reached(needed) >= power and not (needed > 2 and reached(needed - 1) >= power)


def test_a_summary_of_many_rows_is_that_of_each_alone() -> None:
    rng = np.random.default_rng(0)
    lines = [
        {"row": row, "name": f"r{row}", "column": column, "seed": seed, "value": rng.uniform()}
        for row in range(20)
        for seed in range(1, 11)
        for column in ("all", "few")
        if rng.uniform() < 0.8
    ]
    values = pd.DataFrame(lines)
    for line in summarise(values, 0).to_dict("records"):
        own, reference = (
            values[(values["row"] == row) & (values["column"] == line["column"])].set_index("seed")["value"]
            for row in (line["row"], 0)
        )
        assert line["seeds"] == len(own) and line["mean"] == own.mean() and line["sd"] == own.std()
        if line["row"]:
            difference = (own - reference).dropna().to_numpy()
            shown = {key: line[key] for key in ("difference", "low", "high")}
            np.testing.assert_equal(shown, paired_interval(difference))
    assert summarise(values, None)["difference"].isna().all()


def test_means_of_a_figure_are_those_of_each_point() -> None:
    rng = np.random.default_rng(0)
    points = [(f"n{name}", epoch) for name in (3, 1, 2) for epoch in range(4)]
    values = pd.DataFrame([(*key, seed) for seed in range(5) for key in points], columns=["name", "epoch", "seed"])
    values["percent"] = rng.normal(80, 1, len(values))
    drawn = means(values, ["name", "epoch"])
    assert list(zip(drawn["name"], drawn["epoch"], strict=True)) == points and set(drawn["seeds"]) == {5}
    for line in drawn.to_dict("records"):
        own = values[(values["name"] == line["name"]) & (values["epoch"] == line["epoch"])]["percent"].to_numpy()
        expected = paired_interval(own)
        assert (line["mean"], line["low"], line["high"]) == tuple(expected.values())


@pytest.mark.parametrize("count", [1, 7, LABELS, LABELS + 1, 500])
def test_a_legend_has_room_for_a_large_sweep(count: int) -> None:
    named = [label for i in range(count) if (label := label_of(f"r{i}", i, count))]
    assert named[0] == "r0" and len(named) <= LABELS
    assert count > LABELS or len(named) == count


def test_the_page_is_made_from_its_tables_and_reads_no_metrics(results: Path) -> None:
    for path in results.rglob("metrics.json"):
        versions = {"python": "3.11"}
        write_json(
            path.with_name("provenance.json"),
            {"finished": "2026-01-01", "seconds": 1800.0, "device": "cpu", "threads": 1, "versions": versions},
        )
    claim: dict[str, Any] = {"text": "ours is better", "section": "C", "kind": "contrast", "interval": "paired"}
    claim |= {side: [{"row": row, "column": "all"}] for side, row in (("more", "Ours"), ("less", "Other"))}
    write(table(claims=[claim], note="Mind this."), "results/demo/table0")
    for path in results.rglob("metrics.json"):
        path.unlink()
    assert page.main(["results/demo/table0.json", "--out", "results/demo/report.html"]) == 0
    text = (results / "results/demo/report.html").read_text()
    assert "Mind this." in text and "without a correction for their number, 1:" in text and "one training split" in text
    claims = pd.read_csv("results/demo/table0.claims.csv").iloc[0]
    assert f">{claims['seeds_needed']:.0f} ({claims['seeds_needed_low']:.0f} to" in text
    assert "6 runs, seeds 1, 2, 3" in text
    assert "3.0 hours of training for the rows of the tables, 30.0 minutes a run" in text
    plain = re.sub("<[^>]+>", "", text)
    assert "seed 1 90.00, seed 2 92.00, seed 3 91.00" in plain and "runs/csa/seed=2/metrics.json" in text


def test_one_of_a_kind_is_said_in_the_singular() -> None:
    assert [counted(number, "run") for number in (0, 1, 2, 1200)] == ["0 runs", "1 run", "2 runs", "1,200 runs"]
    fields: dict[str, Any] = {"lr": 0.1, "lr_warmup_epochs": 0, "lr_drops": [24], "epochs": 30, "warmup_epochs": 0}
    assert recipe._optimizer(fields).endswith("learning rate 0.1, divided by 10 after epoch 24")
    assert recipe._optimizer(fields | {"lr_drops": []}).endswith("learning rate 0.1")
    cosine = fields | {"lr_warmup_epochs": 1, "lr_schedule": "cosine"}
    assert recipe._optimizer(cosine).endswith("learning rate 0.1, rising over 1 epoch, falling along a cosine")
    listed = {"data": {"source": "image_list"}, "colour_jitter": 0.4, "horizontal_flip": True}
    assert recipe._augmentation(listed) == "random resized crops, random flips, colours varied by up to 0.4"
    assert recipe._epochs(fields) == "30; scored after the last one"
    several = recipe._epochs(fields | {"warmup_epochs": 5, "plain_epochs": 1})
    assert several.startswith("30, the first 5 without the re-sampled branch, the last without context shift;")


def test_what_takes_long_to_import_is_imported_where_it_is_needed() -> None:
    heavy = {"scipy.stats", "statsmodels", "matplotlib", "pandas"}
    code = "import sys, workflow.report.{}; print(*sys.modules)"
    expected = {"tables": {"pandas"}, "claims": {"pandas"}, "figures": {"pandas", "matplotlib"}, "page": set()}
    for name, needed in expected.items():
        done = subprocess.run([sys.executable, "-c", code.format(name)], cwd=ROOT, capture_output=True, text=True)
        assert heavy & set(done.stdout.split()) == needed, name
