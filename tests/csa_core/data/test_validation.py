"""Validation images: how many of each class, that nothing is trained on them, and what is refused."""

import os
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from csa_core.config import DataConfig
from csa_core.data.dataset import Dataset
from csa_core.data.listed import ImageList
from csa_core.data.sources import load_source, read_dataset
from csa_core.data.split import apart, make_split, read_split, write_split
from csa_core.data.validation import held_out
from csa_core.errors import UserError
from csa_core.methods import parse
from csa_core.store import read_json
from csa_core.train.loop import Options, train, train_epoch
from csa_core.train.run import Run
from tests.conftest import Cli, listed, tiny
from tests.csa_core.data.test_own_images import append, data_of_lists, fresh, write_lists
from tests.helpers.images import folder, folder_of_images

CPU = torch.device("cpu")
SPLIT = {"source": "demo", "imbalance_ratio": 4, "max_class_count": 16}
CONFIG = DataConfig(**SPLIT, validation=0.25)  # type: ignore[arg-type]


def pixels(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


# How many, and which.


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(1, 99), st.integers(0, 3))
def test_each_class_gives_its_share_and_keeps_an_image(counts: list[int], percent: int, seed: int) -> None:
    is_held = held_out(range(sum(counts)), np.array(counts), percent / 100, seed)
    for n, part in zip(counts, np.split(is_held, np.cumsum(counts)[:-1]), strict=True):
        asked = max(1, int(Fraction(n * percent, 100) + Fraction(1, 2)))  # halves up, in whole numbers
        assert part.sum() == min(asked, n - 1)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=2, max_size=4), st.floats(0.01, 0.99))
def test_no_image_is_on_both_sides_however_often_it_is_there(classes: list[list[int]], share: float) -> None:
    keys = [key for members in classes for key in members]
    is_held = held_out(keys, np.array([len(members) for members in classes]), share, 0)
    held = {key for key, out in zip(keys, is_held, strict=True) if out}
    assert not held & {key for key, out in zip(keys, is_held, strict=True) if not out}
    parts = np.split(is_held, np.cumsum([len(members) for members in classes])[:-1])
    assert not any(part.all() for part in parts), "every class keeps an image"
    assert all(sum(key in members for members in classes) == 1 for key in held), "one of two labels stays in training"


def test_a_split_is_parted_and_nothing_else_of_it_changes(dataset: Dataset) -> None:
    whole = make_split(dataset, DataConfig(**SPLIT))  # type: ignore[arg-type]
    split = make_split(dataset, CONFIG)
    assert sorted([*split.indices, *split.validation]) == sorted(whole.indices)
    assert [i for i in whole.indices if i not in set(split.validation)] == split.indices.tolist(), "the order stays"
    assert np.bincount(dataset.train_labels[whole.indices]).tolist() == [16, 10, 6, 4]
    assert np.bincount(dataset.train_labels[split.validation]).tolist() == [4, 3, 2, 1]
    assert split.class_counts.tolist() == [12, 7, 4, 3]
    other = make_split(dataset, CONFIG.model_copy(update={"validation_seed": 1}))
    assert set(other.validation) != set(split.validation)
    assert len({whole.digest, split.digest, other.digest}) == 3


def test_no_validation_image_is_a_training_image_by_its_pixels(dataset: Dataset) -> None:
    split = make_split(dataset, CONFIG)
    other, renumbered = apart(dataset, split)
    assert isinstance(other, Dataset) and other.validation is not None
    trained, held = pixels(other.train_images), pixels(other.validation.test_images)
    assert not trained & held and held == pixels(dataset.train_images[split.validation])
    assert (other.train_images[renumbered.indices] == dataset.train_images[split.indices]).all()
    assert (other.train_labels[renumbered.indices] == dataset.train_labels[split.indices]).all()
    assert (other.digest, renumbered.digest) == (dataset.digest, split.digest)
    rest = np.delete(dataset.train_images, split.validation, axis=0) / 255
    for validated in (other, other.validation):  # normalised alike, without a look at what is held out
        assert np.allclose(validated.mean_std, (rest.mean((0, 1, 2)), rest.std((0, 1, 2))))


def test_what_is_held_out_cannot_change_the_weights(dataset: Dataset) -> None:
    split = make_split(dataset, CONFIG)
    noise = dataset.train_images.copy()
    noise[split.validation] = np.random.default_rng(1).integers(0, 256, noise[split.validation].shape)
    states = []
    for each in (dataset, replace(dataset, train_images=noise)):
        run = Run(tiny(), *apart(each, split), CPU)
        for epoch in range(2):
            train_epoch(run, epoch)
        states.append(run.state())
    assert all(np.array_equal(states[0][key], states[1][key]) for key in states[0])


