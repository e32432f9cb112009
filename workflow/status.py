"""Show how far a sweep is: `make status`, or `python -m workflow.status`, while snakemake runs or not.

Counts for each table, then the runs that train, those that stopped on the way, those that failed with
the last line of their log, and those still to come.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, get_args

from joblib import cpu_count

from csa_core.errors import UserError, printable, say, settle
from workflow.plan import Plan
from workflow.report.declared import plan_option, read_plan
from workflow.report.numbers import counted
from workflow.standing import RunStatus, State, Survey, about, measured, side_by_side, survey, together

STATES: tuple[State, ...] = get_args(State)
LINES = 10  # of each kind, unless all are asked for
COLOURS = {"running": 32, "stopped": 33, "failed": 31, "pending": 36}


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.status", description=__doc__)
    plan_option(parser)
    parser.add_argument("--cores", type=int, default=cpu_count(), help="cores to train on (default: all)")
    parser.add_argument("--all", action="store_true", help=f"every run, not only the first {LINES} of each kind")
    parser.add_argument("--json", action="store_true", help="for a program: all runs as one JSON object")
    parser.add_argument("--watch", type=float, metavar="SECONDS", help="repeat every so many seconds")
    args = parser.parse_args(argv)
    if args.watch is not None:  # Ctrl-C is how it is ended
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        plan = read_plan(args)
        with suppress(KeyboardInterrupt):
            while True:
                _show(plan, args)
                if args.watch is None:
                    break
                time.sleep(max(args.watch, 0.5))
    except UserError as error:
        say(f"status: {error}")
        return 2
    except OSError as error:
        with suppress(OSError):
            settle()
        if not isinstance(error, BrokenPipeError):  # `| head`
            say(f"status: output: {error.strerror}")
            return 2
    return 0


def _show(plan: Plan, args: argparse.Namespace) -> None:
    found = survey(plan, time.time())
    processes = {run.process for run in found.told if run.process}
    jobs = max(side_by_side(plan, args.cores), len(processes))  # a cluster has more than this machine
    if args.json:
        print(json.dumps(for_programs(found, jobs)))
        return
    is_terminal = sys.stdout.isatty()
    lines = report(found, jobs, len(found.told) if args.all else LINES)
    if is_terminal:
        width = shutil.get_terminal_size().columns
        lines = [line if len(line) <= width else line[: width - 1] + "…" for line in lines]
        if not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
            lines = [_coloured(line) for line in lines]
    if args.watch is not None:
        clear = "\x1b[H\x1b[2J" if is_terminal else ""
        lines = [f"{clear}{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}", "", *lines]
    print("\n".join(lines), flush=True)


def report(found: Survey, jobs: int, limit: int) -> list[str]:
    """Return what a person reads, line by line."""
    rows = [["", "runs", *STATES, "about"]]
    for name, runs in [*found.tables.items(), ("all", found.runs), *found.extra.items()]:
        counts = [sum(run.state == state for run in runs) for state in STATES]
        rows.append([name, *map(str, [len(runs), *counts]), about(together(runs, jobs))])
    lines = _aligned(rows, right=True)
    for state in STATES[1:]:
        chosen = [run for run in found.told if run.state == state]
        if chosen:
            more = f"  ... and {len(chosen) - limit} more (--all shows them)"
            lines += ["", f"{state}:", *_aligned([_cells(run) for run in chosen[:limit]], indent="  ")]
            lines += [more] if len(chosen) > limit else []
    return [*map(printable, lines), "", f"{counted(jobs, 'job')} side by side. {measured(found.pace)}"]


def for_programs(found: Survey, jobs: int) -> dict[str, Any]:
    """Return the same as a JSON object: seconds as numbers, null where they are not known."""

    def entry(standing: RunStatus) -> dict[str, Any]:
        fields = vars(standing) | {"run": standing.run.folder, "epochs": standing.run.epochs}
        return {key: None if value != value else value for key, value in fields.items()}

    def counts(runs: list[RunStatus]) -> dict[str, Any]:
        seconds = together(runs, jobs)
        of_states = {state: sum(run.state == state for run in runs) for state in STATES}
        return {"runs": len(runs)} | of_states | {"left": seconds if seconds == seconds else None}

    return {
        "updated": datetime.now(UTC).isoformat(timespec="seconds"),
        "jobs": jobs,
        "all": counts(found.runs),
        "tables": {name: counts(runs) for name, runs in (found.tables | found.extra).items()},
        "runs": [entry(standing) for standing in found.told],
    }


def _cells(standing: RunStatus) -> list[str]:
    """Return one run's line, in cells: how far it is, or why it is not."""
    name = standing.run.folder.partition("/runs/")[2]
    if standing.process:
        accuracies = {"train": standing.train_accuracy, "test": standing.test_accuracy}
        accuracies["validation, balanced"] = standing.validation_balanced
        shown = [f"{what} {value:.1%}" if value is not None else "" for what, value in accuracies.items()]
        epoch = f"epoch {standing.epoch}/{standing.run.epochs}"
        return [name, epoch, *shown, f"{about(standing.left)} left", standing.process[0]]
    if standing.state == "failed":
        return [name, f"{about(standing.ago or 0)} ago", standing.note]
    return [name, standing.note]


def _aligned(rows: list[list[str]], right: bool = False, indent: str = "") -> list[str]:
    """Return rows as lines with their cells below each other; numbers to the right of their columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [c.rjust(w) if right and i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append((indent + "  ".join(cell for cell, w in zip(cells, widths, strict=True) if w)).rstrip())
    return lines


def _coloured(line: str) -> str:
    colour = COLOURS.get(line.removesuffix(":"))
    return f"\x1b[1;{colour}m{line}\x1b[0m" if colour else line


if __name__ == "__main__":
    sys.exit(main())
