"""NaN and infinity at every place of a step: it stops before the optimizer and says which tensor."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csa_core import ops
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.errors import UserError
from csa_core.methods.base import Stats
from csa_core.ops.activation_map import background_mask, object_map
from csa_core.train import guard
from csa_core.train.loop import Options, train, train_epoch
from csa_core.train.run import Run
from csa_core.train.sgd import Sgd
from csa_core.train.state import checkpoint
from tests.conftest import tiny

CPU = torch.device("cpu")
PRETRAINING = {"epochs": 5, "batch_size": 12, "projector_width": 16, "predictor_width": 4, "sam": "sam"}
# The bank is full after the first epoch, and each epoch has three steps.
STEPS = [(2, 1, "nan"), (2, 2, "inf"), (3, 3, "nan"), (4, 1, "-inf"), (4, 3, "inf")]
Patch = pytest.MonkeyPatch


def into_loss(run: Any, value: float, patch: Patch) -> None:
    method = run.method
    patch.setattr(method, "uniform_loss", lambda *a, whole=method.uniform_loss: whole(*a) + value)


def into_gradient(run: Any, value: float, patch: Patch) -> None:
    parameter = run.network.get_parameter("body.blocks.0.conv1.weight")
    parameter.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor([0]), value))


def into_mask(run: Any, value: float, patch: Patch) -> None:
    patch.setattr(ops, "background_mask", lambda *a: background_mask(*a).index_fill(0, torch.tensor([3]), value))


def into_bank(run: Any, value: float, patch: Patch) -> None:
    bank = run.method.bank

    def push(*arguments: Any, whole: Any = bank.push) -> None:  # a push may replace all that is there
        whole(*arguments)
        bank._images_nhwc[:, 0, 0, 0] = value

    patch.setattr(bank, "push", push)


def into_predictor(run: Any, value: float, patch: Patch) -> None:
    run.network.get_parameter("predictor.3.weight").register_hook(lambda gradient: gradient * value)


def into_views(run: Any, value: float, patch: Patch) -> None:
    patch.setattr(run.images, "view", lambda *a, whole=run.images.view: whole(*a) + value)


def stopped_at(
    inject: Callable[[Any, float, Patch], None],
    where: tuple[int, int, str],
    train_it: Callable[[], Any],
    patch: Patch,
) -> tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Train with a fault before one step; return the message, and parameters before and after that step."""
    epoch, number, value = where
    seen: dict[str, Any] = {}

    class Faulty(Run):
        def steps(self, now: int) -> Iterator[Stats]:
            each = super().steps(now)
            for i in range(1, 10):
                if (now + 1, i) == (epoch, number):
                    inject(self, float(value), patch)
                    seen["run"], seen["before"] = self, parameters(self)
                try:
                    yield next(each)
                except StopIteration:
                    return

    patch.setattr("csa_core.train.loop.Run", Faulty)
    with pytest.raises(UserError) as error:
        train_it()
    return str(error.value), seen["before"], parameters(seen["run"])


def parameters(run: Run) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in run.network.named_parameters()}


@pytest.fixture(scope="module")
def states(dataset: Dataset, split: Split) -> list[dict[str, np.ndarray]]:
    """The state of the run that nobody disturbs after each epoch."""
    run = Run(tiny(), dataset, split, CPU)
    found = [run.state()]
    for epoch in range(4):
        train_epoch(run, epoch)
        found.append(run.state())
    return found


@pytest.mark.parametrize("where", STEPS)
@pytest.mark.parametrize(
    ("inject", "name"),
    [
        (into_loss, "loss"),
        (into_gradient, "gradient of body.blocks.0.conv1.weight"),
        (into_mask, "background mask"),
        (into_bank, "image in the bank"),
    ],
)
def test_a_run_stops_before_the_optimizer(
    inject: Any, name: str, where: Any, states: Any, dataset: Dataset, split: Split, tmp_path: Path, monkeypatch: Patch
) -> None:
    def train_it() -> None:
        train(tiny(), dataset, split, Options(tmp_path / "out", tmp_path / "state", CPU, "code", checkpoint_seconds=0))

    message, before, after = stopped_at(inject, where, train_it, monkeypatch)
    assert message.startswith(f"{name} is not finite in epoch {where[0]}, step {where[1]} (learning rate")
    assert all(np.array_equal(before[key], after[key]) for key in before), "the optimizer stepped"
    assert not (tmp_path / "out/metrics.json").exists()
    (folder,) = (tmp_path / "state").iterdir()
    kept, meta, damaged = checkpoint.load_newest(folder, {"code": "code"})
    assert meta["epoch"] == where[0] - 1 and not damaged
    assert kept.keys() == states[where[0] - 1].keys()
    assert all(np.array_equal(kept[key], states[where[0] - 1][key]) for key in kept)


