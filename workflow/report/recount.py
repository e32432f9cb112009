"""What metrics say, made again from what lies beside them: a seal shows who wrote a file, not that it is true."""

import base64
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from csa_core.errors import Missing, untrusted
from csa_core.store import read_header, read_json, read_tensor, read_tensors

GROUPS = ("all", "many", "medium", "few")
MOST = 2**28
"""Bytes of predictions that are read for it, in a second: 67 million logits. Of more, the counts have to do."""
Scores = dict[str, Any]


def wrong_scores(values: dict[str, Any], scores: Scores, groups: list[str], path: Path) -> str:
    """Say what is wrong with the measures of a head, if anything.

    Accuracies and the means over classes are made again from the counts by class, and these from the confusion
    counts, where they are there.
    """
    for name, value in values.items():
        if value is not None and not (isinstance(value, float | int) and 0 <= value <= 1):
            return f"{name} is {value!r}, no fraction from 0 to 1"
    if "correct" not in scores:
        return ""
    correct, images = (np.asarray(scores[key], dtype=np.int64) for key in ("correct", "images"))
    if not ((correct >= 0) & (correct <= images)).all() or not images.any():
        return "its counts of correct images are no counts of images"
    counted = _measures(correct, images, groups)
    for name in filter(values.__contains__, counted):
        value = values[name]
        if (value is None and name in GROUPS) or (value is not None and abs(value - counted[name]) > 1e-9):
            what = f"accuracy of {name}" if name in GROUPS else name
            return f"{what} is {value!r}, its counts say {counted[name]:.6g}"
    if "confusion" in scores:
        confusion = unpack(scores["confusion"], len(images), path)
        if not (np.array_equal(confusion.sum(1), images) and np.array_equal(confusion.diagonal(), correct)):
            return "its confusion counts are not those of its classes"
    return ""


def wrong_predictions(folder: Path, data: Path, split: Path, metrics: dict[str, Any], head: str) -> str:
    """Say where the counts of a head are not those of the predictions that are kept with a run, if they are.

    Args:
        folder: of the run; published ones keep no predictions.
        data, split: the files of the data set and of the split, which have the labels: of validation images that are
            held out of training the split, else the data set. Without them, how often each class is named is compared.
    """
    path = folder / "predictions.safetensors"
    try:
        if path.stat().st_size > MOST:
            return ""
        logits, label, _ = read_tensors(path)
    except (FileNotFoundError, Missing):
        return ""
    with untrusted(f"{path}: holds no predictions; delete it and run snakemake again"):
        if label["digests"] != metrics["digests"]:
            return "its predictions are of another run"
        for prefix, scores in (("", "heads"), ("validation/", "validation")):
            stated = metrics.get(scores, {}).get(head, {})
            heads = {name: z for name, z in logits.items() if name.rpartition("/")[0] == prefix.rstrip("/")}
            if "correct" in stated and heads:
                own = f"{prefix}{head}"
                scored = heads[own] if own in heads else np.mean(list(heads.values()), axis=0)  # the ensemble
                labels = _labels(data, split, metrics, scores)
                if not _is_counted(scored.argmax(1), labels, stated, path):
                    return f"its counts of {own} are not those of its predictions"
    return ""


def unpack(text: str, classes: int, path: Path) -> np.ndarray:
    """Return the counts (K, K) of `csa_core.evaluation.scores.pack`.

    Raises:
        UserError: they are not there, or not of so many classes.
    """
    size = 4 * classes**2
    with untrusted(f"{path}: holds no confusion counts of {classes} classes; delete it and run snakemake again"):
        content = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size + 1)
        if len(content) != size:
            raise ValueError
        return np.frombuffer(content, "<i4").reshape(classes, classes)


def _measures(correct: np.ndarray, images: np.ndarray, groups: list[str]) -> dict[str, float]:
    """Return what counts by class say; classes without test images have no recall."""
    tested = images > 0
    recalls = correct[tested] / images[tested]
    counted = {"all": correct.sum() / images.sum()}
    for group in GROUPS[1:]:
        if (inside := np.array([name == group for name in groups]) & tested).any():
            counted[group] = (correct[inside] / images[inside]).mean()
    counted |= {"balanced": recalls.mean(), "worst_class": recalls.min(), "harmonic_mean": 0.0, "geometric_mean": 0.0}
    if recalls.all():
        counted |= {"harmonic_mean": 1 / (1 / recalls).mean(), "geometric_mean": np.exp(np.log(recalls).mean())}
    return counted


def _labels(data: Path, split: Path, metrics: dict[str, Any], scores: str) -> np.ndarray | None:
    """Return the labels of test or validation images from the file that has them, if it is the one the run states."""
    try:
        if scores == "validation" and metrics["config"]["data"].get("validation"):  # held out of training
            content = read_json(split)
            if content["sha256"] != metrics["digests"]["split"]:
                return None
            counts = [len(part) for part in content["validation"].values()]
            return np.repeat(np.arange(len(counts)), counts)  # class by class
        name = "val_labels" if scores == "validation" else "test_labels"
        return read_tensor(data, name) if read_header(data)["sha256"] == metrics["digests"]["data"] else None
    except Missing:
        return None


def _is_counted(predicted: np.ndarray, labels: np.ndarray | None, stated: Scores, path: Path) -> bool:
    classes = len(stated["images"])
    if labels is None:
        named = np.bincount(predicted, minlength=classes)
        return "confusion" not in stated or np.array_equal(named, unpack(stated["confusion"], classes, path).sum(0))
    if len(labels) != len(predicted):
        return False
    counts = [np.bincount(each, minlength=classes).tolist() for each in (labels, labels[predicted == labels])]
    return counts == [stated["images"], stated["correct"]]
