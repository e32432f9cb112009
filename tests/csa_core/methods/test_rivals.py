"""The methods that readers compare with: what each draws and when, and its loss by other means."""

from typing import Any

import numpy as np
import pytest
import torch

from csa_core.config import parse_yaml
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.errors import UserError
from csa_core.methods import METHODS, parse, recipe
from csa_core.train.loop import train_epoch
from csa_core.train.run import Run
from tests.conftest import method_of, tiny

CPU = torch.device("cpu")
COUNTS = [16, 10, 6, 4]
SUPERVISED = [name for name in METHODS if name != "simsiam"]
TRAINED = [name for name in SUPERVISED if tiny(method=name).total_epochs]


def cross_entropy(z: np.ndarray, y: int) -> float:
    return float(np.log(np.exp(z - z.max()).sum()) + z.max() - z[y])


def weight(k: int, beta: float) -> float:
    """Weight of class k: the inverse of 1 + beta + beta^2 + ..., n terms, scaled to a mean of 1."""
    numbers = [sum(beta**i for i in range(n)) for n in COUNTS]
    return (1 / numbers[k]) / sum(1 / each for each in numbers) * len(COUNTS)


def first_step(run: Run, phase: str) -> tuple[float, Any, Any]:
    """Train the first step of epoch 0; return its loss, the plan, and the network as it was before."""
    plan = run.method.plan(0)
    before = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}
    loss = float(run.method.step(run, run.images.at(plan, 0), phase)["loss"])
    run.network.load_state_dict(before)
    return loss, plan, run.network


def logits_of(network: Any, images: torch.Tensor) -> np.ndarray:
    """Logits of the training forward, head written anew from its weights."""
    features = network.body(images).mean((2, 3)).detach().double().numpy()
    head = {name.split(".")[-1]: t.double().numpy() for name, t in network.heads.state_dict().items()}
    if "bias" in head:
        return features @ head["weight"].T + head["bias"]
    cosines = [[f @ w / np.sqrt((f @ f) * (w @ w)) for w in head["weight"]] for f in features]
    return 30.0 * np.array(cosines)


def loss_of(config: Any, z: np.ndarray, y: int) -> float:
    """The loss of one image by the formula of its method or `loss` key."""
    name, z = getattr(config, "loss", config.method), z.copy()
    prior = [n / sum(COUNTS) for n in COUNTS]
    if name == "focal":
        return (1 - np.exp(-cross_entropy(z, y))) ** config.focal_exponent * cross_entropy(z, y)
    if name == "ldam":
        z[y] -= 30 * 0.5 * (4 / COUNTS[y]) ** 0.25
    for k in range(4):
        if name == "vs":
            z[k] = z[k] / (16 / COUNTS[k]) ** config.vs_exponent + config.logit_adjustment_strength * np.log(prior[k])
        if name == "logit_adjustment":
            z[k] += config.logit_adjustment_strength * np.log(prior[k])
    return cross_entropy(z, y)


def mean(config: Any, logits: np.ndarray, labels: list[int], shares: list[float], weighted: bool) -> float:
    """The mean over the batch; with weights over their sum."""
    of_class = [weight(k, config.effective_number_beta) if weighted else 1.0 for k in range(4)]
    losses = [share * of_class[y] * loss_of(config, z, y) for z, y, share in zip(logits, labels, shares, strict=True)]
    return sum(losses) / sum(of_class[y] for y in labels)


ONE_LABEL: list[dict[str, Any]] = [
    {"method": "reweighting"},
    {"method": "reweighting", "effective_number_beta": 0.9},
    {"method": "focal", "focal_exponent": 2.0},
    {"method": "focal", "reweighting": "always"},
    {"method": "ldam"},
    {"method": "ldam", "reweighting": "always"},
    {"method": "vs", "vs_exponent": 0.3, "logit_adjustment_strength": 0.8},
    {"method": "vs", "logit_adjustment_strength": 0.0, "reweighting": "always"},
]


