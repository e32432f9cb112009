"""Figures say what their signs are, where axes begin, and which class is which."""

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib import pyplot

from csa_core.errors import UserError
from csa_core.evaluation.scores import pack, score
from csa_core.store import read_sealed, sealed, write_tensors
from tests.conftest import ROOT
from tests.helpers.workflows import table
from workflow import publish
from workflow.plan import Plan
from workflow.report import figures, page
from workflow.report.by_class import class_names, runs_of
from workflow.report.classes import class_bars, confusion, per_class
from workflow.report.collect import collect, folder_of
from workflow.report.curves import curves
from workflow.report.points import points
from workflow.report.recount import unpack
from workflow.report.seen import seen
from workflow.report.style import use_style
from workflow.report.tables import drawn

COUNTS = [250, 100, 30, 5]
CONFUSION = np.array([[9, 1, 0, 0], [0, 8, 2, 0], [0, 0, 5, 5], [10, 0, 0, 0]])


@pytest.fixture
def scored(results: Path) -> Path:
    """Runs of four classes, with counts and histories."""
    labels, predicted = (np.repeat(each, CONFUSION.ravel()) for each in np.indices((4, 4)).reshape(2, -1))
    groups = ["many", "many", "few", "few"]
    for path in results.rglob("metrics.json"):
        content = read_sealed(path) | {"class_counts": COUNTS, "groups": groups}
        content["heads"]["single"] = score(np.eye(4)[predicted], labels, groups)
        path.write_text(json.dumps(sealed(content)))
        history = pd.DataFrame({"epoch": [1, 2], "loss": [1.0, 0.5], "test_accuracy_single": [0.4, 0.5]})
        history.to_csv(path.with_name("history.csv"), index=False)
    use_style()
    return results


def first_run(values: pd.DataFrame) -> dict[Any, Any]:
    return runs_of(values).to_dict("records")[0]


def texts(figure: Any) -> str:
    """Return all that a figure says."""
    return " ".join(text.get_text() for text in figure.findobj(match=lambda each: hasattr(each, "get_text")))


@pytest.mark.parametrize("draw", ["no", "categories"])
def test_the_signs_are_named_and_a_cut_axis_says_so(draw: str, results: Path) -> None:
    use_style()
    figure, _ = points(table(draw=draw), collect(table(draw=draw))[0])
    said = texts(figure)
    assert all(word in said for word in ("mean over seeds", "95 % interval", "single seed"))
    axis = figure.axes[0]
    low = (axis.get_xlim() if draw == "no" else axis.get_ylim())[0]
    assert low > 0 and f"axis begins at {low:.1f} %" in said
    pyplot.close(figure)


def test_one_seed_has_no_interval_in_its_legend(results: Path) -> None:
    for path in results.rglob("seed=[23]/metrics.json"):
        path.unlink()
    figure, _ = points(table(draw="categories"), collect(table(), partial=True)[0])
    assert "interval" not in texts(figure) and "single seed" in texts(figure)
    pyplot.close(figure)


@pytest.mark.parametrize("lowest", [0.0, 0.9])
@pytest.mark.parametrize("font", [7, 14])
def test_names_of_axes_stay_beside_their_own_panel(font: float, lowest: float, scored: Path) -> None:
    for path in scored.rglob("history.csv"):
        history = pd.read_csv(path)
        history.assign(test_accuracy_single=lowest + history["test_accuracy_single"] / 10).to_csv(path, index=False)
    use_style(font=font)
    figure, _ = curves(table(), collect(table())[0])
    figure.draw_without_rendering()
    upper, lower = (axis.yaxis.label.get_window_extent() for axis in figure.axes)
    assert upper.y0 > lower.y1
    pyplot.close(figure)
    use_style()


def test_a_table_has_a_picture_with_each_of_its_rows(scored: Path) -> None:
    figure, drawn = points(table(), collect(table())[0])
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["Ours", "Other"]
    assert drawn["label"].tolist() == ["Ours", "Other"] and drawn["mean"].tolist() == pytest.approx([55.0, 55.0])
    pyplot.close(figure)


