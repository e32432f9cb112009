"""The top of the results leads to one protocol, and a mixture cannot be read there."""

import html
import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from workflow import view


def made(results: Path, protocol: str, *names: str) -> Path:
    for name in names:
        path = results / protocol / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(name, protocol))
    return results / protocol


def text(name: str, protocol: str, top: bool = False) -> str:
    """Return the content of a protocol's file, or of what is at the top for it."""
    if not name.endswith(".html"):
        return f"{name} of {protocol}"
    to_runs = ("../" if "/" in name else "") + (f"{quote(protocol)}/" if top else "") + "runs"
    head = f'<meta name="protocol" content="{html.escape(protocol)}">'
    return f'{head}<a href="{to_runs}/csa/seed=1/metrics.json">seed 1</a> <a href="#table1">table1</a>'


def tops(results: Path) -> dict[str, str]:
    """Return what a person reads at the top."""
    found = [*results.glob("*.*"), *results.glob("figures/*"), *results.glob("partial/*")]
    return {path.relative_to(results).as_posix(): path.read_text() if path.exists() else "nothing" for path in found}


def of(protocol: str, names: Iterable[str]) -> dict[str, str]:
    return {name: text(name, protocol, top=True) for name in names}


NAMES = ("table1.csv", "table1.md", "report.html", "figures/figure2.svg", "partial/table1.md", "partial/report.html")


def test_one_protocol_is_shown_and_then_another_alone(tmp_path: Path) -> None:
    demo = made(tmp_path, "demo", *NAMES, "runs/ce/metrics.json", "logs/table1.log", ".half.csv")
    photos = made(tmp_path, "photos", "table1.csv", "report.html", "figures/other.svg")
    assert view.main([str(demo)]) == 0
    assert tops(tmp_path) == of("demo", NAMES)
    assert (tmp_path / "figures/figure2.svg").readlink() == Path("../demo/figures/figure2.svg")
    view.show(photos)
    assert tops(tmp_path) == of("photos", ("table1.csv", "report.html", "figures/other.svg"))
    view.show(demo)
    assert tops(tmp_path) == of("demo", NAMES)
    assert (photos / "table1.csv").read_text() == "table1.csv of photos", "only what leads to it goes"


def test_what_leads_there_survives_a_move_and_shows_what_is_drawn_later(tmp_path: Path) -> None:
    view.show(made(tmp_path / "results", "demo", "table1.csv"))
    (tmp_path / "results").rename(tmp_path / "moved")
    (tmp_path / "moved/demo/table1.csv").write_text("later")
    assert (tmp_path / "moved/table1.csv").read_text() == "later"


@pytest.mark.parametrize("protocol", ["my photos", "a'b\"c", "50% off #1", "猫", "a&b"])
def test_the_runs_of_a_page_are_found_whatever_the_protocol_is_called(protocol: str, tmp_path: Path) -> None:
    folder = made(tmp_path, protocol, "report.html", "table1.csv", "runs/csa/seed=1/metrics.json")
    view.show(folder)
    (run,) = re.findall('href="([^"#]*)"', (tmp_path / "report.html").read_text())
    assert (tmp_path / unquote(run)).is_file() and view.leads_to(tmp_path / "report.html", folder)
    (folder / "report.html").write_text("drawn again")
    assert not view.leads_to(tmp_path / "report.html", folder), "a page is a copy, and may be out of date"
    made(tmp_path, protocol, "report.html")
    view.show(made(tmp_path, "demo", "table1.csv"))
    assert tops(tmp_path) == {"table1.csv": "table1.csv of demo"}


def test_a_persons_own_files_stay(tmp_path: Path) -> None:
    folder = made(tmp_path, "demo", "table1.csv")
    (tmp_path / "notes.html").write_text('<a href="url=mine"></a>')
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/mine.png").symlink_to("/elsewhere/mine.png")
    (tmp_path / "best.csv").symlink_to("demo/table1.csv")
    view.show(folder)
    view.show(made(tmp_path, "photos", "table1.csv"))
    there = {path.name for path in tmp_path.rglob("*") if path.is_symlink() or path.suffix == ".html"}
    assert there == {"notes.html", "mine.png", "best.csv", "table1.csv"}


def test_a_table_of_an_older_layout_gives_way(tmp_path: Path) -> None:
    folder = made(tmp_path, "demo", "table1.csv")
    (tmp_path / "table1.csv").write_text("of some protocol")
    assert not view.leads_to(tmp_path / "table1.csv", folder)
    view.show(folder)
    assert (tmp_path / "table1.csv").read_text() == "table1.csv of demo"


def test_without_links_the_file_to_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    folder = made(tmp_path, "demo", "table1.csv")
    monkeypatch.setattr(os, "symlink", refuse)
    assert view.main([str(folder)]) == 2
    assert "read that file instead" in capsys.readouterr().err
    assert not list(tmp_path.glob(".view-*"))


@pytest.mark.parametrize("target", [".", "..", "demo"])
def test_a_persons_link_to_a_folder_stays(target: str, tmp_path: Path) -> None:
    folder = made(tmp_path / "results", "demo", "table1.csv")
    (tmp_path / "results/latest").symlink_to(target)
    view.show(folder)
    assert (tmp_path / "results/latest").readlink() == Path(target)
