"""The collector refuses what does not belong together; the statistics are the textbook's."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.pyplot import close
from scipy import stats

from csa_core import store
from csa_core.config import set_dotted
from csa_core.errors import UserError
from csa_core.methods import parse
from csa_core.store import read_sealed, sealed
from tests.helpers.workflows import ACCURACY, metrics, table
from workflow.report import recipe, tables
from workflow.report.collect import MEASURES, collect, is_finished
from workflow.report.curves import curves
from workflow.report.drawing import means
from workflow.report.points import points
from workflow.report.recount import GROUPS
from workflow.report.style import use_style
from workflow.report.summary import paired_interval, summarise
from workflow.report.tables import markdown, tidy, write
from workflow.report.wording import heading


def test_summary_is_the_textbooks(results: Path) -> None:
    accuracies, _ = collect(table())
    summary = summarise(accuracies, reference=0).set_index(["row", "column"])
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


def test_runs_that_started_from_different_runs_of_one_configuration_are_refused(results: Path) -> None:
    def write_with(run: str, parent: str) -> None:
        path = results / "results/demo/runs" / run / "seed=1/metrics.json"
        content = read_sealed(path)
        content["digests"]["parent"] = parent * 64
        path.write_text(json.dumps(sealed(content)))

    def rows(*parents: str) -> list[dict[str, Any]]:
        return [row | {"parents": [parent, None, None]} for row, parent in zip(table()["rows"], parents, strict=True)]

    write_with("csa", "e")
    with pytest.raises(UserError, match=r"ce/seed=1/metrics.json: lacks what table row 'Other' needs"):
        collect(table(rows=rows("encoder", "encoder")))
    write_with("ce", "f")
    with pytest.raises(UserError, match=r"parent digest differs from that of .*demo/runs/csa/seed=1/metrics.json"):
        collect(table(rows=rows("encoder", "encoder")))
    collect(table(rows=rows("encoder", "another")))
    write_with("ce", "e")
    collect(table(rows=rows("encoder", "encoder")))


def test_one_seed_has_no_sd_and_no_interval() -> None:
    result = paired_interval(np.array([0.1]))
    assert result["difference"] == pytest.approx(0.1) and np.isnan(result["low"]) and np.isnan(result["high"])


def test_seeds_without_spread_give_no_interval() -> None:
    result = paired_interval(np.array([0.25, 0.25]))
    assert result["difference"] == 0.25 and np.isnan(result["low"]) and np.isnan(result["high"])


def test_the_csv_is_tidy_and_in_percent(results: Path) -> None:
    accuracies, facts = collect(table())
    summary = tidy(table(), accuracies)
    assert len(summary) == 4 and set(summary["column"]) == {"all", "few"}
    ours = summary[(summary["label"] == "Ours") & (summary["column"] == "all")].iloc[0]
    assert ours["mean_percent"] == pytest.approx(91.0) and ours["paper_percent"] == pytest.approx(45.8)
    assert ours["from_paper_percent"] == pytest.approx(45.2)
    assert pd.isna(summary[summary["label"] == "Other"]["paper_percent"]).all()
    text = markdown(table(), summary, facts)
    assert "91.0 ± 1.0" in text and "All, paper" in text and "12 training images in 2 classes of 9 to 3" in text


def with_scores(results: Path, **more: Any) -> None:
    """Write 200 test images, and other keys, into all metrics; what is callable is asked by run and seed."""
    for row in table()["rows"]:
        for seed in ACCURACY:
            path = results / f"results/demo/runs/{row['run']}/seed={seed}/metrics.json"
            content = read_sealed(path)
            content["heads"]["single"]["images"] = [150, 50]
            content |= {key: value(row["run"], seed) if callable(value) else value for key, value in more.items()}
            path.write_text(json.dumps(sealed(content)))


def drawn(**changes: Any) -> tuple[pd.DataFrame, str]:
    """Return a table's CSV and its Markdown."""
    write(table(**changes), "t")
    assert all(word in Path("t.json").read_text() for word in ("heading", "note"))
    return pd.read_csv("t.csv"), Path("t.md").read_text()


