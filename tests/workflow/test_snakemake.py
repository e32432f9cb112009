"""Whole workflows, run as a person runs them: `snakemake` in a folder of its own."""

import base64
import html
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch
from PIL import Image

from tests.helpers.inside import run_inside
from tests.helpers.workflows import RUN, SWEEPS, Folder
from workflow.plan import Plan
from workflow.report import partial

TABLES = ("results/table2.csv", "results/table4.csv")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Two tables of the tiny protocol, of four runs, trained for real."""
    folder = Folder(tmp_path_factory.mktemp("trained"))
    done = folder.snakemake(*TABLES)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Everything the workflow makes, of the tiny protocol and one seed, trained for real."""
    folder = Folder(tmp_path_factory.mktemp("finished"))
    folder.write(seeds=[1])
    jobs, plan = folder.jobs(), Plan(folder.config)
    assert jobs["data"] == jobs["split"] == 1
    assert jobs["train"] == len(plan.all_runs()) >= 21 and jobs["table"] == len(plan.usual) >= 11
    done = folder.snakemake()
    assert done.returncode == 0, done.stderr
    return folder


def test_tables_follow_from_the_stored_predictions(trained: Folder) -> None:
    check_tables(trained, {"table2": 2, "table4": 3})


@pytest.mark.long
def test_the_table_of_baselines_follows_from_the_stored_predictions(finished: Folder) -> None:
    check_tables(finished, {"baselines": 6})


def check_tables(made: Folder, tables: dict[str, int]) -> None:
    """Compare every cell of tables with the logits, labels and class counts, by other means; a table, its rows."""
    data = safetensors.numpy.load_file(made.path / "results/data/demo/dataset.safetensors")
    (split,) = (made.path / "results/data/demo").glob("exponential-*.json")
    counts = np.array([len(part) for part in json.loads(split.read_text())["indices"].values()])
    groups = {"all": counts > 0, "many": counts > 100, "medium": (counts >= 20) & (counts <= 100), "few": counts < 20}
    labels, checked = data["test_labels"], 0
    for name in tables:
        table = pd.read_csv(made.path / f"results/{name}.csv", dtype={"label": str})
        for _, line in table[table["column"].isin(groups)].iterrows():
            inside = groups[line["column"]][labels]
            accuracy = []
            for seed in made.config["seeds"]:
                folder = made.path / "results/tiny/runs" / line["run"] / f"seed={seed}"
                logits = safetensors.numpy.load_file(folder / "predictions.safetensors")
                both = (logits["uniform"] + logits["resampling"]) / 2 if line["head"] == "ensemble" else None
                chosen = logits[line["head"]] if both is None else both
                right = chosen.argmax(1) == labels
                accuracy.append(100 * right[inside].mean() if inside.any() else np.nan)
            assert line["mean_percent"] == pytest.approx(np.mean(accuracy), nan_ok=True)
            if inside.any():
                assert len(accuracy) == 1 or line["sd_percent"] == pytest.approx(np.std(accuracy, ddof=1))
                checked += 1
    assert checked == sum(tables.values()) * 2, "all and few-shot of each row; the tiny protocol has no other classes"


@pytest.mark.long
def test_the_page_is_one_file_with_everything_in_it(finished: Folder) -> None:
    page = finished.read("results/report.html").decode()
    assert not re.search(r'(src|href)="(https?:)?//', page), "it must open without a network"
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)  # sorts and filters, and loads nothing
    assert page.count("<script") == 1 and not re.search(r"fetch|import|XMLHttp|https?:|src", script)
    for name in ("baselines", "encoders", *(f"table{i}" for i in range(1, 8)), "figure1", "figure2"):
        assert f'id="{name}"' in page
        cells = (finished.path / f"results/{name}.md").read_text().splitlines()[6].split("|")
        assert all(html.escape(cell.strip()) in page for cell in cells), f"{name} differs from its Markdown"
    runs = re.findall(r'href="([^"#]+)"', page)
    assert len(runs) > 20 and all((finished.path / "results" / html.unescape(run)).is_file() for run in runs)
    assert page.count("data:image/svg+xml;base64,") == 9 and page.count("data:image/png;base64,") == 1 + 12
    assert "without the context bank Q" in page and "cannot be told" in page


