"""Evaluation: logits of every head on the test set, and accuracies from integer counts."""

import base64
import math
import zlib
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from csa_core.data.augment import evaluation_batches
from csa_core.data.dataset import Dataset
from csa_core.data.listed import ImageList
from csa_core.data.ranks import gather_rows
from csa_core.models.folded import folded
from csa_core.models.resnet import Network

GROUPS = ("many", "medium", "few")


@torch.no_grad()
def predict(network: Network, batches: Iterable[Tensor]) -> dict[str, np.ndarray]:
    """Return the test logits of each head, (N, K) float32, with running statistics; the network stays as it is."""
    ready = folded(network)
    outputs = [ready(batch) for batch in batches]
    return {name: torch.cat([out[name] for out in outputs]).cpu().numpy() for name in network.heads}


def predict_test_set(network: Network, dataset: Dataset | ImageList, device: torch.device) -> dict[str, np.ndarray]:
    """Return the logits of each head on the test set, (N, K) float32; every rank works on its part."""
    logits = predict(network, evaluation_batches(dataset, device))
    count = len(dataset.test_labels)
    return {head: gather_rows(rows, count, device) for head, rows in logits.items()}


def with_ensemble(logits: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add `ensemble`, the mean of the logits of all heads (Table 4)."""
    return logits | {"ensemble": np.mean(list(logits.values()), axis=0)}


def score(logits: np.ndarray, labels: np.ndarray, group_of_class: list[str]) -> dict[str, Any]:
    """Return the measures that the field's papers print, as fractions, and the counts behind them.

    Args:
        logits: (N, K); labels: (N,) int64; group_of_class: K names of many, medium, few.

    Returns:
        accuracy: `all` over images; of a group the mean over its classes, as the field has it (None for
        a group without classes, never 0); balanced: the mean over all classes. The two ways differ
        where classes have unequally many test images, and there alone. Classes without test images
        have no recall and stand in none of these means. harmonic_mean, geometric_mean
        and worst_class of the recalls of the classes; ece: expected calibration error in 15 bins;
        images and correct: counts by class; confusion: counts, a row a true class, packed.
    """
    classes = len(group_of_class)
    predicted = logits.argmax(1)
    confusion = np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
    images, correct = confusion.sum(1), confusion.diagonal()
    accuracy: dict[str, float | None] = {"all": int(correct.sum()) / int(images.sum())}
    tested = images > 0
    for group in GROUPS:
        inside = np.array([name == group for name in group_of_class]) & tested
        accuracy[group] = mean_recall(correct[inside], images[inside]) if inside.any() else None
    recalls = correct[tested] / images[tested]
    return {
        "accuracy": accuracy,
        "balanced": mean_recall(correct[tested], images[tested]),
        # Both means are 0 as soon as one class is never recognised.
        "harmonic_mean": float(1 / (1 / recalls).mean()) if recalls.all() else 0.0,
        "geometric_mean": float(np.exp(np.log(recalls).mean())) if recalls.all() else 0.0,
        "worst_class": float(recalls.min()),
        "ece": calibration_error(logits, predicted == labels),
        "images": images.tolist(),
        "correct": correct.tolist(),
        "confusion": pack(confusion),
    }


def mean_recall(correct: np.ndarray, images: np.ndarray) -> float:
    """Return the mean over classes of correct / images, rounded once: of equal counts, what pooling gives."""
    recalls = map(Fraction, correct.tolist(), images.tolist())
    return float(sum(recalls, Fraction()) / len(images))


def pack(counts: np.ndarray) -> str:
    """Return a matrix of counts (K, K) as text: its int32 bytes, deflated, in base64. A tenth of the digits."""
    return base64.b64encode(zlib.compress(counts.astype("<i4").tobytes(), 9)).decode()


def unpack(text: str) -> np.ndarray:
    """Return the matrix (K, K) that `pack` wrote, a row a true class."""
    counts = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i4")
    return counts.reshape(math.isqrt(counts.size), -1)


def calibration_error(logits: np.ndarray, is_correct: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error (Guo et al., 2017): mean |accuracy - confidence| over equal bins.

    Bin m holds the confidences in ((m - 1) / bins, m / bins]; bins weigh by their images.
    """
    confidence = torch.from_numpy(logits).double().softmax(1).amax(1).numpy()
    which = np.ceil(confidence * bins).astype(np.int64) - 1
    gap = np.bincount(which, is_correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(logits))
