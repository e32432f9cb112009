"""Cut files and flipped bits: noticed by their digest where they are read, and never carried on with."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from csa_core import store
from csa_core.config import DataConfig
from csa_core.data.dataset import Dataset
from csa_core.data.sources import read_dataset
from csa_core.data.split import Split, make_split, read_split, write_split
from csa_core.errors import UserError
from csa_core.train.state import checkpoint
from tests.conftest import tiny
from tests.helpers.runs import cut_short, fit


@pytest.fixture(scope="module")
def interrupted(dataset: Dataset, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a run with its last two checkpoints."""
    folder = tmp_path_factory.mktemp("interrupted")
    cut_short(tiny(), dataset, split, folder)
    return folder


def finish(folder: Path, dataset: Dataset, split: Split) -> dict[str, bytes]:
    return fit(tiny(), dataset, split, folder, checkpoint_seconds=0)


def damaged(content: bytes, how: str, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    if how == "cut":
        return content[:place]
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


@pytest.mark.parametrize("how", ["cut", "flip"])
@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    how: str, times: int, interrupted: Path, dataset: Dataset, split: Split, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    whole, rng = finish(tmp_path / "whole", dataset, split), random.Random(f"{how} {times}")
    for number in range(times):
        folder = tmp_path / str(number)
        shutil.copytree(interrupted, folder)
        (state,) = (folder / "state").iterdir()
        newest, before = checkpoint.find(state)
        newest.write_bytes(damaged(newest.read_bytes(), how, rng))
        capfd.readouterr()
        assert finish(folder, dataset, split) == whole
        log = capfd.readouterr().err.splitlines()
        (line,) = [line for line in log if str(newest) in line]
        assert line.endswith("; going back to the one before")
        assert f"continuing after epoch {int(before.stem[6:])} of 5" in log


def test_two_damaged_checkpoints_are_a_fresh_start(
    interrupted: Path, dataset: Dataset, split: Split, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(interrupted, tmp_path / "a")
    for path in tmp_path.glob("a/state/*/epoch-*"):
        path.write_bytes(path.read_bytes()[:-1])
    assert finish(tmp_path / "a", dataset, split) == finish(tmp_path / "b", dataset, split)
    assert "continuing" not in capfd.readouterr().err


@pytest.mark.parametrize("key", ["config", "data", "split", "code"])
def test_a_checkpoint_of_another_run_is_kept_and_not_continued(
    key: str, interrupted: Path, dataset: Dataset, split: Split, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whole, with a right digest, and moved here by somebody."""
    shutil.copytree(interrupted, tmp_path / "a")
    (state,) = (tmp_path / "a/state").iterdir()
    newest, before = checkpoint.find(state)
    tensors, meta, _ = store.read_tensors(newest)
    store.write_tensors(newest, tensors, meta | {"digests": meta["digests"] | {key: "0" * 64}})
    content = newest.read_bytes()
    capfd.readouterr()
    assert finish(tmp_path / "a", dataset, split) == finish(tmp_path / "b", dataset, split)
    log = capfd.readouterr().err
    assert f"{newest}: is of another run (differs in the digest of {key}); kept as {newest.stem}.other" in log.replace(
        f"{newest.parent}/{newest.stem}.other", f"{newest.stem}.other"
    )
    assert f"continuing after epoch {int(before.stem[6:])}" in log
    assert newest.with_suffix(".other").read_bytes() == content


def test_a_file_of_another_kind_under_this_name_is_not_taken(
    interrupted: Path, dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    shutil.copytree(interrupted, tmp_path / "a")
    (state,) = (tmp_path / "a/state").iterdir()
    dataset.write(checkpoint.find(state)[0])
    assert finish(tmp_path / "a", dataset, split) == finish(tmp_path / "b", dataset, split)


@pytest.mark.parametrize("how", ["cut", "flip"])
@pytest.mark.parametrize("times", [20])
def test_a_damaged_input_or_result_is_refused_where_it_is_read(
    how: str, times: int, interrupted: Path, dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    """Metrics, predictions, weights, splits and data, each as often."""
    finish(tmp_path / "run", dataset, split)
    data = DataConfig(source="demo", imbalance_ratio=4, max_class_count=16)
    dataset.write(tmp_path / "data.safetensors")
    write_split(tmp_path / "split.json", make_split(dataset, data), dataset, data)
    readers: dict[Path, Callable[[Path], object]] = {
        tmp_path / "run/out/metrics.json": lambda path: store.read_sealed(path),
        tmp_path / "run/out/predictions.safetensors": store.read_tensors,
        tmp_path / "run/out/weights.safetensors": store.read_tensors,
        tmp_path / "data.safetensors": lambda path: read_dataset(path, data),
        tmp_path / "split.json": lambda path: read_split(path, dataset, data),
    }
    rng = random.Random(how)
    for path, read in readers.items():
        content = path.read_bytes()
        whole = read(path)
        for _ in range(times):
            path.write_bytes(damaged(content, how, rng))
            try:
                again = read(path)
            except UserError as error:
                assert str(path) in str(error)
            else:  # white space between two keys, or behind the last one
                assert path.suffix == ".json" and json.dumps(again, default=str) == json.dumps(whole, default=str)
        path.write_bytes(content)