def test_a_split_file_carries_them(dataset: Dataset, tmp_path: Path) -> None:
    split, path = make_split(dataset, CONFIG), tmp_path / "split.json"
    write_split(path, split, dataset, CONFIG)
    again = read_split(path, dataset, CONFIG)
    assert again.digest == split.digest and again.validation.tolist() == split.validation.tolist()
    with pytest.raises(UserError, match="'validation': 0.25.* the run asks for"):
        read_split(path, dataset, CONFIG.model_copy(update={"validation": 0.0}))
    content = path.read_text()
    path.write_text(content.replace(f'"validation": {{"a": [{split.validation[0]}', '"validation": {"a": [0'))
    assert path.read_text() != content
    with pytest.raises(UserError, match="does not match its SHA-256"):
        read_split(path, dataset, CONFIG)


def test_classes_of_one_image_alone_are_refused(dataset: Dataset) -> None:
    config = CONFIG.model_copy(update={"imbalance_ratio": 1.0, "max_class_count": 1})
    with pytest.raises(UserError, match=r"^data.validation: 0.25 holds out no image: no class has two that differ$"):
        make_split(dataset, config)


# What is measured.


def fit(dataset: Dataset, data: DataConfig, out: Path, parent: Path | None = None, **changes: object) -> Path:
    config = tiny(data=data.model_dump(mode="json"), **changes)
    train(config, dataset, make_split(dataset, data), Options(out, out / "state", CPU, "code", parent=parent))
    return out


def test_metrics_and_history_hold_both_accuracies(dataset: Dataset, tmp_path: Path) -> None:
    split, out = make_split(dataset, CONFIG), fit(dataset, CONFIG, tmp_path, evaluate_every=5)
    metrics, logits = read_json(out / "metrics.json"), safetensors.numpy.load_file(out / "predictions.safetensors")
    labels = {"": dataset.test_labels, "validation/": dataset.train_labels[split.validation]}
    row = dict(zip(*(line.split(",") for line in (out / "history.csv").read_text().splitlines()[::5]), strict=True))
    assert metrics["class_counts"] == [12, 7, 4, 3]
    for head in ("uniform", "resampling"):
        scores = metrics["heads"][head], metrics["validation"][head]
        for of, (part, truth) in zip(scores, labels.items(), strict=True):
            predicted = logits[part + head].argmax(1)
            assert of["accuracy"]["all"] == (predicted == truth).mean()
            assert of["balanced"] == pytest.approx(balanced_accuracy_score(truth, predicted))
            assert of["images"] == np.bincount(truth, minlength=4).tolist()
        assert float(row[f"test_accuracy_{head}"]) == scores[0]["accuracy"]["all"]
        assert float(row[f"validation_accuracy_{head}"]) == scores[1]["accuracy"]["all"]
        assert float(row[f"validation_balanced_{head}"]) == scores[1]["balanced"]
    assert metrics["validation"].keys() == metrics["heads"].keys()
    events = (out / "events.out.tfevents.csa").read_bytes()
    assert b"accuracy/validation_uniform" in events and b"balanced/validation_resampling" in events


def test_commands_on_finished_runs_show_it(dataset: Dataset, tmp_path: Path, cli: Cli) -> None:
    out = fit(dataset, CONFIG, tmp_path / "run")
    balanced = f"{100 * read_json(out / 'metrics.json')['validation']['resampling']['balanced']:.1f}"
    dataset.write(tmp_path / "data.safetensors")
    scored = cli("evaluate", out, "--data", tmp_path / "data.safetensors")
    assert scored.returncode == 0 and "same as metrics.json" in scored.stdout, scored.stderr
    assert f"mean over classes {balanced}" in scored.stdout
    head, line = cli("ls", tmp_path).stdout.splitlines()
    assert "Validation, balanced" in head and balanced in line.split()


def test_a_list_is_validated_on_as_it_is_tested_on(image_lists: Path, tmp_path: Path) -> None:
    """Once by a share, once by a list of the very images that it held out: the same weights and scores."""
    fields: Any = listed(image_lists, epochs=1, lr_drops=[], plain_epochs=0, warmup_epochs=0)
    shared = parse(fields | {"data": fields["data"] | {"validation": 0.2}}, "test")
    dataset = load_source(shared.data)
    split = make_split(dataset, shared.data)
    assert isinstance(dataset, ImageList)
    lines = (image_lists / "train.txt").read_text().splitlines(keepends=True)
    held = {os.fsdecode(name) for name in dataset.train_paths[split.validation]}
    for name, is_val in (("train", False), ("val", True)):
        (tmp_path / f"{name}.txt").write_text("".join(x for x in lines if (x.split()[0] in held) == is_val))
    places = {f"{part}_list": str(tmp_path / f"{part}.txt") for part in ("train", "val")}
    given = parse(fields | {"data": fields["data"] | places}, "test")
    found = []
    for config in (shared, given):
        data, out = load_source(config.data), tmp_path / config.digest()[:8]
        train(config, data, make_split(data, config.data), Options(out, out / "state", CPU, "code"))
        weights = safetensors.numpy.load_file(out / "weights.safetensors")
        found.append(read_json(out / "metrics.json") | {"weights": {key: a.tobytes() for key, a in weights.items()}})
    assert sum(found[0]["validation"]["uniform"]["images"]) == len(held) == len(split.validation)
    assert found[0]["weights"] == found[1]["weights"] and found[0]["heads"] == found[1]["heads"]
    for head, scores in found[0]["validation"].items():  # in another order, so that confidences may round otherwise
        assert scores["confusion"] == found[1]["validation"][head]["confusion"]


