"""Small, real inputs that many tests share."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from csa_core.cli import main
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split, make_split
from csa_core.methods import METHODS, parse, recipe
from csa_core.methods.base import Setting
from tests.helpers.inside import run_inside
from tests.helpers.patience import PATIENCE

ROOT = Path(__file__).parent.parent
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start: several tests share the cores
# The same examples each time, and none that fails by the clock.
settings.register_profile("here", deadline=None, derandomize=True)
settings.load_profile("here")

# A run of seconds that goes through every phase: warm-up, filling the bank, context shift, plain.
TINY = {
    "data": {"source": "demo", "imbalance_ratio": 4, "max_class_count": 16},
    "model": "resnet8",
    "epochs": 5,
    "batch_size": 16,
    "lr": 0.1,
    "lr_warmup_epochs": 2,
    "lr_drops": [4],
    "crop_padding": 2,
    "warmup_epochs": 1,
    "plain_epochs": 1,
    "threshold": 0.05,
    "evaluate_every": 2,
}

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the files that take longest begin first, so that no process works alone at the end."""
    longest = ["workflow/test_snakemake.py", "test_docs.py", "faults/test_processes.py", "train/test_ranks.py"]
    items.sort(key=lambda item: [name not in item.nodeid for name in longest])


def tiny(**changes: object) -> Any:
    """Return the tiny run, of its method's own class, with some keys changed."""
    return parse(tiny_fields(**changes), "test")


def tiny_fields(**changes: object) -> dict[str, Any]:
    """Return the tiny run as a file holds it: the keys that its method reads."""
    return recipe(TINY | changes, str(changes.get("method", "csa")))


def method_of(config: Any, dataset: Any, split: Split) -> Any:
    """Return a configuration's method on these data, in float32 on the CPU."""
    return METHODS[config.method](config, Setting(dataset, split, torch.device("cpu"), "float32"))


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """Four classes of 16 x 12 noise, each with a bright patch of its own: learnable in seconds."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 30)
    images = rng.integers(0, 120, (240, 16, 12, 3), dtype=np.uint8)
    both = np.concatenate([labels, labels])
    for image, label in zip(images, both, strict=True):
        image[4 * (label // 2) : 4 * (label // 2) + 6, 5 * (label % 2) : 5 * (label % 2) + 5] += 100
    return Dataset("demo", ("a", "b", "c", "d"), images[:120], labels, images[120:], labels.copy())


@pytest.fixture(scope="session")
def split(dataset: Dataset) -> Split:
    """The tiny run's split of it: 16, 10, 6 and 4 images."""
    return make_split(dataset, tiny().data)


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run `csa ...` in this process: the same words, answers and exit code."""

    def call(*args: object, stdin: str = "", **env: str) -> "subprocess.CompletedProcess[str]":
        return run_inside(main, list(map(str, args)), ROOT, stdin, **env)

    return call


@pytest.fixture(scope="session")
def process() -> Cli:
    """Run `python -m csa_core ...` as a person would: where a process of its own is what is tested."""

    def call(*args: object, stdin: str | None = None, **env: str) -> "subprocess.CompletedProcess[str]":
        # torch.compile in this process, of another test, names its cache there for its children.
        inherited = {key: value for key, value in os.environ.items() if key != "TORCHINDUCTOR_CACHE_DIR"}
        return subprocess.run(
            [sys.executable, "-m", "csa_core", *map(str, args)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={**inherited, "PYTHONPATH": str(ROOT), **env},
            cwd=ROOT,
        )

    return call


@pytest.fixture(scope="session")
def image_lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ImageNet-shaped tree with its lists: JPEGs of varied sizes, greyscale and CMYK among them, 8 classes."""
    root = tmp_path_factory.mktemp("images")
    write_image_lists(root)
    return root


def write_image_lists(root: Path, counts: tuple[int, ...] = (40, 26, 18, 12, 9, 6, 5, 4)) -> None:
    """Write `root/{train,test}/n100K/*.JPEG` and `root/{train,test}.txt`; each class is bright somewhere else."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(len(counts))  # the lists do not number classes by their counts
    for part in ("train", "test"):
        lines = []
        for k, count in enumerate(counts if part == "train" else [6] * len(counts)):
            folder = root / part / f"n{1000 + k}"
            folder.mkdir(parents=True)
            for i in range(count):
                height, width = (int(side) for side in rng.integers(40, 160, 2))
                coarse = rng.integers(0, 130, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
                pixels = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
                top, left = height * (k // 4) // 2, width * (k % 4) // 4
                pixels[top : top + height // 2, left : left + width // 4] //= 2
                pixels[top : top + height // 2, left : left + width // 4] += 120
                mode = ("RGB", "RGB", "L", "CMYK")[i % 4]
                Image.fromarray(pixels).convert(mode).save(folder / f"{i}.JPEG", quality=90)
                lines.append(f"{part}/n{1000 + k}/{i}.JPEG {labels[k]}\n")
        (root / f"{part}.txt").write_text("".join(lines[j] for j in rng.permutation(len(lines))))


def listed(root: Path, **changes: object) -> dict[str, object]:
    """Return the fields of a tiny run on the lists below `root`, of images just large enough to have a background."""
    data = {"source": "image_list", "root": str(root), "profile": "as_is", "image_size": 40}
    data |= {f"{part}_list": str(root / f"{part}.txt") for part in ("train", "test")}
    schedule = {"lr_schedule": "cosine", "lr_warmup_epochs": 0, "horizontal_flip": True, "lr": 0.02}
    return TINY | {"data": data, "model": "resnet10", "epochs": 4, "lr_drops": []} | schedule | changes
