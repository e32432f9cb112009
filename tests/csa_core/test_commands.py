"""Commands over what is there already: nothing finished is replaced, and no file is called what it is not."""

import errno
import os
from argparse import Namespace
from pathlib import Path

import pytest
import yaml

from csa_core import commands
from csa_core.cli import main
from csa_core.config import DataConfig
from csa_core.data.sources import load_source
from csa_core.data.split import make_split
from csa_core.errors import UserError
from csa_core.store import read_sealed, read_tensors, sealed, write_json, write_tensors
from tests.conftest import ROOT, TINY, listed, write_image_lists
from tests.helpers.errno_injection import failing
from tests.helpers.images import folder_of_images
from workflow.declarations import Protocol

SHORT = {"method": "ce", "epochs": 1, "lr_drops": [], "evaluate_every": 0}


def write_run(path: Path, **changes: object) -> Path:
    keys = ("model", "batch_size", "lr", "lr_warmup_epochs", "crop_padding", "data")
    path.write_text(yaml.safe_dump({key: TINY[key] for key in keys} | SHORT | changes))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> tuple[Path, Path]:
    """A run on a folder of images, finished, and its configuration."""
    root = folder_of_images(tmp_path / "photos")
    run = write_run(tmp_path / "run.yaml", batch_size=2, data={"source": "folder", "root": str(root)})
    assert main(["train", str(run), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    return run, tmp_path / "out"


def test_a_finished_run_of_another_configuration_is_not_replaced(
    photos: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = photos
    before = (out / "metrics.json").read_bytes()
    words = ["train", str(run), "--out", str(out), "--device", "cpu"]
    capsys.readouterr()
    assert main(words) == 0, "the same once more"
    assert "taken from" in capsys.readouterr().err
    assert main([*words, "--set", "lr=0.05", "--set", "seed=2"]) == 2
    said = capsys.readouterr().err
    wanted = f"--out {out}: holds a finished run with lr 0.1, asked for is 0.05 (and 1 more); name another folder, or"
    assert said == f"csa_core: {wanted} remove {out}/metrics.json\n"
    (tmp_path / "photos/train/ant/1.webp").unlink()
    assert main(words) == 2
    stored = read_sealed(out / "metrics.json")["digests"]["data"]
    assert f"holds a finished run with data {stored[:12]}, asked for is " in capsys.readouterr().err
    assert (out / "metrics.json").read_bytes() == before
    (out / "metrics.json").unlink()
    assert main(words) == 0


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES])
def test_a_finished_run_that_cannot_be_read_is_not_replaced(
    error: int, photos: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = photos
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    words = ["train", str(run), "--out", str(out), "--device", "cpu", "--set", "lr=0.05"]
    with failing(error, lambda path: path == out / "metrics.json", "open"):
        assert main(words) == 2
    assert f"{out}/metrics.json: cannot be read" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_weights_of_another_run_than_its_metrics(
    photos: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = photos
    stored = read_sealed(out / "metrics.json")
    write_json(out / "metrics.json", sealed(stored | {"digests": stored["digests"] | {"config": "another"}}))
    assert main(["evaluate", str(out), "--root", str(tmp_path / "photos")]) == 2
    assert "its weights are of another run than its metrics; train it again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["selection", "RUN", "--out", "s.txt"],
            "selection: works on images in memory; an image_list",
        ),
        (
            ["train", "RUN", "--out", "out", "--set", "method=simsiam", "--set", "pretraining.sam=none"],
            "method simsiam: pre-trains on images in memory",
        ),
    ],
)
def test_what_needs_images_in_memory_refuses_a_list(
    words: list[str], said: str, image_lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"RUN": str(tmp_path / "run.yaml"), "s.txt": str(tmp_path / "s.txt"), "out": str(tmp_path / "out")}
    fields = {key: value for key, value in listed(image_lists).items() if key in ("data", "model")}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(fields))
    assert main([names.get(word, word) for word in words]) == 2
    assert said in capsys.readouterr().err


