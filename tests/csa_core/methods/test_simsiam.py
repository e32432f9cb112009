"""Pre-training: the step by other means, exact resume, the probes, and what an encoder may be."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csa_core import store
from csa_core.data.batch import Batch
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.errors import UserError
from csa_core.models.simsiam import SimSiamNetwork
from csa_core.train.loop import Options, train, train_epoch
from csa_core.train.run import Run
from tests.conftest import tiny

CPU = torch.device("cpu")
RECIPE = {"epochs": 3, "batch_size": 12, "lr": 0.05, "projector_width": 24, "predictor_width": 8, "sam": "none"}


def simsiam(**changes: Any) -> Any:
    """Return a tiny pre-training run with some keys of its recipe changed."""
    return tiny(method="simsiam", pretraining=RECIPE | changes)


def losses(run: Run, network: SimSiamNetwork, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """What a run says of two views with this network: the loss of each image, and the spread."""
    found, stats = run.method.loss(network, batch, "pretraining", lambda *_: None)
    return found, stats["projector_std"]


def first_batch(run: Run) -> Batch:
    return run.images.at(run.method.plan(0), 0)


@pytest.fixture(scope="module")
def plain(dataset: Dataset, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished plain SimSiam run."""
    out = tmp_path_factory.mktemp("plain") / "out"
    train(simsiam(), dataset, split, Options(out, out / "state", CPU, "code"))
    return out


@pytest.mark.parametrize("sam", ["none", "sam", "rwsam"])
def test_a_step_is_sgd_on_the_gradient_by_hand(sam: str, dataset: Dataset, split: Split) -> None:
    """Autograd on copies of the network, SAM's two gradients and SGD written out."""
    run = Run(simsiam(sam=sam, sam_radius=0.4), dataset, split, CPU)
    method: Any = run.method
    method.weights = torch.linspace(0.2, 3, len(split.indices)) if sam == "rwsam" else None
    run.network.train()
    network, batch = copy.deepcopy(run.network), first_batch(run)
    rate, recipe = run.optimizer.param_groups[0]["lr"], method.config.pretraining
    stats = method.step(run, batch, "pretraining")

    def gradients(of: SimSiamNetwork, weights: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad((weights * losses(run, of, batch)[0]).mean(), list(of.parameters())))

    index = batch.draws["index"]
    ones = torch.ones(len(index))
    if sam == "none":
        gradient = gradients(copy.deepcopy(network), ones)
    else:
        weights = ones if method.weights is None else method.weights[index]
        ascent = gradients(copy.deepcopy(network), weights)
        norm = torch.cat([g.flatten() for g in ascent]).norm()
        uphill = copy.deepcopy(network)
        with torch.no_grad():
            for parameter, g in zip(uphill.parameters(), ascent, strict=True):
                parameter.add_(0.4 * g / norm)
        gradient = gradients(uphill, ones)
    for (name, parameter), g in zip(network.named_parameters(), gradient, strict=True):
        wanted = parameter - rate * (g + recipe.weight_decay * parameter)
        torch.testing.assert_close(run.network.get_parameter(name), wanted, rtol=1e-4, atol=1e-5, msg=name)
    # Statistics of batch norm have moved once, by the first pass.
    wanted_losses, spread = losses(run, network, batch)
    for name, buffer in network.named_buffers():
        torch.testing.assert_close(run.network.get_buffer(name), buffer, msg=name)
    assert float(stats["loss"]) == pytest.approx(float(wanted_losses.detach().mean()), abs=1e-6)
    assert float(stats["projector_std"]) == pytest.approx(float(spread), abs=1e-6)


def test_rwsam_with_equal_weights_is_sam(dataset: Dataset, split: Split) -> None:
    runs = [Run(simsiam(sam=sam), dataset, split, CPU) for sam in ("sam", "rwsam")]
    for run in runs:
        for epoch in range(2):
            train_epoch(run, epoch)
    one, other = (run.state() for run in runs)
    assert all(np.array_equal(one[name], other[name]) for name in one)
    weighted: Any = Run(simsiam(sam="rwsam"), dataset, split, CPU)
    weighted.method.weights = torch.linspace(0, 2, len(split.indices))
    for epoch in range(2):
        train_epoch(weighted, epoch)
    assert not np.array_equal(weighted.state()["network/body.conv.weight"], one["network/body.conv.weight"])


def test_the_target_gets_no_gradient_through_the_network(dataset: Dataset, split: Split) -> None:
    """With the predictor's weights at zero nothing reaches the encoder: all gradient comes by way of it."""
    run = Run(simsiam(), dataset, split, CPU)
    with torch.no_grad():
        run.network.get_parameter("predictor.3.weight").zero_()
    losses(run, run.network, first_batch(run))[0].mean().backward()
    assert all(p.grad is None or not p.grad.any() for p in run.network.body.parameters())
    gradient = run.network.get_parameter("predictor.3.weight").grad
    assert gradient is not None and gradient.any()


@pytest.mark.parametrize("sam", ["none", "sam", "rwsam"])
def test_resuming_at_any_epoch_changes_no_tensor(sam: str, plain: Path, dataset: Dataset, split: Split) -> None:
    config = simsiam(sam=sam)
    encoder = store.read_tensors(plain / "weights.safetensors")[0] if sam == "rwsam" else None
    run = Run(config, dataset, split, CPU, encoder)
    states = [run.state()]
    for epoch in range(3):
        train_epoch(run, epoch)
        states.append(run.state())
    for epoch in range(3):
        resumed = Run(config, dataset, split, CPU, encoder)
        resumed.load(states[epoch])
        for later in range(epoch, 3):
            train_epoch(resumed, later)
        for name, array in states[-1].items():
            assert np.array_equal(resumed.state()[name], array), f"{name} differs after resuming at epoch {epoch}"


def test_the_learning_rate_falls_along_a_cosine(dataset: Dataset, split: Split) -> None:
    run = Run(simsiam(epochs=4), dataset, split, CPU)
    wanted = torch.optim.SGD([torch.zeros(1)], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(wanted, 4)
    for epoch in range(4):
        assert run.method.learning_rate(epoch) == pytest.approx(schedule.get_last_lr()[0])
        wanted.step()
        schedule.step()


def test_a_finished_run_holds_its_probes(plain: Path, dataset: Dataset) -> None:
    metrics = json.loads((plain / "metrics.json").read_text())
    assert set(metrics["heads"]) == {"knn", "linear", "knn_untrained"} and metrics["predicts"] == "knn"
    header, *lines = (plain / "history.csv").read_text().splitlines()
    columns = header.split(",")
    assert {"projector_std", "projector_std_expected", "test_accuracy_knn"} <= set(columns)
    last = dict(zip(columns, lines[-1].split(","), strict=True))
    assert float(last["projector_std_expected"]) == pytest.approx(24**-0.5)
    assert 0 < float(last["projector_std"]) < 2 * 24**-0.5


def test_rwsam_weighs_by_the_density_of_the_plain_encoder(plain: Path, dataset: Dataset, split: Split) -> None:
    encoder = store.read_tensors(plain / "weights.safetensors")[0]
    method: Any = Run(simsiam(sam="rwsam"), dataset, split, CPU, encoder).method
    assert float(method.weights.mean()) == pytest.approx(1, abs=1e-5) and float(method.weights.std()) > 0


def test_a_batch_larger_than_the_data_is_refused(dataset: Dataset, split: Split) -> None:
    with pytest.raises(UserError, match="pretraining.batch_size: 99 is more than the 36 training images"):
        Run(simsiam(batch_size=99), dataset, split, CPU)
