"""Set protocols side by side: `python -m workflow.report.comparison results/demo results/published/short --out FILE`.

It shows what each folder's own tables say, where two or more of them have the table. Their data and recipes differ, so
no difference is taken and nothing is pooled.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from csa_core import store
from csa_core.errors import UserError, say, untrusted
from workflow.report.page import BADGE, asset, environment, in_order
from workflow.report.verdicts import NOT_RUN

COLUMNS = ("All", "Many", "Med.", "Few")
Drawn = dict[str, dict[str, Any]]  # tables of a protocol by name, as `workflow.report.on_page` has them


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.report.comparison", description=__doc__.split("\n\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="RESULTS/PROTOCOL", help="folders with drawn tables")
    parser.add_argument("--out", type=Path, required=True, help="page to write")
    args = parser.parse_args(argv)
    try:
        store.write_bytes(args.out, render(args.folders, args.out).encode())
    except UserError as error:
        say(f"comparison: {error}")
        return 2
    return 0


def render(folders: list[Path], out: Path) -> str:
    """Return the page as HTML.

    Raises:
        UserError: fewer than two folders have a table in common.
    """
    each = {folder.resolve(): folder for folder in folders}.values()  # a folder given twice is one
    found = {folder: tables for folder in each if (tables := _drawn(folder))}
    protocols = dict(zip(_called(found), found.values(), strict=True))
    names = {name for tables in protocols.values() for name in tables}
    several = [name for name in names if sum(name in tables for tables in protocols.values()) > 1]
    if not several:
        there = ", ".join(protocols) or "none of these folders"
        raise UserError(
            f"tables of one protocol alone ({there}); draw another's: snakemake --config protocol=short ..."
        )
    pages = [os.path.relpath(folder / "report.html", out.parent) for folder in found]
    first = [
        {**next(iter(tables.values())), "page": page} for tables, page in zip(protocols.values(), pages, strict=True)
    ]
    with untrusted("a table's .json: lacks what the page shows; draw the table again"):
        return (
            environment()
            .get_template("comparison.html.j2")
            .render(
                protocols=dict(zip(protocols, first, strict=True)),
                tables=[_side_by_side(name, protocols) for name in in_order(several)],
                claims=_claims(protocols),
                badge=BADGE,
                style=asset("page.css"),
                script=asset("page.js"),
            )
        )


def _called(folders: Iterable[Path]) -> list[str]:
    """Return of each folder's path as much of the end as tells it from the others."""
    paths = [folder.resolve().parts for folder in folders]
    ends = (
        next(own[-n:] for n in range(1, 1 + len(own)) if sum(other[-n:] == own[-n:] for other in paths) == 1)
        for own in paths
    )
    return [Path(*end).as_posix() for end in ends]


def _drawn(folder: Path) -> Drawn:
    """Return the tables that lie in a folder; those that a workflow draws have a declaration's digest."""
    read = (store.read_json(path) for path in sorted(folder.glob("*.json")) if not path.name.startswith("."))
    return {table["name"]: table for table in read if isinstance(table, dict) and "drawn_from" in table}


def _side_by_side(name: str, protocols: dict[str, Drawn]) -> dict[str, Any]:
    """Return a table's headings, and its rows in the order of the protocols: names, then a cell for each heading."""
    there = {protocol: tables[name] for protocol, tables in protocols.items() if name in tables}
    found: dict[tuple[str, ...], dict[tuple[str, str], str]] = {}
    for protocol, table in there.items():
        for cells, runs, _ in table["rows"]:
            own = found.setdefault(tuple(cells[: table["names"]]), {})
            own |= {(heading, protocol): cell for heading, cell in zip(table["header"], cells, strict=True)}
            own["Seeds", protocol] = str(len(runs))
    # One measure after the other, so that what is compared stands together.
    keys = [(column, protocol) for column in ("Seeds", *COLUMNS) for protocol in there]
    keys = [key for key in keys if any(key in own for own in found.values())]
    first = next(iter(there.values()))
    return {
        "name": name,
        "title": first["title"],
        "names": first["header"][: first["names"]],
        "header": [f"{column}, {protocol}" for column, protocol in keys],
        "rows": [(names, [own.get(key, "") for key in keys]) for names, own in found.items()],
    }


def _claims(protocols: dict[str, Drawn]) -> list[dict[str, Any]]:
    """Return each claim that a protocol has run, with what every one says of it; None where it has no such claim."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for protocol, tables in protocols.items():
        for table in tables.values():
            for claim in table["claims"]:
                found.setdefault((claim["section"], claim["claim"]), {})[protocol] = claim
    return [
        {"section": section, "claim": text, "judged": {protocol: by.get(protocol) for protocol in protocols}}
        for (section, text), by in sorted(found.items())
        if any(claim["verdict"] != NOT_RUN for claim in by.values())
    ]


if __name__ == "__main__":
    sys.exit(main())
