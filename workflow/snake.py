"""What the Snakefile alone needs: what a plan answers to rules, targets that are made, values as they were meant."""

import atexit
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from csa_core.config import parse_yaml
from csa_core.errors import UserError, likely, say, several
from workflow import fresh, view
from workflow.command_line import or_one_line
from workflow.naming import Run
from workflow.plan import Plan
from workflow.protocol import protocol_files

TABLE = (".csv", ".md", ".tex", ".seeds.csv", ".claims.csv", ".choices.csv", ".json")
PUBLISHED = Path(__file__).parents[1] / "results" / "published"
FIGURE = (".svg", ".pdf", ".png", ".csv")


class Asked:
    """What rules ask a plan for; what lies there and is not of it is made again, whatever Snakemake remembers."""

    def __init__(self, plan: Plan, workflow: Any) -> None:
        self._plan, self._workflow = plan, workflow

    def run(self, wildcards: Any) -> Run:
        """Return the run that the wildcards `run` and `seed` stand for."""
        run: Run = or_one_line(self._plan.run_at, wildcards.run, wildcards.seed)
        self._again(f"{run.folder}/metrics.json", fresh.stale_run, run)
        return run

    def data(self, wildcards: Any) -> list[str]:
        """Return the files that a data set is made from by other rules: none."""
        self._again(f"{self._plan.shared}/data/{wildcards.data}/dataset.safetensors", fresh.stale_data, wildcards.data)
        return []

    def table(self, wildcards: Any, place: str = "") -> list[str]:
        """Return the metrics that a table is made from."""
        self._again(f"{self._plan.results}/{place}{wildcards.table}.json", fresh.stale_table, wildcards.table, place)
        return [] if place else [f"{run.folder}/metrics.json" for run in self._plan.runs_of(wildcards.table)]

    def figure(self, wildcards: Any) -> list[str]:
        """Return the metrics that a figure is made from."""
        table, figure = self.table_of(wildcards), wildcards.figure
        self._again(f"{self._plan.results}/figures/{figure}.svg", fresh.stale_figure, figure, table)
        return [f"{run.folder}/metrics.json" for run in self._plan.runs_of(table)]

    def table_of(self, wildcards: Any) -> str:
        """Return the table whose runs a figure draws."""
        return or_one_line(self._plan.drawn, wildcards.figure)[1]

    def contexts(self, wildcards: Any) -> str:
        """Return the weights whose contexts are shown."""
        self._again(f"{self._plan.results}/figures/contexts.safetensors", fresh.stale_images, "contexts")
        return self._plan.reference.weights

    def gallery(self, title: str) -> str:
        """Return the contexts that are drawn under a title."""
        figures = f"{self._plan.results}/figures"
        self._again(f"{figures}/contexts.png", fresh.stale_gallery, title)
        return f"{figures}/contexts.safetensors"

    def claims(self, wildcards: Any) -> list[str]:
        """Return the claims of each table, which stand in one list."""
        self._again(f"{self._plan.results}/claims.csv", fresh.stale_claims)
        return [f"{self._plan.results}/{table}.claims.csv" for table in self._plan.usual]

    def choices(self, wildcards: Any) -> list[str]:
        """Return the choices of each table, which stand in one list."""
        self._again(f"{self._plan.results}/choices.csv", fresh.stale_choices)
        return [f"{self._plan.results}/{table}.choices.csv" for table in self._plan.choosing]

    def page(self, wildcards: Any) -> list[str]:
        """Return the tables that the page shows."""
        self._again(f"{self._plan.results}/report.html", fresh.stale_page)
        return [f"{self._plan.results}/{table}.json" for table in self._plan.usual]

    def mistakes(self, wildcards: Any) -> str:
        """Return the predictions whose mistakes are shown."""
        self._again(f"{self._plan.results}/figures/mistakes.safetensors", fresh.stale_images, "mistakes")
        return f"{self._plan.reference.folder}/predictions.safetensors"

    def shown(self, wildcards: Any) -> str:
        """Return the protocol's own file, to which the one at the top of the results leads."""
        plan, name = self._plan, wildcards.shown
        self._again(f"{plan.shared}/{name}", _leads_elsewhere, name)
        return f"{plan.results}/{name}"

    def comparison(self, wildcards: Any) -> list[str]:
        """Return the tables of every protocol that are there: in these results, and those published beside the code."""
        return or_one_line(_drawn_tables, self._plan)

    def _again(self, path: str, is_stale: Callable[..., bool], *what: Any) -> None:
        """Let Snakemake make a file again where it is stale; a job on another machine was told already."""
        if self._workflow.is_main_process and or_one_line(is_stale, self._plan, *what):
            self._workflow.dag.forcefiles.add(path)


def _drawn_tables(plan: Plan) -> list[str]:
    tops = [top for top in (Path(plan.shared), PUBLISHED) if top == PUBLISHED or top.resolve() != PUBLISHED.resolve()]
    found = [path for top in tops for path in sorted(top.glob("*/[!.]*.json"))]
    found = [path for path in found if path.with_name("runs").is_dir()]  # a protocol's, and no link to one
    if len(folders := {str(path.parent) for path in found}) < 2:
        there = f"of {folders.pop()} alone" if folders else "of no protocol"
        raise UserError(
            f"comparison.html: tables {there} are drawn; draw another's: snakemake ... --config protocol=short"
        )
    return [str(path) for path in found]


def _leads_elsewhere(plan: Plan, name: str) -> bool:
    link = Path(plan.shared, name)
    return os.path.lexists(link) and not view.leads_to(link, Path(plan.results))


