"""Pre-training: the step by other means, exact resume, the probes, and what an encoder may be."""

import copy
import json
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sklearn.neighbors import KNeighborsClassifier

from csa_core import store
from csa_core.config import RunConfig
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split, make_split
from csa_core.data.views import plan_pretraining_epoch
from csa_core.errors import UserError
from csa_core.models.resnet import make_body
from csa_core.models.simsiam import SimSiam
from csa_core.train.loop import Options, train, train_epoch
from csa_core.train.pretrain import PretrainingRun, losses_of, simsiam_step
from csa_core.train.probe import knn_logits, linear_logits
from csa_core.train.run import Run
from tests.conftest import TINY, Cli, tiny
from tests.csa_core.train.test_loop import results, start, wait_for_checkpoint

CPU = torch.device("cpu")
RECIPE = {"epochs": 3, "batch_size": 12, "lr": 0.05, "projector_width": 24, "predictor_width": 8, "sam": "none"}


def simsiam(**changes: Any) -> RunConfig:
    """Return a tiny pre-training run with some keys of its recipe changed."""
    return tiny(method="simsiam", pretraining=RECIPE | changes)


def losses(network: SimSiam, views: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """What a float32 run of this network says of two views."""
    return losses_of(SimpleNamespace(network=network, features=network.body), *views)  # type: ignore[arg-type]


def plan_of(run: PretrainingRun, epoch: int = 0) -> Any:
    return plan_pretraining_epoch(run.config, len(run.split.indices), (16, 12), epoch, CPU)


@pytest.fixture(scope="module")
def plain(dataset: Dataset, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished plain SimSiam run."""
    out = tmp_path_factory.mktemp("plain") / "out"
    train(simsiam(), dataset, split, Options(out, out / "state", CPU, "code"))
    return out


@pytest.mark.parametrize("sam", ["none", "sam", "rwsam"])
def test_a_step_is_sgd_on_the_gradient_by_hand(sam: str, dataset: Dataset, split: Split) -> None:
    """Autograd on copies of the network, SAM's two gradients and SGD written out."""
    run = PretrainingRun(simsiam(sam=sam, sam_radius=0.4), dataset, split, CPU)
    run.weights = torch.linspace(0.2, 3, len(split.indices)) if sam == "rwsam" else run.weights
    run.network.train()
    network, plan = copy.deepcopy(run.network), plan_of(run)
    rate, recipe = run.optimizer.param_groups[0]["lr"], run.config.pretraining
    stats = simsiam_step(run, plan, 0)

    index = plan.index[0]
    views = run.images.view(index, plan.first[0]), run.images.view(index, plan.second[0])

    def gradients(of: SimSiam, weights: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad((weights * losses(of, views)[0]).mean(), list(of.parameters())))

    ones = torch.ones(len(index))
    if sam == "none":
        gradient = gradients(copy.deepcopy(network), ones)
    else:
        ascent = gradients(copy.deepcopy(network), run.weights[index])
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
    wanted_losses, spread = losses(network, views)
    for name, buffer in network.named_buffers():
        torch.testing.assert_close(run.network.get_buffer(name), buffer, msg=name)
    assert float(stats["loss"]) == pytest.approx(float(wanted_losses.detach().mean()), abs=1e-6)
    assert float(stats["projector_std"]) == pytest.approx(float(spread), abs=1e-6)


def test_rwsam_with_equal_weights_is_sam(dataset: Dataset, split: Split) -> None:
    runs = [PretrainingRun(simsiam(sam=sam), dataset, split, CPU) for sam in ("sam", "rwsam")]
    for run in runs:
        for epoch in range(2):
            train_epoch(run, epoch)
    one, other = (run.state() for run in runs)
    assert all(np.array_equal(one[name], other[name]) for name in one)
    weighted = PretrainingRun(simsiam(sam="rwsam"), dataset, split, CPU)
    weighted.weights = torch.linspace(0, 2, len(split.indices))
    for epoch in range(2):
        train_epoch(weighted, epoch)
    assert not np.array_equal(weighted.state()["network/body.conv.weight"], one["network/body.conv.weight"])


def test_the_target_gets_no_gradient_through_the_network(dataset: Dataset, split: Split) -> None:
    """With the predictor's weights at zero nothing reaches the encoder: all gradient comes by way of it."""
    run = PretrainingRun(simsiam(), dataset, split, CPU)
    with torch.no_grad():
        run.network.get_parameter("predictor.3.weight").zero_()
    plan = plan_of(run)
    views = [run.images.view(plan.index[0], v) for v in (plan.first[0], plan.second[0])]
    losses(run.network, views)[0].mean().backward()
    assert all(p.grad is None or not p.grad.any() for p in run.network.body.parameters())
    gradient = run.network.get_parameter("predictor.3.weight").grad
    assert gradient is not None and gradient.any()


@pytest.mark.parametrize("sam", ["none", "sam", "rwsam"])
def test_resuming_at_any_epoch_changes_no_tensor(sam: str, plain: Path, dataset: Dataset, split: Split) -> None:
    config = simsiam(sam=sam)
    encoder = store.read_tensors(plain / "weights.safetensors")[0] if sam == "rwsam" else None
    run = PretrainingRun(config, dataset, split, CPU, encoder)
    states = [run.state()]
    for epoch in range(3):
        train_epoch(run, epoch)
        states.append(run.state())
    for epoch in range(3):
        resumed = PretrainingRun(config, dataset, split, CPU, encoder)
        resumed.load(states[epoch])
        for later in range(epoch, 3):
            train_epoch(resumed, later)
        for name, array in states[-1].items():
            assert np.array_equal(resumed.state()[name], array), f"{name} differs after resuming at epoch {epoch}"


def test_the_learning_rate_falls_along_a_cosine(dataset: Dataset, split: Split) -> None:
    run = PretrainingRun(simsiam(epochs=4), dataset, split, CPU)
    wanted = torch.optim.SGD([torch.zeros(1)], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(wanted, 4)
    for epoch in range(4):
        assert run.learning_rate(epoch) == pytest.approx(schedule.get_last_lr()[0])
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


def test_nearest_neighbours_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), [150, 100, 40, 10])
    features = rng.normal(size=(300, 8)) + 2 * np.eye(8)[labels]
    test = rng.normal(size=(50, 8)) + 2 * np.eye(8)[rng.integers(0, 4, 50)]
    theirs = KNeighborsClassifier(200, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.1))
    shares = theirs.fit(features, labels).predict_proba(test) / np.bincount(labels)
    shares /= shares.sum(1, keepdims=True)
    ours = knn_logits(torch.tensor(features).float(), labels, torch.tensor(test).float(), 4)
    np.testing.assert_allclose(np.exp(ours), np.maximum(shares, 1e-12), atol=1e-4)