def test_without_validation_nothing_speaks_of_it(dataset: Dataset, tmp_path: Path) -> None:
    out = fit(dataset, DataConfig(**SPLIT), tmp_path)  # type: ignore[arg-type]
    files = [path.read_bytes() for path in out.iterdir() if path.is_file()]
    assert len(files) >= 5 and not any(b"validation" in content for content in files)


@pytest.mark.parametrize("method", ["crt", "post_hoc_adjustment"])
def test_a_second_stage_has_the_same_training_part(method: str, dataset: Dataset, tmp_path: Path) -> None:
    parent = fit(dataset, CONFIG, tmp_path / "ce", method="ce")
    stage = {"second_stage": {"epochs": 1, "lr_drops": []}} if method == "crt" else {}
    metrics = read_json(fit(dataset, CONFIG, tmp_path / "two", parent, method=method, **stage) / "metrics.json")
    assert metrics["class_counts"] == [12, 7, 4, 3]
    assert sum(metrics["validation"]["single"]["images"]) == 10
    for changes in ({"validation": 0.0}, {"validation": 0.5}, {"validation_seed": 3}):
        other = CONFIG.model_copy(update=changes)
        with pytest.raises(UserError, match=r"was trained with data.validation(_seed)? "):
            fit(dataset, other, tmp_path / "other", parent, method=method, **stage)


# What is asked for.

BAD = {
    "validation: 1.5": "data.validation: input should be less than 1, got 1.5",
    "validation: -0.1": "data.validation: input should be greater than or equal to 0, got -0.1",
    "validation: ten": "data.validation: input should be a valid number, got 'ten'",
    "source: demo, val_folder: val": "val_folder is for source folder, not for demo; use validation: 0.1",
    "source: folder, val_list: v.txt": "val_list is for source image_list, not for folder; use val_folder or",
    "source: image_list, train_list: a, test_list: b, val_folder: val": "not for image_list; use val_list or",
    "source: folder, val_folder: val, validation: 0.1": "validation: 0.1 holds out training images, val_folder names",
    "source: image_list, train_list: a, test_list: b, val_list: c, validation: 0.2": "val_list names others; give one",
    "source: folder, val_folder: test": "val_folder: test is no folder of its own",
    "source: folder, val_folder: val, profile: selection, selection: x": "val_folder is not for profile selection",
    "validaton: 0.1": "unknown key 'data.validaton': did you mean 'validation'",
}


@pytest.mark.parametrize("fields", BAD)
def test_a_mistake_is_one_line(fields: str, cli: Cli) -> None:
    done = cli("train", "-", "--out", "/nowhere", stdin=f"data: {{{fields}}}")
    assert done.returncode == 2 and BAD[fields] in done.stderr and done.stderr.count("\n") == 1


def with_val(root: Path, name: str = "val") -> Path:
    folder_of_images(root)
    for k in ("ant", "bee"):
        (root / name / k).mkdir(parents=True)
        fresh(root / name / k / "v.png")
    return root


