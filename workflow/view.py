"""The top of the results: `python -m workflow.view results/demo` shows one protocol there.

`results/table2.csv` is a link to `results/demo/table2.csv`, and `results/report.html` is the demo's page with the paths
of its runs as they are from there. All are of one protocol, so that what lies side by side is; another's go.
"""

import argparse
import html
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from csa_core.errors import UserError, say

FOLDERS = ("", "figures", "partial")  # of a protocol, that are shown
OF_PROTOCOL = re.compile(rb'<meta name="protocol" content="(.*?)">')
TO_RUN = re.compile(rb'href="((?:\.\./)*)runs/')


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
    """Let the top of the results show all tables, figures and pages of a protocol's folder, and no other's.

    Raises:
        UserError: the file system has no links.
    """
    results = folder.parent
    for place in _files(results):
        if _protocol(place, results) not in (None, folder.name):
            place.unlink(missing_ok=True)
    for path in _files(folder):
        place = results / path.relative_to(folder)
        if not leads_to(place, folder):
            place.parent.mkdir(exist_ok=True)
            _write(place, path, folder.name)


def leads_to(place: Path, folder: Path) -> bool:
    """Whether a file at the top of the results is, as it is now, that of the same name in a protocol's folder."""
    path = folder / place.relative_to(folder.parent)
    with suppress(FileNotFoundError):  # another job puts it there anew
        if place.suffix != ".html":
            return place.is_symlink() and str(place.readlink()) == _target(place, path)
        return not place.is_symlink() and place.read_bytes() == _page(path, folder.name)
    return False


def _files(folder: Path) -> Iterator[Path]:
    """Yield what is there of a protocol's folder or at the top, but for files half written."""
    return (path for name in FOLDERS for path in (folder / name).glob("[!.]*") if path.is_symlink() or path.is_file())


def _protocol(place: Path, results: Path) -> str | None:
    """Return the protocol that a file at the top is of, None where it is a file of another kind."""
    with suppress(FileNotFoundError):  # another job puts it there anew
        if place.is_symlink():
            # No name: it leads to the top itself.
            name = Path(os.path.relpath(place.parent / place.readlink(), results)).parts[:1]
            return name[0] if name and leads_to(place, results / name[0]) else None
        if place.suffix == ".html" and (found := OF_PROTOCOL.search(place.read_bytes())):
            return html.unescape(found[1].decode(errors="replace"))
    return None


def _target(place: Path, path: Path) -> str:
    """Return where a link leads, relative, so that the results can be moved as a whole."""
    return os.path.relpath(path, place.parent)


def _page(path: Path, protocol: str) -> bytes:
    """Return a protocol's page as it is at the top: whole, so that it can be passed on."""
    return TO_RUN.sub(rb'href="\g<1>' + quote(protocol).encode() + b"/runs/", path.read_bytes())


def _write(place: Path, path: Path, protocol: str) -> None:
    """Write one file at the top, at once: another job may do the same."""
    try:
        with tempfile.TemporaryDirectory(prefix=".view-", dir=place.parent) as beside:
            new = Path(beside, place.name)
            if place.suffix == ".html":
                new.write_bytes(_page(path, protocol))
            else:
                new.symlink_to(_target(place, path))
            new.replace(place)
    except OSError as error:
        raise UserError(f"{place}: cannot lead to {path} ({error.strerror}); read that file instead") from None


if __name__ == "__main__":
    sys.exit(main())
