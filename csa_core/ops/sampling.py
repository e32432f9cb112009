"""With which weights classes are drawn."""

import numpy as np


def class_weights(class_counts: np.ndarray, balance_ratio: float) -> np.ndarray:
    """Return n_c ** (1 - gamma), (K,) float64: 1 draws every class alike, 0 every image alike."""
    return class_counts.astype(np.float64) ** (1 - balance_ratio)