def test_the_test_set_has_an_error_of_its_own(results: Path) -> None:
    with_scores(results)
    summary, text = drawn()
    ours = summary[(summary["label"] == "Ours")].set_index("column")
    assert ours.loc["all", "test_error_percent"] == pytest.approx(100 * np.sqrt(0.91 * 0.09 / 200))
    assert np.isnan(ours.loc["few", "test_error_percent"]) and "test set of 200 images" in text
    assert "2.0 to 2.7 points" in text and "without a correction for the number of rows or claims" in text
    assert "test_images" not in pd.read_csv("t.seeds.csv")


def one_seed(row: dict[str, Any]) -> dict[str, Any]:
    return row | {key: row[key][:1] for key in ("digests", "parents")}


def test_the_papers_one_number_has_a_spread_too(results: Path) -> None:
    summary, text = drawn(paper_sd=0.34)
    ours = summary[(summary["label"] == "Ours") & (summary["column"] == "all")].iloc[0]
    error = np.hypot(1 / np.sqrt(3), 0.34)  # the sd of 90, 92, 91 is 1
    freedom = error**4 / ((1 / 3) ** 2 / 2)
    half = stats.t.ppf(0.975, freedom) * error
    assert ours["from_paper_low_percent"] == pytest.approx(45.2 - half)
    assert ours["from_paper_high_percent"] == pytest.approx(45.2 + half)
    assert "| 45.8 ± 0.34" in text and f"+45.2 [+{45.2 - half:.1f}, +{45.2 + half:.1f}]" in text
    assert "± 0.34 is the sd over seeds of public CIFAR100-LT runs" in text
    _, text = drawn(seeds=[1], paper_sd=0.34, rows=[one_seed(row) for row in table()["rows"]])
    assert "| 45.8 ± 0.34" in text and "+44.2 " in text and "+44.2 [" not in text


def test_values_of_another_recipe_have_a_column_and_no_difference(results: Path) -> None:
    summary, text = drawn(paper_heading="paper, 200 epochs", paper_sd=0.34)
    assert "All, paper, 200 epochs" in text and "45.8" in text and "− paper" not in text
    assert summary["from_paper_percent"].isna().all() and summary["from_paper_low_percent"].isna().all()


def test_rows_of_a_sweep_show_the_pooled_interval(results: Path) -> None:
    rng = np.random.default_rng(0)
    rows, layout = [], rng.normal(0.9, 0.01, (4, 3))
    for number, accuracies in enumerate(layout):
        rows.append(table()["rows"][0] | {"label": f"r{number}", "pool": 0, "reference": number == 3, "paper": {}})
        rows[-1] |= {"run": f"{number}", "digests": [f"{number}-{seed}" for seed in ACCURACY]}
        for seed, value in zip(ACCURACY, accuracies, strict=True):
            content = metrics(f"{number}", seed, 0)
            content["heads"]["single"]["accuracy"]["all"] = float(value)
            folder = results / f"results/demo/runs/{number}/seed={seed}"
            folder.mkdir(parents=True)
            (folder / "metrics.json").write_text(json.dumps(sealed(content)))
    summary, text = drawn(rows=rows)
    residual = layout - layout.mean(1, keepdims=True) - layout.mean(0) + layout.mean()
    error = np.sqrt((residual**2).sum() / 6 * 2 / 3)
    line = summary[(summary["label"] == "r1") & (summary["column"] == "all")].iloc[0]
    low = 100 * (layout[1].mean() - layout[3].mean() - stats.t.ppf(0.975, 6) * error)
    assert line["pooled_low_percent"] == pytest.approx(low) and line["pooled_freedom"] == 6
    assert line["difference_percent"] == pytest.approx((line["pooled_low_percent"] + line["pooled_high_percent"]) / 2)
    assert "All − ref., pooled" in text and "6 degrees of freedom in place of 2" in text and "spread alike" in text
    assert "pooled" not in drawn()[1].lower()
    # A row beside the sweep, and the rows of a table without one, are not pooled with anything.
    summary, _ = drawn(rows=[*rows, table()["rows"][1]])
    beside = summary[summary["column"] == "all"].set_index("label")
    assert beside.loc["r1", "pooled_low_percent"] == pytest.approx(low) and np.isnan(
        beside.loc["Other", "pooled_freedom"]
    )
    summary, _ = drawn(rows=[row | {"pool": None} for row in rows])
    assert summary["pooled_freedom"].isna().all()


CPU = {"device": "cpu", "precision": "bfloat16", "compiled": False, "threads": 1}


