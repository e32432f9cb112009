"""Protocols apart: what two of them leave in one results folder, and the page that sets them side by side."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml

from csa_core import store
from csa_core.errors import UserError
from tests.conftest import TINY
from tests.helpers.workflows import Folder, table
from tests.workflow.test_page import CLAIM
from workflow import snake, view
from workflow.plan import Plan
from workflow.report import comparison
from workflow.report.tables import write


def drawn(folder: Path, protocol: str, **changes: object) -> Path:
    """Draw a table of the shared runs as one of a protocol, whose results lie elsewhere."""
    write(table(protocol=protocol, **changes), str(folder / "table0"), made_from="x" * 64)
    return folder


def last_table(html: str) -> pd.DataFrame:
    """Return the cells of a page's last table as text."""
    lines = re.findall("<tr>(.*?)</tr>", html.rpartition("<table")[2], re.S)
    cells = [
        [re.sub("<.*?>", "", cell).strip() for cell in re.findall("<t[hd].*?</t[hd]>", line, re.S)] for line in lines
    ]
    return pd.DataFrame(cells[1:], columns=cells[0])


def test_rows_and_claims_stand_side_by_side_and_nothing_is_pooled(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in results.rglob("metrics.json"):
        content = store.read_sealed(path)
        content["heads"]["single"]["images"] = [150, 50]
        store.write_json(
            path, store.sealed(content | {"config": {"data": {"source": "demo"}, "model": "resnet20", "epochs": 9}})
        )
    one = drawn(results / "a/demo", "demo", claims=[CLAIM])
    less = drawn(results / "a/short", "short", rows=table()["rows"][:1])
    out = results / "a/comparison.html"
    assert comparison.main([str(one), str(less), "--out", str(out)]) == 0
    html = out.read_text()
    cells = last_table(html).set_index("Method")
    assert cells.loc["Ours", "All, demo"] == cells.loc["Ours", "All, short"] == "91.0 ± 1.0"
    assert cells.loc["Other", "All, demo"] == "82.0 ± 2.6" and cells.loc["Other", "All, short"] == ""
    assert cells.loc["Ours", "Seeds, short"] == "3" and "82.0" not in " ".join(cells["All, short"])
    assert CLAIM["text"] in html and 'href="demo/report.html"' in html and 'href="short/report.html"' in html
    again = drawn(results / "b/demo", "demo")
    assert comparison.main([str(one), str(again), "--out", str(out)]) == 0
    assert "a/demo" in out.read_text() and "b/demo" in out.read_text(), "two of one name are told apart"
    # Two of one name below folders of one name, and one of them twice, whose tables' recipe is of no epochs.
    for path in results.rglob("metrics.json"):
        content = store.read_sealed(path)
        del content["config"]["epochs"]
        store.write_json(path, store.sealed(content))
    drawn(results / "c/a/demo", "demo")
    folders = [str(one), str(results / "c/a/demo"), str(less), str(one.parent / "../a/demo"), "--out", str(out)]
    assert comparison.main(folders) == 0
    html = out.read_text()
    assert f"{results.name}/a/demo" in html and ">c/a/demo<" in html and ">short<" in html
    assert comparison.main([str(one), str(results / "nowhere"), "--out", str(out)]) == 2
    assert "one protocol alone (demo)" in capsys.readouterr().err


@pytest.mark.long
def test_two_protocols_in_one_folder_never_mix(tmp_path: Path) -> None:
    folder, results = Folder(tmp_path), tmp_path / "results"
    (tmp_path / "photos.yaml").write_text(yaml.safe_dump(TINY | {"epochs": 3, "lr_drops": [2], "lr": 0.03}))

    def shown() -> set[str]:
        tops = [path for path in [*results.glob("*.*"), *results.glob("figures/*")] if path.name != "comparison.html"]
        return {pd.read_csv(path)["protocol"][0] for path in tops if path.name in ("table4.csv", "baselines.csv")} | {
            name for name in ("tiny", "photos") for path in tops if view.leads_to(path, results / name)
        }

    folder.write(seeds=[1])
    assert folder.snakemake("results/table4.csv", "results/figures/curves-table4.svg").returncode == 0
    assert shown() == {"tiny"}
    of_tiny = {path: path.read_bytes() for path in (results / "tiny").rglob("*") if path.is_file()}
    folder.write(protocol=str(tmp_path / "photos.yaml"))
    assert folder.snakemake("results/table4.csv").returncode == 0
    assert shown() == {"photos"} and not (results / "figures/curves-table4.svg").exists()
    assert {path: path.read_bytes() for path in of_tiny} == of_tiny, "nothing of the other protocol is touched"

    done = folder.snakemake("results/comparison.html")
    assert done.returncode == 0, done.stderr
    html = (results / "comparison.html").read_text()  # what is published and drawn stands there, too
    cells = last_table(html.partition('<h2 id="table4">')[2].partition("</table>")[0])
    for protocol in ("tiny", "photos"):
        said = pd.read_csv(results / protocol / "table4.csv").query("column == 'all'")["mean_percent"]
        assert cells[f"All, {protocol}"].astype(float).tolist() == pytest.approx(said.tolist(), abs=0.051)

    folder.write(protocol=str(tmp_path / "tiny.yaml"))
    assert folder.jobs("results/tiny/table4.csv") == {}, "it is still there"
    assert folder.snakemake("results/table4.csv").returncode == 0
    assert shown() == {"tiny"} and (results / "figures/curves-table4.svg").exists()
    assert folder.jobs("results/table4.csv") == {}


def test_a_protocol_is_not_called_like_a_folder_of_all(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    (tmp_path / "data.yaml").write_text(json.dumps(TINY))
    folder.write(protocol=str(tmp_path / "data.yaml"))
    done = folder.snakemake("results/table4.csv")
    assert done.returncode == 2 and "results/data is a folder of all protocols; rename the file" in done.stderr


def test_one_protocol_alone_is_nothing_to_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snake, "PUBLISHED", tmp_path / "none")
    with pytest.raises(UserError, match="tables of no protocol are drawn; draw another's"):
        snake._drawn_tables(Plan(Folder(tmp_path).config | {"results": str(tmp_path / "results")}, spell_out=()))


def test_what_leads_to_a_protocol_and_files_of_a_person_are_no_protocol(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snake, "PUBLISHED", results / "nowhere")
    drawn(results / "results/demo", "demo")
    drawn(results / "results/partial", "demo")
    store.write_json(results / "results/photos/annotations.json", {})
    plan: Any = SimpleNamespace(shared="results")
    with pytest.raises(UserError, match="tables of results/demo alone are drawn"):
        snake._drawn_tables(plan)
    (results / "results/other/runs").mkdir(parents=True)
    drawn(results / "results/other", "other")
    assert snake._drawn_tables(plan) == ["results/demo/table0.json", "results/other/table0.json"]
    monkeypatch.setattr(snake, "PUBLISHED", results / "results")
    assert len(snake._drawn_tables(plan)) == 2, "the results that are published, each once"
