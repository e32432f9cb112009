"""Published results: `python -m workflow.publish draw` redraws all of them, without data and without training.

A folder below results/published, named as its protocol, holds a config.yaml, laid over the repository's, and of each
finished run metrics.json, history.csv and provenance.json. `draw` makes tables, figures, claims and the page from
these, beside them, and brings the blocks of docs/evidence.md and README.md that come from them up to date. `take`
copies what has finished since from the results of a training into the folder.
"""

import argparse
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from csa_core import store
from csa_core.config import load_yaml
from csa_core.errors import UserError, say
from csa_core.files import read_bytes, read_text
from workflow.plan import Plan
from workflow.report.declared import CONFIG, overlaid
from workflow.report.numbers import counted, interval, level, shown
from workflow.report.verdicts import NOT_RUN

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "results" / "published"
PAGES = (ROOT / "docs" / "evidence.md", ROOT / "README.md")
FILES = ("history.csv", "provenance.json", "metrics.json")
BLOCK = re.compile(r"(<!-- published: (?P<what>[^\n]+?) -->\n).*?(<!-- end -->)", re.S)


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.publish", description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sub = commands.add_parser("draw", help="redraw tables, figures, claims and page of published results")
    sub.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="default: all below results/published")
    sub.add_argument("--pages", nargs="*", type=Path, default=PAGES, help="pages whose blocks are brought up to date")
    sub.set_defaults(run=_draw)
    sub = commands.add_parser("take", help="copy what has finished from the results of a training")
    sub.add_argument("folder", type=Path, metavar="FOLDER", help="folder below results/published, with its config.yaml")
    sub.add_argument("results", type=Path, metavar="RESULTS", help="folder of the training's results")
    sub.set_defaults(run=_take)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except UserError as error:
        say(f"publish: {error}")
        return 2
    return 0


def plan_of(folder: Path) -> Plan:
    """Return the plan of a published folder: config.yaml of the repository with the folder's over it.

    Raises:
        UserError: it is of another protocol than its name says.
    """
    where = {"results": os.path.relpath(folder.parent)}  # as a person would write it: tables name what is missing
    own = load_yaml(folder / "config.yaml")
    if not isinstance(own, dict):
        raise UserError(f"{folder / 'config.yaml'}: is not a mapping of keys to values; see config.yaml")
    plan = Plan(overlaid(load_yaml(CONFIG), own) | where, spell_out=())
    if plan.protocol != folder.name:
        raise UserError(f"{folder}: its config.yaml is of protocol {plan.protocol}; call the folder so")
    return plan


def _take(args: argparse.Namespace) -> None:
    plan, others = plan_of(args.folder), 0
    runs = args.results / plan.protocol / "runs"
    if not runs.is_dir():
        raise UserError(f"{runs}: no such folder; RESULTS is the training's `results`, and {plan.protocol} lies in it")
    for path in sorted(runs.rglob("metrics.json")):
        run = _run_at(args.results / plan.protocol, path)
        target = args.folder / "runs" / run
        is_of_this = _is_of(plan, run, path)
        others += not is_of_this
        if not is_of_this or _is_of(plan, run, target / "metrics.json"):
            continue
        files = {name: read_bytes(path.parent / name) for name in FILES}  # all of a run or none
        for name, content in files.items():
            store.write_bytes(target / name, content)
        print(target.relative_to(args.folder))
    if others:
        those = f"{counted(others, 'run')} of another configuration or code"
        say(f"note: not taken: {those}; see {args.folder / 'config.yaml'}")


def _run_at(folder: Path, path: Path) -> Path:
    """Return which run's the metrics in a protocol's folder are, by where they lie."""
    return path.parent.relative_to(folder / "runs")


