"""The page in a real browser, where one is there: Debian's Chromium."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.workflows import table
from tests.workflow.test_page import CLAIM, spoil
from workflow.report import figures, page
from workflow.report.tables import write

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
ROWS = 8
# Frames, because a window of Chromium is never as narrow as a telephone. `print` has the rules of paper for all media.
PROBE = """
<body><script>
const page = PAGE, found = {};
const measure = (name, width, text) => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.srcdoc = text;
  frame.onload = () => { found[name] = look(frame.contentWindow, width); done(); };
  document.body.append(frame);
});
const look = (win, width) => {
  const doc = win.document, cells = [...doc.querySelectorAll("td, th, p, dd, img, figcaption")];
  const style = selector => win.getComputedStyle(doc.querySelector(selector));
  const table = doc.querySelector("#tables ~ table.sortable"), button = table.querySelector("th:nth-child(2) button");
  const column = () => [...table.tBodies[0].rows].map(row => row.cells[1].textContent.trim());
  const result = {
    wide: doc.scrollingElement.scrollWidth,
    cut: cells.filter(cell => cell.getBoundingClientRect().right > width + 1 && cell.offsetHeight > 1)
      .filter(cell => !cell.closest("thead")).map(cell => cell.textContent.slice(0, 40)),
    stacked: style("table.sortable tbody tr").display === "block",
    paper: style("body").backgroundColor, ground: style("figure img").backgroundColor, before: column(),
  };
  button.focus();
  result.focused = doc.activeElement === button;
  button.click();
  result.up = column();
  result.said = button.closest("th").getAttribute("aria-sort");
  button.click();
  result.down = column();
  const sorting = table.previousElementSibling.previousElementSibling;
  const choice = sorting.querySelector("select"), turn = sorting.querySelector("button");
  result.tall = Math.min(choice.offsetHeight, turn.offsetHeight);
  result.columns = [...choice.options].map(option => option.textContent);
  const choose = value => { choice.value = value; choice.dispatchEvent(new win.Event("change")); };
  choose(-1);
  if (turn.textContent.includes("descending")) turn.click();
  result.again = column();
  choice.focus();
  result.chosen = doc.activeElement === choice;
  choose(1);
  result.thumb = column();
  turn.focus();
  turn.click();
  result.turned = column();
  result.turns = doc.activeElement === turn && turn.textContent;
  result.calls = choice.getAttribute("aria-label");
  const field = table.previousElementSibling;
  field.value = "other 3";
  field.dispatchEvent(new win.Event("input"));
  result.left = [...table.tBodies[0].rows].filter(row => row.offsetHeight > 0).length;
  result.named = field.getAttribute("aria-label");
  return result;
};
(async () => {
  for (const width of [420, 800, 1400]) await measure(width, width, page);
  const paper = page.replace("@media print", "@media all").replace("@media screen and", "@media print and");
  await measure("print", 1040, paper);
  document.body.textContent = "FOUND" + JSON.stringify(found) + "END";
})();
</script></body>
"""


@pytest.fixture
def shown(results: Path) -> Path:
    """A page with a table of eight rows and a figure."""
    spoil(results, lambda path, content: None)
    row = table()["rows"][1]
    rows: list[dict[str, Any]] = [*table()["rows"], *(row | {"label": f"Other {i}"} for i in range(2, ROWS))]
    declared = table(
        rows=rows, claims=[CLAIM | {"text": "a claim " * 30}] * 7, columns=["all", "few", "balanced", "ece"]
    )
    write(declared, "results/demo/table0")
    figures.write("points", declared, "results/demo/figures/table0")
    arguments = [
        "results/demo/table0.json",
        "--figures",
        "results/demo/figures/table0.svg",
        "--out",
        "results/demo/report.html",
    ]
    assert page.main(arguments) == 0
    return results / "results/demo/report.html"


def chromium(path: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={path.parent}/profile"]
    return subprocess.run(
        [*command, "--virtual-time-budget=20000", *options, path.as_uri()], capture_output=True, text=True, timeout=600
    )


def look(shown: Path, *options: str) -> dict[str, Any]:
    probe = shown.with_name("probe.html")
    text = json.dumps(shown.read_text()).replace("</", "<\\/")
    probe.write_text(f"<!doctype html><meta charset=utf-8>{PROBE.replace('PAGE', text, 1)}")
    (found,) = re.findall(r"FOUND(\{.*\})END", chromium(probe, "--dump-dom", *options).stdout, re.S)
    result: dict[str, Any] = json.loads(html.unescape(found))
    return result


def test_nothing_is_cut_at_any_width_and_tables_sort_and_filter(shown: Path) -> None:
    found = look(shown)
    for name, width in (("420", 420), ("800", 800), ("1400", 1400), ("print", 1040)):
        assert found[name]["wide"] <= width and not found[name]["cut"], name
        assert found[name]["stacked"] is (width < 960), name
        assert found[name]["left"] == 1, "the filter hides the others"
    for name, is_narrow in (("420", True), ("800", True), ("1400", False), ("print", False)):
        page = found[name]
        assert (page["tall"] >= 40, page["chosen"]) == (is_narrow, is_narrow), f"{name}: a thumb needs room"
        assert page["focused"] is (name == "1400" or name == "print"), f"{name}: what is not seen has no focus"
        assert page["again"] == page["before"] and page["thumb"] == page["up"] and page["turned"] == page["down"]
    assert found["420"]["turns"] == "descending ↓" and "table0" in found["420"]["calls"]
    assert found["420"]["columns"][:3] == ["the table’s order", "Method", "All"]
    wide = found["1400"]
    assert len(wide["before"]) == ROWS and wide["focused"] and wide["said"] == "ascending"
    assert wide["up"] != wide["down"] and sorted(wide["up"]) == wide["up"] and wide["down"][0] == "91.0 ± 1.0"
    assert "table0" in wide["named"]


def test_in_the_dark_a_light_figure_has_a_light_ground(shown: Path) -> None:
    dark = look(shown, "--blink-settings=preferredColorScheme=0")
    assert dark["1400"]["paper"] == "rgb(22, 25, 28)"
    assert dark["1400"]["ground"] == "rgb(255, 255, 255)"


def test_it_prints_on_few_pages(shown: Path) -> None:
    out = shown.with_name("report.pdf")
    chromium(shown, f"--print-to-pdf={out}", "--no-pdf-header-footer")
    content = out.read_bytes()
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 3
    (box, *_) = re.findall(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)", content)
    assert float(box[0]) > float(box[1]), "landscape"
