"""Data that is not what it should be: refused before training, by name; and nothing in it ever runs."""

import hashlib
import io
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from csa_core import store
from csa_core.config import DataConfig
from csa_core.data.dataset import Dataset
from csa_core.data.sources import load_source, read_dataset
from csa_core.data.split import make_split, read_split, write_split
from csa_core.errors import UserError
from csa_core.train.state.checkpoint import load_newest
from csa_core.train.state.parent import read_parent
from csa_core.vision import torchvision
from tests.conftest import tiny
from tests.helpers.images import cut_off, folder, folder_of_images, write_cifar10

SPLIT = DataConfig(source="demo", imbalance_ratio=4, max_class_count=16)
PARTS = ("train_images", "train_labels", "test_images", "test_labels")


def swapped(tensors: store.Tensors) -> store.Tensors:
    return tensors | {
        name: tensors[name.replace("train", "t").replace("test", "train").replace("t_", "test_")] for name in PARTS
    }


def fewer(tensors: store.Tensors, name: str) -> store.Tensors:
    return tensors | {name: tensors[name][:-1]}


# Each is written with a right digest, as a tool of somebody's own would: the content itself is wrong.
WRONG: dict[str, tuple[Callable[[store.Tensors], store.Tensors], str]] = {
    "a train label too few": (lambda t: fewer(t, "train_labels"), r"120 train images, but labels are \(119,\)"),
    "a test label too few": (lambda t: fewer(t, "test_labels"), r"120 test images, but labels are \(119,\)"),
    "labels of another type": (
        lambda t: t | {"train_labels": t["train_labels"].astype(np.float32)},
        r"labels are \(120,\) float32; there must be one int64",
    ),
    "one-hot labels": (lambda t: t | {"test_labels": np.eye(4, dtype=np.int64)[t["test_labels"]]}, r"\(120, 4\)"),
    "a label out of range": (lambda t: t | {"test_labels": t["test_labels"] + 1}, "has label 4, outside 0..3"),
    "a class without images": (lambda t: t | {"train_labels": t["train_labels"] * 0}, "class 'b' has no train images"),
    "grey images": (lambda t: t | {"test_images": t["test_images"][..., :1]}, "test images must be"),
    "images as floats": (lambda t: t | {"train_images": t["train_images"].astype(np.float32)}, "train images must be"),
    "a part missing": (lambda t: {k: v for k, v in t.items() if k != "test_labels"}, "is not a data set file"),
    "another part more": (lambda t: t | {"validation": t["test_labels"]}, "is not a data set file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_data_file_with_wrong_content_is_refused(case: str, dataset: Dataset, tmp_path: Path) -> None:
    spoil, match = WRONG[case]
    path = tmp_path / "data.safetensors"
    tensors = {name: getattr(dataset, name) for name in PARTS}
    store.write_tensors(path, spoil(tensors), {"source": "demo", "class_names": list(dataset.class_names)})
    with pytest.raises(UserError, match=match) as error:
        read_dataset(path, DataConfig(source="demo"))
    assert str(path) in str(error.value)


@pytest.mark.parametrize("how", ["swapped", "substituted"])
def test_other_data_under_the_same_name_is_refused_by_the_split(how: str, dataset: Dataset, tmp_path: Path) -> None:
    """Train and test exchanged, or one pixel of another: sound as a file, and not what the split is of."""
    write_split(tmp_path / "split.json", make_split(dataset, SPLIT), dataset, SPLIT)
    tensors = {name: getattr(dataset, name).copy() for name in PARTS}
    if how == "swapped":
        tensors = swapped(tensors)
        assert np.array_equal(tensors["train_images"], dataset.test_images)
    else:
        tensors["train_images"][7, 3, 3, 1] ^= 1
    store.write_tensors(tmp_path / "d", tensors, {"source": "demo", "class_names": list(dataset.class_names)})
    other = read_dataset(tmp_path / "d", DataConfig(source="demo"))
    with pytest.raises(UserError, match=rf"is a split of data {dataset.digest[:12]}, not {other.digest[:12]}"):
        read_split(tmp_path / "split.json", other, SPLIT)


@pytest.mark.parametrize(
    ("source", "target"), [("train/ant/0.png", "test/ant/9.png"), ("test/bee/0.png", "train/ant/9.webp")]
)
def test_an_image_in_train_and_test_is_refused(source: str, target: str, tmp_path: Path) -> None:
    """By its pixels: name, class and format may differ."""
    folder_of_images(tmp_path)
    with Image.open(tmp_path / source) as image:
        image.save(tmp_path / target, lossless=True)
    with pytest.raises(UserError, match=r"1 of \d test images are training images, pixel by pixel: .*; take") as error:
        folder(tmp_path)
    assert str(tmp_path / source) in str(error.value) and str(tmp_path / target) in str(error.value)


def test_one_in_a_hundred_is_said_and_not_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """CIFAR-100 itself has four test images among its training images."""
    folder_of_images(tmp_path)
    rng = np.random.default_rng(1)
    for i in range(200):
        Image.fromarray(rng.integers(0, 256, (10, 10, 3), dtype=np.uint8)).save(tmp_path / f"test/ant/more-{i}.png")
    shutil.copy(tmp_path / "train/ant/0.png", tmp_path / "test/ant/zero.png")
    folder(tmp_path)
    assert "note: 1 of 207 test images are training images, pixel by pixel" in capfd.readouterr().err


def test_an_image_of_two_classes_is_said_and_many_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """CIFAR-100 has nine such pairs among its training images."""
    folder_of_images(tmp_path)
    rng = np.random.default_rng(1)
    for i in range(200):
        Image.fromarray(rng.integers(0, 256, (10, 10, 3), dtype=np.uint8)).save(tmp_path / f"train/ant/more-{i}.png")
    folder(tmp_path)
    assert "note" not in capfd.readouterr().err
    ant, bee = tmp_path / "train/ant", tmp_path / "train/bee"
    for name in ("twin-1.png", "twin-2.png"):
        shutil.copy(ant / "0.png", bee / name)
    shutil.copy(ant / "0.png", ant / "again.png")  # the same image under the same label twice
    folder(tmp_path)
    assert capfd.readouterr().err.splitlines() == [
        f"note: 2 of 209 training images carry two labels, pixel by pixel: {bee}/twin-1.png is {ant}/0.png",
        f"note: 1 of 209 training images are there twice, pixel by pixel: {ant}/again.png is {ant}/0.png",
    ]
    shutil.copy(ant / "1.webp", bee / "twin-3.webp")
    with pytest.raises(UserError, match=r"3 of 210 training images carry two labels, .*; give each one label"):
        folder(tmp_path)


class Gadget:
    """What writes a file when somebody unpickles it."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


@pytest.fixture
def gadget(tmp_path: Path) -> tuple[bytes, Path]:
    canary = tmp_path / "canary"
    content = pickle.dumps(Gadget(canary))
    pickle.loads(content)
    assert canary.exists(), "the gadget does not work"
    canary.unlink()
    return content, canary


def test_a_gadget_in_a_batch_of_cifar_never_runs(
    gadget: tuple[bytes, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, canary = gadget
    write_cifar10(tmp_path, monkeypatch)
    for path in sorted((tmp_path / "cifar-10-batches-py").iterdir()):
        whole = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(UserError, match="no whole copy of cifar10"):
            load_source(DataConfig(source="cifar10", root=str(tmp_path)))
        assert not canary.exists(), path.name
        path.write_bytes(whole)
    assert load_source(DataConfig(source="cifar10", root=str(tmp_path))).train_labels.size == 40


@pytest.mark.parametrize("where", ["data", "checkpoint", "encoder", "weights", "split", "image"])
def test_a_gadget_never_runs(where: str, gadget: tuple[bytes, Path], tmp_path: Path, dataset: Dataset) -> None:
    content, canary = gadget
    path = tmp_path / "epoch-000001.safetensors"
    path.write_bytes(content)
    if where == "checkpoint":
        assert load_newest(tmp_path, {})[0] == {}
    elif where == "image":
        folder_of_images(tmp_path / "photos")
        shutil.copy(path, tmp_path / "photos/train/ant/0.png")
        with pytest.raises(UserError, match="0.png: cannot be decoded"):
            folder(tmp_path / "photos")
    else:
        readers: dict[str, Callable[[], object]] = {
            "data": lambda: read_dataset(path, DataConfig(source="demo")),
            "encoder": lambda: read_parent(path, tiny(pretrained=True), "", ""),
            "weights": lambda: store.read_tensors(path),
            "split": lambda: read_split(path, dataset, SPLIT),
        }
        with pytest.raises(UserError, match="epoch-000001.safetensors: "):
            readers[where]()
    assert not canary.exists()


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def hostile(kind: str, outside: Path) -> bytes:
    """Return an archive that tries to write outside, or to fill the disk."""
    buffer = io.BytesIO()
    text = b"written outside"
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        if kind == "dots":
            archive.addfile(member("../../escaped", size=len(text)), io.BytesIO(text))
        elif kind == "absolute":
            archive.addfile(member(str(outside / "escaped"), size=len(text)), io.BytesIO(text))
        elif kind == "symbolic link":
            archive.addfile(member("link", type=tarfile.SYMTYPE, linkname=str(outside)))
            archive.addfile(member("link/escaped", size=len(text)), io.BytesIO(text))
        elif kind == "hard link":
            archive.addfile(member("escaped", type=tarfile.LNKTYPE, linkname=str(outside / "secret")))
        elif kind == "device":
            archive.addfile(member("zero", type=tarfile.CHRTYPE, devmajor=1, devminor=5))
        else:
            archive.addfile(member("bomb", size=2**20), io.BytesIO(bytes(2**20)))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["dots", "absolute", "symbolic link", "hard link", "device", "bomb"])
def test_an_archive_that_is_not_the_known_one_is_not_unpacked(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside, root = tmp_path / "outside", tmp_path / "deep/root"
    outside.mkdir()
    root.mkdir(parents=True)
    (outside / "secret").write_text("secret")
    cut_off(monkeypatch)
    archive = root / torchvision.datasets.CIFAR100.filename
    archive.write_bytes(hostile(kind, outside))
    with pytest.raises(UserError, match="no whole copy of cifar100"):
        load_source(DataConfig(source="cifar100", root=str(root)))
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path != archive)
    assert found == ["deep", "deep/root", "outside", "outside/secret"]
    assert (outside / "secret").read_text() == "secret" and (outside / "secret").stat().st_nlink == 1


def test_an_archive_with_the_known_md5_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tests before mean something: only the MD5 makes the difference."""
    (tmp_path / "made").mkdir()
    write_cifar10(tmp_path / "made", monkeypatch)
    root, kind = tmp_path / "root", torchvision.datasets.CIFAR10
    root.mkdir()
    with tarfile.open(root / kind.filename, "w:gz") as archive:
        archive.add(tmp_path / "made" / kind.base_folder, kind.base_folder)
    content = (root / kind.filename).read_bytes()
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(content, usedforsecurity=False).hexdigest())
    assert load_source(DataConfig(source="cifar10", root=str(root))).train_labels.size == 40
