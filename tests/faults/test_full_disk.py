"""No space and no permission at any write: the path is named, nothing is half there, and it goes on later."""

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

from csa_core import store
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.errors import UserError
from csa_core.train.loop import Options, train
from tests.conftest import ROOT, TINY, tiny
from tests.faults.conftest import mounted
from tests.helpers.runs import results

UNSEALED = ("lock", ".lock", "history.csv", "history.partial.csv", "events.out.tfevents.csa")


def attempt(out: Path, dataset: Dataset, split: Split, state: Path | None = None, seconds: float = 0) -> str:
    """Train; return what the error says, if there is one."""
    try:
        train(tiny(), dataset, split, Options(out, state or out / "state", torch.device("cpu"), "code", seconds))
    except UserError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def whole(dataset: Dataset, split: Split, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole")
    assert not attempt(out, dataset, split)
    return results(out)


def sound(folder: Path) -> None:
    """Assert that what bears a final name is whole, and that nothing else is left."""
    for path in [p for p in folder.rglob("*") if p.is_file() and p.name not in UNSEALED]:
        assert not path.name.endswith(".tmp"), path
        if path.suffix == ".safetensors":
            store.read_tensors(path)
        else:
            store.read_json(path)


@pytest.mark.parametrize(
    ("seconds", "step", "files"),
    [
        (0, 120, {"epoch-000001.safetensors", "epoch-000002.safetensors", "epoch-000003.safetensors"}),
        pytest.param(1e9, 8, {"weights.safetensors", "predictions.safetensors"}, marks=pytest.mark.slow),
    ],
)
def test_a_full_disk(
    seconds: float, step: int, files: set[str],
    small_disk: Callable[[int], Path], whole: dict[str, bytes], dataset: Dataset, split: Split,
) -> None:  # fmt: skip
    """One run on a disk that is full, grown a little, full again: it goes on from its last checkpoint."""
    failed = set()
    for size in range(0, 8000, step):
        out = small_disk(size) / "out"
        message = attempt(out, dataset, split, seconds=seconds)
        if not message:
            break
        assert message.startswith(str(out)) and "No space left on device" in message, message
        assert not (out / "metrics.json").exists()
        sound(out)
        failed.add(Path(message.split(": ")[0]).name)
    assert failed >= files, failed
    assert results(out) == whole


def test_a_limit_on_the_size_of_files(tmp_path: Path, whole: dict[str, bytes], dataset: Dataset, split: Split) -> None:
    """The same without a file system of its own: no file may be larger than this."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, usual[1]))
    try:
        message = attempt(tmp_path, dataset, split)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert re.search(r"epoch-000001.safetensors: cannot be written \(File too large\)", message), message
    sound(tmp_path)
    assert not attempt(tmp_path, dataset, split)
    assert results(tmp_path) == whole


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Make a folder read-only, for root too, to whom permissions do not matter."""
    made: list[Path] = []

    def make(folder: Path) -> None:
        if os.geteuid():
            folder.chmod(0o555)
        elif not (mounted("--bind", str(folder), str(folder)) and mounted("-o", "remount,ro,bind", str(folder))):
            pytest.skip("mounting is not allowed here")
        made.append(folder)

    yield make
    for folder in made:
        if os.geteuid():
            folder.chmod(0o755)
        else:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("place", ["out", "state", "the folder of the run's state"])
def test_a_read_only_folder(
    place: str, read_only: Callable[[Path], None], dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    out, state = tmp_path / "out", tmp_path / "state"
    assert not attempt(out, dataset, split, state)
    (inner,) = state.iterdir()
    (inner / "finished.json").unlink()
    if place == "state":
        shutil.rmtree(inner)
    before = (out / "metrics.json").read_bytes()
    folder = {"out": out, "state": state}.get(place, inner)
    read_only(folder)
    message = attempt(out, dataset, split, state)
    assert message.startswith(str(folder)), message
    assert re.search(r"cannot be (made|written|removed) \((Read-only file system|Permission denied)\)", message)
    assert (out / "metrics.json").read_bytes() == before


@pytest.mark.parametrize("what", ["split", pytest.param("data", marks=pytest.mark.slow)])
def test_no_space_for_inputs(what: str, tmp_path: Path) -> None:
    def starve() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    (tmp_path / "run.yaml").write_text(yaml.safe_dump(TINY))
    out = tmp_path / "made.file"
    command = [sys.executable, "-m", "csa_core", what, str(tmp_path / "run.yaml"), "--out", str(out)]
    env = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}  # writes a file, too
    env["PYTHONDONTWRITEBYTECODE"] = "1"  # compiled modules would be cut off, and stay so
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, preexec_fn=starve)
    assert done.returncode == 2 and done.stderr == f"csa_core: {out}: cannot be written (File too large); free or " \
        "choose another place\n"  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_the_old_file_stays_when_the_new_one_finds_no_space(
    small_disk: Callable[[int], Path], dataset: Dataset
) -> None:
    folder = small_disk(100)
    path = folder / "x.safetensors"
    store.write_tensors(path, {"a": dataset.test_labels}, {})
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"x.safetensors: cannot be written \(No space left on device\)"):
        store.write_tensors(path, {"a": dataset.train_images.repeat(4)}, {})
    assert path.read_bytes() == before and [p.name for p in folder.iterdir()] == ["x.safetensors"]
