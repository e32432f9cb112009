"""The run that another starts from: what it is taken for, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from csa_core import store
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split, make_split
from csa_core.errors import UserError
from csa_core.train.loop import Options, train, train_epoch
from csa_core.train.run import Run
from tests.conftest import Cli, tiny, tiny_fields

CPU = torch.device("cpu")
RECIPE = {"epochs": 3, "batch_size": 12, "lr": 0.05, "projector_width": 24, "predictor_width": 8, "sam": "none"}


def simsiam(**changes: Any) -> Any:
    """Return a tiny pre-training run with some keys of its recipe changed."""
    return tiny(method="simsiam", pretraining=RECIPE | changes)


@pytest.fixture(scope="module")
def plain(dataset: Dataset, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished plain SimSiam run."""
    out = tmp_path_factory.mktemp("plain") / "out"
    train(simsiam(), dataset, split, Options(out, out / "state", CPU, "code"))
    return out


def test_fine_tuning_starts_from_the_encoder_and_trains_it(plain: Path, dataset: Dataset, split: Split) -> None:
    encoder = store.read_tensors(plain / "weights.safetensors")[0]
    for method in ("ce", "class_balanced", "csa"):
        run = Run(tiny(method=method, pretrained=True, pretraining=RECIPE), dataset, split, CPU, encoder)
        for name, tensor in run.network.body.state_dict().items():
            assert np.array_equal(tensor.numpy(), encoder[f"body.{name}"])
        scratch = Run(tiny(method=method), dataset, split, CPU)
        for name, parameter in run.network.heads.named_parameters():
            assert torch.equal(parameter, scratch.network.heads.get_parameter(name)), "heads start as from scratch"
        train_epoch(run, 1)
        assert not np.array_equal(
            run.network.get_parameter("body.conv.weight").detach().numpy(), encoder["body.conv.weight"]
        )


def test_the_encoder_is_part_of_what_a_run_is(plain: Path, dataset: Dataset, split: Split, tmp_path: Path) -> None:
    config = tiny(method="ce", pretrained=True, pretraining=RECIPE)
    out = tmp_path / "out"
    metrics = train(config, dataset, split, Options(out, tmp_path / "state", CPU, "code", parent=plain))
    assert metrics["digests"]["parent"] == store.read_tensors(plain / "weights.safetensors")[2]
    assert config.digest() != tiny(method="ce").digest()
    assert config.digest() != tiny(method="ce", pretrained=True, pretraining=RECIPE | {"lr": 0.01}).digest()
    assert tiny(method="ce", pretraining=RECIPE).digest() == tiny(method="ce").digest(), "it is not read"
    assert simsiam().digest() == tiny(method="simsiam", pretraining=RECIPE, epochs=9, threshold=0.1).digest()


def refused(path: Path | None, config: Any, dataset: Dataset, split: Split, tmp_path: Path) -> str:
    with pytest.raises(UserError) as error:
        train(config, dataset, split, Options(tmp_path / "out", tmp_path / "state", CPU, "code", parent=path))
    assert not (tmp_path / "out").exists(), "refused before anything is made"
    return str(error.value)


def test_an_encoder_that_is_not_the_one_is_refused(plain: Path, dataset: Dataset, split: Split, tmp_path: Path) -> None:
    config = tiny(method="ce", pretrained=True, pretraining=RECIPE)

    def says(path: Path | None, config: Any = config, dataset: Dataset = dataset, split: Split = split) -> str:
        return refused(path, config, dataset, split, tmp_path)

    assert (
        "--parent is missing: this ce run starts from a finished run; train that with --set method=simsiam --out"
        in says(None)
    )
    assert "missing.safetensors: cannot be read (no such file)" in says(tmp_path / "missing.safetensors")
    assert "--parent: this ce run starts from no other" in says(plain, tiny(method="ce"))
    other = tiny(method="ce", pretrained=True, pretraining=RECIPE, model="resnet20")
    assert 'was trained with model "resnet8", this run asks for "resnet20"' in says(plain, other)
    longer = tiny(method="ce", pretrained=True, pretraining=RECIPE | {"epochs": 9})
    assert "was trained with pretraining.epochs 3, this run asks for 9" in says(plain, longer)
    assert 'pretraining.sam "none", this run asks for "sam"' in says(
        plain, tiny(method="ce", pretrained=True, pretraining=RECIPE | {"sam": "sam"})
    )
    assert "--set pretraining.sam=none" in says(None, simsiam(sam="rwsam"))
    images = (dataset.train_images ^ 1, dataset.train_labels, dataset.test_images, dataset.test_labels)
    changed = Dataset("demo", dataset.class_names, *images)
    assert "was trained on other data" in says(plain, config, changed, make_split(changed, config.data))
    weights, label, _ = store.read_tensors(plain / "weights.safetensors")
    nameless = tmp_path / "nameless.safetensors"
    store.write_tensors(nameless, weights, label | {"digests": dict.fromkeys(label["digests"])})
    assert "was trained on other data (digest None" in says(nameless)
    damaged = tmp_path / "damaged.safetensors"
    content = bytearray((plain / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert "does not match its SHA-256" in says(damaged)
    damaged.write_bytes(b"gibberish")
    assert "damaged or not ours" in says(damaged)
    supervised = tmp_path / "ce"
    train(tiny(method="ce"), dataset, split, Options(supervised, tmp_path / "s", CPU, "code"))
    assert "is of a ce run; this ce run starts from method simsiam" in says(supervised)
    assert "is of a ce run" not in says(plain / "metrics.json")


def test_the_command_line_from_encoder_to_fine_tuning(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(tiny_fields(method="ce", pretrained=True, pretraining=RECIPE)))
    without = cli("train", config, "--out", tmp_path / "tuned")
    assert without.returncode == 2 and "--parent is missing" in without.stderr
    first = cli("train", config, "--set", "method=simsiam", "--out", tmp_path / "encoder", "--threads", 1)
    assert first.returncode == 0 and "knn" in first.stdout and "projector std" in first.stderr, first.stderr
    second = cli("train", config, "--parent", tmp_path / "encoder", "--out", tmp_path / "tuned", "--threads", 1)
    assert second.returncode == 0, second.stderr
    again = cli("evaluate", tmp_path / "encoder", "--threads", 1)
    assert again.returncode == 0 and "same as metrics.json" in again.stdout, again.stderr
    again = cli("evaluate", tmp_path / "tuned", "--threads", 1)
    assert again.returncode == 0 and "same as metrics.json" in again.stdout, again.stderr