@pytest.mark.parametrize("changes", ONE_LABEL, ids=str)
def test_a_step_minimises_the_loss_of_the_method(changes: dict[str, Any], dataset: Dataset, split: Split) -> None:
    config = tiny(**changes)
    run = Run(config, dataset, split, CPU)
    phase = run.method.phase(0)
    loss, plan, network = first_step(run, phase)
    images, labels = run.images.batch(plan.streams["uniform"][0])
    logits = logits_of(network, images)
    wanted = mean(config, logits, labels.tolist(), [1.0] * 16, config.reweighting == "always")
    assert loss == pytest.approx(wanted, rel=1e-5)


MIXED: list[dict[str, Any]] = [
    {"method": "mixup"},
    {"method": "mixup", "reweighting": "always", "loss": "logit_adjustment"},
    {"method": "remix", "remix_ratio": 1.5},
    {"method": "remix", "reweighting": "always", "remix_limit": 0.9},
    {"method": "cmo", "paste_probability": 1.0},
    {"method": "cmo", "paste_probability": 1.0, "loss": "ldam", "reweighting": "always"},
    {"method": "cmo", "paste_probability": 0.0, "loss": "focal"},
]


@pytest.mark.parametrize("changes", MIXED, ids=str)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_step_on_mixed_images_has_two_labels(
    changes: dict[str, Any], seed: int, dataset: Dataset, split: Split
) -> None:
    config = tiny(seed=seed, **changes)
    run = Run(config, dataset, split, CPU)
    loss, plan, network = first_step(run, run.method.phase(0))
    images, labels = run.images.batch(plan.streams["uniform"][0])
    share = float(plan.draws["share"][0])
    if config.method == "cmo":
        others, their_labels = run.images.batch(plan.streams["foreground"][0])
        top, bottom, left, right = plan.draws["box"][0].tolist()
        made = images.clone()
        made[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
        assert share == pytest.approx(1 - (bottom - top) * (right - left) / (16 * 12), rel=1e-6)
        assert (share == 1) >= (config.paste_probability == 0)
    else:
        order = plan.draws["pairs"][0]
        others, their_labels = images[order], labels[order]
        made = torch.stack([share * a + (1 - share) * b for a, b in zip(images, others, strict=True)])
    shares = [share] * 16
    if config.method == "remix":
        for i, (y, other) in enumerate(zip(labels.tolist(), their_labels.tolist(), strict=True)):
            ratio = COUNTS[y] / COUNTS[other]
            if ratio >= config.remix_ratio and share < config.remix_limit:
                shares[i] = 0.0
            elif ratio <= 1 / config.remix_ratio and 1 - share < config.remix_limit:
                shares[i] = 1.0
    logits, weighted = logits_of(network, made), config.reweighting == "always"
    wanted = mean(config, logits, labels.tolist(), shares, weighted)
    wanted += mean(config, logits, their_labels.tolist(), [1 - each for each in shares], weighted)
    assert loss == pytest.approx(wanted, rel=1e-5)


def test_ldam_has_a_cosine_head_that_is_scored_as_it_is_trained(dataset: Dataset, split: Split) -> None:
    run = Run(tiny(method="ldam"), dataset, split, CPU)
    head = {name: tensor.shape for name, tensor in run.network.heads.state_dict().items()}
    assert {name: tuple(shape) for name, shape in head.items()} == {"single.weight": (4, 64)}
    torch.testing.assert_close(run.network.weight("single").norm(dim=1), torch.ones(4))
    assert np.abs(run.scored_logits()["test"]["single"]).max() <= 30.0
    assert "bias" in str(list(Run(tiny(method="mixup"), dataset, split, CPU).network.heads.state_dict()))
    assert list(Run(tiny(method="mixup", loss="ldam"), dataset, split, CPU).network.heads.state_dict()) == [
        "single.weight"
    ]


@pytest.mark.parametrize(("epochs", "start"), [(200, 160), (40, 32), (30, 24), (90, 72), (1, 0)])
def test_what_is_deferred_starts_after_four_fifths(epochs: int, start: int, dataset: Dataset, split: Split) -> None:
    for changes, before, after in (
        ({"method": "drs"}, "single", "resampled"),
        ({"method": "ldam", "reweighting": "deferred"}, "single", "reweighted"),
    ):
        config = parse(changes | {"epochs": epochs, "lr_drops": []}, "x")
        phases = [method_of(config, dataset, split).phase(epoch) for epoch in range(epochs)]
        assert phases == [before] * start + [after] * (epochs - start)
        written = parse(changes | {"epochs": epochs, "lr_drops": [], "deferred_until": start}, "x")
        assert written.digest() == config.digest(), "the same run, however it is said"
        if start:
            other = parse(changes | {"epochs": epochs, "lr_drops": [], "deferred_until": start - 1}, "x")
            assert other.digest() != config.digest()


def test_drs_draws_by_class_from_some_epoch_on(dataset: Dataset, split: Split) -> None:
    method = method_of(tiny(method="drs", deferred_until=2, balance_ratio=0.5), dataset, split)
    assert method.streams(1) == {"uniform": None}
    np.testing.assert_allclose(method.streams(2)["resampled"], np.sqrt(COUNTS))
    assert method.plan(1).streams.keys() == {"uniform"} and method.plan(2).streams.keys() == {"resampled"}


def test_progressive_sampling_goes_from_images_to_classes(dataset: Dataset, split: Split) -> None:
    method = method_of(tiny(method="progressive", epochs=10), dataset, split)
    for epoch in range(10):
        drawn = method.streams(epoch)["resampled"]
        wanted = [epoch / 10 / 4 + (1 - epoch / 10) * n / 36 for n in COUNTS]
        np.testing.assert_allclose(drawn / drawn.sum(), wanted)


def test_cmo_pastes_in_the_epochs_of_its_code(dataset: Dataset, split: Split) -> None:
    """`3 < epoch < 200 - 3`, counted from 0."""
    method = method_of(parse({"method": "cmo"}, "x"), dataset, split)
    pasting = [epoch for epoch in range(200) if "foreground" in method.streams(epoch)]
    assert pasting == [epoch for epoch in range(200) if 3 < epoch < 200 - 3]
    assert [method.phase(epoch) for epoch in (3, 4, 196, 197)] == ["single", "pasting", "pasting", "single"]
    both = method_of(parse({"method": "cmo", "reweighting": "deferred"}, "x"), dataset, split)
    names = ["single", "pasting", "pasting_reweighted", "reweighted"]
    assert [both.phase(epoch) for epoch in (3, 159, 160, 197)] == names
    np.testing.assert_allclose(method.streams(4)["foreground"], 1.0)  # 1 / n an image is 1 a class


def test_half_of_cmos_steps_paste_and_the_others_are_plain(dataset: Dataset) -> None:
    split = Split(np.arange(4000), np.array([1000] * 4), "")
    draws = method_of(tiny(method="cmo", batch_size=2), dataset, split).plan(0).draws
    is_plain = draws["share"] == 1
    assert 0.45 < is_plain.float().mean() < 0.58  # a box may be too small to hold a pixel
    assert (
        (draws["box"][is_plain, 1] - draws["box"][is_plain, 0])
        .mul(draws["box"][is_plain, 3] - draws["box"][is_plain, 2])
        .eq(0)
        .all()
    )


CHANGES: dict[str, list[dict[str, Any]]] = {
    "cmo": [{"loss": "ldam", "reweighting": "deferred"}],
    "remix": [{"reweighting": "deferred"}],
    "csa": [{"uniform_mixup": 1.0, "activation_map": "box", "threshold": 0.0}],
}


@pytest.mark.parametrize("method", TRAINED)
def test_every_method_resumes_to_the_same_bytes(method: str, dataset: Dataset, split: Split) -> None:
    """Three short epochs, the last of which has what is deferred; resumed after each."""
    for changes in [{}, *CHANGES.get(method, [])]:
        config = tiny(method=method, epochs=3, lr_drops=[2], **changes)
        run = Run(config, dataset, split, CPU)
        states = []
        for epoch in range(3):
            states.append(run.state())
            train_epoch(run, epoch)
        whole = run.state()
        for epoch in (1, 2):
            resumed = Run(config, dataset, split, CPU)
            resumed.load(states[epoch])
            for later in range(epoch, 3):
                train_epoch(resumed, later)
            again = resumed.state()
            assert again.keys() == whole.keys() and all(np.array_equal(again[name], whole[name]) for name in whole)


REFUSED = {
    "{method: drs, epochs: 20, lr_drops: [], deferred_until: 20}": "deferred_until 20 never comes in 20 epochs; lower",
    "{method: ldam, reweighting: deferred, deferred_until: 200}": "deferred_until 200 never comes in 200 epochs",
    "{method: reweighting, effective_number_beta: 1.0}": "effective_number_beta: input should be less than 1",
    "{method: reweighting, effective_number_beta: -0.1}": "effective_number_beta: input should be greater than",
    "{method: reweighting, reweighting: none}": "reweighting: unknown name 'none'",
    "{method: focal, focal_exponent: -1}": "focal_exponent: input should be greater than or equal to 0",
    "{method: vs, logit_adjustment_strength: -1}": "logit_adjustment_strength: input should be greater than or equal",
    "{method: ldam, ldam_scale: 0}": "ldam_scale: input should be greater than 0",
    "{method: ldam, ldam_margin: 3}": "ldam_margin: input should be less than or equal to 2",
    "{method: mixup, mixup_alpha: 0}": "mixup_alpha: input should be greater than 0",
    "{method: remix, remix_ratio: 1}": "remix_ratio: input should be greater than 1",
    "{method: remix, remix_limit: 1.5}": "remix_limit: input should be less than or equal to 1",
    "{method: cmo, paste_probability: 2}": "paste_probability: input should be less than or equal to 1",
    "{method: cmo, unpasted_epochs: [100, 100]}": "unpasted_epochs [100, 100] are all 200 epochs",
    "{method: cmo, loss: nll}": "loss: unknown name 'nll'",
    "{method: mixup, focal: 1}": "unknown key 'focal'",
    "{method: ce, deferred_until: 3}": "deferred_until: method ce does not read it",
    "{method: focal, ldam_scale: 3}": "ldam_scale: method focal does not read it",
    "{method: class_balanced, mixup_alpha: 1}": "mixup_alpha: method class_balanced does not read it",
    "{uniform_loss: ldam}": "uniform_loss: ldam has a cosine head, and Grad-CAM in closed form",
    "{resampling_loss: ldam}": "resampling_loss: ldam has a cosine head",
    "{resampling_loss: nll}": "resampling_loss: unknown name 'nll'",
    "{resampling_prior: balanced}": "resampling_prior: unknown name 'balanced'",
    "{uniform_mixup: -1}": "uniform_mixup: input should be greater than or equal to 0",
    "{activation_map: boxes}": "activation_map: unknown name 'boxes', did you mean 'box'?",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_makes_no_sense_is_one_line(text: str) -> None:
    with pytest.raises(UserError) as error:
        parse(parse_yaml(text, "run.yaml"), "run.yaml")
    assert REFUSED[text] in str(error.value) and "\n" not in str(error.value)


def test_a_key_that_nothing_reads_is_no_part_of_a_run() -> None:
    def digest(**fields: Any) -> str:
        return parse(fields, "x").digest()

    cmo = digest(method="cmo")
    assert digest(method="cmo", ldam_scale=3.0, focal_exponent=9.0, effective_number_beta=0.1, deferred_until=7) == cmo
    assert digest(method="cmo", unpasted_epochs=[4, 3]) == cmo != digest(method="cmo", unpasted_epochs=[4, 2])
    assert digest(method="cmo", loss="ldam", ldam_scale=3.0) != digest(method="cmo", loss="ldam") != cmo
    assert digest(focal_exponent=3.0, vs_exponent=0.3) == digest() != digest(uniform_loss="focal")
    assert digest(activation_map="box", mask_exponent=1.0) == digest(activation_map="box") != digest()
    assert digest(resampling_prior="sampled") == digest()
    adjusted: dict[str, Any] = {"resampling_loss": "logit_adjustment"}
    assert digest(**adjusted, resampling_prior="sampled") != digest(**adjusted)
    assert digest(uniform_mixup=1.0, mask_forward="eval") == digest(uniform_mixup=1.0) != digest()


def test_every_protocol_of_few_epochs_trains_every_method() -> None:
    """A person's own protocol knows none of these keys."""
    for epochs in range(1, 12):
        for method in SUPERVISED:
            fields = {"epochs": epochs, "lr_drops": [], "warmup_epochs": 0, "plain_epochs": 0}
            parse(recipe(fields, method), "mine.yaml")
