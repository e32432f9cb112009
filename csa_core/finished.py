"""The commands on finished runs: predict with them, export them, list and compare them."""

import argparse
import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from csa_core import compare, store
from csa_core.commands import check_out, device_of, trained
from csa_core.errors import UserError, cell, printable

if TYPE_CHECKING:
    from csa_core.use import Prediction, Trained

FORMATS = {"onnx": ".onnx", "torchscript": ".pt", "safetensors": ".safetensors"}


def predict(args: argparse.Namespace) -> None:
    """Name the likeliest classes of images, on the screen or as CSV."""
    if args.top < 1:
        raise UserError(f"--top {args.top}: 1 or more")
    if args.out:
        check_out(args.out, ".csv", *args.images)
    run = _load(args)
    found = run.predict(args.images, args.head, args.top)
    if args.out is None:
        print("\n".join(map(printable, _table(found))))
        return
    count = len(found[0].top)
    first = ["image", *(f"{name}_{n}" for n in range(1, count + 1) for name in ("class", "probability"))]
    rows = [
        [cell(printable(each.image)), *(part for name, p in each.top for part in (cell(name), p))] for each in found
    ]
    store.write_bytes(args.out, _csv([first, *rows]).encode())
    print(f"{args.out}: {len(found):,} images, by the head '{args.head or run.predicts}'")


def export(args: argparse.Namespace) -> None:
    """Write a run as a file that other programs load."""
    from csa_core.export import description_of
    from csa_core.export import export as write

    check_out(args.out, FORMATS[args.format], args.folder, args.data, args.split)
    check_out(description_of(args.out), ".json", args.folder, args.data, args.split)
    write(_load(args, complete=True), args.format, args.out)
    print(f"{args.out}: {args.format}; {description_of(args.out)} says how it is used")


def ls(args: argparse.Namespace) -> None:
    """List the runs below a folder."""
    for line in compare.listing(args.folder):
        print(printable(line))


def diff(args: argparse.Namespace) -> None:
    """Print where two runs differ."""
    for line in compare.differing(*args.folders):
        print(printable(line))


def _load(args: argparse.Namespace, complete: bool = False) -> "Trained":
    """Load a run; one whose weights do not say how they are used is completed from its data set if asked for."""
    device = device_of(args, "float32")
    from csa_core.use import Trained, describe, load, weights_of

    path = weights_of(args.folder)
    label = store.read_header(path)["meta"]
    if not complete or "use" in label:
        return load(path, device)
    method, network = trained(args)
    return Trained(method, network, describe(method, network), label)


def _table(found: "Sequence[Prediction]") -> list[str]:
    """Return a line an image: its path, then classes and probabilities in percent."""
    left = max(len(each.image) for each in found)
    width = max(len(name) for each in found for name, _ in each.top)
    lines = []
    for each in found:
        cells = (f"{name:<{width}} {100 * probability:5.1f}" for name, probability in each.top)
        lines.append(f"{each.image:<{left}}  {'   '.join(cells)}")
    return [f"{'image':<{left}}  likeliest classes, %", *lines]


def _csv(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
