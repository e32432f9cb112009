"""What lies in the results and is of another plan is told by what it carries, without `.snakemake`."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image

from csa_core import store
from csa_core.errors import Unreadable, UserError
from tests.conftest import TINY
from tests.helpers.errno_injection import failing
from tests.helpers.workflows import SWEEPS, table
from tests.workflow.test_page import spoil
from workflow import fresh
from workflow.plan import Plan
from workflow.report import all_claims, choices, page, partial
from workflow.report.style import save
from workflow.report.tables import write

TABLES = ("table2", "table4", "baselines")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Results of a plan, as its jobs would leave them, as far as freshness looks at them."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    plan = plan_of(tmp_path)
    data = tmp_path / "results/data/demo"
    labels = {"test_labels": np.zeros(3)}
    store.write_tensors(data / "dataset.safetensors", labels, {}, fresh.made_from(plan, "demo"))
    store.write_json(data / f"{plan.reference.split}.json", {"sha256": "s" * 64})
    digests = {"data": store.tensors_digest(labels, {}), "split": "s" * 64}
    for run in plan.all_runs():
        own = {"config": run.digest, "code": plan.code_of(run.config.method)} | digests
        store.write_json(Path(run.folder, "metrics.json"), store.sealed({"digests": own}))
    for name in TABLES:
        store.write_json(tmp_path / f"results/tiny/{name}.json", {"drawn_from": fresh.drawn_from(plan, name)})
    for figure, name in (("curves-table4", "table4"), ("figure1", "figure1")):
        save(Figure(), str(tmp_path / "results/tiny/figures" / figure), fresh.drawn_from(plan, name))
    for name in ("contexts", "mistakes"):
        store.write_tensors(tmp_path / f"results/tiny/figures/{name}.safetensors", {}, {"run": plan.reference.digest})
    return tmp_path


def plan_of(folder: Path, **changes: Any) -> Plan:
    fresh._stated.cache_clear()
    fresh._report_code.cache_clear()
    config = {"protocol": str(folder / "tiny.yaml"), "seeds": [1, 2], "sweeps": SWEEPS, "overrides": {}}
    return Plan(config | {"results": str(folder / "results")} | changes)


def stale(plan: Plan) -> set[str]:
    """Return what is out of date: `run`, any of them, and tables, figures and so on by name."""
    found = {"run"} if any(fresh.stale_run(plan, run) for run in plan.runs_of("baselines")) else set()
    found |= {table for table in TABLES if fresh.stale_table(plan, table)}
    found |= {"curves-table4"} if fresh.stale_figure(plan, "curves-table4", "table4") else set()
    found |= {"figure1"} if fresh.stale_figure(plan, "figure1", "figure1") else set()
    found |= {name for name in IMAGES if fresh.stale_images(plan, name)}
    return found | ({"data"} if fresh.stale_data(plan, "demo") else set())


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = store.read_json(path)
    value.pop("sha256", None)
    change(value)
    store.write_json(path, store.sealed(value))


DRAWN = {*TABLES, "curves-table4", "figure1"}
IMAGES = {"contexts", "mistakes"}
ALL = {"run", *DRAWN, *IMAGES}
# Keys of config.yaml that are changed, and what is out of date then.
CHANGES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "nothing": ({}, set()),
    "a key of training": ({"overrides": {"lr": 0.05}}, ALL),
    "a key of one method": ({"overrides": {"logit_adjustment_strength": 0.7}}, {"run"} | DRAWN),
    "the code": ({"code_version": "another"}, ALL - IMAGES | {"data"}),
    "a seed more": ({"seeds": [1, 2, 3]}, DRAWN),
    "a seed less": ({"seeds": [1]}, DRAWN),
    "another first seed": ({"seeds": [2, 1]}, DRAWN | IMAGES),
    "a value of a sweep": ({"sweeps": SWEEPS | {"threshold": [0.05, 0.6]}}, {"table2"}),
    "the split": ({"overrides": {"data": {"split_seed": 4}}}, ALL),
    "threads and devices": ({"threads": 2, "device": "cpu"}, set()),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_a_change_of_the_configuration_makes_stale(case: str, made: Path) -> None:
    changes, wanted = CHANGES[case]
    assert stale(plan_of(made, **changes)) == wanted


def test_a_run_of_another_split_file_is_stale(made: Path) -> None:
    plan = plan_of(made)
    rewritten(made / f"results/data/demo/{plan.reference.split}.json", lambda value: value.update(indices=[1]))
    assert stale(plan_of(made)) == {"run"}


def test_what_editors_and_systems_leave_is_no_drawing_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(fresh.REPORT, tmp_path / "report", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fresh, "REPORT", tmp_path / "report")
    fresh._report_code.cache_clear()
    before, files = fresh._report_code(), fresh.report_code()
    assert {path.suffix for path in files} == {".py", ".j2", ".css", ".js"}
    for name in (".page.css.swp", ".DS_Store", "page.css~", "#page.css#", ".#tables.py"):
        (tmp_path / "report" / name).write_bytes(b"\xff\xfe\x00")
    fresh._report_code.cache_clear()
    assert fresh._report_code() == before and fresh.report_code() == files
    (tmp_path / "report/page.css").write_text("body {}")
    fresh._report_code.cache_clear()
    assert fresh._report_code() != before
    fresh._report_code.cache_clear()


def test_another_drawing_code_makes_what_is_drawn_stale(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(made)
    monkeypatch.setattr(fresh, "_report_code", lambda: "another")
    assert stale(plan) == DRAWN


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("tiny/runs/ce/seed=1/metrics.json", {"run"}),
        ("tiny/table4.json", {"table4"}),
        ("tiny/figures/curves-table4.svg", {"curves-table4"}),
        ("tiny/figures/contexts.safetensors", {"contexts"}),
        ("data/demo/dataset.safetensors", {"data"}),
    ],
)
def test_damaged_is_stale_missing_is_not_and_unreadable_is_said(name: str, wanted: set[str], made: Path) -> None:
    path = made / "results" / name
    content = path.read_bytes()
    with failing(5, lambda each: each == path, "open"), pytest.raises(Unreadable, match=name):
        stale(plan_of(made))
    assert path.read_bytes() == content
    path.write_bytes(content[: len(content) // 3])
    assert stale(plan_of(made)) == wanted
    path.unlink()
    assert stale(plan_of(made)) == set()


def test_runs_on_other_data_of_the_same_name_are_stale(made: Path) -> None:
    rewritten(made / "results/tiny/runs/ce/seed=2/metrics.json", lambda m: m["digests"].update(data="e" * 64))
    assert stale(plan_of(made)) == {"run"}


def test_a_label_of_a_table_makes_it_stale(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(made)
    plan.tables["table4"] = plan.tables["table4"].model_copy(update={"title": "Another title"})
    assert stale(plan) == {"table4", "curves-table4"}


def test_a_folder_whose_images_changed_is_read_again(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "0.png").write_bytes(b"image")
    data = {"source": "folder", "root": str(tmp_path), "profile": "as_is"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"data": data}))
    name = f"folder-{tmp_path.name}"
    path = tmp_path / "results/data" / name / "dataset.safetensors"
    store.write_tensors(path, {}, {}, fresh.made_from(plan_of(tmp_path), name))
    assert not fresh.stale_data(plan_of(tmp_path), name)
    shutil.copy(tmp_path / "train/a/0.png", tmp_path / "train/a/1.png")
    assert fresh.stale_data(plan_of(tmp_path), name)


def test_moved_images_are_the_same_and_another_protocols_are_not_replaced(tmp_path: Path) -> None:
    def plan(root: Path) -> Plan:
        data = {"source": "folder", "root": str(root), "profile": "as_is"}
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"data": data}))
        return plan_of(tmp_path)

    roots = [tmp_path / place / "photos" for place in "abc"]
    for root in roots:
        for part in ("train", "test"):
            (root / part / "x").mkdir(parents=True)
            (root / part / "x/0.png").write_bytes(b"image")
    name, path = "folder-photos", tmp_path / "results/data/folder-photos/dataset.safetensors"
    store.write_tensors(path, {}, {}, fresh.origin(plan(roots[0]), name))
    assert not any(fresh.stale_data(plan(root), name) for root in roots), "the same images elsewhere"
    (roots[1] / "train/x/1.png").write_bytes(b"another")
    before = path.read_bytes()
    with pytest.raises(UserError, match=f"is of the images of {roots[0]}, not of {roots[1]}; rename one of the two"):
        fresh.stale_data(plan(roots[1]), name)
    assert path.read_bytes() == before
    shutil.rmtree(roots[0])
    assert fresh.stale_data(plan(roots[1]), name), "what is nowhere else any more is made again"


def test_mistakes_of_another_configuration_are_not_looked_for(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The made runs hold no weights: who looks for their mistakes says so."""
    assert partial._mistakes(plan_of(made)) == {} and "mistakes are not shown" in capsys.readouterr().err
    assert partial._mistakes(plan_of(made, overrides={"lr": 0.05})) == {} and not capsys.readouterr().err