def test_a_table_says_how_its_runs_were_computed(results: Path) -> None:
    def shown(how: Any) -> str:
        with_scores(results, computed=how)
        return drawn()[1].split("\n")[2]

    assert "how it was computed is not recorded" in drawn()[1]
    text = shown(CPU)
    assert "computed on cpu in bfloat16, not compiled, one thread. Table 0" in text and "MIXED" not in text
    text = shown(lambda run, seed: CPU | {"precision": "float32"} if (run, seed) == ("ce", 2) else CPU)
    assert "in bfloat16" in text and "(MIXED: 1 of 6 runs in float32 (ce, seed 2))" in text
    text = shown(lambda run, seed: CPU | {"device": "cuda", "threads": None} if run == "ce" else CPU)
    assert "3 of 6 runs on cuda (ce, seed 1; ce, seed 2; ce, seed 3)" in text
    moved = CPU | {"device": "cpu, cuda", "compiled": "False, True", "threads": "1, None"}
    text = shown(lambda run, seed: moved if (run, seed) == ("ce", 2) else CPU)
    assert "1 of 6 runs on cpu, cuda (ce, seed 2)" in text and "1 of 6 runs compiled in part (ce, seed 2)" in text
    assert "not recorded for 2 of 6 runs" in shown(lambda run, seed: None if seed == 1 else CPU)
    assert "not recorded for 2 of 6 runs" in shown(lambda run, seed: {"device": "cpu"} if seed == 1 else CPU)


def test_a_row_that_asks_for_a_precision_is_no_mixture(results: Path) -> None:
    how = {"csa": CPU, "ce": CPU | {"precision": "float32"}}
    asked = {"csa": "auto", "ce": "float32"}
    data = {"source": "demo"}
    with_scores(results, computed=lambda r, s: how[r], config=lambda r, s: {"data": data, "precision": asked[r]})
    assert "MIXED" not in drawn()[1]
    with_scores(results, config={"data": data, "precision": "auto"})
    assert "MIXED: 3 of 6 runs in float32" in drawn()[1]


def test_the_steps_with_context_shift_are_a_count(results: Path) -> None:
    with_scores(results, shifted_steps=lambda run, seed: 1200 + seed)
    summary, text = drawn(columns=["all", "shifted_steps"], note="Larger banks begin later.")
    assert summary["column"].unique().tolist() == ["all"] and summary["shifted_steps"].tolist() == [1202, 1202]
    assert "Shifted steps" in text and "| 1,202" in text and text.index("1,202") < text.index("Larger banks begin")
    assert "Larger banks begin later." in Path("t.tex").read_text()
    assert pd.read_csv("t.seeds.csv")["shifted_steps"].tolist()[:2] == [1201, 1202]
    assert "shifted_steps" not in drawn()[0] and "Larger banks" not in drawn()[1]


def test_a_selection_is_named_whichever_source_its_images_come_from(results: Path) -> None:
    with_scores(results, config={"data": {"profile": "selection", "selection": "cifar100-lt-ir100"}})
    assert "data selection cifar100-lt-ir100, 12 training images" in drawn()[1]


def spoil(path: Path, **changes: Any) -> None:
    content = read_sealed(path)
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(sealed(content)))