def test_ticks_stand_at_the_counts_and_no_line_joins_classes(scored: Path) -> None:
    figure, drawn = per_class(table(), collect(table())[0])
    (axis,) = figure.axes
    assert axis.get_xticks().tolist() == sorted(COUNTS) and not axis.xaxis.get_ticklocs(minor=True).size
    assert all(line.get_linestyle() == "None" for line in axis.lines if np.size(line.get_xdata()) > 1)
    assert len({line.get_marker() for line in axis.lines if str(line.get_marker()) in "os"}) == 2, "not by colour alone"
    assert drawn["mean"].tolist() == pytest.approx([90, 80, 50, 0] * 2)
    pyplot.close(figure)


def test_bars_and_matrix_name_the_classes(scored: Path) -> None:
    rows = [row | {"data": "demo"} for row in table()["rows"]]
    shown = table(rows=rows)
    values, _ = collect(shown)
    figure, drawn = class_bars(shown, values)
    ticks = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert ticks[0] == "class 0 (250)", "without a data set classes have numbers"
    names = ["cat", "dog", "$", "\u0645\u0633"]  # the last from right to left
    path = scored / "results/data/demo/dataset.safetensors"
    path.parent.mkdir(parents=True)
    write_tensors(path, {"x": np.zeros(1)}, {"class_names": names})
    figure, drawn = class_bars(shown, values)
    ticks = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert ticks == ["cat (250)", "dog (100)", r"\$ (30)", "\u0645\u0633 (5)"] and len(figure.axes[0].patches) == 8
    assert drawn["label"].tolist()[:4] == names
    figure, drawn = confusion(shown, values)
    matrix = drawn["percent"].to_numpy().reshape(4, 4)
    np.testing.assert_allclose(matrix, 100 * CONFUSION / 10)
    assert drawn["name"].unique().tolist() == ["Ours"] and "taken" not in texts(figure)
    pyplot.close("all")


def test_metrics_name_the_classes_before_all_else(scored: Path) -> None:
    for path in scored.rglob("metrics.json"):
        path.write_text(json.dumps(sealed(read_sealed(path) | {"class_names": ["ant", "bee", "cat", "dog"]})))
    values, _ = collect(table())
    assert class_names(table(), first_run(values)) == {0: "ant", 1: "bee", 2: "cat", 3: "dog"}
    shown = table(columns=["all", "worst_class"])
    assert "Worst classes, by their mean over seeds: dog (Ours); dog (Other)." in drawn(shown)[".md"]


def test_rows_of_different_data_have_their_own_classes(scored: Path) -> None:
    """In words each row's; at a bar only what is the same for all."""
    for path in scored.rglob("metrics.json"):
        other = "/ce/" in path.as_posix()
        own: dict[str, Any] = {"class_names": ["ant", "bee", "cat", "dog"] if other else ["elk", "fox", "gnu", "hen"]}
        own |= {"class_counts": [c + other for c in COUNTS]}
        content = read_sealed(path)
        content["digests"]["data"] = ("e" if other else "d") * 64
        content["config"]["data"]["imbalance_ratio"] = 10 if other else 50
        path.write_text(json.dumps(sealed(content | own)))
    shown = table(columns=["all", "worst_class"])
    assert "Worst classes, by their mean over seeds: hen (Ours); dog (Other)." in drawn(shown)[".md"]
    figure, _ = class_bars(table(), collect(table())[0])
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks == ["class 0", "class 1", "class 2", "class 3"] and figure.axes[0].get_xlabel() == "Class"
    pyplot.close("all")


