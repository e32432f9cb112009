"""The embedded demo set: real handwritten digits on textures that never repeat.

Digits (scikit-learn ships 1,797 of them, 8 x 8) in bright random colours stand on random colour
fields and stripes, as 16 x 16 RGB. So a context is part of every image, a tail class sees only a
few of them, and augmenting contexts has something to mend. The last `TEST_ORIGINALS` handwritten
originals of each class appear in the test set alone; every test context is fresh.
"""

import gzip
import io
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

from csa_core.data.dataset import Dataset
from csa_core.files import read_bytes

SIDE = 16
DIGIT_SIDE = 11  # two thirds of the side
TRAIN_PER_CLASS, TEST_PER_CLASS = 250, 200
TEST_ORIGINALS = 60
SEED = 20231210
DIGEST = "d3531aa07866b515483710370745b02fbc6926ed6a10d3ecde756b927936b99b"


def make_demo() -> Dataset:
    """Generate the demo set: 10 classes, 2,500 train and 2,000 test images, the same everywhere."""
    digits, labels = read_digits()
    originals = [digits[labels == k] / 16.0 for k in range(10)]
    train_images, train_labels = _render([o[:-TEST_ORIGINALS] for o in originals], TRAIN_PER_CLASS, SEED)
    test_images, test_labels = _render([o[-TEST_ORIGINALS:] for o in originals], TEST_PER_CLASS, SEED + 1)
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return Dataset("demo", names, train_images, train_labels, test_images, test_labels)


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's handwritten digits, (1797, 8, 8) from 0 to 16, and what each is, (1797,).

    They are read from its file: to import `sklearn.datasets` takes as long as to import torch.
    """
    path = Path(str(distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")))
    rows = np.loadtxt(io.BytesIO(gzip.decompress(read_bytes(path))), delimiter=",")
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)


def _render(originals: list[np.ndarray], per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw `per_class` images of each class: (10 * per_class, 16, 16, 3) uint8 and their labels."""
    rng = np.random.Generator(np.random.Philox(seed))
    # Each original once before any comes again: a class of five images has five handwritings.
    ink = np.concatenate([o[np.resize(rng.permutation(len(o)), per_class)] for o in originals])
    labels = np.repeat(np.arange(len(originals)), per_class)
    images = _place(rng, _enlarge(ink, DIGIT_SIDE, "bilinear"), _contexts(rng, len(ink)))
    return np.rint(images * 255).astype(np.uint8), labels


def _contexts(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random textures, (count, 16, 16, 3) in [0, 0.7]: a smooth colour field mixed with stripes."""
    field = rng.random((count, 3, 4, 4))
    field = _enlarge(field.reshape(-1, 4, 4), SIDE, "bicubic").reshape(count, 3, SIDE, SIDE)
    angle, frequency, phase = (rng.random((count, 1, 1)) * scale for scale in (np.pi, 1.5, 2 * np.pi))
    y, x = np.mgrid[:SIDE, :SIDE]
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (0.4 + frequency) + phase)
    colours = rng.random((2, count, 3, 1, 1))
    stripes = np.where(wave[:, None] > 0, colours[0], colours[1])
    return 0.7 * np.clip(0.5 * field + 0.5 * stripes, 0, 1).transpose(0, 2, 3, 1)


def _place(rng: np.random.Generator, ink: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """Blend each digit, in a bright colour and at a random place, over its context."""
    count = len(ink)
    colour = rng.uniform(0.7, 1.0, (count, 1, 1, 3))
    top, left = rng.integers(0, SIDE - DIGIT_SIDE + 1, (2, count))
    alpha = np.zeros((count, SIDE, SIDE, 1))
    for i in range(count):
        alpha[i, top[i] : top[i] + DIGIT_SIDE, left[i] : left[i] + DIGIT_SIDE, 0] = ink[i]
    return alpha * colour + (1 - alpha) * contexts


def _enlarge(maps: np.ndarray, side: int, mode: str) -> np.ndarray:
    """Resize (N, h, w) float64 maps to (N, side, side); float64 so that every machine agrees."""
    import torch
    from torch.nn.functional import interpolate

    resized = interpolate(torch.from_numpy(maps)[:, None], size=(side, side), mode=mode, align_corners=False)
    return resized[:, 0].clamp(0, 1).numpy()