@pytest.mark.long
def test_the_page_shows_the_worst_mistakes(finished: Folder) -> None:
    """Made again from the logits, by other means, and the pixels from the page itself."""
    page = finished.read("results/report.html").decode().partition('id="mistakes"')[2]
    data = safetensors.numpy.load_file(finished.path / "results/data/demo/dataset.safetensors")
    logits = safetensors.numpy.load_file(finished.path / "results/tiny/runs/csa/seed=1/predictions.safetensors")[
        "resampling"
    ]
    names = json.loads(finished.read("results/tiny/runs/csa/seed=1/metrics.json"))["class_names"]
    shares = torch.from_numpy(logits).double().softmax(1).numpy()
    wrong = [(-share.max(), i) for i, share in enumerate(shares) if share.argmax() != data["test_labels"][i]]
    told = re.findall(r'src="data:image/png;base64,([^"]+)" alt="Test image of class (\w+), taken for (\w+)"', page)
    sure = re.findall(r"([\d.]+) % sure", page)
    assert len(told) == len(sure) == 12
    for (source, true, predicted), percent, (share, i) in zip(told, sure, sorted(wrong)[:12], strict=True):
        assert (true, predicted) == (names[data["test_labels"][i]], names[shares[i].argmax()])
        assert float(percent) == pytest.approx(-100 * share, abs=0.051)
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))))
        np.testing.assert_array_equal(pixels, data["test_images"][i])


@pytest.mark.long
def test_a_report_while_runs_are_finished_has_figures_and_mistakes(finished: Folder) -> None:
    done = run_inside(partial.main, ["--config", "mine.yaml"], finished.path)
    assert done.returncode == 0 and re.search(r"(\d+) of \1 tables and 9 figures", done.stdout), done.stderr
    page = finished.read("results/tiny/partial/report.html").decode()
    assert page.count("data:image/svg+xml;base64,") == 9 and page.count('<figure class="small">') == 12


@pytest.mark.long
def test_claims_come_with_verdicts(finished: Folder) -> None:
    claims = pd.read_csv(finished.path / "results/claims.csv").set_index("claim")
    assert len(claims) >= 19 and set(claims["verdict"]) <= {"supported", "cannot be told", "contradicted", "not run"}
    assert claims.loc["when λ is close to 0, the performance decreases (a lot)", "verdict"] == "not run"
    assert claims.loc["Grad-CAM is superior to CAM", "seeds"] == 1


@pytest.mark.long
def test_views_of_the_runs_of_any_table(finished: Folder) -> None:
    figures = ["curves-table4", "per_class-table4", "per_class-figure1", "bank-baselines", "classes-table4"]
    done = finished.snakemake(*(f"results/figures/{figure}.png" for figure in figures))
    assert done.returncode == 0, done.stderr
    drawn = {figure: pd.read_csv(finished.path / f"results/figures/{figure}.csv") for figure in figures}
    for figure in figures:
        if figure.endswith("table4"):
            names = ["Uniform module", "Re-sampling module", "Ensemble results"]
            assert drawn[figure]["name"].unique().tolist() == names, figure
    curves = drawn["curves-table4"]
    last = curves[curves["quantity"] == "test_accuracy"].groupby("name")["mean"].last()
    table = pd.read_csv(finished.path / "results/table4.csv").set_index(["label", "column"])["mean_percent"]
    # The tiny protocol evaluates after epoch 2 of 3, so the heads alone are compared: three lines, not one.
    assert last.nunique() > 1 and table.xs("all", level="column").nunique() > 1


@pytest.mark.long
def test_a_view_that_has_nothing_to_show_says_so(finished: Folder) -> None:
    assert finished.snakemake("results/figures/table2.svg").returncode == 0, "each table has a picture"
    done = finished.snakemake("results/figures/pies-table2.png")
    assert done.returncode == 2 and "pies-table2: no such figure" in done.stderr


@pytest.mark.long
def test_snakemakes_own_report(finished: Folder, tmp_path: Path) -> None:
    done = finished.snakemake("--report", str(tmp_path / "report.html"))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert all(name in page for name in ("table2.csv", "figure1.svg", "contexts.png", "claims.csv"))


@pytest.mark.long
def test_figures_are_drawn_in_each_format_with_their_numbers(finished: Folder) -> None:
    folder = finished.path / "results/figures"
    names = [
        "figure1",
        "figure2",
        "curves-baselines",
        "per_class-baselines",
        "bank-table2",
        "bank-table3",
        "pretraining-encoders",
    ]
    for name in names:
        assert (folder / f"{name}.pdf").read_bytes()[:4] == b"%PDF"
        assert (folder / f"{name}.png").read_bytes()[1:4] == b"PNG"
        assert "<svg" in (folder / f"{name}.svg").read_text()
        assert len(pd.read_csv(folder / f"{name}.csv")) >= 2
    line = pd.read_csv(folder / "figure2.csv").set_index(["series", "label"]).loc[("Ours", 1.0)]
    table = pd.read_csv(finished.path / "results/table2.csv").set_index(["label", "column"])
    assert line["mean"] == pytest.approx(table.loc[(0.05, "all"), "mean_percent"]), "both are the reference run"