@pytest.mark.parametrize("where", STEPS[1:3])
@pytest.mark.parametrize(("inject", "name"), [(into_views, "loss"), (into_predictor, "gradient of predictor.3.weight")])
def test_pretraining_stops_before_the_optimizer(
    inject: Any, name: str, where: Any, dataset: Dataset, split: Split, tmp_path: Path, monkeypatch: Patch
) -> None:
    config = tiny(method="simsiam", pretraining=PRETRAINING)

    def train_it() -> None:
        train(config, dataset, split, Options(tmp_path / "out", tmp_path / "state", CPU, "code", checkpoint_seconds=0))

    where = (where[0], min(where[1], 2), where[2])  # an epoch has two full batches
    message, before, after = stopped_at(inject, where, train_it, monkeypatch)
    what = name if inject is into_views else "loss at the end of the ascent"
    assert message.startswith(f"{what} is not finite in epoch {where[0]}, step {where[1]} (learning rate")
    assert all(np.array_equal(before[key], after[key]) for key in before), "the optimizer stepped"


def test_weights_that_the_last_step_blew_up_are_no_checkpoint(
    dataset: Dataset, split: Split, tmp_path: Path, monkeypatch: Patch
) -> None:
    """All is finite before the optimizer, and the weights behind it are not."""
    config = tiny(method="ce")

    class Faulty(Run):
        def steps(self, now: int) -> Iterator[Stats]:
            yield from super().steps(now)
            if now == 2:
                with torch.no_grad():
                    self.network.get_parameter("heads.single.bias")[1] = torch.inf

    monkeypatch.setattr("csa_core.train.loop.Run", Faulty)
    with pytest.raises(UserError, match=r"heads.single.bias is not finite in epoch 3, after its last step"):
        train(config, dataset, split, Options(tmp_path / "out", tmp_path / "state", CPU, "code", checkpoint_seconds=0))
    (folder,) = (tmp_path / "state").iterdir()
    assert checkpoint.load_newest(folder, {"code": "code"})[1]["epoch"] == 2


def test_where_nobody_waits_for_the_device_the_weights_rest_from_the_bad_step_on(
    dataset: Dataset, split: Split, monkeypatch: Patch
) -> None:
    """What a GPU does: the optimizer itself does nothing, and the end of the epoch names step and tensor."""
    run = Run(tiny(), dataset, split, CPU)
    watching = run.guard
    watching._waits = False
    train_epoch(run, 0)
    run.network.train()
    watching.start_epoch()
    each, seen = run.steps(1), []
    for number in range(3):
        if number == 1:
            seen.append(parameters(run))
            into_gradient(run, torch.nan, monkeypatch)
        next(each)
    seen.append(parameters(run))
    assert all(np.array_equal(seen[0][key], seen[1][key]) for key in seen[0]), "the optimizer stepped"
    with pytest.raises(guard.NotFinite) as error:
        watching.end_epoch()
    assert (error.value.name, error.value.step) == ("gradient of body.blocks.0.conv1.weight", 2)


def test_gradients_that_are_large_are_no_fault() -> None:
    """Their squares overflow float32, they do not."""
    network = torch.nn.Linear(2, 2)
    optimizer = Sgd([network.parameters()], 0.1, 0.9, 0.0)
    watching = guard.Guard(network, optimizer, CPU)
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 1e30)
    watching.check()
    watching.end_epoch()


@pytest.mark.parametrize("value", [0.0, -3.0, 1e30, 1e-40])
def test_a_flat_activation_map_gives_a_finite_mask(value: float) -> None:
    mask = background_mask(object_map(torch.full((2, 4, 3), value), (16, 12)), 2.0)
    assert torch.equal(mask, torch.ones(2, 1, 16, 12)), "no object: all background"


def test_watching_costs_no_number(dataset: Dataset, split: Split) -> None:
    """With the guard's check taken out, the weights after two epochs are the same bits."""
    runs = [Run(tiny(), dataset, split, CPU) for _ in range(2)]
    runs[1].check = lambda: None
    for run in runs:
        for epoch in range(2):
            train_epoch(run, epoch)
    one, other = (run.state() for run in runs)
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_of_several_gradients_the_one_nearest_to_the_loss_is_named() -> None:
    """What goes wrong there goes wrong in all layers before it."""
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1, bias=False))
    watching = guard.Guard(network, Sgd([network.parameters()], 0.1, 0.9, 0.0), CPU)
    out = network(torch.ones(3, 2))
    out.register_hook(lambda gradient: gradient * torch.nan)
    watching.watch("loss", out.sum())
    out.sum().backward()
    with pytest.raises(guard.NotFinite) as error:
        watching.check()
    assert error.value.name == "gradient of 1.weight"