def test_a_folder_of_validation_images(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plain = folder(with_val(tmp_path))
    assert capfd.readouterr().err == (
        f"note: {tmp_path}/val is not read; data.val_folder: val validates on its images\n"
    )
    found = folder(tmp_path, val_folder="val")
    assert capfd.readouterr().err == "" and plain.validation is None and found.validation is not None
    assert found.validation.test_labels.tolist() == [0, 1] and found.digest != plain.digest
    assert np.array_equal(found.train_images, plain.train_images)
    asks, asks_not = (
        DataConfig(source="folder", root=str(tmp_path), profile="as_is", val_folder=name) for name in ("val", None)
    )
    for each, of, words in ((plain, asks, "holds no validation images"), (found, asks_not, "holds validation images")):
        each.write(tmp_path / "data.safetensors")
        with pytest.raises(UserError, match=words):
            read_dataset(tmp_path / "data.safetensors", of)
    assert read_dataset(tmp_path / "data.safetensors", asks).digest == found.digest


def lacks_a_class(root: Path) -> None:
    (root / "val/bee/v.png").unlink()


def other_class(root: Path) -> None:
    (root / "val/bee").rename(root / "val/bees")


def from_training(root: Path) -> None:
    (root / "val/ant/v.png").write_bytes((root / "train/ant/0.png").read_bytes())


def from_test(root: Path) -> None:
    (root / "val/ant/v.png").write_bytes((root / "test/ant/0.png").read_bytes())


def other_name(root: Path) -> None:
    (root / "val").rename(root / "validation")


FOLDERS: dict[Callable[[Path], None], str] = {
    other_class: "val: class 'bees' is not in train, did you mean 'bee'",
    from_training: "1 of 2 validation images are training images, pixel by pixel: .*val/ant/v.png is .*train/ant/0.png",
    from_test: "1 of 2 validation images are test images, pixel by pixel: .*val/ant/v.png is .*test/ant/0.png",
    other_name: "val: no such folder; .* rename 'validation' to 'val', or name it in data.val_folder",
}


@pytest.mark.parametrize("how", FOLDERS)
def test_a_validation_folder_that_is_refused(how: Callable[[Path], None], tmp_path: Path) -> None:
    how(with_val(tmp_path))
    with pytest.raises(UserError, match=FOLDERS[how]):
        folder(tmp_path, val_folder="val")


def test_a_class_without_validation_images_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lacks_a_class(with_val(tmp_path))
    folder(tmp_path, val_folder="val")
    assert "note: 1 of 2 classes have no validation images ('bee'); means over" in capfd.readouterr().err


def lists(root: Path, **more: object) -> DataConfig:
    return parse({"data": data_of_lists(root).model_dump(mode="json") | more}, "test").data


def load_lists(root: Path, **more: object) -> ImageList:
    dataset = load_source(lists(root, **more))
    assert isinstance(dataset, ImageList)
    return dataset


def test_a_list_of_validation_images(tmp_path: Path) -> None:
    plain = load_lists(write_lists(tmp_path))
    fresh(tmp_path / "b/v.png")
    (tmp_path / "val.txt").write_text("b/v.png 1\n")
    found = load_lists(tmp_path, val_list=str(tmp_path / "val.txt"))
    assert found.validation is not None and found.digest != plain.digest
    assert found.validation.test_paths.tolist() == [b"b/v.png"]
    assert found.validation.test_labels.tolist() == [found.class_names.index("b")]
    assert found.validation.sizes[-1] == (tmp_path / "b/v.png").stat().st_size
    found.write(tmp_path / "data.safetensors")
    again = read_dataset(tmp_path / "data.safetensors", lists(tmp_path, val_list="elsewhere"))
    assert again.digest == found.digest
    append(tmp_path / "val.txt", "b/3.png 1")
    with pytest.raises(UserError, match="1 of 2 validation images are test images, byte by byte: .*val.txt: line 2 "):
        load_lists(tmp_path, val_list=str(tmp_path / "val.txt"))
    (tmp_path / "val.txt").write_text("b/v.png 7\n")
    with pytest.raises(UserError, match=r"val.txt: line 1: label 7 is outside 0..1, the classes of the training list"):
        load_lists(tmp_path, val_list=str(tmp_path / "val.txt"))


def test_copies_in_a_list_are_held_out_together(tmp_path: Path) -> None:
    """A class that was made larger by naming its images again and again."""
    write_lists(tmp_path)
    for _ in range(5):
        append(tmp_path / "train.txt", "b/0.png 1\nb/1.png 1")
    config = lists(tmp_path, validation=0.3)
    dataset = load_source(config)
    split = make_split(dataset, config)
    assert isinstance(dataset, ImageList)
    trained, held = (set(dataset.train_paths[part].tolist()) for part in (split.indices, split.validation))
    assert not trained & held and {name[:2] for name in held} == {b"a/", b"b/"} == {name[:2] for name in trained}
    other, renumbered = apart(dataset, split)
    assert isinstance(other, ImageList) and other.validation is not None and other.digest == dataset.digest
    assert set(other.train_paths[renumbered.indices].tolist()) == trained
    for each in (other, other.validation):
        paths = [*each.train_paths, *each.test_paths] + ([*each.val_paths] if each.val_paths is not None else [])
        assert each.sizes.tolist() == [(tmp_path / name.decode()).stat().st_size for name in paths]


def test_the_check_says_what_is_held_out(tmp_path: Path, cli: Cli) -> None:
    folder_of_images(tmp_path)
    (tmp_path / "train/bee/1.webp").unlink()
    (tmp_path / "train/bee/2.jpg").unlink()
    done = cli("check", "-", stdin=f"data: {{source: folder, root: {tmp_path}, validation: 0.3}}")
    assert done.returncode == 0 and "note: 1 validation images of 1 of 2 classes are held out" in done.stderr
    assert "note: 1 of 2 classes have no validation images ('bee')" in done.stderr
