"""The page says what was done, and in words that fit the data."""

import base64
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from csa_core.store import read_sealed, sealed, write_json, write_tensors
from tests.helpers.workflows import ACCURACY, table
from workflow.declarations import load_tables
from workflow.report import page, partial
from workflow.report.best import best_rows
from workflow.report.tables import write

CLAIM: dict[str, Any] = {"text": "ours is better", "section": "beyond the appendix", "kind": "contrast"}
CLAIM |= {"interval": "paired"}
CLAIM |= {side: [{"row": row, "column": "all"}] for side, row in (("more", "Ours"), ("less", "Other"))}
RECIPE = {"model": "resnet8", "epochs": 30, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0002, "batch_size": 64}


def spoil(results: Path, change: Any) -> None:
    """Change the content of all metrics."""
    for path in results.rglob("metrics.json"):
        content = read_sealed(path)
        change(path, content)
        path.write_text(json.dumps(sealed(content)))
        versions = {"python": "3.11"}
        note = {"finished": "2026-01-01", "seconds": 1800.0, "device": "cpu", "threads": 1, "versions": versions}
        write_json(path.with_name("provenance.json"), note | {"precision": "float32"})


def shown(results: Path, **changes: Any) -> str:
    """Return the page of one table."""
    write(table(**({"claims": [CLAIM]} | changes)), "results/demo/table0")
    assert page.main(["results/demo/table0.json", "--out", "results/demo/report.html"]) == 0
    return (results / "results/demo/report.html").read_text()


def text_of(html: str) -> str:
    body = re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.S)
    return " ".join(re.sub("<[^>]+>", " ", body).split())


def test_the_page_says_what_was_done(results: Path) -> None:
    data = {"source": "demo", "profile": "exponential", "imbalance_ratio": 50.0, "split_seed": 0}
    spoil(results, lambda path, content: content["config"].update(RECIPE | {"data": data}))
    text = text_of(shown(results))
    assert "How Re-sampling Helps for Long-Tail Learning?" in text and "NeurIPS 2023" in text
    for word in ("resnet8", "SGD, momentum 0.9", "weight decay 0.0002", "batches of 64", "learning rate 0.1"):
        assert word in text
    assert "imbalance ratio 50, split seed 0" in text and "float32" in text and "30.0 minutes a run" in text
    assert all(f" {symbol} " in text for symbol in ("Q", "δ", "λ", "γ"))
    assert "Unless a table says otherwise: Top-1 accuracy" in text, "what most tables say need not be true of all"
    assert "lies below zero, or outside the margin, with this data and this recipe" in text, "a verdict is of this data"


def test_of_own_images_the_page_says_nothing_of_an_appendix(results: Path) -> None:
    spoil(results, lambda path, content: content["config"].update(data={"source": "folder"}))
    text = text_of(shown(results, source="Appendix, Table 2"))
    assert "on your own images" in text and "appendix" not in text.lower()
    spoil(results, lambda path, content: content["config"].update(data={"source": "demo"}))
    assert "Appendix, Table 2" in text_of(shown(results, source="Appendix, Table 2"))


def test_the_projects_own_notes_speak_of_no_appendix() -> None:
    assert not [name for name, each in load_tables().items() if "appendix" in f"{each.title} {each.note}".lower()]


def with_images(value: float) -> Any:
    def change(path: Path, content: dict[str, Any]) -> None:
        content["heads"]["single"]["images"] = [100] * 10
        content["heads"]["single"]["accuracy"]["all"] = value

    return change


def test_a_claim_about_guessing_says_so(results: Path) -> None:
    spoil(results, with_images(0.101))
    assert "'Ours', 'Other': at chance: 10.1 %, where naming one class every time gives 10.0 %" in shown(
        results
    ).replace("&#39;", "'")
    spoil(results, with_images(0.2))
    assert "at chance" not in shown(results)


def test_a_claim_about_what_starts_from_guessing_says_so(results: Path) -> None:
    """As Table 6: the encoder is scored by its kNN probe."""
    spoil(results, with_images(0.9))
    for seed in ACCURACY:
        folder = results / f"results/demo/runs/simsiam/seed={seed}"
        folder.mkdir(parents=True)
        scores = {"accuracy": {"all": 0.099 + seed / 1000}, "images": [100] * 10}
        content = {"predicts": "knn", "heads": {"knn": scores}}
        (folder / "metrics.json").write_text(json.dumps(sealed(content)))
    rows = [row | {"parent": "simsiam"} for row in table()["rows"]]
    said = shown(results, rows=rows).replace("&#39;", "'")
    assert "'Ours', 'Other': starts from simsiam, and its kNN probe is at chance: 10.1 %" in said
    assert "starts from" not in shown(results)
    elsewhere = [row | {"parent": "elsewhere"} for row in table()["rows"]]
    assert "starts from" not in shown(results, rows=elsewhere), "what is not here says nothing"


