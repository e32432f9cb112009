"""What cannot be read is not damaged: nothing is deleted or written over, and one line names file and cause."""

import errno
import os
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
from csa_core.train.state.parent import read_parent
from tests.conftest import listed, tiny
from tests.helpers.errno_injection import failing
from tests.helpers.runs import cut_short, fit

ERRORS = (errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE, errno.ENOMEM)
FEW = (errno.EIO, errno.EACCES)
SPLIT = DataConfig(source="demo", imbalance_ratio=4, max_class_count=16)


def finish(folder: Path, dataset: Dataset, split: Split) -> None:
    fit(tiny(), dataset, split, folder, checkpoint_seconds=0)


@pytest.fixture(scope="module")
def trained(dataset: Dataset, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`interrupted` with two checkpoints, `finished`, and a data set and split."""
    folder = tmp_path_factory.mktemp("trained")
    cut_short(tiny(), dataset, split, folder / "interrupted")
    finish(folder / "finished", dataset, split)
    dataset.write(folder / "data.safetensors")
    write_split(folder / "split.json", make_split(dataset, SPLIT), dataset, SPLIT)
    return folder


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What is read, by name; the state that it lies in, or the reader of the file.
FILES = {
    "epoch-000005.safetensors": "interrupted",
    "epoch-*.safetensors": "interrupted",
    "finished.json": "finished",
    **dict.fromkeys(store.RESULTS, "finished"),
    "data.safetensors": "",
    "split.json": "",
}


@pytest.mark.parametrize("at", ["open", "read"])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "error", [pytest.param(n, marks=() if n in FEW else pytest.mark.slow, id=errno.errorcode[n]) for n in ERRORS]
)
def test_nothing_is_deleted_because_it_cannot_be_read(
    name: str, at: str, error: int, trained: Path, dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    work: Callable[[], object] = {
        "data.safetensors": lambda: read_dataset(tmp_path / name, SPLIT),
        "split.json": lambda: read_split(tmp_path / name, dataset, SPLIT),
    }.get(name, lambda: finish(tmp_path / FILES[name], dataset, split))
    before = content(tmp_path)
    with (
        failing(error, lambda path: path.match(name) and "out" not in path.parts, at),
        pytest.raises(UserError) as said,
    ):
        work()
    assert before.items() <= content(tmp_path).items()
    path, _, cause = str(said.value).partition(": cannot be read ")
    assert Path(path).match(name) and os.strerror(error) in cause and "delete" not in cause, said.value
    work()  # the disk is mended


@pytest.mark.parametrize("error", FEW)
def test_a_state_that_cannot_be_listed_is_not_empty(
    error: int, trained: Path, dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    shutil.copytree(trained / "interrupted", tmp_path, dirs_exist_ok=True)
    (state,) = (tmp_path / "state").iterdir()
    before = content(tmp_path)
    with failing(error, lambda path: path == state, "list"), pytest.raises(UserError, match=f"{state}: cannot be read"):
        finish(tmp_path, dataset, split)
    assert before.items() <= content(tmp_path).items()


def test_an_encoder_that_cannot_be_read_is_named(trained: Path, tmp_path: Path) -> None:
    weights = trained / "finished/out/weights.safetensors"
    with failing(errno.EIO, lambda path: path == weights, "read"), pytest.raises(UserError) as said:
        read_parent(weights.parent, tiny(method="ce", pretrained=True), "", "")
    assert str(said.value).startswith(f"{weights}: cannot be read (Input/output error)")


def test_no_memory_to_read_is_no_damage(
    trained: Path, dataset: Dataset, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained / "interrupted", tmp_path, dirs_exist_ok=True)
    before = content(tmp_path)

    def full(*arguments: object) -> object:
        raise MemoryError

    monkeypatch.setattr("csa_core.store.tensors_digest", full)
    with pytest.raises(UserError, match=r"epoch-000005.safetensors: cannot be read .not enough memory"):
        finish(tmp_path, dataset, split)
    assert before.items() <= content(tmp_path).items()


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    for read in (store.read_tensors, store.read_json):
        with pytest.raises(UserError, match=r"x.safetensors: cannot be read \(no regular file\)"):
            read(path)


@pytest.mark.parametrize("place", ["train/a/x.png", "test/b/x.png"])
def test_a_pipe_among_images_is_not_waited_for(place: str, tmp_path: Path) -> None:
    from tests.helpers.images import folder, folder_of_images

    folder_of_images(tmp_path)
    classes = sorted(path.name for path in (tmp_path / "train").iterdir())
    path = tmp_path / place.replace("/a/", f"/{classes[0]}/").replace("/b/", f"/{classes[1]}/")
    os.mkfifo(path)
    with pytest.raises(UserError, match=f"{path}: cannot be read .no regular file.; name a file"):
        folder(tmp_path)


def test_a_folder_of_images_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    from tests.helpers.images import folder, folder_of_images

    folder_of_images(tmp_path)
    (first, *_) = sorted((tmp_path / "train").iterdir())
    with failing(errno.EACCES, lambda path: path == first, "list"), pytest.raises(UserError, match="cannot be read"):
        folder(tmp_path)


def test_a_pipe_in_a_list_is_not_waited_for(image_lists: Path, tmp_path: Path) -> None:
    from csa_core.data.listed import read_lists

    shutil.copytree(image_lists, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "train/n1000/0.JPEG"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"train.txt: line \d+: .*0.JPEG is not a file; name an image"):
        read_lists(DataConfig(**listed(tmp_path)["data"]))  # type: ignore[arg-type]


def test_a_file_in_place_of_the_compilers_folder_is_named(tmp_path: Path) -> None:
    from csa_core.train.launch import keep_compiled

    (tmp_path / "compiled").write_text("in the way")
    with pytest.raises(UserError, match="compiled: is in the way"):
        keep_compiled(tmp_path / "compiled")
