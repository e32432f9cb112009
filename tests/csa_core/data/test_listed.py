"""Images of list files: what is read, what is decoded, and what is refused."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from csa_core.data import decode
from csa_core.data.augment import evaluation_batches
from csa_core.data.batch import Batch
from csa_core.data.decode import ListedImages, check_images, evaluated, trained
from csa_core.data.listed import ImageList, read_lists, with_workers
from csa_core.data.listfile import read_lines
from csa_core.data.plan import EpochPlan
from csa_core.data.sources import load_source, read_dataset
from csa_core.data.split import make_split
from csa_core.data.views import crop_boxes
from csa_core.errors import UserError
from csa_core.methods import parse
from csa_core.vision import functional, torchvision
from tests.conftest import Cli, listed, method_of, write_image_lists

CPU = torch.device("cpu")


def config_of(root: Path, **changes: object) -> Any:
    return parse(listed(root, **changes), "test")


def load(config: Any) -> ImageList:
    dataset = load_source(config.data)
    assert isinstance(dataset, ImageList)
    return dataset


def test_classes_are_numbered_by_falling_training_count(image_lists: Path) -> None:
    dataset = load(config_of(image_lists))
    assert np.bincount(dataset.train_labels).tolist() == [40, 26, 18, 12, 9, 6, 5, 4]
    assert dataset.class_names == tuple(f"n{1000 + k}" for k in range(8))
    for path, label in zip(dataset.train_paths, dataset.train_labels, strict=True):
        assert path.decode().split("/")[1] == dataset.class_names[label]
    assert np.bincount(dataset.test_labels).tolist() == [6] * 8


def test_folders_that_do_not_tell_classes_apart_give_no_names(tmp_path: Path) -> None:
    write_image_lists(tmp_path, (3, 2))
    everything = [line.split() for line in (tmp_path / "train.txt").read_text().splitlines()]
    (tmp_path / "train.txt").write_text("".join(f"{p} {i % 2}\n" for i, (p, _) in enumerate(everything)))
    assert load(config_of(tmp_path)).class_names == ("0", "1")


def test_written_and_read_again(image_lists: Path, tmp_path: Path) -> None:
    config = config_of(image_lists)
    dataset = load(config)
    dataset.write(tmp_path / "lists.safetensors")
    again = read_dataset(tmp_path / "lists.safetensors", config.data)
    assert isinstance(again, ImageList) and again.digest == dataset.digest
    assert again.train_paths.tolist() == dataset.train_paths.tolist() and again.class_names == dataset.class_names
    moved = config.data.model_copy(update={"root": str(tmp_path)})
    assert read_dataset(tmp_path / "lists.safetensors", moved).digest == dataset.digest, (
        "where they lie is no part of it"
    )
    with pytest.raises(UserError, match="image_size asks"):
        read_dataset(tmp_path / "lists.safetensors", config.data.model_copy(update={"image_size": 48}))
    with pytest.raises(UserError, match=r"data.root .*nowhere: no such folder"):
        read_dataset(tmp_path / "lists.safetensors", config.data.model_copy(update={"root": "nowhere"}))


@pytest.mark.parametrize(
    ("part", "line", "message"),
    [
        ("train", "train/n1000/0.JPEG", "train.txt: line 3: 'train/n1000/0.JPEG' has no label; write 'path label'"),
        ("train", "train/n1000/0.JPEG two", "train.txt: line 3: 'train/n1000/0.JPEG two' has no label"),
        ("train", "train/n1000/0.JPEG -1", "train.txt: line 3: 'train/n1000/0.JPEG -1' has no label"),
        ("train", "train/n1000/0.JPEG 5000", "train.txt: label 5000 of train/n1000/0.JPEG is outside 0..K-1"),
        (
            "train",
            "train/n1000/0.JPEG 12",
            "train.txt: label 8 has no images, but label 12 has; number classes 0 to K - 1",
        ),
        ("test", "test/n1000/0.JPEG 8", "test.txt: line 3: label 8 is outside 0..7, the classes of the training list"),
        ("train", "train/n1000/none.JPEG 1", "train/n1000/none.JPEG: no such file; is data.root right?"),
        ("train", "test/n1000/3.JPEG 0", "1 of 48 test images are training images, byte by byte: "),
        ("train", "../secret.JPEG 1", "train.txt: line 3: ../secret.JPEG leads out of data.root"),
        ("train", "/etc/hostname 1", "train.txt: line 3: /etc/hostname leads out of data.root"),
    ],
)
def test_a_mistake_in_a_list_is_named_with_its_line(
    part: str, line: str, message: str, image_lists: Path, tmp_path: Path
) -> None:
    config = config_of(image_lists)
    lines = (image_lists / f"{part}.txt").read_text().splitlines()
    (tmp_path / f"{part}.txt").write_text("\n".join([*lines[:2], line, *lines[2:]]) + "\n")
    with pytest.raises(UserError) as error:
        read_lists(config.data.model_copy(update={f"{part}_list": str(tmp_path / f"{part}.txt")}))
    assert message in str(error.value) and "\n" not in str(error.value)


HEADS: dict[str, tuple[list[str], str | list[tuple[str, int]]]] = {
    "coarse class beside the label": (["path,class,label", "a.png,0,2", "b.png,1,1"], [("a.png", 2), ("b.png", 1)]),
    "a coordinate beside the label": (["path\tx\ty\tlabel", "a.png\t5\t1\t0"], [("a.png", 0)]),
    "two that could be it": (["path,class,target", "a.png,0,2"], "'class', 'target' could each be the label; call the"),
    "two paths": (["file,image,label", "a.png,b.png,2"], "'file', 'image' could each be the path; call the one that"),
    "a name with blanks": (["path label", "my cat.jpg 0"], [("my cat.jpg", 0)]),
    "a name with a comma": (["path,label", "a,3.jpg,0"], [("a,3.jpg", 0)]),
    "a name that ends in a number": (["path,label", "a,3,0"], [("a,3", 0)]),
    "a name in quotes": (["path,label", '"a,b.jpg",4'], [("a,b.jpg", 4)]),
    "an endless line": (["path,label", "a" * 200_000 + ",0"], "field larger than field limit"),
}


@pytest.mark.parametrize("case", HEADS)
def test_a_list_whose_first_line_names_columns(case: str, tmp_path: Path) -> None:
    lines, wanted = HEADS[case]
    (tmp_path / "l.txt").write_text("\n".join(lines) + "\n")
    if isinstance(wanted, str):
        with pytest.raises(UserError, match=re.escape(wanted)) as error:
            list(read_lines(tmp_path / "l.txt"))
        assert "\n" not in str(error.value) and len(str(error.value)) < 400
    else:
        assert [(line.path, line.label) for line in read_lines(tmp_path / "l.txt")] == wanted


def test_missing_lists_root_and_keys_are_named(image_lists: Path, tmp_path: Path) -> None:
    data = config_of(image_lists).data
    with pytest.raises(UserError, match=r"data.root nowhere: no such folder"):
        read_lists(data.model_copy(update={"root": "nowhere"}))
    with pytest.raises(UserError, match=r"none.txt: cannot be read; set data.train_list"):
        read_lists(data.model_copy(update={"train_list": "none.txt"}))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match=r"empty.txt: names no images"):
        read_lists(data.model_copy(update={"train_list": str(tmp_path / "empty.txt")}))
    with pytest.raises(UserError, match="train_list is missing"):
        parse({"data": {"source": "image_list"}}, "test")


def epoch(dataset: ImageList, config: Any, workers: int = 0) -> tuple[EpochPlan[Any], list[Batch]]:
    split = make_split(dataset, config.data)
    plan = method_of(config, dataset, split).plan(1)
    images = ListedImages(with_workers(dataset, workers), split, CPU, config.colour_jitter)
    return plan, list(images.batches(plan))


def test_a_batch_is_what_torchvision_makes_of_each_image(image_lists: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "REDUCED_MARGIN", np.inf)
    config = config_of(image_lists)
    dataset = load(config)
    split = make_split(dataset, config.data)
    plan, batches = epoch(dataset, config)
    mean, std = dataset.mean_std
    flips = 0
    assert batches[2].streams.keys() == {"uniform", "resampled"}
    for name, stream in batches[2].streams.items():
        picks = plan.streams[name][2]
        assert stream[0].is_contiguous(memory_format=torch.channels_last)
        for i, number in enumerate(split.indices[picks.index]):
            with Image.open(image_lists / dataset.train_paths[number].decode()) as file:
                image = file.convert("RGB")
            drawn = picks.draws[i].numpy()
            box = crop_boxes(drawn[None, :22], np.array([image.height]), np.array([image.width]), 0.08)
            image = functional.resized_crop(image, *(int(a[0]) for a in box), [config.data.image_size] * 2)
            flips += bool(drawn[22] < 0.5)
            image = functional.horizontal_flip(image) if drawn[22] < 0.5 else image
            wanted = functional.normalize(functional.pil_to_tensor(image).double() / 255, mean.tolist(), std.tolist())
            torch.testing.assert_close(stream[0][i].double(), wanted, rtol=1e-5, atol=1e-5)
            assert stream[1][i] == dataset.train_labels[number]
    assert 0 < flips < 32


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than this machine has cores
@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_gives_the_same_samples(workers: int, image_lists: Path) -> None:
    config = config_of(image_lists, colour_jitter=0.4)
    dataset = load(config)
    _, alone = epoch(dataset, config)
    _, together = epoch(dataset, config, workers)
    for one, other in zip(alone, together, strict=True):
        assert one.streams.keys() == other.streams.keys() == {"uniform", "resampled"}
        for name, a in one.streams.items():
            b = other.streams[name]
            assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_the_ranks_of_a_batch_make_up_the_batch(image_lists: Path) -> None:
    config = config_of(image_lists)
    dataset = load(config)
    plan, whole = epoch(dataset, config)
    images = ListedImages(dataset, make_split(dataset, config.data), CPU, 0.0)
    uniform = EpochPlan({"uniform": plan.streams["uniform"]}, plan.draws)
    parts = [list(images.batches(uniform.of_rank(r, 4))) for r in range(4)]
    for step, batch in enumerate(whole):
        joined = torch.cat([part[step].streams["uniform"][0] for part in parts])
        assert torch.equal(joined, batch.streams["uniform"][0])
        assert parts[0][step].streams.keys() == {"uniform"}, "the other was not asked for"
        wanted = batch.draws["places"]
        assert all(torch.equal(part[step].draws["places"], wanted) for part in parts), "of the whole batch"


def test_jitter_changes_colours_and_no_places(image_lists: Path) -> None:
    path = image_lists / "train/n1000/0.JPEG"
    drawn = np.full(29, 0.7, dtype=np.float32)
    plain, jittered = trained(path, 32, drawn), trained(path, 32, drawn, jitter=0.4)
    drawn[23:26] = 0.5
    assert not np.array_equal(plain, jittered) and np.array_equal(plain, trained(path, 32, drawn, jitter=0.4))


@pytest.mark.parametrize("side", [100, 50, 32])
def test_a_reduced_decode_is_near_the_full_one(side: int, tmp_path: Path) -> None:
    """Photographs, of which large crops are made small: JPEG against PNG, which has no part of its size."""
    rng = np.random.default_rng(0)
    for photo in load_sample_images().images:
        Image.fromarray(photo).save(tmp_path / "a.JPEG", quality=92)
        with Image.open(tmp_path / "a.JPEG") as file:
            file.save(tmp_path / "a.png")
        differences = []
        for _ in range(12):
            drawn = rng.random(29, dtype=np.float32)
            drawn[:10] = 0.5 + drawn[:10] / 2  # large crops
            reduced, full = (trained(tmp_path / f"a.{kind}", side, drawn).astype(int) for kind in ("JPEG", "png"))
            differences.append(np.abs(reduced - full).mean())
        assert 0 < max(differences) < 3 and np.mean(differences) < 1.5, "levels of 255"


def test_test_images_are_torchvisions(image_lists: Path) -> None:
    config = config_of(image_lists)
    dataset = load(config)
    batches = torch.cat(list(evaluation_batches(dataset, CPU)))
    side = config.data.image_size
    transform = torchvision.transforms.v2.Compose(
        [torchvision.transforms.v2.Resize(round(side * 256 / 224)), torchvision.transforms.v2.CenterCrop(side)]
    )
    mean, std = dataset.mean_std
    for i in (0, 7, 47):
        with Image.open(image_lists / dataset.test_paths[i].decode()) as file:
            wanted = np.array(transform(file.convert("RGB")))
        made = (batches[i].permute(1, 2, 0).numpy() * std + mean) * 255
        np.testing.assert_allclose(made, wanted, atol=0.01)
        assert np.array_equal(evaluated(image_lists / dataset.test_paths[i].decode(), side), wanted)


def broken(tmp_path: Path) -> Path:
    """A tree with an image that is cut short in each list."""
    write_image_lists(tmp_path)
    for part in ("train", "test"):
        path = tmp_path / part / "n1000/1.JPEG"
        path.write_bytes(path.read_bytes()[:300])
    return tmp_path


def test_the_check_names_broken_images_with_list_and_line(tmp_path: Path, cli: Cli) -> None:
    root = broken(tmp_path)
    config = config_of(root)
    lists = {part: root / f"{part}.txt" for part in ("train", "test")}
    lists["train"].write_text("\n" + lists["train"].read_text())  # lines are those of the file, empty ones too
    found = list(check_images(config.data, 2))
    for part, line in zip(("train", "test"), found, strict=True):
        lines = (root / f"{part}.txt").read_text().splitlines()
        number = 1 + next(i for i, text in enumerate(lines) if text.startswith(f"{part}/n1000/1.JPEG "))
        assert line.startswith(f"{root}/{part}.txt: line {number}: {root}/{part}/n1000/1.JPEG: cannot be decoded")


def test_an_image_that_has_changed_since_is_refused(tmp_path: Path) -> None:
    write_image_lists(tmp_path, (6, 4))
    config = config_of(tmp_path, batch_size=4)
    dataset = load(config)
    with (tmp_path / "train/n1001/2.JPEG").open("ab") as file:
        file.write(b" ")
    with pytest.raises(UserError, match=r"n1001/2.JPEG: has changed since its list was read"):
        epoch(dataset, config)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_in_training_is_one_line(workers: int, tmp_path: Path) -> None:
    config = config_of(broken(tmp_path))
    with pytest.raises(UserError) as error:
        epoch(load(config), config, workers)
    assert str(error.value).endswith("n1000/1.JPEG: cannot be decoded; replace it or take it out")
