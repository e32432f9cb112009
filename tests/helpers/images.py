"""Images in folders and archives, as people have them."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csa_core.config import DataConfig
from csa_core.data.dataset import Dataset
from csa_core.data.sources import load_source
from csa_core.vision import torchvision


def folder_of_images(root: Path, sizes: tuple[int, int] = (10, 10)) -> Path:
    """Write train and test folders of two classes, in the three formats."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            (root / part / name).mkdir(parents=True)
            for i, suffix in enumerate(["png", "webp", "jpg"]):
                side = sizes[i % 2]
                image = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
                image.save(root / part / name / f"{i}.{suffix}")
    return root


def load(**fields: object) -> Dataset:
    dataset = load_source(DataConfig(**fields))  # type: ignore[arg-type]
    assert isinstance(dataset, Dataset)
    return dataset


def folder(root: Path, **changes: object) -> Dataset:
    return load(source="folder", root=str(root), profile="as_is", **changes)


def cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every request go where nobody answers, to the discard port."""
    for name in ("http_proxy", "https_proxy"):
        for each in (name, name.upper()):
            monkeypatch.setenv(each, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a small CIFAR-10 in its own format, and let torchvision expect its checksums."""
    rng = np.random.default_rng(0)
    base = root / "cifar-10-batches-py"
    base.mkdir()

    def write(name: str, content: object) -> tuple[str, str]:
        (base / name).write_bytes(pickle.dumps(content))
        return name, hashlib.md5((base / name).read_bytes(), usedforsecurity=False).hexdigest()

    def batch() -> dict[str, object]:
        return {"data": rng.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": list(range(10)) * 2}

    kind = torchvision.datasets.CIFAR10
    names, md5 = write("batches.meta", {"label_names": [f"class {k}" for k in range(10)]})
    monkeypatch.setattr(kind, "train_list", [write("data_batch_1", batch()), write("data_batch_2", batch())])
    monkeypatch.setattr(kind, "test_list", [write("test_batch", batch())])
    monkeypatch.setattr(kind, "meta", {"filename": names, "key": "label_names", "md5": md5})
