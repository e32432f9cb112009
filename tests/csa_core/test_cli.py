"""The command line as a person meets it: help that teaches, mistakes answered at once in one line."""

import json
import time
from pathlib import Path

import pytest
import yaml

from csa_core import store
from tests.conftest import TINY, Cli


@pytest.fixture
def run_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.mark.parametrize("command", ["data", "split", "train", "evaluate", "contexts", "keys"])
def test_help(command: str, cli: Cli) -> None:
    done = cli(command, "--help")
    assert done.returncode == 0 and "usage: python -m csa_core" in done.stdout
    assert command in cli("--help").stdout


def test_keys_lists_every_key(cli: Cli) -> None:
    text = cli("keys").stdout
    assert "threshold: 0.8" in text and "data.imbalance_ratio: 100.0" in text


BAD = {
    "no such file": (["train", "nowhere.yaml", "--out", "OUT"], "nowhere.yaml: cannot be read"),
    "unknown key": (["train", "RUN", "--out", "OUT", "--set", "treshold=1"], "did you mean 'threshold'?"),
    "not a change": (["train", "RUN", "--out", "OUT", "--set", "threshold"], "expected KEY=VALUE"),
    "unknown method": (["train", "RUN", "--out", "OUT", "--set", "method=cse"], "unknown name 'cse'"),
    "unknown device": (["train", "RUN", "--out", "OUT", "--device", "tpu9"], "device: 'tpu9' is not available"),
    "no threads": (["train", "RUN", "--out", "OUT", "--threads", "0"], "--threads 0: at least 1"),
    "missing data": (["train", "RUN", "--out", "OUT", "--data", "gone.safetensors"], "gone.safetensors: no such file"),
    "not data": (["train", "RUN", "--out", "OUT", "--data", "RUN"], "run.yaml: damaged or not ours"),
    "missing split": (["train", "RUN", "--out", "OUT", "--split", "gone.json"], "gone.json: cannot be read"),
    "no folder": (
        ["data", "RUN", "--out", "OUT", "--set", "data={source: folder, root: gone}"],
        "gone/train: no such folder",
    ),
    "not a run": (["evaluate", "gone"], "gone/metrics.json: cannot be read"),
    "output in the way": (["split", "RUN", "--out", "RUN/split.json"], "split.json: cannot be written"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_line_and_exit_code_2(case: str, cli: Cli, run_yaml: Path, tmp_path: Path) -> None:
    words, wanted = BAD[case]
    done = cli(*(word.replace("RUN", str(run_yaml)).replace("OUT", str(tmp_path / "out")) for word in words))
    assert done.returncode == 2
    assert wanted in done.stderr and done.stderr.startswith("csa_core: ")
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists(), "something was left half written"


def test_a_wrong_key_is_answered_before_torch_is_imported(cli: Cli, run_yaml: Path, tmp_path: Path) -> None:
    run_yaml.write_text("treshold: 1")
    start = time.monotonic()
    done = cli("train", run_yaml, "--out", tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 2 and " torch\n" not in done.stderr and "pydantic" in done.stderr
    assert time.monotonic() - start < 10


def test_configuration_from_stdin(cli: Cli, tmp_path: Path) -> None:
    done = cli("split", "-", "--out", tmp_path / "split.json", stdin=json.dumps(TINY))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "split.json").read_text())["class_counts"][0] == 16


def test_data_and_split_files_give_the_run_that_the_source_gives(cli: Cli, run_yaml: Path, tmp_path: Path) -> None:
    data, split = tmp_path / "data.safetensors", tmp_path / "split.json"
    assert cli("data", run_yaml, "--out", data).returncode == 0
    assert cli("split", run_yaml, "--data", data, "--out", split).returncode == 0
    options = ["--set", "epochs=2", "--threads", 1]
    from_files = cli("train", run_yaml, "--out", tmp_path / "a", "--data", data, "--split", split, *options)
    assert from_files.returncode == 0, from_files.stderr
    assert cli("train", run_yaml, "--out", tmp_path / "b", *options).returncode == 0
    assert (tmp_path / "a/metrics.json").read_bytes() == (tmp_path / "b/metrics.json").read_bytes()


def test_weights_are_not_evaluated_on_other_data(cli: Cli, run_yaml: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.safetensors"
    assert cli("data", run_yaml, "--out", data).returncode == 0
    assert cli("train", run_yaml, "--out", tmp_path / "a", "--set", "epochs=2", "--data", data).returncode == 0
    tensors, meta, _ = store.read_tensors(data)
    tensors["test_images"][0] ^= 1
    store.write_tensors(data, tensors, meta)
    done = cli("evaluate", tmp_path / "a", "--data", data)
    assert done.returncode == 2 and "was trained on other data" in done.stderr


def test_contexts_needs_a_csa_run(cli: Cli, run_yaml: Path, tmp_path: Path) -> None:
    assert cli("train", run_yaml, "--out", tmp_path / "a", "--set", "method=ce", "--set", "epochs=1").returncode == 0
    done = cli("contexts", tmp_path / "a", "--out", tmp_path / "c")
    assert done.returncode == 2 and "only csa shifts contexts" in done.stderr