def check_targets(targets: Iterable[str], rules: Iterable[Any], plan: Plan) -> None:
    """See that something makes each target; Snakemake's own message speaks of input functions.

    Args:
        rules: Snakemake's, each with its name and what it makes.

    Raises:
        UserError: naming the nearest target.
    """
    rules = list(rules)
    named = [rule.name for rule in rules if not rule.wildcard_names]  # others are asked for by what they make

    def is_made(path: str) -> bool:
        return path in named or any(rule.is_producer(path) for rule in rules)

    for target in targets:
        if not target:
            raise UserError("target '': is empty; leave it out")
        is_choice = target == "choices" or Path(target).name == "choices.csv" or target.endswith(".choices.csv")
        of_table = Path(target).name.removesuffix(".choices.csv")
        if is_choice and not (plan.choosing or (of_table in plan.tables and plan.chooses(of_table))):
            remedy = "there are no validation images; write data: {validation: 0.1} in the protocol or under overrides"
            why = "no table has a sweep of two values on the same images; see sweeps in config.yaml"
            raise UserError(f"target {target}: {why if plan.reference.config.data.validates else remedy}")
        path = target if Path(target).is_absolute() else os.path.relpath(target)
        if is_made(path):
            continue
        if other := _other_protocol(path, plan):
            name = other if other in protocol_files() else f"FOLDER/{other}.yaml"
            hint = f"add --config protocol={name} behind it"
            raise UserError(f"target {target}: is of protocol {other}, and config.yaml says {plan.protocol}; {hint}")
        for folder in (Path(path), Path(path).parent):  # of a run, whose results are asked for by one name
            if is_made(f"{folder}/metrics.json"):
                raise UserError(f"target {target}: nothing makes it, did you mean '{folder}/metrics.json'?")
        if Path(target).exists():
            raise UserError(f"target {target}: lies there, and no rule makes it; leave it out")
        raise UserError(f"target {target}: {nearest_target(target, plan, named)}")


def shown_names(plan: Plan) -> str:
    """Return a pattern of the names that may lie at the top of the results, as links to a protocol's files."""

    def one_of(words: Iterable[str]) -> str:
        return f"({'|'.join(map(re.escape, words))})"

    tables, figures = one_of(plan.tables) + one_of(TABLE), f"figures/[^/]+{one_of(FIGURE)}"
    return f"(partial/)?{tables}|{figures}|(claims|choices)\\.csv|report\\.html"


def _other_protocol(path: str, plan: Plan) -> str | None:
    """Return the other protocol whose folder a target lies in; None where it is in none."""
    folder, _, rest = path.removeprefix(f"{plan.shared}/").partition("/")
    known = [*protocol_files(), *(each.parent.name for each in Path(plan.shared).glob("*/runs"))]
    return folder if rest and path.startswith(plan.shared) and folder in known and folder != plan.protocol else None


def nearest_target(target: str, plan: Plan, rules: list[str]) -> str:
    """Return a hint for a target that nothing makes: of the same name, or nearly, wherever it lies."""
    results = plan.shared
    figures = [f"{results}/figures/{name}{end}" for end in FIGURE for name in [*plan.figures, "contexts"]]
    tables = [f"{results}/{name}{end}" for end in TABLE for name in plan.tables]
    runs = [f"{run.folder}/metrics.json" for run in plan.every_run()]
    files = [*tables, *figures, f"{results}/claims.csv", f"{results}/choices.csv", f"{results}/report.html", *runs]
    files.append(f"{plan.results}/figures/mistakes.safetensors")
    files = figures + files if "figure" in Path(target).parent.name else files
    for part in (lambda path: path, lambda path: Path(path).name, lambda path: Path(path).name.partition(".")[0]):
        by_part = {part(each).lower(): each for each in reversed(files)}
        if part(target).lower() in by_part:
            return f"nothing makes it, did you mean '{by_part[part(target).lower()]}'?"
    stem = Path(target).name.partition(".")[0]
    by_stem = {Path(each).name.partition(".")[0]: each for each in reversed(files) if each not in runs}
    if "=" in target and (meant := likely(target, runs)):
        return f"nothing makes it, did you mean '{meant}'?"
    if meant := likely(stem, by_stem.keys() | set(rules)):
        return f"nothing makes it, did you mean '{by_stem.get(meant, meant)}'?"
    return f"nothing makes it; there are {several([*tables[: len(plan.tables)], *figures, *rules], 4)}"


def say_at_the_end_when_interrupted() -> None:
    """After Ctrl-C or SIGTERM let the last line say what continues, below all that Snakemake says of it."""

    def note(number: int, frame: FrameType | None) -> Any:
        again = f"snakemake {shlex.join(sys.argv[1:])}"
        said = f"snakemake: interrupted; what is done is kept, and the same command continues: {again}"
        atexit.unregister(say)
        atexit.register(say, said)
        before = earlier[signal.Signals(number)]
        return before(number, frame) if callable(before) else None

    earlier = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}


def retyped(value: Any, given: Any) -> Any:
    """Return a list or mapping with the numbers of `--config`: Snakemake leaves all within it as text, `['1', '2']`.

    Args:
        given: what `--config` says of it; what files say beside that has its types.

    Raises:
        UserError: text within it is not YAML.
    """
    if isinstance(given, dict):
        return value | {key: retyped(value[key], inner) for key, inner in given.items()}
    if isinstance(given, list):
        return [retyped(inner, inner) for inner in given]
    read = parse_yaml(value, "--config") if isinstance(value, str) else value
    return value if isinstance(read, dict | list) else read  # text in quotes that looks like one
