"""Finished runs side by side: a list of those below a folder, and where two differ."""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from csa_core import store
from csa_core.config import LATER, flat
from csa_core.errors import Missing, UserError, untrusted

GROUPS = {"all": "All", "many": "Many", "medium": "Med.", "few": "Few"}
ABSENT = "-"
ACCURACY = "accuracy, %"
EXACT = Decimal("1e-9")  # percent that are alike up to here were computed in another order


@dataclass(frozen=True)
class Finished:
    """A finished run as it is shown."""

    folder: Path
    method: str
    seed: int
    config: dict[str, Any]
    """The rest of its configuration, by dotted key."""
    digests: dict[str, str]
    computed: dict[str, Any]
    """Device, precision, threads: no identity, but it can change digits."""
    scores: dict[str, dict[str, float | None]]
    """Accuracies by head and group, as fractions; None of a group without classes."""
    predicts: str
    hours: str
    validation: dict[str, dict[str, float | None]]
    """The same on validation images, with `balanced`, the mean over classes; empty without."""


def listing(folder: Path) -> Iterator[str]:
    """Yield lines of a table of the runs below a folder: what each changes, its accuracies in percent, its hours.

    What a run changes is where its configuration is not that of most runs of its method here. The accuracies are
    of the head that predicts; on validation images, where there are some, the mean over classes.

    Raises:
        UserError: there are none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name one that holds runs")
    runs: list[Finished] = []
    damaged: list[str] = []
    for path in _folders(folder, damaged):
        try:
            runs.append(_read(path))
        except UserError as error:
            damaged.append(str(error))
    if not runs:
        raise UserError(damaged[0] if damaged else f"{folder}: no finished run below it; name another folder")
    usual = _usual(runs)
    val = ["Validation, balanced"] if any(run.validation for run in runs) else []
    rows = [["run", "method", "changes", "seed", *GROUPS.values(), *val, "hours"]]
    for run in runs:
        own = run.config | {key: ABSENT for key in LATER if (run.method, key) in usual and key not in run.config}
        changes = [f"{key}={_text(value)}" for key, value in own.items() if usual[run.method, key] != value]
        named = [str(run.folder.relative_to(folder)), run.method, " ".join(changes), str(run.seed)]
        scores = list(run.scores[run.predicts].values())
        scores += [run.validation.get(run.predicts, {}).get("balanced")] if val else []
        rows.append([*named, *map(percent, scores), run.hours])
    yield from _columns(rows, left=3)
    yield from damaged


def differing(one: Path, other: Path) -> Iterator[str]:
    """Yield lines of what two runs have differently: configuration, digests, how they were computed, accuracies.

    Raises:
        UserError: one is no finished run.
    """
    runs = [_read(path) for path in (one, other)]
    parts: dict[str, list[dict[str, Any]]] = {
        "configuration": [{"method": run.method} | run.config | {"seed": run.seed} for run in runs],
        "digests": [{key: digest[:12] for key, digest in run.digests.items()} for run in runs],
        "computed": [run.computed for run in runs],
        ACCURACY: [flat(run.scores | {"validation": run.validation}, between=" ") for run in runs],
    }
    rows = [["", str(one), str(other)]]
    for title, (left, right) in parts.items():
        found = [key for key in left | right if left.get(key) != right.get(key)]
        rows += [[title, "", ""]] * bool(found)
        texts = _percents if title == ACCURACY else _texts
        rows += [[f"  {key}", *texts(left.get(key, ABSENT), right.get(key, ABSENT))] for key in found]
    if len(rows) == 1:
        yield "no difference: configuration, digests and accuracies are the same"
    else:
        yield from _columns(rows, left=3)


def _folders(folder: Path, unread: list[str]) -> list[Path]:
    """Return the folders of finished runs, the shortest paths first; states, which list what they hold, are none.

    Args:
        unread: gets a line for each folder that cannot be listed.
    """

    def left_out(error: OSError) -> None:
        unread.append(f"{error.filename}: cannot be listed ({error.strerror}); see to disk and rights")

    folders = [(Path(here), set(files)) for here, _, files in os.walk(folder, onerror=left_out)]
    found = [here for here, files in folders if "metrics.json" in files and "finished.json" not in files]
    return sorted(found, key=lambda path: (len(path.parts), path))


def _read(folder: Path) -> Finished:
    path = folder / "metrics.json"
    try:
        metrics = store.read_sealed(path)
    except Missing:
        raise UserError(f"{folder}: is no finished run, it has no metrics.json; name one, such as .../seed=1") from None
    try:
        hours = f"{store.read_json(folder / 'provenance.json')['seconds'] / 3600:.2f}"
    except (UserError, KeyError, TypeError):
        hours = ""
    with untrusted(f"{path}: is not of a trained run; train it again"):
        config = flat(metrics["config"])
        method, seed, predicts = config.pop("method"), config.pop("seed"), metrics["predicts"]
        scores = {
            head: {name: _fraction(each["accuracy"][group]) for group, name in GROUPS.items()}
            for head, each in metrics["heads"].items()
        }
        validation = {
            head: {name: _fraction(each["accuracy"][group]) for group, name in GROUPS.items()}
            | {"balanced": _fraction(each["balanced"])}
            for head, each in metrics.get("validation", {}).items()
        }
        computed = dict(metrics.get("computed", {}))
        if predicts not in scores:
            raise KeyError(predicts)
        return Finished(
            folder, method, seed, config, dict(metrics["digests"]), computed, scores, predicts, hours, validation
        )


def _usual(runs: list[Finished]) -> dict[tuple[str, str], Any]:
    """Return, by method and key, the value that most runs have; of equally many the first one's.

    A key that came later is not in the configuration of runs that do as was done before it.
    """
    values: dict[tuple[str, str], list[Any]] = defaultdict(list)
    there = {(run.method, key) for run in runs for key in run.config}
    for run in runs:
        absent = {key: ABSENT for key in LATER if (run.method, key) in there}
        for key, value in (absent | run.config).items():
            values[run.method, key].append(value)
    return {key: max(found, key=found.count) for key, found in values.items()}


def _fraction(accuracy: Any) -> float | None:
    return None if accuracy is None else float(accuracy)


def percent(accuracy: float | None, digits: int = 1) -> str:
    """Return an accuracy in percent, halves rounded up as in the workflow's tables; nothing of None."""
    if accuracy is None:
        return ""
    exact = Decimal(100 * accuracy).quantize(EXACT, ROUND_HALF_UP)
    return format(exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP), "f")


def _percents(left: Any, right: Any) -> list[str]:
    """Return two accuracies with as many decimals as tell them apart."""
    for digits in range(1, 9):
        texts = [value if value == ABSENT else percent(value, digits) for value in (left, right)]
        if texts[0] != texts[1]:
            break
    return texts


def _texts(left: Any, right: Any) -> list[str]:
    return [_text(left), _text(right)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else store.canonical(value)


def _columns(rows: list[list[str]], left: int) -> Iterator[str]:
    """Yield rows in columns, the first `left` of them flush left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = ["<"] * left + [">"] * (len(widths) - left)
    for row in rows:
        cells = (f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True))
        yield "  ".join(cells).rstrip()