def test_a_second_call_does_nothing(trained: Folder) -> None:
    before = trained.read("results/table2.csv")
    assert trained.jobs(*TABLES) == {}
    done = trained.snakemake(*TABLES)
    assert "Nothing to be done" in done.stdout + done.stderr
    assert trained.read("results/table2.csv") == before


@pytest.mark.long
def test_a_second_call_for_everything_does_nothing(finished: Folder) -> None:
    assert finished.jobs() == {}


def test_results_that_were_copied_are_compared_with_the_plan(trained: Folder, tmp_path: Path) -> None:
    """Without `.snakemake`, as a clone has them: what fits is kept, and what does not is made again."""
    shutil.copytree(trained.path / "results", tmp_path / "results")
    folder = Folder(tmp_path)
    assert folder.jobs("results/table4.csv", "results/table2.csv") == {}
    folder.write(overrides={"weight_decay": 0.001})
    assert folder.jobs("results/table4.csv") == {"train": 2, "table": 1}
    folder.write(overrides={}, seeds=[1])
    assert folder.jobs("results/table4.csv", "results/figures/curves-table4.svg") == {"table": 1, "figure": 1}


@pytest.mark.long
def test_redrawing_trains_nothing(finished: Folder) -> None:
    assert finished.jobs("results/table2.csv", "--forcerun", "table") == {"table": 1}
    names = [
        "table2.csv",
        "table2.md",
        "figures/figure1.svg",
        "figures/figure1.pdf",
        "figures/figure1.png",
        "report.html",
    ]
    before = [finished.read(f"results/{name}") for name in names]
    done = finished.snakemake("results/report.html", "--forcerun", "table", "figure", "page", "gallery")
    assert done.returncode == 0 and "Train" not in done.stdout + done.stderr
    assert [finished.read(f"results/{name}") for name in names] == before, "the same runs give the same bytes"


@pytest.mark.long
def test_fine_tuning_starts_from_the_encoder_of_its_seed(finished: Folder) -> None:
    runs = finished.path / "results/tiny/runs"
    with safetensors.safe_open(runs / "simsiam/seed=1/weights.safetensors", "numpy") as file:
        digest = json.loads(file.metadata()["csa"])["sha256"]
    for method in ("ce", "class_balanced", "csa"):
        metrics = json.loads((runs / method / "pretrained=true/seed=1/metrics.json").read_text())
        assert metrics["digests"]["parent"] == digest
    assert "simsiam" not in finished.read("results/tiny/logs/runs/ce/seed=1.log").decode()


@pytest.mark.long
def test_a_change_of_the_pretraining_trains_it_and_what_starts_from_it(finished: Folder) -> None:
    before = dict(finished.config)
    finished.write(overrides={"pretraining": {"density_exponent": 0.5}})
    try:
        # rwSAM and three fine-tunings; the plain encoders, which it does not touch, stay.
        assert finished.jobs("results/table6.csv")["train"] == 4
        assert finished.jobs("results/table2.csv").get("train", 0) == 0
    finally:
        finished.config = before
        finished.write()


def test_a_partial_table_is_made_when_it_is_asked_for(trained: Folder, tmp_path: Path) -> None:
    shutil.copytree(trained.path / "results", tmp_path / "results")
    runs = tmp_path / "results/tiny/runs/csa"
    for run in (runs / "seed=2", *runs.glob("threshold=0.06/seed=*")):
        shutil.rmtree(run)
    for drawn in (tmp_path / "results").rglob("table2.*"):
        drawn.unlink()
    folder = Folder(tmp_path)
    assert folder.snakemake("results/partial/table2.csv").returncode == 0
    assert "PARTIAL: without results/tiny/runs/csa/seed=2, " in (tmp_path / "results/partial/table2.md").read_text()
    assert folder.jobs("results/table2.csv")["train"] == 3


