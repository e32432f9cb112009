"""Data sources, on real files, good and bad."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from csa_core.config import DataConfig
from csa_core.data import demo
from csa_core.data.dataset import Dataset
from csa_core.data.sources import load_source, read_dataset
from csa_core.errors import UserError
from tests.helpers.images import cut_off, folder, folder_of_images, load, write_cifar10


def test_the_demo_set_is_what_it_was() -> None:
    dataset = load(source="demo")
    assert dataset.digest == demo.DIGEST
    assert dataset.train_images.shape == (2500, 16, 16, 3) and dataset.test_images.shape == (2000, 16, 16, 3)
    assert np.bincount(dataset.test_labels).tolist() == [200] * 10


def test_the_digits_are_scikit_learns() -> None:
    images, labels = demo.read_digits()
    expected = load_digits()
    np.testing.assert_array_equal(images, expected.images)
    np.testing.assert_array_equal(labels, expected.target)


def test_handwritings_of_train_and_test_are_disjoint() -> None:
    digits = load_digits()
    for k in range(10):
        originals = digits.images[digits.target == k]
        train, test = (
            {image.tobytes() for image in part}
            for part in (originals[: -demo.TEST_ORIGINALS], originals[-demo.TEST_ORIGINALS :])
        )
        assert not train & test and len(train) > 100 and len(test) == demo.TEST_ORIGINALS


def test_no_context_comes_twice() -> None:
    dataset = demo.make_demo()
    images = np.concatenate([dataset.train_images, dataset.test_images])
    assert len({image[0].tobytes() for image in images}) == len(images), "two images share their first row"


def test_a_folder_of_images(tmp_path: Path) -> None:
    dataset = folder(folder_of_images(tmp_path))
    assert dataset.class_names == ("ant", "bee")
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    for number, name in enumerate(["0.png", "1.webp", "2.jpg"]):
        with Image.open(tmp_path / "test" / "ant" / name) as image:
            assert np.array_equal(dataset.test_images[number], np.asarray(image.convert("RGB")))


def test_images_of_several_sizes(tmp_path: Path) -> None:
    folder_of_images(tmp_path, sizes=(10, 14))
    with pytest.raises(UserError, match=r"images of several sizes .* set data.image_size"):
        folder(tmp_path)
    assert folder(tmp_path, image_size=12).train_images.shape == (6, 12, 12, 3)


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    folder_of_images(tmp_path)
    pixels = np.zeros((10, 10, 3), dtype=np.uint8)
    pixels[0] = 255  # the first row is white
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    Image.fromarray(pixels).save(tmp_path / "train/ant/0.png", exif=exif)
    assert folder(tmp_path).train_images[0, -1].min() == 255


def _remove(*gone: Path) -> None:
    for each in gone:
        for path in each.iterdir():
            path.unlink()


BAD = {
    "no train folder": (lambda root: (root / "train").rename(root / "tran"), "train: no such folder"),
    "empty class": (lambda root: _remove(root / "train/bee"), "bee: class without images"),
    "no test images": (lambda root: _remove(root / "test/bee", root / "test/ant"), "no images to test on"),
    "class in test only": (
        lambda root: (root / "test/bee").rename(root / "test/bea"),
        "class 'bea' is not in train, did you mean 'bee'?",
    ),
    "damaged image": (lambda root: (root / "train/ant/0.png").write_bytes(b"\x89PNG no"), "0.png: cannot be decoded"),
    "cut image": (
        lambda root: (root / "train/ant/2.jpg").write_bytes((root / "train/ant/2.jpg").read_bytes()[:300]),
        "2.jpg: cannot be decoded",
    ),
    "sixteen bits": (
        lambda root: Image.fromarray(np.arange(100, dtype=np.uint16).reshape(10, 10) * 600).save(
            root / "train/ant/0.png"
        ),
        "0.png: has 16 bits a channel; save it with 8",
    ),
    "a GIF called PNG": (
        lambda root: Image.new("P", (10, 10)).save(root / "train/ant/0.png", format="GIF"),
        "0.png: is a GIF, whatever its name says",
    ),
    "another file": (
        lambda root: (root / "train/ant/notes.txt").write_text("x"),
        "not a PNG, JPEG or WebP image: train/ant/notes.txt; remove",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_is_named(case: str, tmp_path: Path) -> None:
    spoil, match = BAD[case]
    spoil(folder_of_images(tmp_path))
    with pytest.raises(UserError, match=match):
        folder(tmp_path)


def test_cifar_through_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    dataset = load(source="cifar10", root=str(tmp_path))
    assert dataset.train_images.shape == (40, 32, 32, 3) and dataset.test_labels.tolist() == list(range(10)) * 2
    assert dataset.class_names[3] == "class 3"


def test_a_damaged_cifar_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="no whole copy of cifar10"):
        load_source(DataConfig(source="cifar10", root=str(tmp_path)))


def test_cifar_without_copy_or_network_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off(monkeypatch)
    with pytest.raises(UserError, match=r"put cifar-100-python.tar.gz \(MD5 [0-9a-f]{32}\)") as error:
        load_source(DataConfig(source="cifar100", root=str(tmp_path)))
    assert "\n" not in str(error.value)


def test_written_and_read_again(dataset: Dataset, tmp_path: Path) -> None:
    dataset.write(tmp_path / "data.safetensors")
    again = read_dataset(tmp_path / "data.safetensors", DataConfig(source="demo"))
    assert isinstance(again, Dataset)
    assert again.digest == dataset.digest and again.class_names == dataset.class_names
    assert np.array_equal(again.train_images, dataset.train_images)


def test_labels_out_of_range_and_empty_classes_are_named(dataset: Dataset) -> None:
    parts = (dataset.train_images, dataset.train_labels, dataset.test_images)
    wrong = dataset.test_labels.copy()
    wrong[7] = 4
    with pytest.raises(UserError, match=r"here: test image 7 has label 4, outside 0..3"):
        Dataset("demo", dataset.class_names, *parts, wrong).check("here")
    with pytest.raises(UserError, match="class 'e' has no train images"):
        Dataset("demo", (*dataset.class_names, "e"), *parts, dataset.test_labels).check("here")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"class_names": ("a",)}, "here: 1 classes; at least two are needed"),
        ({"test_images": np.zeros((120, 16, 12, 3))}, r"here: test images must be \(N, H, W, 3\) uint8"),
        (
            {"test_images": np.zeros((0, 16, 12, 3), np.uint8), "test_labels": np.zeros(0, np.int64)},
            "has no test images",
        ),
        ({"test_labels": np.zeros(7, np.int64)}, r"here: 120 test images, but labels are \(7,\) int64"),
    ],
)
def test_a_data_set_that_cannot_be_used(change: dict[str, Any], said: str, dataset: Dataset) -> None:
    with pytest.raises(UserError, match=said):
        replace(dataset, **change).check("here")
