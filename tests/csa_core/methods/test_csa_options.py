"""Options of csa that its appendix has not: the sampled prior, mixup on the uniform branch, a box for a mask."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.errors import UserError
from csa_core.methods.gallery import show_contexts
from csa_core.train.run import Run
from examples import csa_minimal
from tests.conftest import tiny

CPU = torch.device("cpu")
COUNTS = np.array([16, 10, 6, 4])


def losses_of(run: Run, phase: str) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Losses of the first step of epoch 1, and the logits of both branches on the images that were planned."""
    plan = run.method.plan(1)
    logits = {}
    for head, stream in (("uniform", "uniform"), ("resampling", "resampled")):
        images, labels = run.images.batch(plan.streams[stream][0])
        logits[head] = run.network.head(head, run.network.body(images)).detach()
        logits[f"{head} labels"] = labels
    stats = run.method.step(run, run.images.at(plan, 0), phase)
    return {name: float(stats[name]) for name in ("loss", "resampling_loss")}, logits


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prior", ["training_set", "sampled"])
@pytest.mark.parametrize("exponent", [None, 0.5])
def test_the_sampled_prior_is_how_often_the_branch_sees_a_class(
    gamma: float, prior: str, exponent: float | None, dataset: Dataset, split: Split
) -> None:
    """VS, which has an exponent, still divides the logits by the counts of the training set."""
    changes: dict[str, Any] = {"resampling_loss": "logit_adjustment", "resampling_prior": prior}
    changes |= {} if exponent is None else {"resampling_loss": "vs", "vs_exponent": exponent}
    config = tiny(balance_ratio=gamma, logit_adjustment_strength=0.8, warmup_epochs=0, **changes)
    found, logits = losses_of(Run(config, dataset, split, CPU), "plain")
    seen = COUNTS ** (1.0 - gamma) if prior == "sampled" else COUNTS.astype(float)
    each = []
    for z, y in zip(logits["resampling"].double().numpy(), logits["resampling labels"].tolist(), strict=True):
        z = z / (COUNTS.max() / COUNTS) ** (exponent or 0.0) + 0.8 * np.array([np.log(n / seen.sum()) for n in seen])
        each.append(np.log(np.exp(z - z.max()).sum()) + z.max() - z[y])
    assert found["resampling_loss"] == pytest.approx(np.mean(each), rel=1e-5)
    plain = float(F.cross_entropy(logits["resampling"], logits["resampling labels"]))
    is_plain = found["resampling_loss"] == pytest.approx(plain, rel=1e-5)
    is_adjusted = prior == "training_set" or gamma < 1 or exponent
    assert is_plain != bool(is_adjusted), "balanced sampling has nothing left to adjust"
    assert found["loss"] == pytest.approx(float(F.cross_entropy(logits["uniform"], logits["uniform labels"])), rel=1e-5)


@pytest.mark.parametrize("name", ["focal", "vs"])
@pytest.mark.parametrize("branch", ["uniform", "resampling"])
def test_either_branch_takes_a_loss_that_needs_no_other_head(
    name: str, branch: str, dataset: Dataset, split: Split
) -> None:
    config = tiny(warmup_epochs=0, focal_exponent=2.0, vs_exponent=0.4, **{f"{branch}_loss": name})
    found, logits = losses_of(Run(config, dataset, split, CPU), "plain")
    z, y = logits[branch].double(), logits[f"{branch} labels"]
    if name == "vs":
        z = z / torch.tensor((16 / COUNTS) ** 0.4) + torch.tensor(np.log(COUNTS / 36))
    each = F.cross_entropy(z, y, reduction="none")
    each = (1 - (-each).exp()) ** 2 * each if name == "focal" else each
    assert found["loss" if branch == "uniform" else "resampling_loss"] == pytest.approx(float(each.mean()), rel=1e-5)


def test_mixup_is_of_the_uniform_branch_alone_and_masks_are_of_whole_images(dataset: Dataset, split: Split) -> None:
    run = Run(tiny(warmup_epochs=0, uniform_mixup=1.0, threshold=0.0), dataset, split, CPU)
    method: Any = run.method
    batch = run.images.at(method.plan(1), 0)
    images, labels = batch.streams["uniform"]
    pairs, share = batch.draws["pairs"], float(batch.draws["share"])
    mixed = share * images + (1 - share) * images[pairs]
    logits = run.network.head("uniform", run.network.body(mixed))
    wanted = share * F.cross_entropy(logits, labels) + (1 - share) * F.cross_entropy(logits, labels[pairs])
    features, found, loss = method.uniform_module(run.network, batch, "context_shift")
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)

    run.network.eval()
    features = run.network.body(images)
    logits = run.network.head("uniform", features)
    objects = csa_minimal.gradcam(features, logits, labels)
    run.network.train()
    confident, masks = method.find_contexts(run.network, batch, features.new_zeros(0), found)
    torch.testing.assert_close(masks, csa_minimal.background(objects, (16, 12), 2.0), rtol=1e-4, atol=1e-5)
    assert confident.all()

    # As in the released code, the last epochs have none.
    _, _, loss = method.uniform_module(run.network, batch, "plain")
    plain = F.cross_entropy(run.network.head("uniform", run.network.body(images)), labels)
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)


def test_a_box_stands_for_the_object(dataset: Dataset, split: Split) -> None:
    run = Run(tiny(warmup_epochs=0, activation_map="box", threshold=0.0), dataset, split, CPU)
    plan = run.method.plan(1)
    batch = run.images.at(plan, 0)
    assert plan.draws["boxes"].shape == (plan.steps, 16, 4)
    run.method.step(run, batch, "warmup")
    state = run.method.state()
    masks, boxes = state["bank/masks"], batch.draws["boxes"].tolist()
    assert torch.equal(state["bank/images"].permute(0, 3, 1, 2), batch.streams["uniform"][0])
    for mask, (top, bottom, left, right) in zip(masks, boxes, strict=True):
        wanted = torch.ones(1, 16, 12)
        wanted[:, top:bottom, left:right] = 0
        assert torch.equal(mask, wanted)
    assert len({tuple(box) for box in boxes}) > 8, "each image has its own"
    with pytest.raises(UserError, match="activation_map: box; it finds no object"):
        show_contexts(run.method, run.network, 2)


def test_options_that_are_off_draw_nothing(dataset: Dataset, split: Split) -> None:
    for changes, more in (({}, set()), ({"uniform_mixup": 0.2}, {"pairs", "share"}), ({"bank_batches": 0}, set())):
        draws = Run(tiny(**changes), dataset, split, CPU).method.plan(1).draws
        assert draws.keys() == {"places", "mix"} | more
