"""The second stage of MiSLAS: its loss and its steps by other means, and what moves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.errors import UserError
from csa_core.methods import parent_of, parse
from csa_core.ops.label_aware import label_aware_loss
from csa_core.store import read_tensors
from csa_core.train.loop import train_epoch
from csa_core.train.run import Run
from tests.conftest import tiny
from tests.helpers.runs import fit

CPU = torch.device("cpu")
COUNTS = np.array([16, 10, 6, 4])
STAGE = {"epochs": 4, "lr": 0.05, "head_lr_factor": 0.3, "weight_decay": 0.01, "smooth_head": 0.3, "smooth_tail": 0.05}


def calibrated(**changes: Any) -> Any:
    """Return a tiny second stage."""
    return tiny(**{"method": "mislas", "mislas": STAGE} | changes)


@pytest.fixture(scope="module")
def first(dataset: Dataset, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished ce run."""
    folder = tmp_path_factory.mktemp("ce")
    fit(tiny(method="ce"), dataset, split, folder)
    return folder / "out"


def smoothed_labels(labels: torch.Tensor, head: float, tail: float) -> torch.Tensor:
    """Return the label distributions q, (B, K) float64, from equation 3 and its concave function."""
    q = torch.zeros(len(labels), 4, dtype=torch.float64)
    for i, y in enumerate(labels.tolist()):
        share = tail + (head - tail) * np.sin(np.pi * (COUNTS[y] - 4) / (2 * (16 - 4)))
        q[i] = share / 3
        q[i, y] = 1 - share
    return q


@pytest.mark.parametrize(("head", "tail"), [(0.4, 0.1), (0.3, 0.0), (0.0, 0.0)])
def test_the_loss_is_the_cross_entropy_with_smoothed_labels(head: float, tail: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(32, 4, generator=generator, requires_grad=True)
    labels = torch.randint(0, 4, (32,), generator=generator)
    wide = logits.detach().double().requires_grad_()
    wanted = -(smoothed_labels(labels, head, tail) * torch.log(torch.softmax(wide, 1))).sum(1).mean()
    wanted.backward()
    found = label_aware_loss(COUNTS, head, tail, CPU)(logits, labels)
    found.backward()
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert logits.grad is not None and wide.grad is not None
    torch.testing.assert_close(logits.grad.double(), wide.grad, rtol=1e-4, atol=1e-7)


def test_classes_of_one_size_are_smoothed_alike() -> None:
    loss = label_aware_loss(np.array([5, 5, 5]), 0.4, 0.1, CPU)
    values = {round(float(loss(torch.eye(3)[[k]], torch.tensor([k]))), 6) for k in range(3)}
    assert len(values) == 1


def test_two_epochs_are_those_of_sgd_written_out(first: Path, dataset: Dataset, split: Split) -> None:
    """Features with the statistics of each batch, momentum, decay, two rates on a cosine."""
    stored = {key: torch.from_numpy(value) for key, value in read_tensors(first / "weights.safetensors")[0].items()}
    run = Run(calibrated(), dataset, split, CPU, read_tensors(first / "weights.safetensors")[0])
    other = Run(tiny(method="ce"), dataset, split, CPU)
    other.network.load_state_dict(stored)
    mine = [stored["heads.single.weight"].clone(), stored["heads.single.bias"].clone(), torch.ones(4)]
    mine = [each.requires_grad_() for each in mine]
    momentum = [torch.zeros_like(each) for each in mine]
    for epoch in range(2):
        rate = 0.025 * (1 + np.cos(np.pi * epoch / 4))
        plan = run.method.plan(epoch)
        (picks,) = plan.streams.values()
        for step in range(plan.steps):
            images, labels = run.images.batch(picks[step])
            with torch.no_grad():
                features = other.network.body.train()(images).mean((2, 3))
            logits = (features @ mine[0].T + mine[1]) * mine[2]
            loss = -(smoothed_labels(labels, 0.3, 0.05) * logits.double().log_softmax(1)).sum(1).mean()
            for i, gradient in enumerate(torch.autograd.grad(loss, mine)):
                with torch.no_grad():
                    momentum[i] = 0.9 * momentum[i] + gradient + 0.01 * mine[i]
                    mine[i] -= rate * (1.0 if i == 2 else 0.3) * momentum[i]
        assert train_epoch(run, epoch)["lr"] == pytest.approx(rate)
    head = run.network.heads["single"]
    for theirs, own in zip((head.linear.weight, head.linear.bias, head.scale), mine, strict=True):
        torch.testing.assert_close(theirs.detach(), own.detach(), rtol=1e-3, atol=1e-4)
    for name, tensor in run.network.body.state_dict().items():
        torch.testing.assert_close(tensor, other.network.body.state_dict()[name], rtol=1e-5, atol=1e-6)
        if name.endswith(("running_mean", "running_var")):
            assert not torch.equal(tensor, stored[f"body.{name}"]), "batch norm moves"
        elif not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, stored[f"body.{name}"]), "weights do not"


def test_killed_and_started_again_it_ends_with_the_same_bytes(
    first: Path, dataset: Dataset, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(calibrated(), dataset, split, tmp_path / "whole", parent=first)
    with monkeypatch.context() as patch:

        def killed(run: Run, epoch: int) -> dict[str, Any]:
            if epoch == 2:
                raise KeyboardInterrupt
            return train_epoch(run, epoch)

        patch.setattr("csa_core.train.loop.train_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(calibrated(), dataset, split, tmp_path / "cut", parent=first, checkpoint_seconds=0.0)
    assert len(list((tmp_path / "cut/state").glob("*/epoch-000002.safetensors"))) == 1
    assert fit(calibrated(), dataset, split, tmp_path / "cut", parent=first, checkpoint_seconds=0.0) == whole


def test_its_first_stage_and_its_keys() -> None:
    assert parent_of(parse({"method": "mislas"}, "x")) == parse({"method": "ce"}, "x")
    digest = parse({"method": "mislas"}, "x").digest()
    assert parse({"method": "mislas", "mislas": {"smooth_head": 0.3}}, "x").digest() != digest
    assert parse({"method": "mislas", "threshold": 0.3}, "x").digest() == digest


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mislas": {"smooth_head": 0.05}}, "mislas: smooth_head 0.05 is below smooth_tail 0.1; raise it"),
        ({"mislas": {"smooth_head": 1.0}}, "mislas.smooth_head: input should be less than 1"),
        ({"second_stage": {"epochs": 3}}, "second_stage: method mislas does not read it (crt, lws do)"),
        ({"mislas": {"epochs": 0}}, "mislas.epochs: input should be greater than or equal to 1"),
    ],
)
def test_what_cannot_be_is_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        parse({"method": "mislas"} | fields, "run.yaml")
    assert message in str(error.value) and str(error.value).startswith("run.yaml: ")


def test_its_first_stage_may_be_mixup_but_not_with_a_cosine_head() -> None:
    mixed = tiny(method="mislas", first_stage="mixup", mixup_alpha=0.4)
    assert mixed.parent()["method"] == "mixup" and mixed.parent()["mixup_alpha"] == 0.4
    assert mixed.digest() != tiny(method="mislas", first_stage="mixup").digest() != tiny(method="mislas").digest()
    with pytest.raises(UserError, match="ldam has a cosine head, and a second stage is of a linear one"):
        tiny(method="mislas", first_stage="mixup", loss="ldam")
