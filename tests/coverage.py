"""Print coverage by package: `python -m tests.coverage FILE`, of what `coverage json` writes."""

import json
import sys
from collections import Counter
from pathlib import Path

import pandas as pd

KINDS = ("num_statements", "missing_lines", "num_branches", "missing_branches")


def main(path: str) -> None:
    """Print one line for each folder, and the files with most that no test runs."""
    files = json.loads(Path(path).read_text())["files"]
    packages: dict[str, Counter[str]] = {}
    for name, file in files.items():
        packages.setdefault(str(Path(name).parent), Counter()).update({kind: file["summary"][kind] for kind in KINDS})
    packages["all"] = sum(packages.values(), Counter())
    lines = [
        [name, n["num_statements"], _percent(n, "num_statements", "missing_lines"),
         _percent(n, "num_branches", "missing_branches")]
        for name, n in packages.items()
    ]  # fmt: skip
    table = pd.DataFrame(lines, columns=["package", "statements", "run, %", "branches taken, %"])
    print(table.to_markdown(index=False, floatfmt=".1f"))
    print("\nstatements that no test runs, by line:")
    for name, file in sorted(files.items(), key=lambda item: -len(item[1]["missing_lines"])):
        if file["missing_lines"]:
            print(f"{name}: {', '.join(map(str, file['missing_lines']))}")


def _percent(counts: "Counter[str]", whole: str, missing: str) -> float:
    return 100 * (1 - counts[missing] / counts[whole]) if counts[whole] else 100.0


if __name__ == "__main__":
    main(sys.argv[1])
