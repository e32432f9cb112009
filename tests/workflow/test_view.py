"""The top of the results leads to one protocol, and a mixture cannot be read there."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from workflow import view


def made(results: Path, protocol: str, *names: str) -> Path:
    for name in names:
        path = results / protocol / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} of {protocol}")
    return results / protocol


def tops(results: Path) -> dict[str, str]:
    """Return what a person reads at the top, following a page that leads elsewhere as a browser would."""
    found = {}
    for path in [*results.glob("*.*"), *results.glob("figures/*"), *results.glob("partial/*")]:
        text = path.read_text() if path.exists() else "nothing"
        url = re.search('content="0; url=(.*)"', text)
        found[path.relative_to(results).as_posix()] = (path.parent / url[1]).read_text() if url else text
    return found


NAMES = ("table1.csv", "table1.md", "report.html", "figures/figure2.svg", "partial/table1.md", "partial/report.html")


def test_one_protocol_is_shown_and_then_another_alone(tmp_path: Path) -> None:
    demo = made(tmp_path, "demo", *NAMES, "runs/ce/metrics.json", "logs/table1.log", ".half.csv")
    photos = made(tmp_path, "photos", "table1.csv", "report.html", "figures/other.svg")
    assert view.main([str(demo)]) == 0
    assert tops(tmp_path) == {name: f"{name} of demo" for name in NAMES}
    assert (tmp_path / "figures/figure2.svg").readlink() == Path("../demo/figures/figure2.svg")
    view.show(photos)
    assert tops(tmp_path) == {name: f"{name} of photos" for name in ("table1.csv", "report.html", "figures/other.svg")}
    view.show(demo)
    assert tops(tmp_path) == {name: f"{name} of demo" for name in NAMES}
    assert (photos / "table1.csv").read_text() == "table1.csv of photos", "only what leads to it goes"


def test_what_leads_there_survives_a_move_and_shows_what_is_drawn_later(tmp_path: Path) -> None:
    view.show(made(tmp_path / "results", "demo", "table1.csv"))
    (tmp_path / "results").rename(tmp_path / "moved")
    (tmp_path / "moved/demo/table1.csv").write_text("later")
    assert (tmp_path / "moved/table1.csv").read_text() == "later"


@pytest.mark.parametrize("protocol", ["my photos", "a'b\"c", "50% off #1", "猫", "a&b"])
def test_a_page_is_found_whatever_the_protocol_is_called(protocol: str, tmp_path: Path) -> None:
    folder = made(tmp_path, protocol, "report.html", "table1.csv")
    view.show(folder)
    url = re.search('content="0; url=(.*)"', (tmp_path / "report.html").read_text())
    assert url and (tmp_path / unquote(url[1])).read_text() == f"report.html of {protocol}"
    assert view.leads_to(tmp_path / "report.html", folder)
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