def test_the_linear_probe_of_two_classes_has_two_logits() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [40, 5])
    features = torch.tensor(rng.normal(size=(45, 3)) + 3 * labels[:, None]).float()
    logits = linear_logits(features, labels, features)
    assert logits.shape == (45, 2) and (logits.argmax(1) == labels).mean() > 0.9


def test_rwsam_weighs_by_the_density_of_the_plain_encoder(plain: Path, dataset: Dataset, split: Split) -> None:
    encoder = store.read_tensors(plain / "weights.safetensors")[0]
    run = PretrainingRun(simsiam(sam="rwsam"), dataset, split, CPU, encoder)
    assert float(run.weights.mean()) == pytest.approx(1, abs=1e-5) and float(run.weights.std()) > 0


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
    metrics = train(config, dataset, split, Options(out, tmp_path / "state", CPU, "code", encoder=plain))
    assert metrics["digests"]["encoder"] == store.read_tensors(plain / "weights.safetensors")[2]
    assert config.digest() != tiny(method="ce").digest()
    assert config.digest() != tiny(method="ce", pretrained=True, pretraining=RECIPE | {"lr": 0.01}).digest()
    assert tiny(method="ce", pretraining=RECIPE).digest() == tiny(method="ce").digest(), "it is not read"
    assert simsiam().digest() == tiny(method="simsiam", pretraining=RECIPE, epochs=9, threshold=0.1).digest()


def refused(path: Path | None, config: RunConfig, dataset: Dataset, split: Split, tmp_path: Path) -> str:
    with pytest.raises(UserError) as error:
        train(config, dataset, split, Options(tmp_path / "out", tmp_path / "state", CPU, "code", encoder=path))
    assert not (tmp_path / "out").exists(), "refused before anything is made"
    return str(error.value)


