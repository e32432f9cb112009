"""Put the claims of all tables into one list: `python -m workflow.report.all_claims TABLE.claims.csv ... --out OUT`."""

import argparse
import csv
import io
import sys
from collections.abc import Iterable
from pathlib import Path

from csa_core.errors import UserError, say, untrusted
from csa_core.files import read_text, write_bytes


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.report.all_claims", description=__doc__)
    parser.add_argument(
        "claims", nargs="+", type=Path, metavar="TABLE.claims.csv", help="claims judged with each table"
    )
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    args = parser.parse_args(argv)
    try:
        write_bytes(args.out, together(args.claims).encode())
    except UserError as error:
        say(f"claims: {error}")
        return 2
    return 0


def together(paths: Iterable[Path], what: str = "claims", order: str = "section") -> str:
    """Return the lines of several files as one CSV: claims in the order of the paper's sections.

    Args:
        what: the files hold, in words.
        order: column by which lines are sorted.

    Raises:
        UserError: a file is missing, or holds something else.
    """
    fields, lines = [""], []
    for path in paths:
        with untrusted(f"{path}: holds no {what}; delete it and run snakemake again"):
            fields, *rows = csv.reader(io.StringIO(read_text(path)))
            place = fields.index(order)
            lines += [(row[place], row) for row in rows]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [fields, *(row for _, row in sorted(lines, key=lambda line: line[0]))]
    )
    return text.getvalue()


if __name__ == "__main__":
    sys.exit(main())
