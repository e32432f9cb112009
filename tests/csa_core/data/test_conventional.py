"""The field's subset of CIFAR, from its definition: a Mersenne Twister and a shuffle written out, without NumPy's."""

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
import yaml

from csa_core.config import DataConfig
from csa_core.data.dataset import Dataset
from csa_core.data.split import make_split, read_split, write_split
from csa_core.errors import UserError
from csa_core.methods import parse
from tests.conftest import ROOT, Cli
from tests.helpers.images import folder_of_images, load, write_cifar10
from workflow.plan import Plan


def mersenne_twister() -> random.Random:
    """Return Python's generator in the state that `init_genrand(0)` of Matsumoto and Nishimura (2002) gives."""
    state = [0]
    for i in range(1, 624):
        state.append((1812433253 * (state[-1] ^ (state[-1] >> 30)) + i) % 2**32)
    twister = random.Random()
    twister.setstate((3, (*state, 624), None))
    return twister


def conventional(labels: list[int], classes: int, ratio: float) -> list[int]:
    """Return the indices that the field's codes keep, in their order."""
    twister, kept = mersenne_twister(), []
    for k in range(classes):
        members = [i for i, label in enumerate(labels) if label == k]
        for i in range(len(members) - 1, 0, -1):  # Fisher and Yates, places by masked rejection
            while (j := twister.getrandbits(32) & (2 ** i.bit_length() - 1)) > i:
                pass
            members[i], members[j] = members[j], members[i]
        kept += members[: int(len(labels) / classes * (1 / ratio) ** (k / (classes - 1.0)))]
    return kept


def cifar(source: str, classes: int) -> Dataset:
    """50,000 images of one pixel, in an order of classes that no archive has."""
    labels = np.array([(i * 7919 + i // classes) % classes for i in range(50_000)])
    assert len(set(np.bincount(labels))) == 1
    images = np.zeros((50_000, 1, 1, 3), dtype=np.uint8)
    return Dataset(source, tuple(map(str, range(classes))), images, labels, images[:classes], np.arange(classes))


PINNED = {
    ("cifar100", 10): "8705d8c28257932a",
    ("cifar100", 50): "810892ba5b32901f",
    ("cifar100", 100): "223fa72495308b96",
    ("cifar100", 200): "c8a3b2557a939a18",
    ("cifar10", 10): "4636aba3c3dcd0ad",
    ("cifar10", 50): "663f34ef396e6737",
    ("cifar10", 100): "d4d1e15c255b0deb",
    ("cifar10", 200): "6c81e3596b2dcfca",
}


@pytest.mark.parametrize(("source", "ratio"), PINNED)
def test_the_images_are_those_of_the_field(source: str, ratio: int) -> None:
    classes = int(source.removeprefix("cifar"))
    dataset = cifar(source, classes)
    split = make_split(dataset, DataConfig.model_validate(
        {"source": source, "subset": "conventional", "imbalance_ratio": float(ratio)}
    ))  # fmt: skip
    assert split.indices.tolist() == conventional(dataset.train_labels.tolist(), classes, ratio)
    assert hashlib.sha256(split.indices.astype("<i8").tobytes()).hexdigest()[:16] == PINNED[source, ratio]
    assert split.class_counts[0] == 50_000 / classes and split.class_counts[-1] == 50_000 // classes // ratio


def test_of_an_archive_as_it_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    dataset = load(source="cifar10", root=str(tmp_path))
    config = DataConfig(source="cifar10", subset="conventional", imbalance_ratio=4)
    split = make_split(dataset, config)
    assert split.indices.tolist() == conventional([*range(10)] * 4, 10, 4)
    write_split(tmp_path / "split.json", split, dataset, config)
    assert read_split(tmp_path / "split.json", dataset, config).digest == split.digest
    with pytest.raises(UserError, match="was made with"):
        read_split(tmp_path / "split.json", dataset, DataConfig(source="cifar10", imbalance_ratio=4))


def test_another_seed_of_splits_and_of_training_changes_nothing_of_it() -> None:
    dataset = cifar("cifar10", 10)

    def digest(**fields: object) -> str:
        return parse({"method": "ce", "data": {"source": "cifar10"} | fields}, "x").digest()

    def kept(**fields: object) -> list[int]:
        return make_split(dataset, DataConfig(source="cifar10", **fields)).indices.tolist()  # type: ignore[arg-type]

    assert kept(subset="conventional", split_seed=3) == kept(subset="conventional") != kept()
    assert digest(subset="conventional", split_seed=3) == digest(subset="conventional") != digest()
    assert digest(subset="by_seed") == digest()


@pytest.mark.parametrize(
    "data",
    [
        {"source": "demo"},
        {"source": "folder"},
        {"source": "image_list", "train_list": "a.txt", "test_list": "b.txt"},
        {"source": "cifar10", "profile": "step"},
        {"source": "cifar10", "profile": "as_is"},
        {"source": "cifar100", "profile": "selection", "selection": "cifar100-lt-ir100"},
    ],
)
def test_it_is_of_the_original_archives_alone(data: dict[str, str]) -> None:
    with pytest.raises(UserError) as error:
        parse({"data": data | {"subset": "conventional"}}, "run.yaml")
    said = str(error.value)
    assert said.startswith("run.yaml: data: subset: conventional is for profile exponential and source cifar10 or ")
    assert said.endswith("use subset: by_seed") and "\n" not in said


def test_the_command_line_refuses_it_for_a_folder(cli: Cli, tmp_path: Path) -> None:
    folder_of_images(tmp_path / "photos")
    (tmp_path / "run.yaml").write_text(f"data: {{source: folder, root: {tmp_path}/photos, subset: conventional}}")
    done = cli("split", tmp_path / "run.yaml", "--out", tmp_path / "split.json")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "subset: conventional" in done.stderr


def test_a_workflow_names_the_split_by_it() -> None:
    config = yaml.safe_load((ROOT / "config.yaml").read_text()) | {"protocol": "paper"}
    own = Plan(config | {"overrides": {"data": {"subset": "conventional"}}}, spell_out=())
    run = own.run("csa", {}, 1)
    assert run.split == "exponential-100-conventional" and '"subset":"conventional"' in own.split_json(
        run.data, run.split
    )
    typed = Plan(config, spell_out=()).run_at("ce/data.imbalance_ratio=50.0+data.subset=conventional", "1")
    assert typed.split == "exponential-50-conventional"
    with pytest.raises(UserError, match="split_seed has no effect"):
        own.run("csa", {"data.split_seed": 3}, 1)