def test_runs_of_a_selection_find_their_classes_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the published runs do, which were trained before metrics held names."""
    monkeypatch.chdir(ROOT)
    declared = publish.plan_of(Path("results/published/short")).declaration("baselines")
    values, _ = collect(declared, partial=True)
    found = list(class_names(declared, first_run(values)).values())
    assert len(found) == 100 and found == sorted(found) and (found[0], found[99]) == ("apple", "worm")
    path = folder_of(declared, values.iloc[0].to_dict(), values["seed"].iloc[0])
    copy = tmp_path / "runs" / path.relative_to("results/published/short/runs")
    copy.mkdir(parents=True)
    metrics = read_sealed(path / "metrics.json")
    other = metrics | {"digests": metrics["digests"] | {"data": "f" * 64}}
    (copy / "metrics.json").write_text(json.dumps(sealed(other)))
    assert class_names(declared | {"results": str(tmp_path)}, first_run(values))[0] == "class 0", "of other images"


@pytest.mark.parametrize("text", ["", "!", pack(np.zeros((5, 5), int))])
def test_counts_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no confusion counts of 4 classes"):
        unpack(text, 4, tmp_path)


@pytest.mark.parametrize("kind", ["points", "curves", "per_class", "classes", "confusion"])
def test_a_figure_says_in_words_what_is_seen(kind: str, scored: Path) -> None:
    figures.write(kind, table(), "f")
    (title,) = re.findall("<dc:title>(.*?)</dc:title>", Path("f.svg").read_text(), re.S)
    said = html.unescape(title)
    expected = {
        "points": "highest Ours (55.0 %)",
        "curves": "Test accuracy at the end: Ours 50.0 %, Other 50.0 %",
        "confusion": "class 3 taken for class 0 (100.0 %)",
    }
    assert said.startswith("A title. ") and expected.get(kind, "Ours 90.0 % to 0.0 %") in said
    shown = page._read(Path("f.svg"))
    assert shown["seen"] == said


def test_a_figure_says_what_its_numbers_are(results: Path) -> None:
    use_style()
    shown = table(columns=["ece", "all"])
    _, drawn = points(shown, collect(shown)[0])
    assert seen("points", shown, drawn).startswith("A title. ECE of 2 rows (Method): highest Ours (50.0 %)")
    _, drawn = points(table(), collect(table())[0])
    assert "Accuracy of 2 rows (Method), with 95 % intervals: highest Ours" in seen("points", table(), drawn)
    for path in results.rglob("seed=[23]/metrics.json"):
        path.unlink()
    _, drawn = points(table(), collect(table(), partial=True)[0])
    assert "interval" not in seen("points", table(), drawn)
    pyplot.close("all")


def test_runs_that_are_not_there_lead_to_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert figures.main(["figure1", "--config", f"results={tmp_path}", "--out", str(tmp_path / "f")]) == 2
    run, said = capsys.readouterr().err.removeprefix("figures: ").split(": ", 1)
    assert run.startswith(f"{tmp_path}/demo/runs/csa/") and run.endswith("seed=1")
    assert said == f"is not finished; run snakemake --cores all {tmp_path}/demo/figure1.csv\n"


def test_a_first_column_without_classes_is_named(results: Path) -> None:
    shown = table(columns=["many", "all"])
    with pytest.raises(UserError, match="table0: no row has Many, its first column"):
        points(shown, collect(shown)[0])


def test_a_network_without_mistakes_takes_nothing_for_another(scored: Path) -> None:
    _, drawn = confusion(table(), collect(table())[0])
    drawn = drawn.assign(percent=np.where(drawn["true"] == drawn["predicted"], 100.0, 0.0))
    assert seen("confusion", table(), drawn).endswith("by Ours; none is taken for another.")
    pyplot.close("all")


def test_a_class_without_test_images_has_no_shares(scored: Path) -> None:
    for path in scored.rglob("metrics.json"):
        content = read_sealed(path)
        content["heads"]["single"] = score(np.eye(4)[[0, 1, 1]], np.array([0, 1, 2]), content["groups"])
        path.write_text(json.dumps(sealed(content)))
    _, drawn = confusion(table(), collect(table())[0])
    assert drawn.groupby("true")["percent"].count().tolist() == [4, 4, 4, 0]
    pyplot.close("all")


def test_a_partial_figure_says_so(results: Path) -> None:
    (results / "results/demo/runs/ce/seed=2/metrics.json").unlink()
    assert "protocol demo, 2 to 3 seeds, partial" in texts(figures.draw("points", table(), partial=True)[0])
    rows = table()["rows"][:1]
    assert "partial" not in texts(figures.draw("points", table(rows=rows), partial=True)[0])
    pyplot.close("all")


def test_a_point_of_one_seed_among_others_is_said_to_have_no_interval(results: Path) -> None:
    values, _ = collect(table())
    assert "one seed has none" not in texts(points(table(), values)[0])
    values = values[(values["run"] != "ce") | (values["seed"] == 1)]
    assert "95 % interval (one seed has none)" in texts(points(table(), values)[0])
    pyplot.close("all")


def test_bars_of_some_rows_count_the_seeds_of_these(scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflow.report.classes.MOST_BARS", 4)  # one row of four classes
    values, _ = collect(table())
    for run, said in (("csa", "1 seed"), ("ce", "3 seeds")):
        figure, drawn = class_bars(table(), values[(values["run"] != run) | (values["seed"] == 1)])
        assert drawn["name"].unique().tolist() == ["Ours"] and f"protocol demo, {said}" in texts(figure)
        assert ("95 % interval" in texts(figure)) == (run == "ce")
    pyplot.close("all")


def test_a_line_has_each_interval_and_each_value_that_is_there() -> None:
    use_style()

    def drawn(**seeds: tuple[int, ...]) -> Any:
        lines = [
            {"series": "", "label": label, "name": label, "column": "all", "seed": seed, "value": 0.5 + seed / 100}
            for label, own in seeds.items()
            for seed in own
        ]
        figure, _ = points(table(draw="line"), pd.DataFrame(lines))
        return figure.axes[0]

    three = (1, 2, 3)
    axis = drawn(**{"0.0": three, "0.5": (1,), "1.0": three})
    assert [each[0, 0] for each in axis.collections[1].get_segments()] == [0.0, 1.0], "a band of one point has no width"
    assert not drawn(**{"0.0": three, "0.5": three, "1.0": (1,)}).collections[1].get_segments()
    assert drawn(**{"1.0": three}).get_xticks().tolist() == [1.0]
    pyplot.close("all")


def test_the_names_of_series_keep_their_letters(results: Path) -> None:
    rows = [row | {"series": name} for row, name in zip(table()["rows"], ["beta", "SimSiam + rwSAM"], strict=True)]
    shown = table(rows=rows, draw="categories")
    figure, _ = points(shown, collect(shown)[0])
    assert [axis.get_title() for axis in figure.axes] == ["Beta", "SimSiam + rwSAM"]
    pyplot.close("all")


def test_classes_of_one_size_have_one_mean(scored: Path) -> None:
    for path in scored.rglob("metrics.json"):
        labels, groups = np.arange(24), ["few"] * 24
        content = read_sealed(path) | {"class_counts": [30] * 24, "groups": groups}
        content["heads"]["single"] = score(np.eye(24)[labels // 2], labels, groups)
        path.write_text(json.dumps(sealed(content)))
    figure, _ = per_class(table(), collect(table())[0])
    means = [np.asarray(line.get_xydata()).tolist() for line in figure.axes[0].lines if line.get_linestyle() != "None"]
    assert means == [[[30.0, pytest.approx(100 / 24)]]] * 2
    pyplot.close("all")


def test_a_slide_has_larger_figures_and_letters(scored: Path) -> None:
    values, _ = collect(table())
    small, _ = curves(table(), values)
    config = yaml.safe_load((ROOT / "config.yaml").read_text()) | {"figure": {"width": 6.7, "font": 14}}
    assert Plan(config).declaration("table2")["figure"] == {"width": 6.7, "font": 14}
    large, _ = figures.draw("curves", table(figure={"width": 6.7, "font": 14}), partial=False)
    assert large.get_size_inches() == pytest.approx(2 * small.get_size_inches())
    bare, _ = figures.draw("curves", table(figure={"title": False}), partial=False)
    assert "A title" in texts(large) and "A title" not in texts(bare) and "protocol" not in texts(bare)
    sizes = [figure.axes[0].yaxis.label.get_fontsize() for figure in (small, large)]
    assert sizes[1] == pytest.approx(2 * sizes[0])
    pyplot.close("all")
    use_style()