@pytest.mark.long
def test_the_estimate_is_of_measured_epochs(finished: Folder, tmp_path: Path) -> None:
    runs = len(Plan(finished.config).all_runs())
    done = finished.snakemake("estimate")
    assert done.returncode == 0 and re.search(rf"all +{runs} +{runs} +0 +0 s", done.stdout), done.stdout
    done = finished.snakemake("status")
    assert done.returncode == 0 and re.search(rf"all +{runs} +{runs} +0 +0 +0 +0 +0 s", done.stdout), done.stdout
    folder = Folder(tmp_path)
    folder.write(seeds=[1])
    assert "nothing yet: ask again after one" in folder.snakemake("estimate").stdout
    assert re.search(rf"all +{runs} +0 +0 +0 +0 +{runs} +\?", folder.snakemake("status").stdout)


@pytest.mark.parametrize(
    ("changes", "trains"),
    [
        ({"sweeps": SWEEPS | {"threshold": [0.05, 0.6]}}, 2),
        ({"seeds": [1, 2, 3]}, 2),
        ({"overrides": {"mix": ["beta", 2.0, 2.0]}}, 4),
        ({"overrides": {"data": {"split_seed": 1}}}, 4),
        ({"threads": 2}, 0),
        ({"device": "cpu", "compile": "no", "workers": 3, "gpus": [0], "state": "elsewhere"}, 0),
    ],
)
def test_a_changed_value_trains_the_runs_it_touches(changes: dict[str, Any], trains: int, trained: Folder) -> None:
    before = dict(trained.config)
    trained.write(**changes)
    try:
        assert trained.jobs("results/table2.csv").get("train", 0) == trains
    finally:
        trained.config = before
        trained.write()


def test_lists_and_mappings_of_the_command_line_have_their_numbers(trained: Folder) -> None:
    words = ["results/table2.csv", "--config", "seeds=[1, 2, 3]"]
    assert trained.jobs(*words)["train"] == 2
    words[2] = "overrides={weight_decay: 0.001, data: {split_seed: 1}}"
    assert trained.jobs(*words)["train"] == 4


def test_text_of_a_file_stays_text_beside_numbers_of_the_command_line(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    photos = {"source": "folder", "root": "photos", "image_size": 32, "val_folder": "2024"}
    folder.write(overrides={"data": photos})
    assert folder.jobs(RUN, "--config", "overrides={weight_decay: 0.001, data: {image_size: 16}}")["train"] == 1


def test_one_ablation_by_the_path_that_a_person_types(trained: Folder) -> None:
    target = "results/tiny/runs/csa/activation_map=cam+threshold=0.25/seed=7/metrics.json"
    done = trained.snakemake(target)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(trained.read(target))
    assert metrics["config"]["activation_map"] == "cam" and metrics["config"]["seed"] == 7


def test_a_deleted_run_comes_back_from_its_state_the_same(trained: Folder) -> None:
    before = trained.read(RUN)
    (trained.path / RUN).unlink()
    done = trained.snakemake(RUN)
    assert done.returncode == 0 and "Fetch from the state, finished before: csa, seed 1" in done.stderr
    assert trained.read(RUN) == before
    log = (trained.path / "results/tiny/logs/runs/csa/seed=1.log").read_text()
    assert "epoch" not in log, "it was trained again"


@pytest.mark.parametrize("words", [["--dry-run"], ["--dag"], ["--lint"]])
def test_nothing_needs_the_data_to_plan(words: list[str], tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write(protocol="paper")
    done = folder.snakemake(*words)
    if words == ["--lint"]:  # what remains asks for a container or conda environment for each rule
        complaints = [line for line in done.stderr.splitlines() if line.strip().startswith("*")]
        assert complaints and all("conda environment or container" in line for line in complaints)
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "changes", "message"),
    [
        ([], {"seedz": [1]}, "config.yaml: unknown key 'seedz': did you mean 'seeds'?"),
        ([], {"overrides": {"threshold": 7}}, "overrides: threshold: input should be less than or equal to 1, got 7"),
        (["results/tiny/runs/csa/threshold=0.050/seed=1/metrics.json"], {}, "is called results/tiny/runs/csa/seed=1"),
        (["results/tiny/runs/csa/treshold=0.5/seed=1/metrics.json"], {}, "did you mean 'threshold'?"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    words: list[str], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = Folder(tmp_path)
    folder.write(**changes)
    done = folder.snakemake(*words)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("snakemake: ") and message in done.stderr.splitlines()[-1]


def test_missing_images_are_named_and_leave_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write(overrides={"data": {"source": "folder", "root": "nowhere", "profile": "as_is"}})
    done = folder.snakemake(RUN)
    assert done.returncode == 1
    assert "csa_core: nowhere/train: no such folder" in done.stderr, "the log of a failed job is shown"
    assert not list(tmp_path.glob("results/data/*/dataset.safetensors"))
