"""The command line as a person meets it: help that teaches, mistakes answered at once in one line."""

import io
import json
import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import yaml

from csa_core import __version__, store
from csa_core.cli import SPINS
from csa_core.commands import device_of
from csa_core.errors import write_any_name
from tests.conftest import ROOT, TINY, Cli
from tests.helpers.images import folder_of_images
from tests.helpers.leaves import LEAVES


@pytest.fixture
def run_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def test_every_command_has_help(cli: Cli) -> None:
    commands = re.findall(r"^    (\w+)(?: |$)", cli("--help").stdout, re.M)
    assert {"data", "check", "selection", "train", "evaluate", "predict", "export", "ls", "diff"} < set(commands)
    for command in commands:
        done = cli(command, "--help")
        assert done.returncode == 0 and f"usage: python -m csa_core {command}" in done.stdout
    assert cli("--version").stdout == f"csa_core {__version__}\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_that_wait_leave_the_cores_to_others(given: dict[str, str], expected: str | None) -> None:
    """OpenMP reads it when torch is imported; what a person sets stands."""
    script = (
        "import os, sys; from csa_core import cli;"
        "cli.main(['keys']); print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
    )
    env = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", script], env=env | given, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == f"False {expected}", done.stderr


def test_keys_lists_every_key(cli: Cli) -> None:
    text = cli("keys").stdout
    assert "threshold: 0.8" in text and "data.imbalance_ratio: 100.0" in text
    assert not [key for key in LEAVES if f"\n{key}: " not in text]


BAD = {
    "no such file": (["train", "nowhere.yaml", "--out", "OUT"], "nowhere.yaml: cannot be read"),
    "unknown key": (["train", "RUN", "--out", "OUT", "--set", "treshold=1"], "did you mean 'threshold'?"),
    "not a change": (["train", "RUN", "--out", "OUT", "--set", "threshold"], "expected KEY=VALUE"),
    "unknown method": (["train", "RUN", "--out", "OUT", "--set", "method=cse"], "unknown name 'cse'"),
    "unknown device": (["train", "RUN", "--out", "OUT", "--device", "tpu9"], "device: 'tpu9' is not available"),
    "no threads": (["train", "RUN", "--out", "OUT", "--threads", "0"], "--threads 0: from 1 to 1024"),
    "missing data": (["train", "RUN", "--out", "OUT", "--data", "gone.safetensors"], "gone.safetensors: cannot be rea"),
    "not data": (["train", "RUN", "--out", "OUT", "--data", "RUN"], "run.yaml: damaged or not ours"),
    "missing split": (["train", "RUN", "--out", "OUT", "--split", "gone.json"], "gone.json: cannot be read"),
    "no folder": (
        ["data", "RUN", "--out", "OUT", "--set", "data={source: folder, root: gone}"],
        "gone/train: no such folder",
    ),
    "no images to show": (["contexts", "gone", "--images", "-5", "--out", "OUT"], "--images -5: 1 or more"),
    "no mistakes to show": (["mistakes", "gone", "--images", "0", "--out", "OUT"], "--images 0: 1 or more"),
    "mistakes of no run": (["mistakes", "gone", "--out", "OUT"], "gone: is no folder; name the one"),
    "not a run": (["evaluate", "gone"], "gone: is no folder; name the one"),
    "no TF32": (
        ["train", "RUN", "--out", "OUT", "--device", "cpu", "--set", "precision=tf32"],
        "precision: tf32 is for NVIDIA GPUs, not for cpu; use float32",
    ),
    "device of nowhere": (["train", "RUN", "--out", "OUT", "--device", "meta"], "device: 'meta' is not available"),
    "result in the way": (["train", "RUN", "--out", "RUN/out"], "run.yaml/out/state"),
    "state in the way": (["train", "RUN", "--out", "OUT", "--state", "RUN/s"], "cannot be made"),
    "groups of another data set": (
        ["train", "RUN", "--out", "OUT", "--set", "data.groups=cifar100_paper"],
        "cifar100_paper needs 100 classes, there are 10",
    ),
    "a folder as file": (["split", "RUN", "--out", "/"], "is a folder; name a file"),
    "too large a seed": (
        ["train", "RUN", "--out", "OUT", "--set", "seed=18446744073709551616"],
        "seed: input should be",
    ),
    "never a checkpoint": (["train", "RUN", "--out", "OUT", "--checkpoint-seconds", "nan"], "--checkpoint-seconds nan"),
    "other code": (
        ["train", "RUN", "--out", "OUT", "--expect-code", "--code-version", "abc"],
        "code has changed since the workflow",
    ),
    "an option that is a key": (["train", "RUN", "--out", "OUT", "--lr", "0.1"], "--lr: no such option; 'lr' is a key"),
    "a key by another name": (["split", "RUN", "--out", "OUT", "--learning-rate=0.1"], "the run: --set lr=VALUE"),
    "a misspelt option": (
        ["train", "RUN", "--out", "OUT", "--treads", "1"],
        "no such option, did you mean '--threads'?",
    ),
    "a misspelt command": (["trian", "RUN"], "argument COMMAND: unknown name 'trian', did you mean 'train'?"),
    "a wrong choice": (
        ["train", "RUN", "--out", "OUT", "--compile", "true"],
        "unknown name 'true', valid: auto, no, yes",
    ),
    "no number": (["train", "RUN", "--out", "OUT", "--threads", "two"], "argument --threads: invalid int value: 'two'"),
    "nothing to write to": (["train", "RUN"], "the following arguments are required: --out"),
    "an empty name": (["train", "RUN", "--out", ""], "argument --out: is empty; name a file or folder"),
    "one run too many": (["diff", "a", "b", "c"], "'c' is one argument too many"),
    "image before run": (
        ["predict", "RUN", "OUT"],
        "run.yaml: damaged or not ours; name another file, or make it again",
    ),
    "too many workers": (["train", "RUN", "--out", "OUT", "--workers", "2000"], "--workers 2000: from 0 to 1024"),
    "no split": (
        ["train", "RUN", "--out", "OUT", "--split", "RUN"],
        "is not JSON; name another file, or make it again",
    ),
    "output in the way": (["split", "RUN", "--out", "RUN/split.json"], "split.json: cannot be written"),
}


