"""What every drawing command is told: the configuration of the workflow, and so its plan."""

import argparse
from pathlib import Path
from typing import Any

from csa_core.config import load_yaml, parse_yaml, read_stdin
from csa_core.errors import UserError
from workflow.plan import Plan

CONFIG = Path(__file__).parents[2] / "config.yaml"


def plan_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that tables, figures and the page share."""
    parser.add_argument(
        "--config",
        action="extend",
        nargs="+",
        default=[],
        metavar="FILE|KEY=VALUE",
        help="what was given to snakemake with --configfile and --config: laid over config.yaml, in this order;"
        " - reads all of the configuration from stdin (default: config.yaml alone)",
    )


def read_plan(args: argparse.Namespace) -> Plan:
    """Return the plan of the configuration; a table is spelt out when it is asked for.

    Raises:
        UserError: it cannot be read, or something in it is wrong.
    """
    if args.config == ["-"]:
        fields = parse_yaml(read_stdin(), "stdin")
        codes = fields.pop("codes", None) if isinstance(fields, dict) else None
        return Plan(fields, spell_out=(), codes=codes)
    config = load_yaml(CONFIG)
    for given in args.config:
        key, equals, value = given.partition("=")
        is_pair = equals and not Path(given).exists()
        over = {key: parse_yaml(value, f"--config {given}")} if is_pair else load_yaml(given)
        if not isinstance(over, dict | None):
            raise UserError(f"{given}: is not a mapping of keys to values; see config.yaml")
        config = overlaid(config, over or {})
    return Plan(config, spell_out=())


def overlaid(config: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with another one over it, as Snakemake lays it: mappings merged, all else replaced."""
    merged = {key: overlaid(config.get(key) or {}, value) for key, value in over.items() if isinstance(value, dict)}
    return config | over | merged