def test_an_encoder_that_is_not_the_one_is_refused(plain: Path, dataset: Dataset, split: Split, tmp_path: Path) -> None:
    config = tiny(method="ce", pretrained=True, pretraining=RECIPE)

    def says(path: Path | None, config: RunConfig = config, dataset: Dataset = dataset, split: Split = split) -> str:
        return refused(path, config, dataset, split, tmp_path)

    assert "--encoder is missing: train one with --set method=simsiam" in says(None)
    assert "missing.safetensors: no such file" in says(tmp_path / "missing.safetensors")
    assert "starts from no encoder" in says(plain, tiny(method="ce"))
    other = tiny(method="ce", pretrained=True, pretraining=RECIPE, model="resnet20")
    assert 'was pre-trained with model "resnet8", this run asks for "resnet20"' in says(plain, other)
    longer = tiny(method="ce", pretrained=True, pretraining=RECIPE | {"epochs": 9})
    assert "was pre-trained with pretraining.epochs 3, this run asks for 9" in says(plain, longer)
    assert 'pretraining.sam "none", this run asks for "sam"' in says(
        plain, tiny(method="ce", pretrained=True, pretraining=RECIPE | {"sam": "sam"})
    )
    assert "--set pretraining.sam=none" in says(None, simsiam(sam="rwsam"))
    images = (dataset.train_images ^ 1, dataset.train_labels, dataset.test_images, dataset.test_labels)
    changed = Dataset("demo", dataset.class_names, *images)
    assert "was pre-trained on other data" in says(plain, config, changed, make_split(changed, config.data))
    damaged = tmp_path / "damaged.safetensors"
    content = bytearray((plain / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert "does not match its SHA-256" in says(damaged)
    damaged.write_bytes(b"gibberish")
    assert "damaged or not ours" in says(damaged)
    supervised = tmp_path / "ce"
    train(tiny(method="ce"), dataset, split, Options(supervised, tmp_path / "s", CPU, "code"))
    assert "is of a ce run; an encoder comes from method simsiam" in says(supervised)
    assert "is of a ce run" not in says(plain / "metrics.json")


def test_a_batch_larger_than_the_data_is_refused(dataset: Dataset, split: Split) -> None:
    with pytest.raises(UserError, match="pretraining.batch_size: 99 is more than the 36 training images"):
        PretrainingRun(simsiam(batch_size=99), dataset, split, CPU)


def test_resnet18_is_torchvisions_behind_a_small_stem() -> None:
    from csa_core.vision import torchvision

    body = make_body("resnet18_cifar").eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert body(x).shape == (2, 512, 4, 4)
    whole = torchvision.models.resnet18()
    parameters = sum(p.numel() for p in whole.parameters()) - sum(p.numel() for p in whole.fc.parameters())
    assert sum(p.numel() for p in body.parameters()) == parameters - 64 * 3 * (7 * 7 - 3 * 3)


def test_killed_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    recipe = RECIPE | {"epochs": 12}
    changes = {"method": "simsiam", "pretraining": recipe}
    whole: subprocess.Popen[str] = start(tmp_path / "whole" / "out", **changes)
    _, log = whole.communicate(timeout=120)
    assert whole.returncode == 0, log
    out = tmp_path / "killed" / "out"
    process = start(out, **changes)
    wait_for_checkpoint(out, 4)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    process = start(out, **changes)
    _, log = process.communicate(timeout=120)
    assert process.returncode == 0 and "continuing after epoch" in log
    assert results(out) == results(tmp_path / "whole" / "out")


def test_the_command_line_from_encoder_to_fine_tuning(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(TINY | {"pretrained": True, "pretraining": RECIPE, "method": "ce"}))
    without = cli("train", config, "--out", tmp_path / "tuned")
    assert without.returncode == 2 and "--encoder is missing" in without.stderr
    first = cli("train", config, "--set", "method=simsiam", "--out", tmp_path / "encoder", "--threads", 1)
    assert first.returncode == 0 and "knn" in first.stdout and "projector std" in first.stderr, first.stderr
    second = cli("train", config, "--encoder", tmp_path / "encoder", "--out", tmp_path / "tuned", "--threads", 1)
    assert second.returncode == 0, second.stderr
    again = cli("evaluate", tmp_path / "encoder", "--threads", 1)
    assert again.returncode == 0 and "same as metrics.json" in again.stdout, again.stderr
    again = cli("evaluate", tmp_path / "tuned", "--threads", 1)
    assert again.returncode == 0 and "same as metrics.json" in again.stdout, again.stderr
