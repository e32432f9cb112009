"""Write the page: `python -m workflow.report.page TABLE.json ... --figures FILE ... --out report.html`.

One file that opens without a network: what was done, claims, tables and figures, each row with its
runs. It shows what `workflow.report.tables` and `figures` wrote, and computes nothing.
"""

import argparse
import base64
import html
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from csa_core import store
from csa_core.errors import UserError, say, untrusted
from workflow.fresh import page_made_from
from workflow.report.numbers import level, shown
from workflow.report.recipe import recipe
from workflow.report.verdicts import CONTRADICTED, NOT_RUN, OPEN, SUPPORTED

HERE = Path(__file__).parent
BADGE = {SUPPORTED: "yes", CONTRADICTED: "no", OPEN: "open", NOT_RUN: "open"}
TITLE = re.compile(r"<dc:title>(.*?)</dc:title>", re.S)
LARGEST = 160  # pixels of a thumbnail's side
CONTEXTS = (
    "Examples from the reference run, a column each. From top to bottom: an image that the network is sure of, where "
    "it sees the object, the mask of the background, a re-sampled image, and that image on the new background."
)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.report.page", description=__doc__.split("\n\n")[0])
    parser.add_argument("tables", nargs="+", type=Path, metavar="TABLE.json", help="tables to show")
    parser.add_argument("--figures", nargs="*", type=Path, default=[], help="SVG or PNG files to show, in order")
    parser.add_argument("--mistakes", type=Path, metavar="FILE", help="what `python -m csa_core mistakes` wrote")
    parser.add_argument("--out", type=Path, required=True, help="page to write")
    args = parser.parse_args(argv)
    try:
        tables = [store.read_json(path) for path in args.tables]
        mistakes = mistakes_in(args.mistakes) if args.mistakes else {}
        made_from = page_made_from(args.tables, [*args.figures, *([args.mistakes] if args.mistakes else [])])
        write(tables, [_read(path) for path in args.figures], mistakes, args.tables[0].parent, args.out, made_from)
    except UserError as error:
        say(f"page: {error}")
        return 2
    return 0


def write(
    tables: list[dict[str, Any]],
    figures: list[dict[str, Any]],
    mistakes: dict[str, Any],
    results: Path,
    out: Path,
    made_from: str = "",
) -> None:
    """Write the page.

    Args:
        tables: as `workflow.report.on_page` has them; figures: what `figure` returns.
        mistakes: what `mistakes_in` returns; nothing where there are none to show.
        results: below which the runs lie.
        out: file to write.
        made_from: digest of what it is made from, as `workflow.fresh.page_made_from` returns it.
    """
    order = in_order(table["name"] for table in tables)
    tables.sort(key=lambda table: order.index(table["name"]))
    store.write_bytes(out, render(tables, figures, mistakes, results, out, made_from).encode())


def render(
    tables: list[dict[str, Any]],
    figures: list[dict[str, Any]],
    mistakes: dict[str, Any],
    results: Path,
    out: Path,
    made_from: str,
) -> str:
    """Return the page as HTML."""
    claims = sorted((claim for table in tables for claim in table["claims"]), key=lambda claim: claim["section"])
    verdicts = {verdict: sum(claim["verdict"] == verdict for claim in claims) for verdict in BADGE}
    own = any(table["own_data"] for table in tables)
    counts = Counter(text for table in tables for text in table["explanation"])
    common = [text for text, count in counts.items() if 2 * count > len(tables)]
    for table in tables:
        table["own_explanation"] = [text for text in table["explanation"] if text not in common]
    paths = sorted({results / path for table in tables for _, runs, _ in table["rows"] for _, path, _ in runs})
    seeds = sorted({seed for table in tables for _, runs, _ in table["rows"] for seed, _, _ in runs})
    notes = [store.read_json(path.with_name("provenance.json")) for path in paths]
    base = Path(os.path.relpath(results, out.parent)).as_posix()
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            page=tables[0],
            made_from=made_from,
            tables=tables,
            figures=figures,
            mistakes=mistakes,
            claims=claims,
            verdicts={name: count for name, count in verdicts.items() if count},
            badge=BADGE,
            own=own,
            partial=any(table["is_partial"] for table in tables),
            common=common,
            recipe=recipe(tables, notes, seeds),
            section=lambda text: text.replace("the appendix", "the paper") if own else text,
            base="" if base == "." else f"{base}/",
            style=asset("page.css"),
            script=asset("page.js"),
        )
    )


def environment() -> Environment:
    """Return what templates are rendered in, with the filters for numbers."""
    made = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    made.filters["signed"] = lambda value: shown(value, signed=True)
    made.filters["exact"] = lambda value: shown(value, 2)
    made.filters["percent"] = shown
    made.filters["level"] = level
    made.filters["many"] = lambda value: f"{value:.0f}" if value <= 1000 else "over 1000"
    return made


def in_order(names: Iterable[str]) -> list[str]:
    """Return names of tables as pages have them: the appendix's tables, its figures, then what it lacks."""
    return sorted(names, key=lambda name: (name[:5] != "table", name[:6] != "figure", name))


def asset(name: str) -> Any:
    """Return a file of the project that stands in the page as it is."""
    from markupsafe import Markup

    return Markup((HERE / name).read_text())  # noqa: S704 - no word of it is a person's


def _read(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); make it with snakemake {path}") from None
    return figure(path.stem, path.suffix, content)


def figure(name: str, suffix: str, content: bytes) -> dict[str, Any]:
    """Return what the page shows of an SVG or PNG file."""
    title = TITLE.search(content.decode()) if suffix == ".svg" else None
    seen = html.unescape(title[1]) if title else CONTEXTS if name == "contexts" else name
    return {"name": name, "source": _inside(suffix, content), "seen": seen, "is_large": name == "contexts"}


def mistakes_in(path: Path) -> dict[str, Any]:
    """Return what the page shows of the file that `python -m csa_core mistakes` writes."""
    tensors, meta, _ = store.read_tensors(path)
    with untrusted(f"{path}: holds no mistakes; delete it and make it again"):
        told = zip(tensors["images"], meta["true"], meta["predicted"], meta["confidence"], strict=True)
        images = [
            {"source": _thumbnail(pixels), "true": true, "predicted": predicted, "percent": 100 * confidence}
            for pixels, true, predicted, confidence in told
        ]
        return {"run": f"{meta['method']}, seed {meta['seed']}", "images": images} if images else {}


def _thumbnail(pixels: np.ndarray) -> str:
    buffer, image = io.BytesIO(), Image.fromarray(pixels)
    image.thumbnail((LARGEST, LARGEST))
    image.save(buffer, "PNG")
    return _inside(".png", buffer.getvalue())


def _inside(suffix: str, content: bytes) -> str:
    """Return an image as the address that holds all of it."""
    kind = {".svg": "image/svg+xml", ".png": "image/png"}[suffix]
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


if __name__ == "__main__":
    sys.exit(main())
