"""What the Snakefile alone needs: errors as Snakemake should end on them, and values as it should have read them."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from csa_core.config import parse_yaml
from csa_core.errors import UserError, say
from workflow import fresh
from workflow.naming import Run
from workflow.plan import Plan

T = TypeVar("T")


def or_one_line(function: Callable[..., T], *args: Any) -> T:
    """Call `function` for a rule; on bad input print its one line and exit with 2.

    Snakemake itself would show a traceback and exit with 1.
    """
    try:
        return function(*args)
    except UserError as error:
        say(f"snakemake: {error}")
    except OSError as error:
        say(f"snakemake: {error.filename}: cannot be read ({error.strerror})")
    sys.exit(2)


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
        self._again(f"{self._plan.results}/data/{wildcards.data}/dataset.safetensors", fresh.stale_data, wildcards.data)
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
        self._again(f"{self._plan.results}/figures/contexts.safetensors", fresh.stale_contexts)
        return self._plan.reference.weights

    def _again(self, path: str, is_stale: Callable[..., bool], *what: Any) -> None:
        """Let Snakemake make a file again where it is stale; a job on another machine was told already."""
        if self._workflow.is_main_process and or_one_line(is_stale, self._plan, *what):
            self._workflow.dag.forcefiles.add(path)


def retyped(value: Any) -> Any:
    """Return a list or mapping of `--config` with its numbers: Snakemake leaves all within it as text, `['1', '2']`.

    Raises:
        UserError: text within it is not YAML.
    """
    if isinstance(value, dict):
        return {key: retyped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [retyped(inner) for inner in value]
    read = parse_yaml(value, "--config") if isinstance(value, str) else value
    return value if isinstance(read, dict | list) else read  # text in quotes that looks like one
