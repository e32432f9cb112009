"""Selections: the same images from an archive and from a folder, and nothing else in silence."""

import dataclasses
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from csa_core.cli import main
from csa_core.config import DataConfig
from csa_core.data.dataset import Dataset
from csa_core.data.selection import find_selection, select, write_selection
from csa_core.data.sources import load_source
from csa_core.data.split import make_split
from csa_core.errors import UserError
from csa_core.methods import parse
from tests.conftest import ROOT

TAILED = DataConfig(source="demo", imbalance_ratio=4, max_class_count=16)
SHIPPED = "cifar100-lt-ir100"
REAL = Path(os.environ.get("CSA_SHARED_DATA", ROOT.parent / "shared" / "data"))


def rearranged(dataset: Dataset, seed: int = 1) -> Dataset:
    """The same images in another order."""
    rng = np.random.default_rng(seed)
    train, test = rng.permutation(len(dataset.train_labels)), rng.permutation(len(dataset.test_labels))
    parts = (dataset.train_images[train], dataset.train_labels[train], dataset.test_images[test])
    return Dataset("cifar100", dataset.class_names, *parts, dataset.test_labels[test])


def write_folder(root: Path, dataset: Dataset) -> None:
    """Write a data set as PNGs under names that say nothing of its order."""
    rng = np.random.default_rng(2)
    for part in ("train", "test"):
        images, labels = getattr(dataset, f"{part}_images"), getattr(dataset, f"{part}_labels")
        for image, label, name in zip(images, labels, rng.permutation(len(labels)), strict=True):
            folder = root / part / dataset.class_names[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{name}.png")


def of_folder(root: Path, selection: Path | str) -> DataConfig:
    return DataConfig(source="folder", root=str(root), profile="selection", selection=str(selection))


@pytest.fixture(scope="module")
def selection(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("selection") / "tailed.txt"
    write_selection(path, dataset, make_split(dataset, TAILED))
    return path


def test_a_class_may_be_called_like_a_comment(dataset: Dataset, tmp_path: Path) -> None:
    named = dataclasses.replace(dataset, class_names=("#1", "# two", *dataset.class_names[2:]))
    write_selection(tmp_path / "s.txt", named, make_split(named, TAILED))
    found = select(named, str(tmp_path / "s.txt"))
    kept = make_split(named, TAILED)
    assert np.array_equal(found.train_images, named.train_images[kept.indices])


def test_an_archive_and_a_folder_give_the_same_bytes(dataset: Dataset, selection: Path, tmp_path: Path) -> None:
    write_folder(tmp_path, dataset)
    config = of_folder(tmp_path, selection)
    found: list[Any] = [select(dataset, str(selection)), select(rearranged(dataset), str(selection))]
    found.append(load_source(config))
    kept = make_split(dataset, TAILED)
    for one in found:
        assert one.digest == found[0].digest and one.source == "selection"
        assert np.array_equal(one.train_images, dataset.train_images[kept.indices]), "in the order of the split"
        assert np.array_equal(one.train_labels, dataset.train_labels[kept.indices])
        assert np.array_equal(one.test_images, found[0].test_images) and len(one.test_labels) == 120
        assert np.array_equal(one.test_labels, found[0].test_labels)
        split = make_split(one, config)
        assert split.digest == make_split(found[0], config).digest
        assert split.class_counts.tolist() == kept.class_counts.tolist() == [16, 10, 6, 4]
        assert split.indices.tolist() == list(range(36)), "all of them, in their order"
    tests = {image.tobytes() for image in found[0].test_images}
    assert tests == {image.tobytes() for image in dataset.test_images}


def test_where_the_images_come_from_is_no_part_of_a_run(selection: Path) -> None:
    data = {"profile": "selection", "selection": str(selection)}
    folder = parse({"data": data | {"source": "folder", "root": "x"}}, "test")
    archive = parse({"data": data | {"source": "cifar100", "selection": f"elsewhere/{selection.name}"}}, "test")
    other = parse({"data": data | {"selection": "other.txt"}}, "test")
    assert folder.digest() == archive.digest() != other.digest()


def changed(dataset: Dataset, part: str, index: int) -> Dataset:
    """A data set with one pixel of one image changed."""
    images = getattr(dataset, f"{part}_images").copy()
    images[index, 0, 0, 0] ^= 1
    return dataclasses.replace(dataset, digest="", **{f"{part}_images": images})


Edit = Callable[[list[str]], list[str]]
EDITS: dict[str, tuple[Edit, str]] = {
    "unknown class": (lambda lines: [*lines[:3], "ant " + lines[3][2:], *lines[4:]], "line 4: class 'ant' is not in"),
    "no such image": (lambda lines: [*lines[:3], "a " + 16 * "0", *lines[4:]], "line 4: no image of class a has the"),
    "one image twice": (lambda lines: [*lines[:3], lines[2], *lines[4:]], "line 4: no image of class a has the pixels"),
    "a word": (lambda lines: [*lines[:3], "nonsense", *lines[4:]], "line 4: expected a class and 16 hexadecimal"),
    "short digest": (lambda lines: [*lines[:3], "a 0123", *lines[4:]], "line 4: expected a class and 16 hexadecimal"),
    "no header": (lambda lines: lines[2:], "is not a selection; make one with"),
    "no images": (lambda lines: lines[:2], "is not a selection; make one with"),
    "an image less": (lambda lines: lines[:-1], "its training images are here, but"),
}


@pytest.mark.parametrize("case", EDITS)
def test_a_selection_that_does_not_fit_is_one_line(
    case: str, dataset: Dataset, selection: Path, tmp_path: Path
) -> None:
    edit, says = EDITS[case]
    path = tmp_path / "edited.txt"
    path.write_text("\n".join(edit(selection.read_text().splitlines())) + "\n")
    with pytest.raises(UserError) as error:
        select(dataset, str(path))
    assert str(error.value).startswith(f"{path}: ") and says in str(error.value) and "\n" not in str(error.value)


def test_changed_images_are_one_line(dataset: Dataset, selection: Path) -> None:
    first = int(make_split(dataset, TAILED).indices[0])
    with pytest.raises(UserError, match=r"line 3: no image of class a has the pixels [0-9a-f]{16}; name the original"):
        select(changed(dataset, "train", first), str(selection))
    with pytest.raises(UserError, match="but the test images are not those that it was made with"):
        select(changed(dataset, "test", 5), str(selection))
    unused = int(np.setdiff1d(np.arange(120), make_split(dataset, TAILED).indices)[0])
    assert select(changed(dataset, "train", unused), str(selection)), "it is not in the selection"


def test_a_missing_file_names_those_that_are_shipped(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"data.selection: no readable file '.*none.txt'; name one, or .*{SHIPPED}"):
        select(dataset, str(tmp_path / "none.txt"))
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="data.selection: no readable file"):
        select(dataset, str(tmp_path / "bytes.txt"))


def test_the_same_pixels_twice_in_a_class_are_two_images(dataset: Dataset, tmp_path: Path) -> None:
    images = dataset.train_images.copy()
    one, two = make_split(dataset, TAILED).indices[[2, 9]]  # both of class a
    images[two] = images[one]
    parts = (dataset.train_labels, dataset.test_images, dataset.test_labels)
    twice = Dataset("demo", dataset.class_names, images, *parts)
    path = tmp_path / "twice.txt"
    write_selection(path, twice, make_split(twice, TAILED))
    found = select(rearranged(twice), str(path))
    assert np.array_equal(found.train_images, images[make_split(twice, TAILED).indices])
    images = images.copy()
    images[two] ^= 1
    with pytest.raises(UserError, match="line 12: no image of class a"):
        select(Dataset("demo", dataset.class_names, images, *parts), str(path))


def test_the_command_writes_one(
    dataset: Dataset, selection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path, dataset)
    run = tmp_path / "run.yaml"
    run.write_text(f"data: {{source: folder, root: {tmp_path}, imbalance_ratio: 4, max_class_count: 16}}\n")
    out = tmp_path / "own.txt"
    assert main(["selection", str(run), "--out", str(out)]) == 0
    assert "36 images of 4 classes" in capsys.readouterr().out
    lines = out.read_text().splitlines()
    assert Counter(line.partition(" ")[0] for line in lines[2:]) == {"a": 16, "b": 10, "c": 6, "d": 4}
    assert select(dataset, str(out)).digest == lines[1].removeprefix("# data ")


def test_the_shipped_one_has_the_published_counts() -> None:
    lines = find_selection(SHIPPED).read_text().splitlines()
    counts = Counter(line.rpartition(" ")[0] for line in lines if not line.startswith("#"))
    assert list(counts.values()) == [int(500 * 100 ** (-k / 99)) for k in range(100)]
    assert list(counts) == sorted(counts), "classes in the order of their numbers, which is that of their names"
    assert counts.total() == 10_847


@pytest.mark.long
@pytest.mark.skipif(not (REAL / SHIPPED / "manifest.json").is_file(), reason="the real images are not here")
def test_the_shipped_one_fits_the_real_images(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(REAL / "unpack"), SHIPPED, str(tmp_path)], check=True, capture_output=True)
    dataset = load_source(of_folder(tmp_path, SHIPPED))
    stated = find_selection(SHIPPED).read_text().splitlines()[1]
    assert dataset.digest == stated.removeprefix("# data ") and len(dataset.test_labels) == 10_000