TEXT = {"accuracy": dict.fromkeys(GROUPS, "0.9")} | dict.fromkeys(MEASURES, 0.5)
RUN = Path("results/demo/runs/ce/seed=2/metrics.json")
BAD = {
    "missing run": (lambda: RUN.unlink(), "ce/seed=2: is not finished; run snakemake"),
    "not json": (lambda: RUN.write_text("{"), "ce/seed=2/metrics.json: is not JSON"),
    "other config": (lambda: spoil(RUN, digests={"config": "x" * 64}), "config digest is xxxxxxxxxxxx, expected ce-2"),
    "other code": (lambda: spoil(RUN, digests={"code": "x" * 64}), "code digest is xxxxxxxxxxxx"),
    "other data": (lambda: spoil(RUN, digests={"data": "x" * 64}), "data digest differs from that of"),
    "other split": (lambda: spoil(RUN, digests={"split": "x" * 64}), "split digest differs from that of"),
    "no such head": (lambda: spoil(RUN, predicts="resampling"), "lacks what table row 'Other' needs"),
    "nan": (lambda: RUN.write_text(RUN.read_text().replace("0.85", "NaN")), "is not JSON"),
    "another digit": (lambda: RUN.write_text(RUN.read_text().replace("0.85", "0.86")), "does not match its SHA-256"),
    "no SHA-256": (lambda: RUN.write_text(json.dumps(read_sealed(RUN))), "content does not match its SHA-256"),
    "text": (
        lambda: spoil(RUN, heads={"single": TEXT}),
        "all is '0.9'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_belong_is_refused_by_name(case: str, results: Path) -> None:
    damage, message = BAD[case]
    damage()
    with pytest.raises(UserError) as error:
        collect(table())
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError):
        write(table(), "t")
    assert not list(Path().glob("t.*")), "something was written"


def test_a_seed_that_is_named_twice_is_refused(results: Path) -> None:
    with pytest.raises(UserError, match="names a seed twice"):
        collect(table(seeds=[1, 1, 2]))


def test_a_partial_table_says_so(results: Path) -> None:
    RUN.unlink()
    write(table(), "t", partial=True)
    assert "PARTIAL: without results/demo/runs/ce/seed=2." in Path("t.md").read_text()
    frame = pd.read_csv("t.csv").set_index(["label", "column"])
    assert frame.loc[("Other", "all"), "seeds"] == 2 and frame.loc[("Ours", "all"), "seeds"] == 3
    assert frame.loc[("Other", "all"), "difference_percent"] == pytest.approx(-10), "seeds 1 and 3 alone are paired"


def test_a_paper_can_print_the_table(results: Path) -> None:
    write(table(title="Threshold δ at 50 %", note="Mind this: τ ≥ β → ω."), "t")
    text = Path("t.tex").read_text()
    assert r"\caption{Threshold $\delta$ at 50 \%. Protocol demo, 3 seeds.}" in text, "a caption is short"
    assert r"\toprule" in text and r"\bottomrule" in text and r"\usepackage{booktabs,adjustbox}" in text.splitlines()[0]
    inside = text.partition(r"\begin{adjustbox}{max width=\textwidth}")[2].partition(r"\end{adjustbox}")[0].strip()
    assert inside.startswith(r"\begin{tabular}") and inside.endswith(r"\end{tabular}"), "no table is wider than a page"
    assert r"\textbf{91.0 $\pm$ 1.0}" in text and "Other & 82.0" in text
    assert (
        text.index(r"\bottomrule")
        < text.index(r"Mind this: $\tau$ $\geq$ $\beta$ $\to$ $\omega$.")
        < text.index(r"\end{table}")
    )
    assert all(character.isascii() for character in text), "pdflatex reads ASCII everywhere"


def test_latex_takes_no_label_for_an_option_and_none_of_its_signs_for_others(results: Path) -> None:
    rows = [row | {"label": label} for row, label in zip(table()["rows"], ["[0, 1]", "* a < b > c | d"], strict=True)]
    write(table(rows=rows, row_name="[λ]"), "t")
    lines = Path("t.tex").read_text().splitlines()
    assert any(line.startswith(r"{}[$\lambda$] & All") for line in lines)
    assert any(line.startswith("{}[0, 1] & ") for line in lines)
    assert any(line.startswith(r"{}* a \textless{} b \textgreater{} c \textbar{} d & ") for line in lines)


def test_the_note_of_a_printed_table_explains_what_it_shows(results: Path) -> None:
    write(table(paper_sd=0.34), "t")
    tex, text = Path("t.tex").read_text(), Path("t.md").read_text()
    assert r"\textbf{" in tex and "Bold: the best of its column" in tex and "Bold" not in text
    assert "− paper: 95 %" in text and "paper: 95" not in tex, "those columns are left out"
    write(table(seeds=[1], rows=[one_seed(row) for row in table()["rows"]]), "t")
    assert "Bold" not in Path("t.tex").read_text(), "nothing is"


def test_seeds_without_spread_have_no_interval_from_the_paper(results: Path) -> None:
    for seed in ACCURACY:
        path = results / f"results/demo/runs/csa/seed={seed}/metrics.json"
        content = read_sealed(path)
        content["heads"]["single"]["accuracy"]["all"] = 0.9
        path.write_text(json.dumps(sealed(content)))
    summary, text = drawn(paper_sd=0.34)
    ours = summary[(summary["label"] == "Ours") & (summary["column"] == "all")].iloc[0]
    assert np.isnan(ours["from_paper_low_percent"]) and "+44.2 " in text and "+44.2 [" not in text


def test_each_run_behind_a_table_is_listed(results: Path) -> None:
    write(table(), "t")
    seeds = pd.read_csv("t.seeds.csv")
    line = seeds[(seeds["run"] == "ce") & (seeds["seed"] == 2) & (seeds["column"] == "all")].iloc[0]
    assert line["percent"] == pytest.approx(85)


def test_each_row_shows_the_head_that_it_names(results: Path) -> None:
    """As Table 4 does: three rows of one run, a head each."""
    heads = {"uniform": 0.1, "resampling": 0.2, "ensemble": 0.3}
    for seed in ACCURACY:
        path = results / f"results/demo/runs/csa/seed={seed}/metrics.json"
        content = read_sealed(path) | {"predicts": "resampling"}
        content["heads"] = {
            name: {"accuracy": dict.fromkeys(GROUPS, value)} | dict.fromkeys(MEASURES, value)
            for name, value in heads.items()
        }
        path.write_text(json.dumps(sealed(content)))
    row = table()["rows"][0]
    rows = [row | {"head": head, "label": "same", "reference": head == "resampling"} for head in heads]
    values, facts = collect(table(rows=rows))
    summary = tidy(table(rows=rows), values)
    shown = summary[summary["column"] == "all"]
    assert shown["head"].tolist() == list(heads) and shown["mean_percent"].tolist() == pytest.approx([10, 20, 30])
    assert shown["difference_percent"].tolist()[::2] == pytest.approx([-10, 10])
    text = markdown(table(rows=rows), summary, facts)
    assert all(f"{value:.1f} ± 0.0" in text for value in (10, 20, 30)), "rows of one label were merged"


def test_rows_may_differ_in_their_data_and_seeds_of_a_row_may_not(results: Path) -> None:
    for seed in ACCURACY:
        path = results / f"results/demo/runs/ce/seed={seed}/metrics.json"
        spoil(path, digests={"split": "t" * 64}, config={"data": {"source": "demo", "imbalance_ratio": 10.0}})
    values, facts = collect(table())
    assert len(values) > 0 and "Rows differ in their data" in heading(table(), facts)
    spoil(RUN, digests={"split": "u" * 64})
    with pytest.raises(UserError, match="split digest differs"):
        collect(table())


def test_the_recipe_has_the_counts_of_its_own_images(results: Path) -> None:
    """Also where the reference run, whose recipe is shown, is not of the first row."""
    for seed in ACCURACY:
        path = results / f"results/demo/runs/ce/seed={seed}/metrics.json"
        few = {"data": {"source": "demo", "imbalance_ratio": 1.0}}
        spoil(path, digests={"split": "t" * 64}, config=few, class_counts=[3, 3])
    shown = tables.drawn(table(rows=table()["rows"][::-1]))[".json"]
    assert shown["images"] | {"test": None} == {"train": 12, "classes": 2, "largest": 9, "smallest": 3, "test": None}
    assert "imbalance_ratio" not in shown["recipe"]["data"]


@pytest.mark.parametrize("recorded", [False, True])
def test_curves_have_no_panel_for_what_was_not_recorded(
    recorded: bool, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in results.glob("results/demo/runs/*/seed=*"):
        history = pd.DataFrame({"epoch": [1, 2], "loss": [1.0, 0.5]})
        history["test_accuracy_single"] = [np.nan, 0.5 if recorded else np.nan]
        history.to_csv(path / "history.csv", index=False)
    values, _ = collect(table())
    figure, drawn = curves(table(), values)
    assert len(figure.axes) == len(set(drawn["quantity"])) == 1 + recorded
    assert all(np.size(line.get_xdata()) for ax in figure.axes for line in ax.lines), "a line without points"
    said = capsys.readouterr().err
    assert ("no test accuracy in these histories" in said) is not recorded


def test_runs_that_train_nothing_have_no_curve(results: Path) -> None:
    for path in results.glob("results/demo/runs/*/seed=*"):
        history = pd.DataFrame({"epoch": [1, 2], "loss": [1.0, 0.5], "test_accuracy_single": [0.4, 0.5]})
        (history[:0] if path.parent.name == "ce" else history).to_csv(path / "history.csv", index=False)
    figure, drawn = curves(table(), collect(table())[0])
    close(figure)
    assert set(drawn["name"]) == {"Ours"} and len(drawn) == 4 and drawn["mean"].notna().all()
    alone = table(rows=table()["rows"][1:])
    with pytest.raises(UserError, match="table0: none of its runs trains an epoch"):
        curves(alone, collect(alone)[0])


def test_results_without_the_balanced_accuracy_are_read(results: Path) -> None:
    for path in results.glob("results/demo/runs/ce/seed=*/metrics.json"):
        content = read_sealed(path)
        del content["heads"]["single"]["balanced"]
        path.write_text(json.dumps(sealed({key: value for key, value in content.items() if key != "sha256"})))
    values, _ = collect(table())
    balanced = values[values["column"] == "balanced"]
    assert balanced.groupby("label")["value"].count().to_dict() == {"Other": 0, "Ours": 3}


def test_a_figure_says_how_many_seeds_it_draws(results: Path) -> None:
    def said() -> str:
        shown = table(draw="categories")
        figure, _ = points(shown, collect(shown, partial=True)[0])
        close(figure)
        return str(figure.get_suptitle()).rpartition(", ")[2]

    assert said() == "3 seeds"
    for seed in (2, 3):
        shutil.rmtree(results / f"results/demo/runs/ce/seed={seed}")
    assert said() == "1 to 3 seeds"
    for seed in (2, 3):
        shutil.rmtree(results / f"results/demo/runs/csa/seed={seed}")
    assert said() == "1 seed"


def test_a_partial_table_leaves_out_runs_of_images_that_were_there_before(results: Path) -> None:
    """While a sweep trains anew on a folder with an image more, its old results lie in their places."""
    made = results / "results/data/photos"
    rows = [row | {"data": "photos", "split": "as_is"} for row in table()["rows"]]
    store.write_json(made / "as_is.json", {"sha256": "other" * 8})
    with pytest.raises(UserError, match="none of its runs is finished"):
        collect(table(rows=rows), partial=True)
    assert not any(is_finished(table(rows=rows)))
    path = results / "results/demo/runs/csa/seed=1/metrics.json"
    stored = store.read_json(path)
    stored.pop("sha256")
    stored["digests"]["split"] = "other" * 8
    path.write_text(json.dumps(store.sealed(stored)))
    values, facts = collect(table(rows=rows), partial=True)
    assert set(zip(values["run"], values["seed"], strict=True)) == {("csa", 1)} and len(facts["missing"]) == 5


def test_each_row_that_is_drawn_has_its_own_number_of_seeds() -> None:
    rows = [("a", 1, 90.0), ("b", 1, 80.0), ("a", 2, 92.0), ("a", 3, 91.0), ("b", 3, 82.0)]
    drawn = means(pd.DataFrame(rows, columns=["name", "seed", "percent"]), ["name"])
    assert drawn[["name", "seeds", "mean"]].to_numpy().tolist() == [["a", 3, 91.0], ["b", 2, 81.0]]


def test_a_line_goes_from_left_to_right_whatever_the_order_of_the_sweep() -> None:
    use_style()
    lines = [
        {"series": "", "label": label, "name": label, "column": "all", "seed": seed, "value": value}
        for label, value in (("1.0", 0.7), ("0.0", 0.5), ("0.5", 0.6))
        for seed in (1, 2, 3)
    ]
    figure, _ = points(table(draw="line"), pd.DataFrame(lines))
    drawn = [line for axis in figure.axes for line in axis.lines if line.get_linestyle() != "None"]
    x, y = np.asarray(drawn[0].get_data(), dtype=float)
    assert x.tolist() == [0.0, 0.5, 1.0] and y.tolist() == pytest.approx([50, 60, 70])
    close(figure)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.subset": "conventional"}, "exponential profile, imbalance ratio 100, conventional subset"),
        ({"data.profile": "step", "data.imbalance_ratio": 20}, "step profile, imbalance ratio 20, split seed 0"),
        ({"data.profile": "as_is"}, "as the data are"),
        ({"lr_drops": []}, "rising over 5 epochs, then constant"),
        ({"lr_schedule": "cosine"}, "rising over 5 epochs, falling along a cosine"),
        ({}, "rising over 5 epochs, divided by 10 after epochs 160, 180"),
    ],
)
def test_the_recipe_names_images_and_schedule(changes: dict[str, Any], said: str) -> None:
    fields: dict[str, Any] = {}
    for key, value in changes.items():
        fields = set_dotted(fields, key, value)
    config = parse(fields, "x").identity()
    assert said in f"{recipe._split(config['data'])}; {recipe._optimizer(config)}"
