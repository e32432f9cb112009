"""Draw what context shift does: `python -m workflow.report.gallery CONTEXTS --title TEXT --out PREFIX`.

CONTEXTS is what `python -m csa_core contexts` writes. Columns are examples; from top to bottom: a
confident image, where its class is seen, its background mask M, a re-sampled image, and both mixed.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from csa_core import store
from csa_core.errors import UserError, say
from workflow.fresh import gallery_made_from
from workflow.report.numbers import shown
from workflow.report.style import class_title, plain, save, use_fonts, use_style

ROWS = {
    "context": "confident\nimage",
    "object": "object\nmap",
    "mask": "background\nmask M",
    "resampled": "re-sampled\nimage",
    "mixed": "mixed",
}

KINDS = ("context", "resampled")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.report.gallery", description=__doc__.split("\n\n")[0])
    parser.add_argument("contexts", type=Path, metavar="CONTEXTS", help="file of `python -m csa_core contexts`")
    parser.add_argument("--title", required=True, help="title of the figure, what was run; empty is none")
    parser.add_argument("--out", required=True, metavar="PREFIX", help="files to write, without .pdf, .svg, .png")
    args = parser.parse_args(argv)
    use_style()
    try:
        tensors, meta, _ = store.read_tensors(args.contexts)
        use_fonts(f"{meta} {args.title}")
        try:
            figure = draw(tensors, meta, args.title)
        except KeyError as missing:
            raise UserError(f"{args.contexts}: holds no contexts ({missing}); make it with csa_core") from None
        save(figure, args.out, gallery_made_from(args.contexts, args.title))
    except UserError as error:
        say(f"gallery: {error}")
        return 2
    return 0


def draw(tensors: store.Tensors, meta: dict[str, Any], title: str) -> Figure:
    """Return the figure: a row for each of `ROWS`, a column for each example."""
    count = len(tensors["mixed"])
    figure, axes = plt.subplots(
        len(ROWS), count, figsize=(0.72 * count + 0.6, 0.82 * len(ROWS) + 0.5), squeeze=False, layout="constrained"
    )
    for line, (name, label) in zip(axes, ROWS.items(), strict=True):
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for i, axis in enumerate(line):
            axis.imshow(tensors[name][i], vmin=0, vmax=1, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    for i in range(count):
        context, resampled = (class_title(meta[f"{kind}_class"][i], meta[f"{kind}_label"][i]) for kind in KINDS)
        axes[0, i].set_title(f"{context}\np = {shown(meta['confidence'][i], 2)}", fontsize=6)
        axes[3, i].set_title(resampled, fontsize=6, pad=2)
        axes[4, i].set_title(f"λ = {shown(meta['mix'][i], 2)}", fontsize=6, pad=2)
    if title:
        figure.suptitle(plain(title), fontsize=8)
    return figure


if __name__ == "__main__":
    sys.exit(main())