def _is_of(plan: Plan, run: Path, path: Path) -> bool:
    """Whether there are metrics, and of the run that the plan has at this place, in configuration and code."""
    seed = run.name.removeprefix("seed=")
    if not (path.exists() and seed.isdecimal()):
        return False
    digests = store.read_sealed(path)["digests"]
    try:
        planned = plan.recipe.run_at(run.parent.as_posix(), seed)
    except UserError:
        return False
    wanted = {"config": planned.digest, "code": plan.code_of(planned.config.method)}
    return bool(wanted.items() <= digests.items())


def _draw(args: argparse.Namespace) -> None:
    folders = args.folders or sorted(path.parent for path in PUBLISHED.glob("*/config.yaml"))
    if not folders:
        raise UserError(f"{PUBLISHED}: no folder with a config.yaml")
    pages = {page: read_text(page) for page in args.pages}  # before the seconds that drawing takes
    drawn = {folder.name: draw(folder) for folder in folders}
    for page, text in pages.items():
        if (fresh := refreshed(text, drawn)) != text:
            store.write_bytes(page, fresh.encode())
            print(page)


def draw(folder: Path) -> dict[str, str]:
    """Draw everything that a folder has runs for; return the blocks that pages may show, by name."""
    # Seconds to import, and `take` needs none of it.
    from workflow.report import all_claims, figures, page, tables
    from workflow.report.collect import is_finished

    plan = plan_of(folder)
    blocks, judged, tables_drawn, figures_drawn = {}, [], [], []
    for name in plan.tables:
        if not any(is_finished(plan.declaration(name))):
            _remove(folder.glob(f"{name}.*"))  # of runs that were there before
            continue
        tables.write(plan.declaration(name), str(folder / name), partial=True)
        judged.append(str(folder / f"{name}.claims.csv"))
        if len(store.read_json(folder / f"{name}.json")["rows"]) > 1:  # one row alone compares nothing
            tables_drawn.append(name)
            blocks[name] = _body(folder / f"{name}.md")
    for figure in plan.figures + plan.extra_figures:
        kind, name = plan.drawn(figure)
        if name not in tables_drawn:
            _remove((folder / "figures").glob(f"{figure}.*"))
            continue
        figures.write(kind, plan.declaration(name), str(folder / "figures" / figure), partial=True)
        figures_drawn.append(folder / "figures" / f"{figure}.svg")
    if not judged:
        raise UserError(f"{folder}: holds no finished run; `python -m workflow.publish take` copies them")
    code = all_claims.main([*judged, "--out", str(folder / "claims.csv")])
    if jsons := [str(folder / f"{name}.json") for name in tables_drawn]:
        code |= page.main([*jsons, "--figures", *map(str, figures_drawn), "--out", str(folder / "report.html")])
    else:
        (folder / "report.html").unlink(missing_ok=True)
    if code:  # they have said why
        raise SystemExit(code)
    print(f"{folder}: {counted(len(tables_drawn), 'table')}, {counted(len(figures_drawn), 'figure')}, claims")
    claims = sum(len(plan.declaration(name)["claims"]) for name in plan.tables)
    there = [
        path for path in sorted((folder / "runs").rglob("metrics.json")) if _is_of(plan, _run_at(folder, path), path)
    ]
    blocks |= {"claims": _claims(folder / "claims.csv", claims)}
    return blocks | {"runs": _runs(folder, there), "best epoch": _best_epoch(there)}


def _remove(drawn: Iterable[Path]) -> None:
    for path in drawn:
        path.unlink()


def refreshed(text: str, drawn: dict[str, dict[str, str]]) -> str:
    """Return a page with each `<!-- published: FOLDER NAME -->` block as it is drawn now.

    `<!-- published: FOLDER TABLE: COLUMN, COLUMN -->` shows some columns of a table.

    Raises:
        UserError: a block names what is not drawn.
    """

    def fresh(match: re.Match[str]) -> str:
        block, _, columns = match["what"].partition(": ")
        folder, _, name = block.partition(" ")
        if folder not in drawn:
            return match[0]
        if name not in drawn[folder]:
            raise UserError(f"block '{match['what']}': nothing of that name is published; {', '.join(drawn[folder])}")
        body = _only(drawn[folder][name], columns.split(", ")) if columns else drawn[folder][name]
        return f"{match[1]}{body}\n{match[3]}"

    return BLOCK.sub(fresh, text)