# What is found only once the data is there leaves an empty folder of its own at most.
@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_line_and_exit_code_2(case: str, cli: Cli, run_yaml: Path, tmp_path: Path) -> None:
    words, wanted = BAD[case]
    done = cli(*(word.replace("RUN", str(run_yaml)).replace("OUT", str(tmp_path / "out")) for word in words))
    assert done.returncode == 2
    assert wanted in done.stderr and done.stderr.startswith("csa_core: ")
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists(), "something was left half written"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"LOKY_MAX_CPU_COUNT": "1"}, 1),
        ({"LOKY_MAX_CPU_COUNT": "1", "OMP_NUM_THREADS": "2"}, 2),
    ],
)
def test_no_more_threads_than_a_containers_quota_allows(
    given: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable stands for the quota, which only root can set; what a person asks for stands."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)  # as torch finds two cores
        device_of(Namespace(threads=None, device="cpu"), "float32")
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


def test_a_wrong_key_is_answered_before_torch_is_imported(process: Cli, run_yaml: Path, tmp_path: Path) -> None:
    run_yaml.write_text("treshold: 1")
    done = process("train", run_yaml, "--out", tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 2 and " torch\n" not in done.stderr and "pydantic" in done.stderr


def test_a_file_for_csa_serves_another_method_and_a_key_that_it_lacks_is_refused(
    cli: Cli, run_yaml: Path, tmp_path: Path
) -> None:
    assert "threshold" in TINY
    short = ("--set", "method=ce", "--set", "epochs=1", "--set", "lr_drops=[]", "--threads", "1")
    refused = cli("train", run_yaml, "--out", tmp_path / "a", *short, "--set", "threshold=0.3")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and not (tmp_path / "a").exists()
    assert "threshold: method ce does not read it (csa does); remove it" in refused.stderr
    done = cli("train", run_yaml, "--out", tmp_path / "a", *short)
    assert done.returncode == 0, done.stderr
    trained = json.loads((tmp_path / "a/metrics.json").read_text())["config"]
    assert trained["method"] == "ce" and "threshold" not in trained and trained["lr"] == TINY["lr"]


UNREAD = {
    "of a bank that is not there": ["bank_batches=0", "threshold=0.3"],
    "of drops beside a cosine": ["lr_schedule=cosine", "lr_drops=[3]"],
    "of class weights that are not asked for": ["method=focal", "effective_number_beta=0.9"],
    "of another first stage": ["method=crt", "threshold=0.3"],
    "of a pre-training that is not asked for": ["pretraining.epochs=3"],
    "of a split that is as it is": ["data.profile=as_is", "data.imbalance_ratio=3"],
    "of images that have a size": ["data.image_size=64"],
    "of images that are square": ["data.resize=pad"],
}


@pytest.mark.parametrize("why", UNREAD)
def test_what_is_set_has_an_effect(why: str, cli: Cli, run_yaml: Path, tmp_path: Path) -> None:
    words = [word for change in UNREAD[why] for word in ("--set", change)]
    done = cli("train", run_yaml, "--out", tmp_path / "out", *words)
    key = UNREAD[why][-1].partition("=")[0]
    assert (
        done.returncode == 2
        and done.stderr == f"csa_core: --set {key}: has no effect with what else is set; leave it out\n"
    )


def test_what_says_where_or_is_at_its_default_may_be_set(cli: Cli, run_yaml: Path, tmp_path: Path) -> None:
    where = ("--set", "data.root=elsewhere", "--set", "uniform_mixup=0.0", "--set", "data.validation=0.0")
    done = cli("split", run_yaml, "--out", tmp_path / "split.json", *where)
    assert done.returncode == 0, done.stderr


def test_a_learning_rate_that_is_never_reached_is_said(cli: Cli, run_yaml: Path, tmp_path: Path) -> None:
    short = ("--set", "method=ce", "--set", "epochs=1", "--set", "lr_drops=[]", "--threads", "1")
    done = cli("train", run_yaml, "--out", tmp_path / "out", *short)
    assert done.returncode == 0
    assert "note: lr_warmup_epochs 2 of 1 epochs: the learning rate never reaches 0.1\n" in done.stderr


def test_a_name_that_output_cannot_take_loses_nothing(
    cli: Cli, run_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / os.fsdecode(b"a\xff.json")
    done = cli("split", run_yaml, "--out", out)
    assert done.returncode == 0 and out.exists() and "a\\udcff.json: " in done.stdout, done.stderr
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    write_any_name()
    print("caf\xe9 \u732b")
    assert stream.buffer.getvalue() == b"caf\xe9 \\u732b\n"
    monkeypatch.setattr(sys, "stdout", None)
    write_any_name()


def test_configuration_from_stdin(cli: Cli, tmp_path: Path) -> None:
    done = cli("split", "-", "--out", tmp_path / "split.json", stdin=json.dumps(TINY))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "split.json").read_text())["class_counts"][0] == 16


def test_data_and_split_files_give_the_run_that_the_source_gives(cli: Cli, run_yaml: Path, tmp_path: Path) -> None:
    data, split = tmp_path / "data.safetensors", tmp_path / "split.json"
    assert cli("data", run_yaml, "--out", data).returncode == 0
    assert cli("split", run_yaml, "--data", data, "--out", split).returncode == 0
    options = ["--set", "epochs=2", "--set", "lr_drops=[]", "--set", "plain_epochs=0", "--threads", 1]
    from_files = cli("train", run_yaml, "--out", tmp_path / "a", "--data", data, "--split", split, *options)
    assert from_files.returncode == 0, from_files.stderr
    assert cli("train", run_yaml, "--out", tmp_path / "b", *options).returncode == 0
    assert (tmp_path / "a/metrics.json").read_bytes() == (tmp_path / "b/metrics.json").read_bytes()


def test_weights_are_not_evaluated_on_other_data(cli: Cli, run_yaml: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.safetensors"
    assert cli("data", run_yaml, "--out", data).returncode == 0
    options = ["--set", "epochs=2", "--set", "lr_drops=[]", "--set", "plain_epochs=0", "--data", data]
    assert cli("train", run_yaml, "--out", tmp_path / "a", *options).returncode == 0
    tensors, meta, _ = store.read_tensors(data)
    tensors["test_images"][0] ^= 1
    store.write_tensors(data, tensors, meta)
    for words in (["evaluate"], ["mistakes", "--out", tmp_path / "m"]):
        done = cli(words[0], tmp_path / "a", "--data", data, *words[1:])
        assert done.returncode == 2 and "was trained on other data" in done.stderr


def test_contexts_needs_a_csa_run(cli: Cli, run_yaml: Path, tmp_path: Path) -> None:
    short = ("--set", "method=ce", "--set", "epochs=1", "--set", "lr_drops=[]")
    assert cli("train", run_yaml, "--out", tmp_path / "a", *short).returncode == 0
    done = cli("contexts", tmp_path / "a", "--out", tmp_path / "c")
    assert done.returncode == 2 and "only csa shifts contexts" in done.stderr


def test_another_file_in_place_of_the_weights_is_refused(cli: Cli, run_yaml: Path, tmp_path: Path) -> None:
    out = tmp_path / "a"
    assert cli("train", run_yaml, "--out", out).returncode == 0
    weights, metrics = (out / "weights.safetensors").read_bytes(), (out / "metrics.json").read_bytes()
    (out / "weights.safetensors").write_bytes((out / "predictions.safetensors").read_bytes())
    done = cli("evaluate", out)
    assert done.returncode == 2 and "does not hold the weights of a resnet8" in done.stderr
    (out / "weights.safetensors").write_bytes(weights)
    (out / "metrics.json").write_text('{"a": 3}')
    done = cli("evaluate", out)
    assert done.returncode == 2 and "metrics.json: content does not match its SHA-256" in done.stderr
    (out / "metrics.json").write_bytes(metrics)
    assert cli("evaluate", out).returncode == 0


def test_images_of_another_size_than_asked_for_are_refused(cli: Cli, tmp_path: Path) -> None:
    folder_of_images(tmp_path / "photos")
    config = {"data": {"source": "folder", "root": str(tmp_path / "photos"), "profile": "as_is"}}
    assert cli("data", "-", "--out", tmp_path / "d", stdin=json.dumps(config)).returncode == 0
    config["data"]["image_size"] = 12  # type: ignore[assignment]
    done = cli("split", "-", "--data", tmp_path / "d", "--out", tmp_path / "s", stdin=json.dumps(config))
    assert done.returncode == 2 and "are not 12 x 12 px" in done.stderr
