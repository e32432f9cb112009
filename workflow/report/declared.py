"""What every drawing command is told: the declaration of a table, and the code version of its runs."""

import argparse
import json
import sys
from typing import Any

from csa_core import store


def common_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that tables and figures share."""
    parser.add_argument("table", metavar="TABLE.json", help="declaration of the table; - reads it from stdin")
    parser.add_argument("--code-version", required=True, help="code version that every run must carry")


def declared(args: argparse.Namespace) -> Any:
    """Return the declaration."""
    return json.load(sys.stdin) if args.table == "-" else store.read_json(args.table)