def _body(path: Path) -> str:
    """Return the lines of a Markdown file that are its table."""
    return "\n".join(line for line in path.read_text().splitlines() if line.startswith("|"))


def _only(table: str, columns: list[str]) -> str:
    """Return some columns of a Markdown table."""
    head, rule, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    if missing := [name for name in columns if name not in head]:
        raise UserError(f"column '{missing[0]}': the table has {', '.join(head)}")
    places = [head.index(name) for name in columns]
    lines = [[row[place] for place in places] for row in (head, rule, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _claims(path: Path, claims: int) -> str:
    """Return the claims that could be judged as a Markdown table, and how many of all could not."""
    judged = pd.read_csv(path, dtype={"section": str, "note": str}).fillna({"note": ""})
    there = judged["verdict"] != NOT_RUN
    waiting = claims - there.sum()
    left = f"{waiting} of the {claims} claims wait{'s' if waiting == 1 else ''} for runs that are not published yet."
    judged = judged[there]
    lines = []
    for row in judged.to_dict("records"):
        estimate = f"{shown(row['estimate'], signed=True)} {interval(row['low'], row['high'])}".strip()
        estimate += level(row["confidence"]) if interval(row["low"], row["high"]) else ""
        seeds = "" if pd.isna(row["seeds"]) else int(row["seeds"])
        lines.append([row["section"], row["claim"], estimate, seeds, row["verdict"]])
    heads = ["Section", "Claim", "Points, interval (95 % where not named)", "Seeds", "Verdict"]
    table = str(pd.DataFrame(lines, columns=heads).to_markdown(index=False, disable_numparse=True))
    return f"{table}\n\n{left}" if there.sum() < claims else table


def _runs(folder: Path, metrics: list[Path]) -> str:
    """Return which runs are there, with seeds, hours, and how they were computed."""
    found: dict[tuple[str, ...], list[tuple[int, float]]] = defaultdict(list)
    for path in metrics:
        note: dict[str, Any] = store.read_json(path.with_name("provenance.json"))
        computed = f"{note['precision']}, {counted(note['threads'], 'thread')}"
        run = _run_at(folder, path).parent.as_posix()
        found[run, note["processor"]["name"], computed].append(
            (int(path.parent.name.partition("=")[2]), note["seconds"])
        )
    lines = []
    for (run, processor, computed), runs in found.items():
        seeds = ", ".join(str(seed) for seed, _ in sorted(runs))
        minutes = sum(seconds for _, seconds in runs) / len(runs) / 60
        lines.append([f"`{run}`", seeds, shown(minutes, 0), processor, computed])
    heads = ["Run", "Seeds", "Minutes each, beside other work", "Processor", "Computed in"]
    return str(pd.DataFrame(lines, columns=heads).to_markdown(index=False, disable_numparse=True))


def _best_epoch(metrics: list[Path]) -> str:
    """Return what choosing the best evaluated epoch on the test set would have added to each run's accuracy."""
    added = []
    for path in metrics:
        scores = store.read_sealed(path)
        history, column = pd.read_csv(path.with_name("history.csv")), f"test_accuracy_{scores['predicts']}"
        if column not in history:  # scored once, at its end
            continue
        last = scores["heads"][scores["predicts"]]["accuracy"]["all"]
        added.append(100 * max(0.0, history[column].max() - last))
    if not added:
        return "No run has epochs to choose from: each was scored once, at its end."
    gain = pd.Series(added)
    return (
        f"Over the {counted(len(gain), 'run')} with epochs to choose from, taking the best of the epochs that were "
        f"scored instead of the last one would have added {shown(gain.mean(), 2)} points of accuracy on average, and "
        f"{shown(gain.max(), 2)} at most."
    )


if __name__ == "__main__":
    sys.exit(main())
