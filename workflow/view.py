"""The top of the results: `python -m workflow.view results/demo` shows one protocol there.

`results/table2.csv` is a link to `results/demo/table2.csv`, and `results/report.html` a page that leads to that of the
demo. All lead to one protocol, so that what lies side by side is of one; what leads to another goes.
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from csa_core.errors import UserError, say

FOLDERS = ("", "figures", "partial")  # of a protocol, that are shown
PAGE = """<!doctype html>
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url={url}">
<title>The report of one protocol</title>
<p><a href="{url}">The report</a> of the protocol that was last asked for.</p>
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.view", description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, metavar="RESULTS/PROTOCOL", help="folder of the protocol to show")
    args = parser.parse_args(argv)
    try:
        show(args.folder)
    except UserError as error:
        say(f"view: {error}")
        return 2
    return 0


def show(folder: Path) -> None:
    """Let the top of the results lead to all tables, figures and pages of a protocol's folder, and to no other's.

    Raises:
        UserError: the file system has no links.
    """
    results = folder.parent
    for place in _places(results):
        if (target := _read(place)) is None:
            continue
        other = results / Path(os.path.relpath(place.parent / target, results)).parts[0]
        if other != folder and leads_to(place, other):
            place.unlink(missing_ok=True)
    for path in _places(folder):
        place = results / path.relative_to(folder)
        if path.is_file() and not leads_to(place, folder):
            place.parent.mkdir(exist_ok=True)
            _write(place, _target(place, folder))


def leads_to(place: Path, folder: Path) -> bool:
    """Whether a file at the top of the results leads to the one of the same name in a protocol's folder."""
    return _read(place) == _target(place, folder)


def _target(place: Path, folder: Path) -> str:
    """Return where a file at the top leads, relative, so that the results can be moved as a whole."""
    return os.path.relpath(folder / place.relative_to(folder.parent), place.parent)


def _places(folder: Path) -> Iterator[Path]:
    """Yield what is there of a protocol's folder or of the top, but for files half written."""
    return (path for name in FOLDERS for path in (folder / name).glob("[!.]*") if path.is_symlink() or path.is_file())


def _read(place: Path) -> str | None:
    """Return where a file at the top leads, None where it is another one."""
    if place.is_symlink():
        return str(place.readlink())
    if place.suffix == ".html" and place.is_file() and place.stat().st_size < 2**14:
        url = re.search('url=([^"]*)"', text := place.read_text(errors="replace"))
        return unquote(url[1]) if url and text == PAGE.format(url=url[1]) else None
    return None


def _write(place: Path, target: str) -> None:
    """Let a file lead there, at once: another job may do the same."""
    try:
        with tempfile.TemporaryDirectory(prefix=".view-", dir=place.parent) as beside:
            new = Path(beside, place.name)
            if place.suffix == ".html":  # the links of a page are relative to where it is opened
                new.write_text(PAGE.format(url=quote(target)))
            else:
                new.symlink_to(target)
            new.replace(place)
    except OSError as error:
        where = os.path.normpath(place.parent / target)
        raise UserError(f"{place}: cannot lead to {where} ({error.strerror}); read that file instead") from None


if __name__ == "__main__":
    sys.exit(main())
