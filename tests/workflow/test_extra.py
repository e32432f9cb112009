"""Tables beside the appendix: what makes them, what stands in them, and what others published."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib import pyplot
from matplotlib.text import Text

from tests.conftest import ROOT, TINY
from tests.helpers.workflows import Folder, table
from workflow.plan import Plan
from workflow.report.collect import collect
from workflow.report.points import points
from workflow.report.style import use_style
from workflow.report.tables import cells, markdown, tidy
from workflow.report.wording import rows_of_one_run

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
EXTRA = {"methods", "combinations", "cmo_mask", "second_stage"}


def plan(**changes: Any) -> Plan:
    return Plan(CONFIG | changes)


def test_extra_tables_are_no_part_of_all() -> None:
    p = plan()
    assert set(p.extra) == EXTRA == set(p.tables) - set(p.usual)
    usual = {run.folder for run in p.all_runs()}
    assert usual == {run.folder for name in p.usual for run in p.with_parents(p.runs_of(name))}
    more = {run.folder for name in EXTRA for run in p.runs_of(name)} - usual
    assert len(more) == 3 * 33
    assert "methods" not in p.figures and p.extra_figures == ["methods"] and p.drawn("methods") == ("points", "methods")


@pytest.mark.parametrize("protocol", ["demo", "short", "paper"])
def test_the_row_of_a_late_branch_follows_the_epochs(protocol: str) -> None:
    runs: list[Any] = [run.config for run in plan(protocol=protocol, seeds=[1]).runs_of("combinations")]
    late = {"demo": 24, "short": 32, "paper": 160}[protocol]
    assert [config.warmup_epochs for config in runs].count(late) == 1


@pytest.mark.parametrize("epochs", [3, 4, 6, 9])
def test_a_protocol_of_few_epochs_has_all_tables(epochs: int, tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY | {"epochs": epochs, "lr_drops": [2]}))
    p = plan(protocol=str(path), seeds=[1])
    assert all(p.rows(name) for name in EXTRA)
    late: Any = p.runs_of("combinations")[-1].config
    assert late.warmup_epochs + late.plain_epochs < epochs


def test_frozen_is_frozen_whatever_the_overrides_say() -> None:
    rows = plan(overrides={"batch_norm": "moving"}, seeds=[1]).rows("second_stage")
    configs: dict[str, Any] = {row.name: row.runs[0].config for row in rows if row.method in ("crt", "lws")}
    assert len(configs) == 4
    assert all(config.batch_norm == name.split()[1] for name, config in configs.items())


def test_rows_that_an_override_makes_one_run_are_named() -> None:
    p = plan(overrides={"balance_ratio": 0.5}, seeds=[1])
    (said,) = rows_of_one_run(p.declaration("methods"))
    assert said.startswith("'Re-sampling Class-balanced' and 'Re-sampling Square-root' are one run here")
    for protocol in ("demo", "short", "paper", "imagenet_lt"):
        usual = plan(protocol=protocol, seeds=[1])
        assert not [text for name in usual.tables for text in rows_of_one_run(usual.declaration(name))]


def test_what_others_published_stands_beside_cifar_alone() -> None:
    assert not any(row.published for row in plan().rows("methods"))
    rows = {row.name: row for row in plan(protocol="short").rows("methods")}
    assert rows["Logits LDAM-DRW"].published == "42.6 (Remix, Table 1)" and not rows["Ours csa"].published
    assert not any(row.published for row in plan(protocol="paper", overrides={"lr": 0.1}).rows("methods"))


def test_published_values_have_a_column_with_their_source(results: Path) -> None:
    declared = table(draw="no")
    declared["rows"][1]["published"] = "38.3 (BoT)"
    values, facts = collect(declared)
    shown = markdown(declared, tidy(declared, values), facts)
    assert "All, published by others" in shown and "38.3 (BoT)" in shown and "with other schedules" in shown
    plain = table()
    assert "published" not in " ".join(cells(plain, tidy(plain, collect(plain)[0])))


def test_the_scatter_has_a_point_and_a_name_for_each_row(results: Path) -> None:
    use_style()
    declared = table(draw="scatter")
    values, _ = collect(declared)
    few = values["column"] == "few"
    values.loc[few, "value"] = np.arange(few.sum()) / 100
    figure, drawn = points(declared, values)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["Ours", "Other"]
    assert axes.get_xlabel().startswith("Accuracy, all classes (%)\naxis begins at") and axes.get_ylabel() == "Few (%)"
    for line in drawn.to_dict("records"):
        for column in ("all", "few"):
            mine = values[(values["label"] == line["label"]) & (values["column"] == column)]["value"] * 100
            half = 4.302652729749464 * mine.std() / np.sqrt(3)  # Student's t, 2 degrees of freedom
            assert line[f"mean_{column}"] == pytest.approx(mine.mean())
            assert line[f"high_{column}"] == pytest.approx(mine.mean() + half)
    pyplot.close(figure)


@pytest.mark.parametrize("apart", [0.005, 0.2])
def test_an_interval_of_two_seeds_leaves_the_points_their_room(apart: float) -> None:
    use_style()
    rows = {"A": (0.40, 0.41, 0.42), "B": (0.30, 0.31, 0.32), "C": (0.40 - apart, 0.40)}
    lines = [
        {"series": "", "label": label, "name": label, "column": column, "seed": seed, "value": value}
        for label, each in rows.items()
        for column in ("all", "few")
        for seed, value in enumerate(each)
    ]
    figure, drawn = points(table(draw="scatter"), pd.DataFrame(lines))
    (axes,) = figure.axes
    said = " ".join(text.get_text() for legend in figure.legends for text in legend.get_texts())
    for column, (low, high) in (("all", axes.get_xlim()), ("few", axes.get_ylim())):
        mean, ends = drawn[f"mean_{column}"], drawn[[f"low_{column}", f"high_{column}"]].to_numpy()
        assert low < mean.min() and mean.max() < high
        assert np.ptp(mean) > 0.5 * (high - low), "the points, not the intervals, fill the figure"
        assert ((ends < low).any() or (ends > high).any()) == ("cut at the edges" in said) == (apart > 0.1)
    pyplot.close(figure)


def test_no_name_in_a_crowd_covers_another(results: Path) -> None:
    use_style()
    rng, seeds = np.random.default_rng(0), (1, 2, 3)
    lines = [
        {
            "series": f"{n % 4}",
            "label": f"Method {n}",
            "name": f"Method {n}",
            "column": column,
            "seed": seed,
            "value": v,
        }
        for n in range(24)
        for column in ("all", "few")
        for seed, v in zip(seeds, rng.normal(0.8, 0.01, 3), strict=True)
    ]
    figure, _ = points(table(draw="scatter"), pd.DataFrame(lines))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [Text.get_window_extent(name) for name in axes.texts]
    assert len(boxes) == 24 and not any(box.count_overlaps(boxes[:n]) for n, box in enumerate(boxes))
    pyplot.close(figure)


def test_all_and_extra_are_targets_of_their_own(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    jobs = {target: folder.jobs(target) for target in ("all", "extra")}
    assert jobs["extra"]["table"] == len(EXTRA) and jobs["all"]["table"] == len(plan().usual)
    assert "page" not in jobs["extra"]
