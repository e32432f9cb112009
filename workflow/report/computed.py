"""How the runs of a table were computed, in words, and which runs differ."""

from collections import Counter
from typing import Any

SHOWN = 5  # runs of a mixture that are named
KEYS = ("device", "precision", "compiled", "threads")


def computed(runs: list[dict[str, Any]]) -> str:
    """Return how runs were computed: `computed on cpu in bfloat16, one thread`, and MIXED where they differ unasked.

    Args:
        runs: for each run its name, seed, the precision that was asked for (`asked`), and what `computed` in its
            metrics says, if anything. Runs that ask for another precision may differ in it.
    """
    told = [run for run in runs if all(key in run for key in KEYS)]
    if not told:
        return "how it was computed is not recorded"
    usual, apart = dict[str, Any](), dict[str, list[dict[str, Any]]]()
    for key in KEYS:
        groups: dict[Any, list[dict[str, Any]]] = {}
        for run in told:
            groups.setdefault(run["asked"] if key == "precision" else None, []).append(run)
        for group in groups.values():
            value = Counter(run[key] for run in group).most_common(1)[0][0]
            usual.setdefault(key, value)
            for run in group:
                if run[key] != value:
                    apart.setdefault(_words(key, run[key]), []).append(run)
    words = [_words(key, usual[key]) for key in KEYS]
    text = f"computed {words[0]} {words[1]}" + "".join(f", {word}" for word in words[2:] if word)
    mixed = [f"{len(runs)} of {len(told)} runs {word or 'otherwise'} ({_names(runs)})" for word, runs in apart.items()]
    text += f" (MIXED: {'; '.join(mixed)})" if mixed else ""
    return text + (f", not recorded for {len(runs) - len(told)} of {len(runs)} runs" if told != runs else "")


def _words(key: str, value: Any) -> str:
    if key == "compiled":
        return {True: "compiled", False: "not compiled"}.get(value, "compiled in part")
    if key == "threads":
        return "" if value is None else "one thread" if value == 1 else f"{value} threads"
    return f"{'on' if key == 'device' else 'in'} {value}"


def _names(runs: list[dict[str, Any]]) -> str:
    names = [f"{run['run']}, seed {run['seed']}" for run in runs]
    return "; ".join(names[:SHOWN] + ["..."] * (len(names) > SHOWN))
