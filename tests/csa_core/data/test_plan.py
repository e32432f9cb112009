"""The planned epoch: coverage, frequencies, distributions, and keys that repeat."""

import numpy as np
import pytest
import torch
from scipy import stats

from csa_core.data.plan import EpochPlan, draw_mix, draw_resampled, plan_epoch
from csa_core.data.streams import STREAMS, keyed_generator
from tests.conftest import tiny

COUNTS = np.array([50, 20, 7, 3])


def plan(epoch: int = 0, **changes: object) -> EpochPlan:
    return plan_epoch(tiny(**changes), COUNTS, epoch, torch.device("cpu"))


def tensors(plan: EpochPlan) -> list[torch.Tensor]:
    return [*vars(plan.uniform).values(), *vars(plan.resampled).values(), plan.slot, plan.mix]


def test_the_uniform_branch_sees_every_image_and_completes_with_the_first() -> None:
    index = plan(batch_size=32).uniform.index.flatten().tolist()
    assert len(index) == 96 and sorted(index[:80]) == list(range(80)) and index[80:] == index[:16]


def test_the_same_key_gives_the_same_plan_and_another_does_not() -> None:
    assert all(torch.equal(a, b) for a, b in zip(tensors(plan(3)), tensors(plan(3)), strict=True))
    for other in (plan(4), plan(3, seed=2)):
        assert not torch.equal(plan(3).uniform.index, other.uniform.index)
        assert not torch.equal(plan(3).mix, other.mix)


def test_streams_differ_from_each_other() -> None:
    first = {keyed_generator(1, stream, 0).integers(1 << 62) for stream in STREAMS}
    assert len(first) == len(STREAMS)


def test_an_option_of_the_bank_leaves_the_pictures_picked_as_they_are() -> None:
    one, other = plan(), plan(bank_batches=4, mix=["beta", 2.0, 2.0], threshold=0.9)
    assert torch.equal(one.uniform.index, other.uniform.index)
    assert torch.equal(one.resampled.index, other.resampled.index)


@pytest.mark.parametrize("balance_ratio", [0.0, 0.25, 0.5, 1.0])
def test_class_frequencies(balance_ratio: float) -> None:
    index = draw_resampled(keyed_generator(0, "resampled", 0), COUNTS, balance_ratio, 40_000)
    labels = np.repeat(np.arange(4), COUNTS)
    share = COUNTS ** (1 - balance_ratio) / (COUNTS ** (1 - balance_ratio)).sum()
    assert stats.chisquare(np.bincount(labels[index], minlength=4), share * 40_000).pvalue > 0.001
    in_first = np.bincount(index[labels[index] == 0], minlength=50)
    assert stats.chisquare(in_first).pvalue > 0.001, "images of one class are not drawn alike"


@pytest.mark.parametrize(
    ("mix", "law"),
    [
        (("uniform", 0.0, 1.0), stats.uniform(0, 1)),
        (("uniform", 0.5, 1.0), stats.uniform(0.5, 0.5)),
        (("beta", 0.5, 0.5), stats.beta(0.5, 0.5)),
        (("beta", 1.0, 3.0), stats.beta(1, 3)),
    ],
)
def test_mix_follows_its_law(mix: tuple[str, float, float], law: stats.rv_continuous) -> None:
    drawn = draw_mix(keyed_generator(0, "mix", 0), mix, 5000)
    assert drawn.dtype == np.float32
    assert stats.kstest(drawn, law.cdf).pvalue > 0.001


def test_a_mix_of_one_value_is_that_value() -> None:
    assert set(draw_mix(keyed_generator(0, "mix", 0), ("uniform", 1.0, 1.0), 9)) == {1.0}


def test_bank_places_are_drawn_without_repetition_and_all_alike() -> None:
    slot = plan_epoch(tiny(bank_batches=3), np.array([4000]), 0, torch.device("cpu")).slot
    assert all(len(set(row.tolist())) == 16 for row in slot)
    assert stats.chisquare(np.bincount(slot.flatten(), minlength=48)).pvalue > 0.001


def test_a_bank_that_starts_early_has_an_order_of_all_its_places() -> None:
    early, full = (plan(bank_batches=3, bank_start=start).slot for start in ("batch", "full"))
    assert all(sorted(row.tolist()) == list(range(48)) for row in early)
    assert torch.equal(early[:, :16], full), "so a full bank is drawn from in the same way"


def test_crops_and_flips_take_every_value() -> None:
    picks = plan_epoch(tiny(horizontal_flip=True), np.array([2000]), 0, torch.device("cpu")).uniform
    for offsets in (picks.top, picks.left):
        assert stats.chisquare(np.bincount(offsets.flatten(), minlength=5)).pvalue > 0.001
    assert 0.45 < picks.flip.float().mean() < 0.55
    assert not plan(horizontal_flip=False).uniform.flip.any()


def test_the_plan_draws_as_the_run_asks() -> None:
    epoch, counts = 2, np.array([400, 100])
    config = tiny(balance_ratio=0.25, mix=["beta", 3.0, 1.0], seed=5)
    p = plan_epoch(config, counts, epoch, torch.device("cpu"))
    size = p.steps * config.batch_size
    wanted = draw_resampled(keyed_generator(5, "resampled", epoch), counts, 0.25, size)
    assert p.resampled.index.flatten().tolist() == wanted.tolist()
    assert p.mix.tolist() == draw_mix(keyed_generator(5, "mix", epoch), ("beta", 3.0, 1.0), p.steps).tolist()
