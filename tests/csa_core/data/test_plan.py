"""The planned epoch: coverage, frequencies, distributions, and keys that repeat."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from csa_core.data.plan import EpochPlan, draw_mix, draw_resampled
from csa_core.data.split import Split
from csa_core.data.streams import STREAMS, keyed_generator
from csa_core.ops.sampling import class_weights
from tests.conftest import ROOT, method_of, tiny

COUNTS = np.array([50, 20, 7, 3])


def plan(epoch: int = 0, counts: np.ndarray = COUNTS, **changes: object) -> EpochPlan[Any]:
    """The plan of csa without a warm-up, so that every epoch has all streams; no pixel is looked at."""
    split = Split(np.arange(counts.sum()), counts, "")
    images = SimpleNamespace(image_size=(16, 12))
    found: EpochPlan[Any] = method_of(tiny(warmup_epochs=0, **changes), images, split).plan(epoch)
    return found


def index(plan: EpochPlan[Any], stream: str) -> torch.Tensor:
    found: torch.Tensor = plan.streams[stream].index
    return found


def tensors(plan: EpochPlan[Any]) -> list[torch.Tensor]:
    return [*(tensor for picks in plan.streams.values() for tensor in vars(picks).values()), *plan.draws.values()]


def test_the_uniform_branch_sees_every_image_and_completes_with_the_first() -> None:
    seen = index(plan(batch_size=32), "uniform").flatten().tolist()
    assert len(seen) == 96 and sorted(seen[:80]) == list(range(80)) and seen[80:] == seen[:16]


def test_the_same_key_gives_the_same_plan_and_another_does_not() -> None:
    one = plan(3)
    assert len(tensors(one)) == 10 and all(
        torch.equal(a, b) for a, b in zip(tensors(one), tensors(plan(3)), strict=True)
    )
    for other in (plan(4), plan(3, seed=2)):
        assert not torch.equal(index(one, "uniform"), index(other, "uniform"))
        assert not torch.equal(one.draws["mix"], other.draws["mix"])


def test_streams_differ_from_each_other() -> None:
    first = {keyed_generator(1, stream, 0).integers(1 << 62) for stream in STREAMS}
    assert len(first) == len(STREAMS)


def test_a_stream_without_a_number_is_keyed_by_its_name() -> None:
    """By its SHA-256, so that a new method's stream is the same in every process and shifts no other."""
    names = ["mixup", "cutmix", "mixup ", "uniform2"]
    assert not set(names) & STREAMS.keys()
    numbers = [0, 1]
    first = {
        (name, number): keyed_generator(1, name, number).integers(1 << 62)
        for name in [*STREAMS, *names]
        for number in numbers
    }
    assert len(set(first.values())) == len(first)
    again = "from csa_core.data.streams import keyed_generator; print(keyed_generator(1, 'mixup', 0).integers(1 << 62))"
    said = subprocess.run([sys.executable, "-c", again], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert int(said) == first["mixup", 0], "strings hash otherwise in another process"


def test_an_option_of_the_bank_leaves_the_pictures_picked_as_they_are() -> None:
    one, other = plan(), plan(bank_batches=4, mix=["beta", 2.0, 2.0], threshold=0.9)
    assert all(torch.equal(index(one, name), index(other, name)) for name in ("uniform", "resampled"))


@pytest.mark.parametrize("balance_ratio", [0.0, 0.25, 0.5, 1.0])
def test_class_frequencies(balance_ratio: float) -> None:
    weights = class_weights(COUNTS, balance_ratio)
    index = draw_resampled(keyed_generator(0, "resampled", 0), COUNTS, weights, 40_000)
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
    slot = plan(counts=np.array([4000]), bank_batches=3).draws["places"]
    assert all(len(set(row.tolist())) == 16 for row in slot)
    assert stats.chisquare(np.bincount(slot.flatten(), minlength=48)).pvalue > 0.001


def test_a_bank_that_starts_early_has_an_order_of_all_its_places() -> None:
    early, full = (plan(bank_batches=3, bank_start=start).draws["places"] for start in ("batch", "full"))
    assert all(sorted(row.tolist()) == list(range(48)) for row in early)
    assert torch.equal(early[:, :16], full), "so a full bank is drawn from in the same way"


def test_crops_and_flips_take_every_value() -> None:
    picks = plan(counts=np.array([2000]), horizontal_flip=True).streams["uniform"]
    for offsets in (picks.top, picks.left):
        seen = np.bincount(offsets.flatten(), minlength=5)
        assert len(seen) == 5 and stats.chisquare(seen).pvalue > 0.001, "a padding of two on either side"
    assert 0.45 < picks.flip.float().mean() < 0.55
    assert not plan(horizontal_flip=False).streams["uniform"].flip.any()


def test_the_parts_of_the_ranks_are_the_whole_in_order() -> None:
    whole = plan()
    parts = [whole.of_rank(rank, 4) for rank in range(4)]
    for name, picks in whole.streams.items():
        for field, tensor in vars(picks).items():
            assert torch.equal(torch.cat([getattr(part.streams[name], field) for part in parts], 1), tensor)
    assert all(part.draws is whole.draws for part in parts)


def test_the_plan_draws_as_the_run_asks() -> None:
    epoch, counts = 2, np.array([400, 100])
    p = plan(epoch, counts, balance_ratio=0.25, mix=["beta", 3.0, 1.0], seed=5)
    wanted = draw_resampled(keyed_generator(5, "resampled", epoch), counts, counts**0.75, p.steps * 16)
    assert index(p, "resampled").flatten().tolist() == wanted.tolist()
    assert p.draws["mix"].tolist() == draw_mix(keyed_generator(5, "mix", epoch), ("beta", 3.0, 1.0), p.steps).tolist()
