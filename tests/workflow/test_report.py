"""The collector refuses what does not belong together; the statistics are the textbook's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from csa_core.errors import UserError
from workflow.report.collect import GROUPS, collect
from workflow.report.summary import paired_difference, summarise
from workflow.report.tables import main, markdown, tidy

ACCURACY = {1: [0.90, 0.80], 2: [0.92, 0.85], 3: [0.91, 0.81]}
SAME = {"code": "c" * 64, "data": "d" * 64, "split": "s" * 64}


def table() -> dict[str, Any]:
    rows = [
        {"label": label, "head": None, "reference": label == "Ours", "paper": paper, "run": run,
         "digests": [f"{run}-{seed}" for seed in ACCURACY]}
        for label, run, paper in (("Ours", "demo/csa", {"all": 45.8}), ("Other", "demo/ce", {}))
    ]  # fmt: skip
    return {
        "title": "A title", "row_name": "Method", "source": "Table 0", "columns": ["all", "few"], "protocol": "demo",
        "overrides": {}, "seeds": list(ACCURACY), "rows": rows,
    }  # fmt: skip


def metrics(run: str, seed: int, number: int) -> dict[str, Any]:
    value = ACCURACY[seed][number]
    accuracy = {"all": value, "many": None, "medium": value, "few": value / 2}
    return {
        "digests": SAME | {"config": f"{run}-{seed}"},
        "config": {"data": {"source": "demo"}},
        "class_counts": [9, 3],
        "groups": ["few", "few"],
        "predicts": "single",
        "heads": {"single": {"accuracy": accuracy}},
    }


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Result folders as a finished sweep leaves them, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for number, row in enumerate(table()["rows"]):
        for seed in ACCURACY:
            folder = tmp_path / "results/runs" / row["run"] / f"seed={seed}"
            folder.mkdir(parents=True)
            (folder / "metrics.json").write_text(json.dumps(metrics(row["run"], seed, number)))
    return tmp_path


def test_summary_is_the_textbooks(results: Path) -> None:
    accuracies, _ = collect(table(), SAME["code"])
    summary = summarise(accuracies, reference=0).set_index(["row", "group"])
    ours, other = (np.array([values[i] for values in ACCURACY.values()]) for i in (0, 1))
    line = summary.loc[(1, "all")]
    assert line["mean"] == pytest.approx(other.mean()) and line["sd"] == pytest.approx(np.std(other, ddof=1))
    difference = other - ours
    half = 4.302652729911275 * np.std(difference, ddof=1) / np.sqrt(3)  # t(0.975, 2)
    assert line["difference"] == pytest.approx(difference.mean())
    assert (line["low"], line["high"]) == (
        pytest.approx(difference.mean() - half),
        pytest.approx(difference.mean() + half),
    )
    assert np.isnan(summary.loc[(0, "all")]["difference"]), "the reference is not compared with itself"
    assert np.isnan(summary.loc[(0, "many")]["mean"]), "a group without classes is empty"


def test_one_seed_has_no_sd_and_no_interval() -> None:
    result = paired_difference(np.array([0.5]), np.array([0.4]))
    assert result["difference"] == pytest.approx(0.1) and np.isnan(result["low"]) and np.isnan(result["high"])


def test_no_spread_is_no_division_by_zero() -> None:
    assert paired_difference(np.array([0.5, 0.7]), np.array([0.5, 0.7])) == {"difference": 0, "low": 0, "high": 0}


def test_the_csv_is_tidy_and_in_percent(results: Path) -> None:
    accuracies, facts = collect(table(), SAME["code"])
    summary = tidy(table(), accuracies)
    assert len(summary) == 4 and set(summary["group"]) == {"all", "few"}
    ours = summary[(summary["label"] == "Ours") & (summary["group"] == "all")].iloc[0]
    assert ours["mean_percent"] == pytest.approx(91.0) and ours["paper_percent"] == pytest.approx(45.8)
    assert pd.isna(summary[summary["label"] == "Other"]["paper_percent"]).all()
    text = markdown(table(), summary, facts)
    assert "91.0 ± 1.0" in text and "All (paper)" in text and "12 training images in 2 classes of 9 to 3" in text


def spoil(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(content))


RUN = Path("results/runs/demo/ce/seed=2/metrics.json")
BAD = {
    "missing run": (lambda: RUN.unlink(), "ce/seed=2/metrics.json: cannot be read"),
    "not json": (lambda: RUN.write_text("{"), "ce/seed=2/metrics.json: is not JSON"),
    "other config": (lambda: spoil(RUN, digests={"config": "x" * 64}), "config digest is xxxxxxxxxxxx, expected demo/"),
    "other code": (lambda: spoil(RUN, digests={"code": "x" * 64}), "code digest is xxxxxxxxxxxx"),
    "other data": (lambda: spoil(RUN, digests={"data": "x" * 64}), "data digest differs from that of"),
    "other split": (lambda: spoil(RUN, digests={"split": "x" * 64}), "split digest differs from that of"),
    "no such head": (lambda: spoil(RUN, predicts="resampling"), "lacks what table row 'Other' needs"),
    "nan": (
        lambda: spoil(RUN, heads={"single": {"accuracy": dict.fromkeys(GROUPS, float("nan"))}}),
        "accuracy of all is nan",
    ),
    "text": (
        lambda: spoil(RUN, heads={"single": {"accuracy": dict.fromkeys(GROUPS, "0.9")}}),
        "accuracy of all is '0.9'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_belong_is_refused_by_name(case: str, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, message = BAD[case]
    damage()
    with pytest.raises(UserError) as error:
        collect(table(), SAME["code"])
    assert message in str(error.value)
    Path("t.json").write_text(json.dumps(table()))
    words = ["t.json", "--code-version", SAME["code"], "--csv", "t.csv", "--markdown", "t.md"]
    assert main(words) == 2 and not Path("t.csv").exists()
    assert capsys.readouterr().err.count("\n") == 1
