"""The training step against `examples/csa_minimal.py`, a plain derivation of Algorithm 1 that shares no code with it.

The example keeps the bank as a list, finds Grad-CAM by autograd, has a network of its own and SGD
written out. In float64, so that the comparison is of the algorithm and not of rounding.
"""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from csa_core.data.dataset import Dataset
from csa_core.data.plan import EpochPlan, Picks
from csa_core.data.split import Split
from csa_core.methods import parse
from csa_core.methods.base import Stats
from csa_core.methods.csa import Csa
from csa_core.train.run import Run
from examples import csa_minimal
from tests.conftest import method_of, tiny

CPU = torch.device("cpu")


def step_of(run: Run, plan: EpochPlan[Picks], step: int, phase: str) -> Stats:
    return run.method.step(run, run.images.at(plan, step), phase)


def in_float64(run: Run) -> Run:
    """Let the run compute in float64: network, images and bank."""
    run.network.double()
    batch, method = run.images.batch, run.method

    def doubled(picks: Picks) -> tuple[Tensor, Tensor]:
        images, labels = batch(picks)
        return images.double(), labels

    run.images.batch = doubled
    if isinstance(method, Csa) and method.bank:
        method.bank._images_nhwc = method.bank._images_nhwc.double()
        method.bank._masks = method.bank._masks.double()
    return run


CASES: dict[str, dict[str, object]] = {
    "as in the paper": {},
    "cam": {"activation_map": "cam"},
    "mask from a second forward": {"mask_forward": "eval"},
    "larger bank": {"bank_batches": 2},
    "a bank drawn from once it holds a batch": {"bank_batches": 5, "bank_start": "batch"},
    "no bank": {"bank_batches": 0},
    "logit adjustment in both branches": {
        "uniform_loss": "logit_adjustment",
        "resampling_loss": "logit_adjustment",
        "logit_adjustment_strength": 0.7,
    },
    "logit adjustment in the re-sampling branch": {"resampling_loss": "logit_adjustment"},
    "logit adjustment in the uniform branch": {"uniform_loss": "logit_adjustment"},
    "another exponent, momentum and weight decay": {"mask_exponent": 3.5, "momentum": 0.6, "weight_decay": 0.01},
    "beta mix, half balanced": {"mix": ["beta", 2.0, 1.0], "balance_ratio": 0.5},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
def test_steps_equal_the_examples(changes: dict[str, object], dataset: Dataset, split: Split) -> None:
    config = tiny(warmup_epochs=0, batch_size=6, threshold=0.28, horizontal_flip=True, seed=2, **changes)
    run = in_float64(Run(config, dataset, split, CPU))
    network = csa_minimal.Network(4).double()
    network.load_state_dict(run.network.state_dict())
    adjusted = partial(logit_adjusted, split.class_counts, config.logit_adjustment_strength)
    losses: dict[str, Any] = {"cross_entropy": F.cross_entropy, "logit_adjustment": adjusted}
    for group in run.optimizer.param_groups:
        group["lr"] = 0.05
    plan = run.method.plan(0)
    phases = ["warmup", "context_shift", "context_shift", "context_shift", "plain", "plain"]
    bank: list[tuple[Tensor, Tensor]] = []
    velocity: dict[str, Tensor] = {}
    moved, shifted = [], 0
    for step, phase in enumerate(phases):
        stats = step_of(run, plan, step, phase)
        csa_minimal.csa_step(
            network,
            bank,
            run.images.batch(plan.streams["uniform"][step]),
            run.images.batch(plan.streams["resampled"][step]),
            plan.draws["places"][step],
            float(plan.draws["mix"][step]),
            phase,
            config.threshold,
            config.bank_batches * config.batch_size,
            (1 if config.bank_start == "batch" else config.bank_batches) * config.batch_size,
            csa_minimal.gradcam if config.activation_map == "gradcam" else cam,
            config.mask_exponent,
            config.mask_forward == "eval",
            losses[config.uniform_loss],
            losses[config.resampling_loss],
        ).backward()
        csa_minimal.sgd(network, velocity, 0.05, config.momentum, config.weight_decay)
        moved.append(int(stats.get("confident", 0)))
        shifted += phase == "context_shift" and float(stats["resampling_loss"]) > 0
    if config.bank_batches:
        assert 0 < sum(moved) < 4 * 6, "the threshold must let some images through and not all"
        assert len(bank) == sum(moved)
    assert shifted > 0, "the bank never filled: the test would show nothing"
    for name, tensor in run.network.state_dict().items():
        torch.testing.assert_close(tensor, network.state_dict()[name], rtol=1e-5, atol=1e-5, msg=name)


def logit_adjusted(counts: np.ndarray, strength: float, logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of z + tau log pi, an image at a time."""
    logits = logits + strength * torch.tensor(np.log(counts / counts.sum()))
    return -torch.stack([z.log_softmax(0)[y] for z, y in zip(logits, labels, strict=True)]).mean()


def cam(features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """CAM by autograd: Grad-CAM without its ReLU."""
    (gradient,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), features, retain_graph=True)
    return (gradient.mean((2, 3), keepdim=True) * features).sum(1).detach()


def test_the_example_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csa_minimal, "EPOCHS", 2)
    monkeypatch.setattr(csa_minimal, "WARMUP", 1)
    monkeypatch.setattr(csa_minimal, "PLAIN", 1)
    csa_minimal.main()
    assert "resampling head: all " in capsys.readouterr().out


def test_a_head_that_nothing_reaches_stays_as_it_is(dataset: Dataset, split: Split) -> None:
    run = Run(tiny(), dataset, split, CPU)
    before = run.network.weight("resampling").detach().clone()
    plan = run.method.plan(1)
    step_of(run, plan, 0, "warmup")
    assert torch.equal(run.network.weight("resampling"), before)
    step_of(run, plan, 1, "plain")
    assert not torch.equal(run.network.weight("resampling"), before)


def test_every_seed_has_weights_of_its_own(dataset: Dataset, split: Split) -> None:
    one, same, other = (Run(tiny(seed=seed), dataset, split, CPU).network.weight("uniform") for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_every_step_has_one_shape(dataset: Dataset, split: Split) -> None:
    plan = method_of(tiny(), dataset, split).plan(1)
    steps = -(-int(split.class_counts.sum()) // 16)
    assert plan.steps == steps and plan.streams.keys() == {"uniform", "resampled"}
    for picks in plan.streams.values():
        assert picks.index.shape == picks.top.shape == picks.left.shape == picks.flip.shape == (steps, 16)


def test_phases_of_the_paper(dataset: Dataset, split: Split) -> None:
    method = method_of(parse({}, "the appendix"), dataset, split)
    phases = [method.phase(epoch) for epoch in range(200)]
    assert phases == ["warmup"] * 10 + ["context_shift"] * 187 + ["plain"] * 3
    assert method.streams(9).keys() == {"uniform"}, "nothing is prepared that the warm-up does not read"
    assert method.streams(10).keys() == method.streams(199).keys() == {"uniform", "resampled"}
