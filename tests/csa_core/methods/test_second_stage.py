"""cRT and LWS: what trains and what stays, their steps by other means, and what they start from."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch.nn import functional as F

from csa_core import store
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split, make_split
from csa_core.errors import UserError
from csa_core.methods import parent_of, parse
from csa_core.store import Tensors, read_json, read_tensors
from csa_core.train.loop import Options, train, train_epoch
from csa_core.train.run import Run
from tests.conftest import tiny
from tests.helpers.runs import fit, results

CPU = torch.device("cpu")
STAGE = {"epochs": 4, "lr": 0.05, "lr_drops": [1, 3], "weight_decay": 0.01}


def staged(method: str = "crt", **changes: Any) -> Any:
    """Return a tiny second stage."""
    return tiny(**{"method": method, "second_stage": STAGE} | changes)


@pytest.fixture(scope="module")
def parents(dataset: Dataset, split: Split, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of finished runs, by method."""
    folders = {method: tmp_path_factory.mktemp(method) for method in ("ce", "csa")}
    for method, folder in folders.items():
        fit(tiny(method=method), dataset, split, folder)
    return {method: folder / "out" for method, folder in folders.items()}


def weights(folder: Path) -> Tensors:
    return read_tensors(folder / "weights.safetensors")[0]


def test_a_rise_of_the_first_stage_alone_is_not_said_of_the_second(
    dataset: Dataset, split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short: dict[str, Any] = {"epochs": 1, "lr_drops": [], "lr_warmup_epochs": 2}
    fit(tiny(method="ce", **short), dataset, split, tmp_path / "ce")
    assert "the learning rate never reaches" in capsys.readouterr().err
    for method in ("crt", "post_hoc_adjustment"):
        own = staged(method, **short) if method == "crt" else tiny(method=method, **short)
        fit(own, dataset, split, tmp_path / method, parent=tmp_path / "ce/out")
        assert "never reaches" not in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["ce", "csa"])