def test_ones_own_images_are_asked_for_by_their_option(
    photos: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = photos
    assert main(["evaluate", str(out)]) == 2
    said = capsys.readouterr().err
    assert (
        said.startswith("csa_core: --root is missing: name the folder that holds train/<class>/")
        and "data.root" not in said
    )
    assert main(["evaluate", str(out / "weights.safetensors")]) == 2
    assert "weights.safetensors: is no folder; name the one that `csa train --out` filled" in capsys.readouterr().err
    assert main(["evaluate", str(out), "--root", str(tmp_path / "photos")]) == 0
    assert "same as metrics.json" in capsys.readouterr().out


def test_what_was_trained_in_tf32_is_evaluated_without_a_gpu(
    photos: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = photos[1] / "weights.safetensors"
    weights, label, _ = read_tensors(path)
    write_tensors(path, weights, label | {"config": label["config"] | {"precision": "tf32"}})
    assert main(["evaluate", str(photos[1]), "--root", str(tmp_path / "photos"), "--device", "cpu"]) == 0
    assert "same as metrics.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "name", "words"),
    [
        (
            "contexts",
            "x.png",
            "no .png file is written; name it OUT/x.safetensors; `python -m workflow.report.gallery`",
        ),
        ("mistakes", "x.png", "no .png file is written; name it OUT/x.safetensors"),
        ("data", "x.csv", "no .csv file is written; name it OUT/x.safetensors"),
        ("split", "x.csv", "name it OUT/x.json"),
        ("selection", "x.json", "name it OUT/x.txt"),
    ],
)
def test_a_file_is_not_called_what_it_will_not_be(
    command: str, name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run.yaml")
    assert main([command, str(run), "--out", str(tmp_path / name)]) == 2
    assert words.replace("OUT", str(tmp_path)) in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_a_profile_that_does_not_fit_names_the_class_and_the_way_out(tmp_path: Path) -> None:
    (folder_of_images(tmp_path) / "train/bee/1.webp").unlink()
    data = DataConfig(source="folder", root=str(tmp_path), imbalance_ratio=1)
    with pytest.raises(UserError, match="3 images of class 'bee', which has 2; write data.profile: as_is"):
        make_split(load_source(data), data)


def test_the_check_says_what_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image_lists(tmp_path, (4, 3))
    run = tmp_path / "run.yaml"
    run.write_text(yaml.safe_dump(listed(tmp_path)))
    assert main(["check", str(run), "--workers", "0"]) == 0
    with (tmp_path / "test.txt").open("a") as file:
        file.write("train/n1000/0.JPEG 0\n")
    capsys.readouterr()
    assert main(["check", str(run), "--workers", "0"]) == 2
    assert "1 of 13 test images are training images, pixel by pixel" in capsys.readouterr().err


def test_what_is_read_and_what_a_run_holds_is_not_written_over(
    photos: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = photos
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    image = tmp_path / "photos/test/ant/0.png"
    selection = tmp_path / "selection.txt"
    assert main(["selection", str(run), "--out", str(selection)]) == 0
    (tmp_path / "here").symlink_to(tmp_path)
    over = {
        "weights.safetensors": ["export", str(out), "--format", "safetensors"],
        "predictions.safetensors": ["mistakes", str(out)],
        "history.csv": ["predict", str(out), str(image)],
        "metrics.json": ["split", str(run)],
    }
    for name, words in over.items():
        capsys.readouterr()
        assert main([*words, "--out", str(out / name)]) == 2
        assert f"is a result of the run in {out}; name another file" in capsys.readouterr().err
    words = ["export", str(out), "--format", "safetensors"]
    assert main([*words, "--out", str(out / "metrics")]) == 2, "its description would take the place of a result"
    assert f"--out {out}/metrics.json: is a result of the run" in capsys.readouterr().err
    (tmp_path / "nowhere").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    for special in (tmp_path / "nowhere", tmp_path / "pipe", Path("/dev/stdout"), Path("/dev/fd/1")):
        assert main(["predict", str(out), str(image), "--out", str(special)]) == 2
        assert f"{special}: is no regular file; name a file" in capsys.readouterr().err
    assert (tmp_path / "nowhere").is_symlink() and (tmp_path / "pipe").is_fifo() and Path("/dev/stdout").is_symlink()
    data = ["--set", f"data.selection={selection}", "--set", "data.profile=selection"]
    assert main(["selection", str(run), *data, "--out", f"{tmp_path}/here/selection.txt"]) == 2
    assert "is read by this very command; name another file" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_a_protocol_is_a_file_of_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Of several methods' keys those are read that the named method has; what it says of tables is left out."""
    for path in sorted((ROOT / "workflow/protocols").glob("*.yaml")):
        config = commands._config(Namespace(config=str(path), set=["method=csa", "threshold=0.3"]))
        whole = yaml.safe_load(path.read_text())
        assert config.method == "csa" and config.model == whole["model"], path
    assert {*commands.OF_A_PROTOCOL} == Protocol.model_fields.keys()
    words = ["split", str(ROOT / "workflow/protocols/demo.yaml"), "--out", str(tmp_path / "split.json")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "method csa does not read it" in said and "remove it, or name the method with --set method=csa\n" in said
    assert main([*words, "--set", "method=csa"]) == 0


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "there is not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee more"), "out of memory; end what else"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory; end what else"),
    ],
)
def test_too_little_memory_is_one_line_in_any_command(
    error: Exception,
    line: str,
    photos: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("csa_core.data.folder.np.stack", full)
    assert main(["data", str(photos[0]), "--out", str(tmp_path / "d.safetensors")]) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1
