"""How images that are not square become square: in folders and lists, in training and in use alike."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import csa_core
from csa_core.config import DataConfig
from csa_core.data.dataset import Dataset
from csa_core.data.decode import evaluated, trained
from csa_core.data.images import fitted
from csa_core.data.listed import ImageList
from csa_core.data.plan import LISTED_DRAWS
from csa_core.data.selection import write_selection
from csa_core.data.sources import load_source, read_dataset
from csa_core.data.split import make_split
from csa_core.errors import UserError
from csa_core.store import read_json, read_tensors
from csa_core.use import describe
from csa_core.vision import torchvision
from tests.conftest import TINY, Cli, method_of, tiny
from tests.csa_core.data.test_own_images import data_of_lists, write_lists
from tests.helpers.images import folder, folder_of_images

v2 = torchvision.transforms.v2
SIDES = st.integers(8, 60)
BICUBIC = v2.InterpolationMode.BICUBIC


def picture(width: int, height: int) -> Image.Image:
    """Return a smooth image, of which a pixel more or less at a border changes little."""
    y, x = np.mgrid[:height, :width]
    channels = [60 + 120 * x / width, 60 + 120 * y / height, 60 + 60 * x / width + 60 * y / height]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def whole_in_black(image: Image.Image, side: int) -> np.ndarray:
    """Return an image resized by torchvision so that it fits into a square of black, (side, side, 3) uint8."""
    long = max(image.size)
    width, height = (round(length / long * side) for length in image.size)
    resized = np.asarray(v2.Resize([height, width], BICUBIC)(image))
    top, left = round((side - height) / 2), round((side - width) / 2)
    padded = np.zeros((side, side, 3), dtype=np.uint8)
    padded[top : top + height, left : left + width] = resized
    return padded


@given(SIDES, st.integers(0, 20), st.booleans(), SIDES)
def test_each_way_is_that_of_torchvision(short: int, more: int, is_high: bool, side: int) -> None:
    long = short + 2 * more  # an even rest, of which both sides have the same
    image = picture(short, long) if is_high else picture(long, short)
    resize = v2.Resize([side, side], BICUBIC)
    assert np.array_equal(np.asarray(fitted(image, (side, side), "stretch")), np.asarray(resize(image)))
    assert np.array_equal(np.asarray(fitted(image, (side, side), "pad")), whole_in_black(image, side))
    cut = np.asarray(v2.Compose([v2.CenterCrop(short), resize])(image)).astype(int)
    apart = np.abs(np.asarray(fitted(image, (side, side), "crop")) - cut)
    # At its border Pillow looks at pixels beyond the crop, torchvision has none there.
    assert np.median(apart) <= 1 and apart.max() <= 12


def test_what_needs_no_resampling_is_exact() -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (12, 20, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(fitted(Image.fromarray(pixels), (12, 12), "crop")), pixels[:, 4:16])
    padded = np.zeros((20, 20, 3), dtype=np.uint8)
    padded[4:16] = pixels
    assert np.array_equal(np.asarray(fitted(Image.fromarray(pixels), (20, 20), "pad")), padded)


def wide_folder(root: Path) -> Path:
    """Write the usual folder with one image in four twice as wide as high."""
    folder_of_images(root)
    for k, name in enumerate(("ant", "bee")):
        for part in ("train", "test"):
            Image.fromarray(np.random.default_rng([k, part == "test"]).integers(0, 256, (10, 20, 3), np.uint8)).save(
                root / part / name / "wide.png"
            )
    return root


def test_a_folder_is_read_as_it_says(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wide_folder(tmp_path)
    with Image.open(tmp_path / "train/bee/wide.png") as file:
        pixels = np.asarray(file.convert("RGB"))
    stretched = folder(tmp_path, image_size=10)
    said = "note: 4 of 16 images are not square; data.resize: stretch changes their proportions (crop takes"
    assert said in capfd.readouterr().err
    cropped, padded = (folder(tmp_path, image_size=10, resize=resize) for resize in ("crop", "pad"))
    assert "data.resize: crop takes their middle" in capfd.readouterr().err
    assert np.array_equal(cropped.train_images[-1], pixels[:, 5:15])
    assert not padded.train_images[-1][:2].any() and padded.train_images[-1][3:7].all(axis=2).any()
    wanted = v2.Resize([10, 10], BICUBIC)(Image.fromarray(pixels))
    assert np.array_equal(stretched.train_images[-1], np.asarray(wanted))
    assert len({each.digest for each in (stretched, cropped, padded)}) == 3
    assert folder(tmp_path, image_size=10, resize="stretch").digest == stretched.digest
    # The file of a data set says it, and is not taken for another.
    padded.write(tmp_path / "data.safetensors")
    for resize in ("stretch", "crop"):
        asked = DataConfig(source="folder", root=str(tmp_path), image_size=10, resize=resize)
        with pytest.raises(UserError, match=f"square by pad, the run asks for data.resize: {resize}; make it again"):
            read_dataset(tmp_path / "data.safetensors", asked)


def test_square_images_are_no_news(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = {folder(folder_of_images(tmp_path / way), image_size=8, resize=way).train_images.tobytes()
             for way in ("stretch", "crop", "pad")}  # fmt: skip
    assert len(found) == 1 and capfd.readouterr().err == ""


def test_the_default_is_no_key_of_a_run() -> None:
    own = {"source": "folder", "image_size": 10, "profile": "as_is"}
    lists = {"source": "image_list", "train_list": "a", "test_list": "b"}
    for fields, usual in ((own, "stretch"), (lists, "crop")):
        for resize in ("stretch", "crop", "pad"):
            same = DataConfig(**fields, resize=resize).identity() == DataConfig(**fields).identity()
            assert same == (resize == usual)
    with pytest.raises(ValueError, match="resize: pad needs image_size, the side of the square"):
        DataConfig(source="folder", resize="pad")


# Lists.


def wide_lists(root: Path) -> Path:
    write_lists(root)
    for name, width in (("a/0.png", 40), ("b/3.png", 42)):
        picture(width, 20).save(root / name)
    return root


def test_images_of_lists_are_evaluated_and_trained_on_alike(tmp_path: Path) -> None:
    picture(64, 32).save(tmp_path / "wide.png")
    whole = np.zeros(LISTED_DRAWS, dtype=np.float32)  # the first try: all of the area, in its own proportions
    whole[0], whole[10:20], whole[22] = 1 - 1e-6, 0.5, 0.9
    ways = {"stretch": np.asarray(v2.Resize([32, 32], BICUBIC)(picture(64, 32)))}
    ways["pad"] = whole_in_black(picture(64, 32), 32)
    for resize, wanted in ways.items():
        assert np.array_equal(evaluated(tmp_path / "wide.png", 32, resize), wanted)
        # Of the square, whichever proportions the image has; resampled once more and bilinear.
        apart = np.abs(trained(tmp_path / "wide.png", 32, whole, resize=resize).astype(int) - wanted)
        assert np.median(apart) <= 3
    middle = v2.Compose([v2.Resize(37), v2.CenterCrop(32)])(picture(64, 32))
    assert np.array_equal(evaluated(tmp_path / "wide.png", 32), np.asarray(middle)), "as ever"


def test_a_list_says_it_and_the_check_counts(tmp_path: Path, cli: Cli) -> None:
    plain = data_of_lists(wide_lists(tmp_path))
    padded = plain.model_copy(update={"resize": "pad"})
    datasets = [load_source(each) for each in (plain, padded)]
    assert [each.resize for each in datasets] == ["crop", "pad"] and datasets[0].digest != datasets[1].digest
    datasets[1].write(tmp_path / "data.safetensors")
    again = read_dataset(tmp_path / "data.safetensors", padded)
    assert isinstance(again, ImageList) and (again.resize, again.digest) == ("pad", datasets[1].digest)
    with pytest.raises(UserError, match="square by pad, the run asks for data.resize: crop"):
        read_dataset(tmp_path / "data.safetensors", plain)
    for resize in ("crop", "pad", "stretch"):
        fields = plain.model_dump(mode="json") | {"resize": resize}
        done = cli("check", "-", "--workers", 0, stdin=yaml.safe_dump({"data": fields}))
        assert done.returncode == 0, done.stderr
        assert f"note: 2 of 8 images are not square; data.resize: {resize} " in done.stderr


# In use.


def test_a_run_predicts_images_as_it_was_trained_on_them(tmp_path: Path, cli: Cli) -> None:
    wide_folder(tmp_path / "photos")
    data = {"source": "folder", "root": str(tmp_path / "photos"), "image_size": 10, "resize": "pad"}
    fields = TINY | {"data": data, "epochs": 1, "lr_drops": [], "lr_warmup_epochs": 0, "warmup_epochs": 0}
    fields |= {"method": "ce", "batch_size": 4}
    kept = {key: value for key, value in fields.items() if key not in ("warmup_epochs", "plain_epochs", "threshold")}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(kept))
    done = cli("train", tmp_path / "run.yaml", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    stored = safetensors.numpy.load_file(tmp_path / "out/predictions.safetensors")["single"]
    paths = [path for name in ("ant", "bee") for path in sorted((tmp_path / "photos/test" / name).iterdir())]
    run = csa_core.load(tmp_path / "out")
    assert run.logits(paths)["single"].tobytes() == stored.tobytes()
    assert read_tensors(tmp_path / "out/weights.safetensors")[1]["use"]["resizing"] == "pad"
    for form, name in (("torchscript", "run.pt"), ("safetensors", "run.safetensors")):
        assert cli("export", tmp_path / "out", "--format", form, "--out", tmp_path / name).returncode == 0
        assert read_json(tmp_path / f"{name}.json")["resizing"].endswith("(Pillow's ImageOps.pad, bicubic)")
    assert csa_core.load(tmp_path / "run.safetensors").logits(paths)["single"].tobytes() == stored.tobytes()
    config = json.loads((tmp_path / "out/metrics.json").read_text())["config"]
    assert config["data"]["resize"] == "pad"


def test_a_run_on_a_selection_predicts_images_as_its_folder_was_read(tmp_path: Path) -> None:
    wide_folder(tmp_path / "photos")
    data = {"source": "folder", "root": str(tmp_path / "photos"), "image_size": 10, "resize": "pad"}
    config = tiny(method="ce", data=data)
    whole = load_source(config.data)
    assert isinstance(whole, Dataset)
    write_selection(tmp_path / "all.txt", whole, make_split(whole, config.data))
    config = tiny(method="ce", data=data | {"profile": "selection", "selection": str(tmp_path / "all.txt")})
    dataset = load_source(config.data)
    method = method_of(config, dataset, make_split(dataset, config.data))
    assert describe(method, method.network())["resizing"] == "pad"