@pytest.mark.parametrize("method", ["crt", "lws"])
def test_the_body_is_that_of_the_first_stage_to_the_bit(
    method: str, stage: str, parents: dict[str, Path], dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    fit(staged(method, first_stage=stage), dataset, split, tmp_path, parent=parents[stage])
    before, after = weights(parents[stage]), weights(tmp_path / "out")
    body = [key for key in before if key.startswith("body.")]
    assert [key for key in after if key.startswith("body.")] == body and any("running_var" in key for key in body)
    assert all(before[key].tobytes() == after[key].tobytes() for key in body), "statistics of batch norm, too"
    metrics = read_json(tmp_path / "out/metrics.json")
    assert metrics["digests"]["parent"] == read_tensors(parents[stage] / "weights.safetensors")[2]
    assert list(metrics["heads"]) == ["single"] and metrics["predicts"] == "single"
    if method == "crt":
        assert after.keys() == {*body, "heads.single.weight", "heads.single.bias"}
        return
    kept = {"ce": "single", "csa": "uniform"}[stage]
    for part in ("weight", "bias"):
        assert after[f"heads.single.linear.{part}"].tobytes() == before[f"heads.{kept}.{part}"].tobytes()
    assert after["heads.single.scale"].shape == (4,) and (after["heads.single.scale"] != 1).all()


@pytest.mark.parametrize("batch_norm", ["frozen", "moving"])
@pytest.mark.parametrize("method", ["crt", "lws"])
def test_two_epochs_are_those_of_sgd_written_out(
    method: str, batch_norm: str, parents: dict[str, Path], dataset: Dataset, split: Split
) -> None:
    """Momentum, decay and drops by hand, on features that never change or on those of each batch."""
    config = staged(method, batch_norm=batch_norm)
    run = Run(config, dataset, split, CPU, weights(parents["ce"]))
    body = copy.deepcopy(run.network.body).train(batch_norm == "moving")
    scratch = Run(tiny(method="ce"), dataset, split, CPU)
    stored = {key: torch.from_numpy(value) for key, value in weights(parents["ce"]).items()}
    w, b = (stored[f"heads.single.{part}"] for part in ("weight", "bias"))
    if method == "crt":  # a new head, as a run from scratch has it
        w, b = (scratch.network.get_parameter(f"heads.single.{part}").detach().clone() for part in ("weight", "bias"))
        mine = [w.requires_grad_(), b.requires_grad_()]
    else:
        mine = [torch.ones(4, requires_grad=True)]
    momentum = [torch.zeros_like(each) for each in mine]
    for epoch, rate in enumerate((0.05, 0.005)):
        plan = run.method.plan(epoch)
        (picks,) = plan.streams.values()
        assert picks.index.shape == (3, 16), "as many images as the training set has, in whole batches"
        for step in range(plan.steps):
            images, labels = run.images.batch(picks[step])
            with torch.no_grad():
                pooled = body(images).mean((2, 3))
            logits = pooled @ w.T + b
            loss = F.cross_entropy(logits if method == "crt" else logits * mine[0], labels)
            for i, gradient in enumerate(torch.autograd.grad(loss, mine)):
                with torch.no_grad():
                    momentum[i] = 0.9 * momentum[i] + gradient + 0.01 * mine[i]
                    mine[i] -= rate * momentum[i]
        row = train_epoch(run, epoch)
        assert row["lr"] == pytest.approx(rate) and row["phase"] == "second_stage"
    trained = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    assert len(trained) == len(mine)
    for theirs, own in zip(trained, mine, strict=True):
        torch.testing.assert_close(theirs.detach(), own.detach(), rtol=1e-4, atol=1e-5)
    same = []
    for name, after in run.network.body.state_dict().items():
        torch.testing.assert_close(after, body.state_dict()[name], rtol=1e-4, atol=1e-5)
        if "running" in name:
            same.append(torch.equal(after, stored[f"body.{name}"]))
        else:
            assert "num_batches" in name or torch.equal(after, stored[f"body.{name}"]), "weights are frozen"
    assert same and (all(same) if batch_norm == "frozen" else not any(same))


@pytest.mark.parametrize("method", ["crt", "lws"])
def test_nothing_else_has_a_gradient(method: str, parents: dict[str, Path], dataset: Dataset, split: Split) -> None:
    run = Run(staged(method), dataset, split, CPU, weights(parents["ce"]))
    train_epoch(run, 0)
    moved = {name for name, parameter in run.network.named_parameters() if parameter.grad is not None}
    assert moved == ({"heads.single.weight", "heads.single.bias"} if method == "crt" else {"heads.single.scale"})


def test_classes_are_drawn_alike(parents: dict[str, Path], dataset: Dataset, split: Split) -> None:
    run = Run(staged(batch_size=256, first_stage="ce"), dataset, split, CPU, None)
    drawn = torch.cat([next(iter(run.method.plan(epoch).streams.values())).index.flatten() for epoch in range(20)])
    shares = np.bincount(dataset.train_labels[split.indices[drawn.numpy()]], minlength=4) / len(drawn)
    assert np.abs(shares - 0.25).max() < 0.03  # five standard deviations of 5,120 draws


@pytest.mark.parametrize(("method", "batch_norm"), [("crt", "frozen"), ("lws", "frozen"), ("crt", "moving")])
@pytest.mark.parametrize("killed_after", [1, 3])
def test_killed_and_started_again_it_ends_with_the_same_bytes(
    method: str, batch_norm: str, killed_after: int, parents: dict[str, Path], dataset: Dataset, split: Split,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = staged(method, batch_norm=batch_norm)
    whole = fit(config, dataset, split, tmp_path / "whole", parent=parents["ce"])
    trained: list[int] = []

    def until_killed(run: Run, epoch: int) -> dict[str, Any]:
        trained.append(epoch)
        if trained == [*range(killed_after), killed_after]:
            raise KeyboardInterrupt
        return train_epoch(run, epoch)

    monkeypatch.setattr("csa_core.train.loop.train_epoch", until_killed)
    options = {"parent": parents["ce"], "checkpoint_seconds": 0.0}
    with pytest.raises(KeyboardInterrupt):
        fit(config, dataset, split, tmp_path / "cut", **options)
    assert fit(config, dataset, split, tmp_path / "cut", **options) == whole
    assert trained == [*range(killed_after + 1), *range(killed_after, 4)], "no finished epoch twice"


def test_another_first_stage_is_another_state(
    parents: dict[str, Path], dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    """A first stage that was trained again, with other weights, makes a run of its own of the same configuration."""
    other = tmp_path / "other"
    train(tiny(method="ce"), dataset, split, Options(other, tmp_path / "s", CPU, "another code"))
    tensors = safetensors.numpy.load_file(other / "weights.safetensors")
    assert tensors.keys() == weights(parents["ce"]).keys()
    _, label, _ = read_tensors(other / "weights.safetensors")
    tensors["body.conv.weight"] = tensors["body.conv.weight"] * np.float32(1.01)
    store.write_tensors(other / "weights.safetensors", tensors, label)
    for parent in (parents["ce"], other):
        train(staged(), dataset, split, Options(tmp_path / "out", tmp_path / "state", CPU, "code", parent=parent))
    assert len(list((tmp_path / "state").glob("*/finished.json"))) == 2
    assert results(tmp_path / "out")["weights.safetensors"].count(b"body.conv.weight") == 1
    after = weights(tmp_path / "out")
    assert after["body.conv.weight"].tobytes() == tensors["body.conv.weight"].tobytes()


def refusal(config: Any, parent: Path | None, dataset: Dataset, split: Split, folder: Path) -> str:
    with pytest.raises(UserError) as error:
        train(config, dataset, split, Options(folder / "out", folder / "state", CPU, "code", parent=parent))
    assert not (folder / "out").exists(), "refused before anything is made"
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_first_stage_that_is_not_the_one_is_refused(
    parents: dict[str, Path], dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    def says(parent: Path | None, dataset: Dataset = dataset, split: Split = split, **changes: Any) -> str:
        return refusal(staged(**changes), parent, dataset, split, tmp_path)

    assert "--parent is missing: this crt run starts from a finished run; train that with --set method=ce" in says(None)
    assert "train that with --set method=csa" in says(None, first_stage="csa")
    assert "no such file" in says(tmp_path / "gone.safetensors")
    assert "is of a csa run; this crt run starts from method ce" in says(parents["csa"])
    assert "is of a ce run; this crt run starts from method csa" in says(parents["ce"], first_stage="csa")
    assert "was trained with epochs 5, this run asks for 6" in says(parents["ce"], epochs=6)
    assert "was trained with seed 1, this run asks for 2" in says(parents["ce"], seed=2)
    assert "was trained with threshold 0.05, this run asks for 0.5" in says(
        parents["csa"], first_stage="csa", threshold=0.5
    )
    assert "was trained with data.imbalance_ratio 4.0" in says(
        parents["ce"], data={"source": "demo", "imbalance_ratio": 2, "max_class_count": 16}
    )
    images = (dataset.train_images ^ 1, dataset.train_labels, dataset.test_images, dataset.test_labels)
    other = Dataset("demo", dataset.class_names, *images)
    assert "was trained on other data" in says(parents["ce"], other, make_split(other, tiny().data))


def test_the_first_stage_is_the_run_that_its_own_configuration_names() -> None:
    assert parent_of(parse({"method": "crt"}, "x")) == parse({"method": "ce"}, "x")
    fields = {"epochs": 40, "lr_drops": [32], "seed": 3, "threshold": 0.3, "bank_batches": 2}
    on_csa = parse(fields | {"method": "lws", "first_stage": "csa", "second_stage": {"lr": 0.2}}, "x")
    assert parent_of(on_csa) == parse(fields | {"method": "csa"}, "x")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"second_stage": {"epochs": 10}}, "second_stage: lr_drops [10, 20] must rise and come within 10 epochs"),
        ({"second_stage": {"lr_drops": [9, 3]}}, "second_stage: lr_drops [9, 3] must rise"),
        ({"second_stage": {"epochs": 3, "lr_drops": [3]}}, "second_stage: lr_drops [3] must rise and come within 3"),
        ({"second_stage": {"lr": 0.0}}, "second_stage.lr: input should be greater than 0"),
        ({"second_stage": {"epoch": 3}}, "unknown key 'second_stage.epoch': did you mean 'epochs'?"),
        ({"batch_norm": "learned"}, "batch_norm: unknown name 'learned'"),
        ({"first_stage": "crt"}, "first_stage: unknown name 'crt'"),
        ({"first_stage": "csa", "epochs": 12, "lr_drops": []}, "first stage csa: warmup_epochs + plain_epochs is 13"),
        ({"threshold": 1.5}, "threshold: input should be less than or equal to 1"),
        ({"norm_exponent": 1.0}, "norm_exponent: method crt does not read it (tau_normalisation does)"),
    ],
)
def test_what_cannot_be_is_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        parse({"method": "crt"} | fields, "run.yaml")
    assert message in str(error.value) and str(error.value).startswith("run.yaml: ")
