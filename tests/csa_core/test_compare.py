"""`csa ls` and `csa diff`: runs below a folder, and where two differ."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from csa_core.compare import percent
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split, make_split
from csa_core.store import read_json, read_sealed, sealed, write_json
from tests.conftest import TINY, Cli, tiny
from tests.helpers.runs import fit

SHORT: dict[str, Any] = {"epochs": 1, "lr_drops": [], "lr_warmup_epochs": 0, "evaluate_every": 0}


@pytest.fixture(scope="module")
def folder(dataset: Dataset, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs with their states beside them: two seeds, another learning rate, and something deeper down."""
    root = tmp_path_factory.mktemp("runs")
    runs: dict[str, dict[str, Any]] = {
        "ce/one": {},
        "ce/two": {"seed": 2},
        "ce/a/fast": {"lr": 0.3},
        "other": {"method": "class_balanced"},
    }
    for name, changes in runs.items():
        fit(tiny(**{"method": "ce"} | SHORT | changes), dataset, split, root / name)
    return root


def test_runs_are_listed_with_what_they_change(folder: Path, cli: Cli) -> None:
    done = cli("ls", folder)
    assert done.returncode == 0, done.stderr
    head, *lines = (line.split() for line in done.stdout.splitlines())
    assert head == ["run", "method", "changes", "seed", "All", "Many", "Med.", "Few", "hours"]
    assert [line[:3] for line in lines] == [
        ["other/out", "class_balanced", "1"],
        ["ce/one/out", "ce", "1"],
        ["ce/two/out", "ce", "2"],
        ["ce/a/fast/out", "ce", "lr=0.3"],
    ]
    metrics = read_json(folder / "ce/two/out/metrics.json")
    accuracy = metrics["heads"]["single"]["accuracy"]
    assert accuracy["many"] is None, "a column that is empty"
    assert lines[2][3:5] == [percent(accuracy["all"]), percent(accuracy["few"])]
    seconds = read_json(folder / "ce/two/out/provenance.json")["seconds"]
    assert lines[2][-1] == f"{seconds / 3600:.2f}"


def test_two_runs_differ_in_what_is_shown_and_in_nothing_else(folder: Path, cli: Cli) -> None:
    one, other = folder / "ce/one/out", folder / "ce/a/fast/out"
    done = cli("diff", one, other)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == [str(one), str(other)] and lines[1] == ["configuration"] and lines[2] == ["lr", "0.1", "0.3"]
    digests = [read_json(path / "metrics.json")["digests"]["config"][:12] for path in (one, other)]
    assert lines[3:5] == [["digests"], ["config", *digests]]
    both = [read_json(path / "metrics.json")["heads"]["single"]["accuracy"] for path in (one, other)]
    shown = [[percent(accuracy[key]) for accuracy in both] for key in ("all", "few")]
    wanted = [["single", name, *pair] for name, pair in zip(("All", "Few"), shown, strict=True) if pair[0] != pair[1]]
    assert wanted
    assert [line for line in lines[5:] if line[0] == "single"] == wanted


def test_keys_of_one_method_alone_are_shown_as_missing(folder: Path, cli: Cli, dataset: Dataset, split: Split) -> None:
    fit(tiny(**SHORT | {"bank_batches": 0, "warmup_epochs": 0, "plain_epochs": 0}), dataset, split, folder / "x/csa")
    shown = cli("diff", folder / "ce/one/out", folder / "x/csa/out").stdout
    lines = [line.split() for line in shown.splitlines()]
    assert ["method", "ce", "csa"] in lines and ["bank_batches", "-", "0"] in lines


def test_equal_runs_have_no_difference(folder: Path, cli: Cli) -> None:
    assert cli("diff", folder / "ce/one/out", folder / "ce/one/out").stdout.startswith("no difference: ")


def test_mistakes_are_one_line(folder: Path, cli: Cli, tmp_path: Path) -> None:
    for words, said in (
        (("ls", tmp_path / "none"), "none: no such folder"),
        (("ls", tmp_path), "no finished run below it"),
        (("diff", folder / "ce/one/out", folder), f"{folder}: is no finished run, it has no metrics.json; name one"),
    ):
        done = cli(*words)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_a_damaged_run_is_named_and_the_others_are_listed(folder: Path, cli: Cli, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_bytes((folder / "other/out/metrics.json").read_bytes())
    (tmp_path / "b/metrics.json").write_text(json.dumps({"sha256": "no"}))
    done = cli("ls", tmp_path)
    _, listed, damaged = done.stdout.splitlines()
    assert listed.split()[:2] == ["a", "class_balanced"] and "b/metrics.json: content does not match" in damaged


def test_a_folder_that_cannot_be_listed_is_named(
    folder: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_bytes((folder / "other/out/metrics.json").read_bytes())
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if path.endswith("/b"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    _, listed, unread = cli("ls", tmp_path).stdout.splitlines()
    assert listed.split()[0] == "a" and f"{tmp_path}/b: cannot be listed (Permission denied)" in unread


def test_a_key_that_one_run_alone_has_is_a_change(dataset: Dataset, split: Split, tmp_path: Path, cli: Cli) -> None:
    """Of those that other runs' configurations leave out, as they do what was done before there was the key."""
    for name, held_out in (("one", 0.0), ("two", 0.0), ("held", 0.25)):
        config = tiny(**SHORT, method="ce", data=TINY["data"] | {"validation": held_out})  # type: ignore[operator]
        fit(config, dataset, make_split(dataset, config.data), tmp_path / name)
    lines = {line.split()[0]: line.split()[2] for line in cli("ls", tmp_path).stdout.splitlines()[1:]}
    assert lines == {"held/out": "data.validation=0.25", "one/out": "1", "two/out": "1"}


def test_accuracies_that_differ_by_less_than_is_shown_are_told_apart(folder: Path, cli: Cli, tmp_path: Path) -> None:
    stored = read_sealed(folder / "ce/one/out/metrics.json")
    for name, accuracy in (("a", 0.4504), ("b", 0.4496)):
        (tmp_path / name).mkdir()
        stored["heads"]["single"]["accuracy"]["all"] = accuracy
        stored["computed"]["precision"] = {"a": "float32", "b": "bfloat16"}[name]
        write_json(tmp_path / name / "metrics.json", sealed(stored))
    done = cli("diff", tmp_path / "a", tmp_path / "b")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[-1] == ["single", "All", "45.04", "44.96"]
    assert ["precision", "float32", "bfloat16"] in lines, "how each was computed"
