"""Published results are redrawn from their metrics and histories alone."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from scipy import stats

from benchmarks import precision
from csa_core import store
from csa_core.data.sources import load_source
from csa_core.data.split import make_split
from csa_core.train.loop import Options, train
from tests.conftest import ROOT, TINY
from workflow import publish
from workflow.report import style

PAGE = """# A page
<!-- published: tiny table1 -->
what stood here before
<!-- end -->
<!-- published: tiny runs -->
<!-- end -->
<!-- published: tiny claims -->
<!-- end -->
<!-- published: tiny best epoch -->
<!-- end -->
<!-- published: elsewhere table1 -->
stays
<!-- end -->
"""


@pytest.fixture(autouse=True)
def one_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw figures as SVG alone, in half the time; other tests draw and read the other formats."""
    monkeypatch.setattr(style, "METADATA", {"svg": style.METADATA["svg"]})


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published folder with two finished runs of two seeds, taken from a training's results."""
    there = tmp_path_factory.mktemp("published")
    (there / "protocol").mkdir()
    (there / "protocol/tiny.yaml").write_text(yaml.safe_dump(TINY))
    folder, results = there / "tiny", there / "results"
    folder.mkdir()
    config = {"protocol": str(there / "protocol/tiny.yaml"), "seeds": [1, 2], "code_version": "t-1"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    plan = publish.plan_of(folder)
    for run in plan.runs_of("table1"):
        out = results / Path(run.folder).resolve().relative_to(there)
        dataset = load_source(run.config.data)
        split = make_split(dataset, run.config.data)
        train(run.config, dataset, split, Options(out, there / "state", torch.device("cpu"), "t-1"))
    other = next(iter(results.rglob("metrics.json"))).parent.with_name("seed=9")
    shutil.copytree(other.with_name("seed=1"), other)
    assert publish.main(["take", str(folder), str(results)]) == 0
    return folder


def test_what_is_taken_is_small_and_enough(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = {path.name for path in published.rglob("seed=*/*")}
    assert taken == {"metrics.json", "history.csv", "provenance.json"}
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert publish.main(["draw", str(published), "--pages", str(page)]) == 0
    text = page.read_text()
    assert "what stood here before" not in text and "stays" in text
    assert "| Ours w/o Q" in text and "Section" in text and "`csa/bank_batches=0`" in text
    assert "taking the best of the epochs" in text
    for name in ("table1.csv", "table1.tex", "claims.csv", "report.html", "figures/curves-baselines.svg"):
        assert (published / name).exists(), name
    wrong = tmp_path / "wrong.md"
    wrong.write_text("<!-- published: tiny tabel1 -->\n<!-- end -->\n")
    capsys.readouterr()
    assert publish.main(["draw", str(published), "--pages", str(page), str(wrong)]) == 2
    assert "'tiny tabel1': nothing of that name is published" in capsys.readouterr().err
    assert page.read_text() == text, "drawn again it is the same"
    (published / "report.html").unlink()
    (published / "report.html").mkdir()
    with pytest.raises(SystemExit, match="2"):
        publish.main(["draw", str(published), "--pages", str(page)])
    assert "report.html: cannot be" in capsys.readouterr().err
    (published / "report.html").rmdir()


def test_what_is_of_another_configuration_is_neither_taken_nor_drawn(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, results = tmp_path / "tiny", published.parent / "results"
    shutil.copytree(published, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"overrides": {"lr": 0.05}}))
    assert publish.main(["draw", str(folder), "--pages"]) == 2
    assert f"{folder}: holds no finished run" in capsys.readouterr().err
    assert publish.main(["take", str(folder), str(results)]) == 0
    said = capsys.readouterr()
    assert not said.out and said.err.startswith("note: not taken: ")
    # What was published of it before makes room.
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    path = next(iter(sorted(folder.rglob("metrics.json"))))
    of_this = path.read_bytes()
    stored = store.read_sealed(path)
    store.write_json(path, store.sealed(stored | {"digests": stored["digests"] | {"config": "another"}}))
    assert publish.main(["take", str(folder), str(results)]) == 0
    assert capsys.readouterr().out.split() == [str(path.parent.relative_to(folder))] and path.read_bytes() == of_this


def test_a_mistake_is_one_line(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, results = tmp_path / "tiny", tmp_path / "results"
    folder.mkdir()
    config = (published / "config.yaml").read_text()
    for text, message in (
        ("", "config.yaml: is not a mapping of keys to values"),
        ("[1]", "config.yaml: is not a mapping of keys to values"),
        (config, f"{results}/tiny/runs: no such folder; RESULTS is the training's `results`, and tiny lies in it"),
    ):
        (folder / "config.yaml").write_text(text)
        assert publish.main(["take", str(folder), str(results)]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
    shutil.copytree(published / "runs", results / "tiny/runs")
    (results / "tiny/runs/csa/seed=1/history.csv").unlink()
    assert publish.main(["take", str(folder), str(results)]) == 2
    assert "csa/seed=1/history.csv: cannot be read (no such file)" in capsys.readouterr().err
    assert not (folder / "runs/csa/seed=1").exists(), "half a run"
    monkeypatch.setattr(publish, "draw", lambda folder: pytest.fail("drawn before the pages were looked at"))
    assert publish.main(["draw", str(published), "--pages", str(tmp_path / "none.md")]) == 2
    assert "none.md: cannot be read (no such file)" in capsys.readouterr().err


def test_the_configuration_of_a_folder_lies_over_the_repositorys_as_snakemake_lays_it(published: Path) -> None:
    path = published / "config.yaml"
    before = path.read_text()
    path.write_text(before + "sweeps: {threshold: [0.05]}\n")
    try:
        plan = publish.plan_of(published)
    finally:
        path.write_text(before)
    assert len(plan.rows("table2")) == 1 and len(plan.rows("table3")) > 1


def test_a_page_counts_what_is_of_its_folder_alone(published: Path, tmp_path: Path) -> None:
    """Runs of another code are no part of any block, and what was drawn of them before goes."""
    folder, page = tmp_path / "tiny", tmp_path / "page.md"
    shutil.copytree(published, folder)
    page.write_text(PAGE)
    assert publish.main(["draw", str(folder), "--pages", str(page)]) == 0
    assert list(folder.glob("table4.*")) and list((folder / "figures").glob("curves-baselines.*"))
    plan = publish.plan_of(folder)
    claims = sum(len(plan.declaration(name)["claims"]) for name in plan.tables)
    assert f"of the {claims} claims wait" in page.read_text()
    metrics = sorted((folder / "runs").rglob("metrics.json"))
    assert len(metrics) == 4
    for path in metrics:
        stored = store.read_sealed(path)
        if "bank_batches=0" not in str(path):
            stored |= {"digests": stored["digests"] | {"code": "t-0"}}
            store.write_json(path, store.sealed(stored))
        history = pd.read_csv(path.with_name("history.csv"))
        last = stored["heads"][stored["predicts"]]["accuracy"]["all"]
        history.loc[0, f"test_accuracy_{stored['predicts']}"] = last + 0.25
        history.to_csv(path.with_name("history.csv"), index=False)
    page.write_text("".join(f"<!-- published: tiny {block} -->\n<!-- end -->\n" for block in ("runs", "best epoch")))
    assert publish.main(["draw", str(folder), "--pages", str(page)]) == 0
    text = page.read_text()
    assert "`csa/bank_batches=0`" in text and "`csa`" not in text
    assert "Over the 2 runs" in text and "added 25.00 points of accuracy on average, and 25.00 at most" in text
    assert not list(folder.glob("table4.*")) and not list((folder / "figures").glob("curves-baselines.*"))
    assert not (folder / "report.html").exists(), "it would show what was withdrawn"


def test_the_pages_show_what_the_repository_publishes(tmp_path: Path) -> None:
    pages = []
    for page in publish.PAGES:
        pages.append(tmp_path / page.name)
        shutil.copy2(page, pages[-1])
    shutil.copytree(ROOT / "results/published", tmp_path / "published")
    folders = sorted(path.parent for path in (tmp_path / "published").glob("*/config.yaml"))
    assert publish.main(["draw", *map(str, folders), "--pages", *map(str, pages)]) == 0
    for page, copy in zip(publish.PAGES, pages, strict=True):
        assert copy.read_text() == page.read_text(), f"run `make published`: {page.name} is out of date"


def test_the_table_of_precisions_is_that_of_the_published_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recomputed from the files alone, with SciPy's paired t-test, and the table that benchmarks/README.md shows."""
    plan = ["protocol=short", "seeds=[1,2,3]", "code_version=real-1", f"results={ROOT / 'results/published'}"]
    words = ["--config", *plan, "--methods", "csa", "--cores", "0", "--out", str(tmp_path)]
    assert precision.main(words) == 0
    rows = pd.read_csv(tmp_path / "precision-short.csv", dtype=str).drop(columns="hardware")
    accuracies: dict[str, dict[int, dict[str, float]]] = {"float32": {}, "bfloat16": {}}
    for path in sorted((ROOT / "results/published/short/runs/csa").rglob("metrics.json")):
        metrics = json.loads(path.read_text())
        if path.parents[1].name in ("csa", "precision=float32", "precision=bfloat16"):
            scores = metrics["heads"]["resampling"]["accuracy"]
            accuracies[metrics["computed"]["precision"]][metrics["config"]["seed"]] = scores
    seeds = sorted(accuracies["float32"].keys() & accuracies["bfloat16"].keys())
    assert len(seeds) >= 3 and set(rows["seeds"]) == {", ".join(map(str, seeds))}
    for name, heading in (("all", "All"), ("few", "Few")):
        row = rows[rows["accuracy"] == heading].iloc[0]
        one, other = ([100 * accuracies[kind][seed][name] for seed in seeds] for kind in accuracies)
        for level in (95, 90):
            low, high = stats.ttest_rel(other, one).confidence_interval(level / 100)
            assert row[f"{level} % interval"] == f"[{low:+.2f}, {high:+.2f}]"
        gained = [b - a for a, b in zip(one, other, strict=True)]
        sides = {"greater": -1, "less": 1}
        p = max(stats.ttest_1samp(gained, edge, alternative=side).pvalue for side, edge in sides.items())
        assert row["p within ± 1"] == f"{p:.4f}" and (row["verdict"] == "equivalent") == (p < 0.05)
        assert f"| {' | '.join(row)} |" in (ROOT / "benchmarks/README.md").read_text()
    capsys.readouterr()
    assert precision.main([*words, "--methods", "ce"]) == 2
    assert "ce: of seeds [1, 2, 3], 0 finished in float32 and in bfloat16" in capsys.readouterr().err
