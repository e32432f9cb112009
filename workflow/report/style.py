"""How figures look, and how they are written: fit for a column of a paper, the same bytes each time."""

import io
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager, get_font

from csa_core import store
from csa_core.errors import UserError, say

# Okabe and Ito's palette: told apart with any colour vision, and in grey by marker and line.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]
MARKERS, DASHES = "osD^vPX*", ["-", "--", "-.", ":"]
BASE, NO_FONT = "DejaVu Sans", "Last Resort"  # matplotlib's own, and its font of boxes
INSTALL = "install a font that has them, on Debian fonts-noto-core or fonts-noto-cjk"
UNDRAWN: set[str] = set()  # letters that no font here has
LONGEST = 16  # letters of a class's name in the gallery
WIDTH, FONT = 3.35, 7.0  # inches and points that figures are designed in: one column of a two-column paper
LOOK = {"width": WIDTH, "font": FONT, "title": True}  # as they are asked for
STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "legend.frameon": False,
    "svg.hashsalt": "csa",
    "pdf.fonttype": 42,
}
# No dates and no versions.
METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}


def use_style(width: float = WIDTH, font: float = FONT, title: bool = True) -> None:
    """Draw without a screen, in this style: a column is so many inches wide, and text has so many points."""
    mpl.use("agg")
    LOOK.update(width=width, font=font, title=title)
    mpl.rcParams.update(STYLE | {"font.size": font, "legend.fontsize": text_size(6)})


def text_size(size: float) -> float:
    """Return a size of text in points, designed for a font of 7."""
    return size * LOOK["font"] / FONT


def inches(width: float, height: float) -> tuple[float, float]:
    """Return width and height of a figure that is designed for a column of 3.35 inches; larger text needs height."""
    factor = LOOK["width"] / WIDTH
    return width * factor, height * max(factor, LOOK["font"] / FONT)


def use_fonts(text: str) -> None:
    """Let the figures that follow have a font for each letter of a text, and say once which letters no font here has.

    Fonts are asked in the order that they are needed: matplotlib's own first, then those of this machine.
    """
    text = unicodedata.normalize("NFC", text)
    found, lacking = [BASE], {letter for letter in text if letter.isprintable()} - _letters(findfont(BASE))
    regular = (font for font in fontManager.ttflist if (font.weight, font.style) == (400, "normal"))
    others = dict(sorted((font.name, font.fname) for font in regular if NO_FONT not in font.name))
    while lacking:
        best = max(others, key=lambda name: len(lacking & _letters(others[name])))
        if not lacking & _letters(others[best]):
            break
        found.append(best)
        lacking -= _letters(others[best])
    mpl.rcParams["font.family"] = found
    if lacking - UNDRAWN:
        some = "".join(sorted(lacking)[:10]) + ("..." if len(lacking) > 10 else "")
        say(f"warning: no font here has {some}: figures show ? instead, and such classes by number; {INSTALL}")
    UNDRAWN.difference_update(text)
    UNDRAWN.update(lacking)


def plain(text: str) -> str:
    """Return text for a figure: a dollar is a dollar and starts no formula, and no letter becomes an empty box."""
    letters = unicodedata.normalize("NFC", text)
    return "".join("?" if letter in UNDRAWN else letter for letter in letters).replace("$", r"\$")


def class_title(name: str, number: int) -> str:
    """Return a class's name for a figure, or its number where no font here can draw the name."""
    name = unicodedata.normalize("NFC", name)
    if UNDRAWN.intersection(name):
        return f"class {number}"
    return plain(name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…")


@cache
def _letters(path: str) -> frozenset[str]:
    """Return the letters that a font has; none where its file is not there any more."""
    try:
        return frozenset(map(chr, get_font(path).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()


def save(figure: Figure, prefix: str, drawn_from: str = "", seen: str = "") -> None:
    """Write PREFIX.pdf, PREFIX.png and PREFIX.svg, all or none.

    Args:
        figure: what is drawn.
        prefix: of the files.
        drawn_from: what it was drawn from, which the SVG says.
        seen: what is seen on it, in words, for who cannot see it; each file has it as its title.
    """
    path = Path(prefix)
    images = {kind: image(figure, kind, prefix, drawn_from, seen) for kind in METADATA}
    store.write_together(path.parent, ((f"{path.name}.{kind}", content) for kind, content in images.items()))


def image(figure: Figure, kind: str, name: str, drawn_from: str = "", seen: str = "") -> bytes:
    """Return a figure as pdf, png or svg; `name` is what an error calls it."""
    buffer = io.BytesIO()
    said = {"Title": seen} if seen else {}
    said |= {"Description": drawn_from} if kind == "svg" and drawn_from else {}
    try:
        figure.savefig(buffer, format=kind, dpi=300, metadata=METADATA[kind] | said)
    except ValueError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{name}: cannot be drawn ({reason}); write a $ of a title or label as \\$") from None
    return buffer.getvalue()
