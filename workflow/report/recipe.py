"""The recipe of a protocol in words, as the runs' own records have it."""

import math
from collections import Counter
from typing import Any

from csa_core.store import canonical
from workflow.report.numbers import counted, shown

NAMED = {"model": "network", "epochs": "epochs", "lr": "learning rate", "batch_size": "batch size"}


def recipe(tables: list[dict[str, Any]], notes: list[dict[str, Any]], seeds: list[int]) -> list[tuple[str, str]]:
    """Return what was trained, on what and how long, as pairs of a name and its value.

    Args:
        tables: what `on_page` returns; the first one's recipe is described, and how others differ.
        notes: the provenance of each run.
        seeds: of the runs.
    """
    first = tables[0]
    config = first["recipe"]
    lines = {
        "Protocol": first["protocol"] + (f" with {canonical(first['overrides'])}" if first["overrides"] else ""),
        "Data": _data(first),
        "Split": _split(config["data"]),
        "Network": str(config.get("model", "")),
        "Epochs": _epochs(config),
        "Optimizer": _optimizer(config),
        "Images": _augmentation(config),
        "Method": _method(config),
        "Elsewhere": _elsewhere(tables),
        "Runs": f"{counted(len(notes), 'run')}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
        "Hours": _hours(notes),
        "Processor": _counted(_processor(note) for note in notes),
        "Precision": _counted(_precision(note) for note in notes),
        "Versions": _versions(notes),
    }
    lines |= {f"Digest of the {key}": value for key, value in first["digests"].items()}
    return [(name, value) for name, value in lines.items() if value]


def _data(table: dict[str, Any]) -> str:
    images, data = table["images"], table["recipe"]["data"]
    name = data.get("source") or f"selection {data['selection']}"
    test = f"; {images['test']:,} test images" if images["test"] else ""
    return (
        f"{name}: {images['train']:,} training images in {images['classes']} classes of {images['largest']:,} to "
        f"{images['smallest']:,}{test}"
    )


def _split(data: dict[str, Any]) -> str:
    profile = data.get("profile", "exponential")
    if profile in ("as_is", "selection"):
        return {"as_is": "as the data are"}.get(profile, profile)
    which = f"split seed {data['split_seed']}" if "split_seed" in data else f"{data.get('subset')} subset"
    return f"{profile} profile, imbalance ratio {data.get('imbalance_ratio', 0):g}, {which}"


def _epochs(config: dict[str, Any]) -> str:
    if "epochs" not in config:
        return ""
    parts = [f"{config['epochs']}"]
    for key, place, what in (
        ("warmup_epochs", "first", "the re-sampled branch"),
        ("plain_epochs", "last", "context shift"),
    ):
        if number := config.get(key):
            parts.append(f"the {place}{f' {number}' if number > 1 else ''} without {what}")
    return ", ".join(parts) + "; scored after the last one"


def _optimizer(config: dict[str, Any]) -> str:
    if "lr" not in config:
        return ""
    drops = config.get("lr_drops", [])
    after = f"epoch{'s' if len(drops) > 1 else ''} {', '.join(map(str, drops))}"
    falls = f", divided by 10 after {after}" if drops else ", then constant" if config.get("lr_warmup_epochs") else ""
    falls = ", falling along a cosine" if config.get("lr_schedule") == "cosine" else falls
    rises = f", rising over {counted(config['lr_warmup_epochs'], 'epoch')}" if config.get("lr_warmup_epochs") else ""
    return (
        f"SGD, momentum {config.get('momentum', 0):g}, weight decay {config.get('weight_decay', 0):g}, batches of "
        f"{config.get('batch_size')}; learning rate {config['lr']:g}{rises}{falls}"
    )


def _augmentation(config: dict[str, Any]) -> str:
    crop, flip = config.get("crop_padding"), config.get("horizontal_flip")
    crops = f"random crops after padding by {crop} pixels" if crop else ""
    if config.get("data", {}).get("source") == "image_list":
        crops = "random resized crops"
    jitter = f"colours varied by up to {config['colour_jitter']:g}" if config.get("colour_jitter") else ""
    parts = [crops, "random flips" if flip else "", jitter]
    return ", ".join(filter(None, parts))


def _method(config: dict[str, Any]) -> str:
    if "bank_batches" not in config:
        return ""
    kind, low, high = config.get("mix", ["", 0, 0])
    bank = f"Q of {config['bank_batches']} batches" if config["bank_batches"] else "no bank Q"
    parts = [bank if config["bank_batches"] != 1 else "Q of one batch"]
    parts += [f"δ = {config['threshold']:g}"] if "threshold" in config else []
    parts += [f"λ from {kind.capitalize()}({low:g}, {high:g})"] if kind else []
    return ", ".join([*parts, f"γ = {config.get('balance_ratio', 1):g}"]) + ", unless a row says otherwise"


def _elsewhere(tables: list[dict[str, Any]]) -> str:
    first, said = tables[0]["recipe"], []
    for table in tables[1:]:
        own = table["recipe"]
        if own.get("method") != first.get("method"):
            continue
        apart = [f"{word} {own[key]}" for key, word in NAMED.items() if key in own and own[key] != first.get(key)]
        if own["data"] != first["data"]:
            apart.insert(0, f"data {own['data'].get('source') or own['data'].get('selection')}")
        said += [f"{table['name']}: {', '.join(apart)}"] if apart else []
    return "; ".join(said)


def _hours(notes: list[dict[str, Any]]) -> str:
    seconds = [note["seconds"] for note in notes]
    mean = math.fsum(seconds) / len(seconds)
    each = f"{shown(mean / 60)} minutes" if mean >= 60 else f"{shown(mean, 0)} seconds"
    last = max(note["finished"] for note in notes)
    hours = shown(math.fsum(seconds) / 3600)
    return f"{hours} hours of training for the rows of the tables, {each} a run; the last finished {last}"


def _processor(note: dict[str, Any]) -> str:
    name = (note.get("processor") or {}).get("name")
    threads = f", {counted(note['threads'], 'thread')}" if note.get("threads") else ""
    return (f"{name}, {note['device']}" if name else note["device"]) + threads


def _precision(note: dict[str, Any]) -> str:
    compiled = f", {'' if note['compiled'] else 'not '}compiled" if "compiled" in note else ""
    return f"{note['precision']}{compiled}" if "precision" in note else ""


def _counted(values: Any) -> str:
    counts = Counter(filter(None, values)).most_common()
    return "; ".join(f"{value} ({counted(count, 'run')})" if len(counts) > 1 else value for value, count in counts)


def _versions(notes: list[dict[str, Any]]) -> str:
    names = dict.fromkeys(name for note in notes for name in note["versions"])
    found = {name: sorted({note["versions"][name] for note in notes if name in note["versions"]}) for name in names}
    return ", ".join(f"{name} {' and '.join(versions)}" for name, versions in found.items())
