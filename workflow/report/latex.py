"""A table for a paper."""

import unicodedata
from typing import Any

import pandas as pd

from workflow.report.numbers import counted
from workflow.report.wording import BOLD

CHARACTERS = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$"}
CHARACTERS |= {"{": r"\{", "}": r"\}", "$": r"\$", "^": r"\^{}", "~": r"\~{}", "×": r"$\times$"}
CHARACTERS |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
CHARACTERS |= {"−": "$-$", "≥": r"$\geq$", "≤": r"$\leq$", "→": r"$\to$", "∞": r"$\infty$"}
for letter in "αβγδεζηθικλμνξπρστυφχψω":
    CHARACTERS[letter] = rf"$\{unicodedata.name(letter).split()[-1].lower().replace('lamda', 'lambda')}$"
OPTIONS = ("[", "*")  # at the beginning of a row: taken for an option of what ends the row above
HINT = r"% Needs \usepackage{booktabs,adjustbox} in the preamble." + "\n"


def latex(table: dict[str, Any], frame: pd.DataFrame, note: str, bold: list[list[int]]) -> str:
    r"""Return a table with a short caption above and what explains it as a note below; needs booktabs and adjustbox.

    Args:
        table: what `Plan.declaration` returns.
        frame: the cells as text, a line a row.
        note: what was run, and what the numbers are.
        bold: of each row the places of the cells that are set in bold.
    """
    has_series = "" in frame
    columns, *lines = (_row(line) for line in [list(frame), *frame.to_numpy().tolist()])
    body = [
        [rf"\textbf{{{text}}}" if place in strong else text for place, text in enumerate(line)]
        for line, strong in zip(lines, bold, strict=True)
    ]
    shown = pd.DataFrame(body, columns=columns)
    # To fit a page; the columns of differences from the paper are in the other files.
    shown = shown[[name for name in shown if not name.endswith(_escaped("− paper"))]]
    seeds = counted(len(table["seeds"]), "seed")
    text = shown.style.hide(axis="index").to_latex(
        hrules=True,
        column_format=("ll" if has_series else "l") + "r" * (shown.shape[1] - 1 - has_series),
        caption=_escaped(f"{table['title']}. Protocol {table['protocol']}, {seeds}."),
        label=f"tab:{table['name']}",
        position_float="centering",
    )
    # What is wider than the text is made smaller, and nothing else.
    text = text.replace(r"\begin{tabular}", "\\begin{adjustbox}{max width=\\textwidth}\n\\begin{tabular}")
    text = text.replace(r"\end{tabular}", "\\end{tabular}\n\\end{adjustbox}")
    told = f"{note} {BOLD}" if any(bold) else note
    below = rf"\par\smallskip\begin{{minipage}}{{\linewidth}}\footnotesize {_escaped(told)}\end{{minipage}}"
    return HINT + text.replace(r"\end{table}", f"{below}\n\\end{{table}}")


def _row(cells: list[str]) -> list[str]:
    """Return the cells of a row as LaTeX."""
    first, *others = map(_escaped, cells)
    return [f"{{}}{first}" if first.startswith(OPTIONS) else first, *others]


def _escaped(text: str) -> str:
    return "".join(CHARACTERS.get(character, character) for character in text)
