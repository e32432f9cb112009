"""What the Snakefile alone needs: errors as Snakemake should end on them, and values as it should have read them."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from csa_core.config import parse_yaml
from csa_core.errors import UserError
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
        print(f"snakemake: {error}", file=sys.stderr)
        sys.exit(2)


def asked(plan: Plan) -> tuple[Callable[[Any], Run], Callable[[str], str]]:
    """Return what rules ask a plan: the run that the wildcards `run` and `seed` stand for, and a figure's table."""

    def run_of(wildcards: Any) -> Run:
        return or_one_line(plan.run_at, wildcards.run, wildcards.seed)

    def table_of(figure: str) -> str:
        return or_one_line(plan.drawn, figure)[1]

    return run_of, table_of


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
