"""Validation images: some of each class's training images, held out so that values are chosen without the test set.

They are as long-tailed as the training set. An accuracy over them is therefore mostly that of the largest classes; the
mean over classes is what speaks of a balanced test set, and what values are chosen by.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from csa_core.data.streams import keyed_generator


def held_out(keys: Sequence[Hashable], class_counts: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Choose the images of each class that are held out; return (N,) bool.

    Of n different images a class gives n * share, rounded with halves up, one at least, and keeps one at least: of two
    images one is held out, of one none. Images that are the same stay together, and those that are of two classes
    stay in training, so that no image is trained on and validated on.

    Args:
        keys: a key for each image of the long-tailed training set, class by class, equal where images are the same.
        class_counts: (K,) images of each class.
        share: in (0, 1).
        seed: which ones, whatever else the run draws.
    """
    classes = np.repeat(np.arange(len(class_counts)), class_counts).tolist()
    owners: dict[Hashable, set[int]] = defaultdict(set)
    for key, k in zip(keys, classes, strict=True):
        owners[key].add(k)
    chosen: set[Hashable] = set()
    ends = np.cumsum(class_counts)
    for k, (end, count) in enumerate(zip(ends.tolist(), class_counts.tolist(), strict=True)):
        different = list(dict.fromkeys(keys[end - count : end]))
        free = [key for key in different if len(owners[key]) == 1]
        # The small addend undoes rounding: 0.29 * 50 must be 14.5 and not 14.499...
        asked = max(1, int(np.floor(len(different) * share + 0.5 + 1e-9)))
        order = keyed_generator(seed, "validation", k).permutation(len(free))
        chosen.update(free[i] for i in order[: min(asked, len(different) - 1)])
    return np.array([key in chosen for key in keys], dtype=bool)