def test_a_list_of_claims_is_that_of_its_tables_or_stale(tmp_path: Path) -> None:
    plan: Any = SimpleNamespace(results=str(tmp_path), usual=["table1", "table2"])
    heads = "table,section,claim"
    (tmp_path / "table1.claims.csv").write_text(f"{heads}\ntable1,C.2,b\n")
    (tmp_path / "table2.claims.csv").write_text(f"{heads}\ntable2,C.1,a\n")
    files = [str(tmp_path / f"{name}.claims.csv") for name in plan.usual]
    assert not fresh.stale_claims(plan), "what is not there is not out of date"
    assert all_claims.main([*files, "--out", str(tmp_path / "claims.csv")]) == 0
    assert (tmp_path / "claims.csv").read_text() == f"{heads}\ntable2,C.1,a\ntable1,C.2,b\n"
    assert not fresh.stale_claims(plan)
    (tmp_path / "table1.claims.csv").write_text(f"{heads}\ntable1,C.2,another\n")
    os.utime(tmp_path / "table1.claims.csv", (1, 1))  # copied with an old time
    assert fresh.stale_claims(plan)


@pytest.mark.parametrize("changed", ["table0.json", "figures/contexts.png", "runs/ce/seed=2/provenance.json", "code"])
def test_a_page_is_of_its_tables_figures_and_runs_or_stale(
    changed: str, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(results, lambda path, content: None)
    folder = results / "results/demo"
    write(table(), str(folder / "table0"))
    (folder / "figures").mkdir()
    Image.new("RGB", (1, 1)).save(folder / "figures/contexts.png")
    meta: dict[str, Any] = {"method": "csa", "seed": 1, "true": [], "predicted": [], "confidence": []}
    store.write_tensors(
        folder / "figures/mistakes.safetensors", {"images": np.zeros((0, 1, 1, 3), dtype=np.uint8)}, meta
    )
    words = [str(folder / "table0.json"), "--figures", str(folder / "figures/contexts.png")]
    words += ["--mistakes", str(folder / "figures/mistakes.safetensors"), "--out", str(folder / "report.html")]
    plan: Any = SimpleNamespace(results=str(folder), usual=["table0"], figures=[])
    assert page.main(words) == 0 and not fresh.stale_page(plan)
    if changed == "code":
        monkeypatch.setattr(fresh, "_report_code", lambda: "another")
    else:
        (folder / changed).write_bytes((folder / changed).read_bytes().replace(b"}", b" }", 1) + b"\n")
        os.utime(folder / changed, (1, 1))
    assert fresh.stale_page(plan)


def test_a_list_of_choices_is_that_of_its_tables_or_stale(tmp_path: Path) -> None:
    heads = "table,row_name,chosen"
    for name in ("table2", "table3"):
        (tmp_path / f"{name}.choices.csv").write_text(f"{heads}\n{name},δ,0.1\n")
    plan: Any = SimpleNamespace(results=str(tmp_path), choosing=["table2", "table3"])
    assert not fresh.stale_choices(plan), "what is not there is not out of date"
    files = [str(tmp_path / f"{name}.choices.csv") for name in plan.choosing]
    assert choices.main([*files, "--out", str(tmp_path / "choices.csv")]) == 0
    assert not fresh.stale_choices(plan)
    plan.choosing = ["table2"]  # a sweep has one value now
    assert fresh.stale_choices(plan)
    assert choices.main([str(tmp_path / "nothere.csv"), "--out", str(tmp_path / "choices.csv")]) == 2


def test_a_partial_table_is_stale_once_a_run_at_its_place_is_trained_again(made: Path) -> None:
    plan = plan_of(made)
    path = made / "results/tiny/partial/table2.json"
    store.write_json(path, {"drawn_from": fresh.drawn_from(plan, "table2", is_partial=True)})
    assert not fresh.stale_table(plan_of(made), "table2", "partial/")
    rewritten(Path(plan.runs_of("table2")[0].folder, "metrics.json"), lambda value: value.update(more=1))
    assert fresh.stale_table(plan_of(made), "table2", "partial/")
