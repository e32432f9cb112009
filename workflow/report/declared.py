"""What every drawing command is told: the configuration of the workflow, and so its plan."""

import argparse
import sys
from pathlib import Path

from csa_core.config import load_yaml, parse_yaml
from workflow.plan import Plan


def plan_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that tables, figures and the page share."""
    parser.add_argument(
        "--config",
        default=Path(__file__).parents[2] / "config.yaml",
        help="configuration of the workflow; - reads it from stdin (default: config.yaml)",
    )


def read_plan(args: argparse.Namespace) -> Plan:
    """Return the plan of the configuration; a table is spelt out when it is asked for."""
    return Plan(parse_yaml(sys.stdin.read(), "stdin") if args.config == "-" else load_yaml(args.config), spell_out=())
