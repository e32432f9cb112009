"""The most confident mistakes of a run: which test images, and what they look like."""

import os

import numpy as np

from csa_core.data.dataset import Dataset
from csa_core.data.listed import ImageList


def worst_mistakes(logits: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return numbers, predicted classes and probabilities of the wrong predictions with the highest probability.

    Args:
        logits: (N, K) of a head; labels: (N,) int64; count: how many at most.

    Returns:
        Three arrays of M <= count, the most confident mistake first; probabilities are in [0, 1].
    """
    exponentials = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    predicted, confidence = logits.argmax(1), 1 / exponentials.sum(1)  # the largest logit's share
    wrong = np.flatnonzero(predicted != labels)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")[:count]]
    return chosen, predicted[chosen], confidence[chosen]


def pictures(dataset: Dataset | ImageList, numbers: np.ndarray) -> np.ndarray:
    """Return test images as a network sees them but for normalisation, (M, H, W, 3) uint8.

    Raises:
        UserError: a file of an image list is not there, or cannot be decoded.
    """
    if isinstance(dataset, Dataset):
        return dataset.test_images[numbers]
    from csa_core.data.decode import evaluated

    paths = [dataset.root / os.fsdecode(path) for path in dataset.test_paths[numbers]]
    if not paths:
        return np.zeros((0, 1, 1, 3), np.uint8)
    return np.stack([evaluated(path, dataset.side, dataset.resize) for path in paths])