@pytest.mark.parametrize("seed", range(5))
def test_the_best_row_is_better_than_each_other_by_a_t_test(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = pd.DataFrame(
        {"row": row, "seed": s, "column": column, "value": 0.5 + 0.02 * row + rng.normal(0, 0.008)}
        for row in range(3)
        for s in range(1, 6)
        for column in ("all", "ece")
    )
    found = best_rows(["all", "ece"], values)
    for column, sign in (("all", 1), ("ece", -1)):
        wide = sign * values[values["column"] == column].pivot(index="row", columns="seed", values="value")
        best = wide.mean(axis=1).idxmax()
        tests = [stats.ttest_rel(wide.loc[best], wide.loc[row]) for row in wide.index if row != best]
        assert found.get(column) == (best if all(t.pvalue < 0.05 for t in tests) else None)


def test_the_best_row_need_not_have_the_highest_mean() -> None:
    """Of other seeds: row 1 has the higher mean, and over the seeds that both have it is the lower one."""
    scores = {0: (50.0, 50.1, 40.0), 1: (49.0, 49.2)}
    values = pd.DataFrame(
        {"row": row, "seed": seed, "column": "all", "value": value}
        for row, each in scores.items()
        for seed, value in enumerate(each)
    )
    assert best_rows(["all"], values) == {"all": 0}


def test_a_row_alone_is_not_the_best() -> None:
    values = pd.DataFrame({"row": 0, "seed": [1, 2, 3], "column": "all", "value": [0.5, 0.6, 0.7]})
    assert best_rows(["all"], values) == {}


def test_the_best_is_bold_and_one_seed_tells_nothing(results: Path) -> None:
    spoil(results, lambda path, content: None)
    html = shown(results)
    assert "<strong>91.0 ± 1.0</strong>" in html and "<strong>82" not in html
    rows = [row | {key: row[key][:1] for key in ("digests", "parents")} for row in table()["rows"]]
    assert "<strong>9" not in shown(results, rows=rows, seeds=[1])


def test_a_group_without_classes_makes_no_table_partial(results: Path) -> None:
    write(table(columns=["all", "many"]), "t")
    assert "Seeds" not in Path("t.md").read_text().split("|")[2]
    assert "| Method   | All        | Many" in Path("t.md").read_text()


def test_a_partial_result_says_how_many_seeds_each_row_has(results: Path) -> None:
    (results / "results/demo/runs/ce/seed=2/metrics.json").unlink()
    write(table(), "t", partial=True)
    assert "Seeds finished, of 3: Ours 3, Other 2." in Path("t.md").read_text()


def test_header_cells_have_a_scope_and_no_word_is_for_a_mouse_alone(results: Path) -> None:
    spoil(results, lambda path, content: None)
    html = shown(results)
    assert re.findall(r"<th(?! scope=)[ >]", html) == [] and " title=" not in html
    verdict, estimate = (html.index(f'<th scope="col"{rest}') for rest in (' class="text">Verdict', ">Estimate"))
    assert html.index(">Claim<") < verdict < estimate
    assert not re.search(r'(src|href)="(https?:)?//|fetch\(|import ', html), "it opens without a network"


def test_mistakes_are_shown_with_their_names_whatever_these_hold(results: Path) -> None:
    spoil(results, lambda path, content: None)
    names = {"true": ['"><b>', "\u0645\u0633"], "predicted": ["a & b", "\u732b"]}
    meta = {"method": "csa", "seed": 1, "confidence": [0.987, 0.5], **names}
    write_tensors(Path("m.safetensors"), {"images": np.zeros((2, 200, 300, 3), dtype=np.uint8)}, meta)
    write(table(), "results/demo/table0")
    words = ["results/demo/table0.json", "--mistakes", "m.safetensors", "--out", "results/demo/report.html"]
    assert page.main(words) == 0
    html = Path("results/demo/report.html").read_text().partition('id="mistakes"')[2]
    assert 'alt="Test image of class &#34;&gt;&lt;b&gt;, taken for a &amp; b"' in html and "98.7 % sure" in html
    assert "<bdi>\u0645\u0633</bdi>" in html and "<bdi>\u732b</bdi>" in html
    sizes = [Image.open(io.BytesIO(base64.b64decode(each))).size for each in re.findall('base64,([^"]+)', html)]
    assert sizes == [(160, 107)] * 2
    write_tensors(Path("m.safetensors"), {"images": np.zeros((0, 1, 1, 3), dtype=np.uint8)}, meta)
    assert page.main(words) == 2, "no image for two names"
    none: dict[str, Any] = {key: [] for key in ("true", "predicted", "confidence")}
    write_tensors(Path("m.safetensors"), {"images": np.zeros((0, 1, 1, 3), dtype=np.uint8)}, meta | none)
    assert page.main(words) == 0 and "mistakes" not in Path("results/demo/report.html").read_text()


def test_a_page_of_what_is_finished_so_far(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(results, lambda path, content: None)
    (results / "results/demo/runs/ce/seed=2/metrics.json").unlink()
    none = [row | {"run": "none"} for row in table()["rows"]]
    declared = {"table0": table(), "table1": table(name="table1", rows=none)}
    kinds = {"table0": "points", "bank-table0": "bank", "table1": "points"}
    plan = SimpleNamespace(
        results="results/demo", shared="results", usual=list(declared), declaration=declared.__getitem__
    )
    plan.figures, plan.drawn = list(kinds), lambda name: (kinds[name], name[-6:])
    plan.reference = SimpleNamespace(folder="results/demo/runs/csa/seed=1", data="demo")
    monkeypatch.setattr(partial, "read_plan", lambda args: plan)
    assert partial.main([]) == 0
    said = capsys.readouterr()
    assert "1 of 2 tables and 1 figures" in said.out and "figure bank-table0 is not drawn yet" in said.err
    html = Path("results/demo/partial/report.html").read_text()
    assert "This is a partial report" in html and "Ours 3, Other 2" in html and 'id="table1"' not in html
    assert html.count("data:image/svg+xml;base64,") == 1 and 'id="mistakes"' not in html, "no images are here"
    for run in re.findall(r'href="([^"#]+json)"', html):
        assert Path("results/demo/partial", run).is_file()
    del declared["table0"]
    plan.usual = ["table1"]
    assert partial.main([]) == 2 and "no run is finished yet" in capsys.readouterr().err
