"""The bank is a first-in-first-out queue, whatever is pushed in whatever batches."""

from collections import deque
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csa_core.errors import UserError
from csa_core.ops import bank as bank_module
from csa_core.ops.bank import ContextBank, bank_bytes, free_bytes, make_bank, write_rows

BATCH = 4


def image(value: int) -> torch.Tensor:
    """An image that tells its number, and differs from place to place."""
    return value + torch.arange(3 * 2 * 5).view(3, 2, 5) / 100


@settings(max_examples=150)
@given(
    volume=st.sampled_from([4, 8, 12]),
    pushes=st.lists(st.lists(st.booleans(), min_size=BATCH, max_size=BATCH), max_size=12),
)
def test_the_bank_is_a_queue(volume: int, pushes: list[list[bool]]) -> None:
    bank = ContextBank(volume, (2, 5), torch.device("cpu"))
    queue: deque[int] = deque(maxlen=volume)
    number = 0
    for confident in pushes:
        values = range(number, number + BATCH)
        number += BATCH
        images = torch.stack([image(v) for v in values])
        bank.push(images, images[:, :1] * 2, torch.tensor(confident))
        queue.extend(v for v, yes in zip(values, confident, strict=True) if yes)
        assert int(bank.fill()) == len(queue)
        assert bank.is_ready() == (len(queue) == volume)
    if bank.is_ready():
        images, masks = bank.draw(torch.arange(volume))
        assert sorted(int(i[0, 0, 0]) for i in images) == sorted(queue)
        for i, m in zip(images, masks, strict=True):
            assert torch.equal(i, image(int(i[0, 0, 0])))
            assert torch.equal(m, i[:1] * 2), "an image came back with another image's mask"


@settings(max_examples=50)
@given(pushed=st.integers(0, 30), seed=st.integers(0, 99))
def test_places_are_those_of_the_order_that_hold_a_context(pushed: int, seed: int) -> None:
    bank = ContextBank(12, (2, 5), torch.device("cpu"), drawn_from=BATCH)
    for v in range(pushed):
        bank.push(image(v)[None], image(v)[None, :1], torch.tensor([True]))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    assert bank.is_ready() == (pushed >= BATCH)
    if bank.is_ready():
        drawn = [int(i[0, 0, 0]) for i in bank.draw(bank.places(order, BATCH))[0]]
        held = {v % 12: v for v in range(pushed)}
        assert drawn == [held[place] for place in order.tolist() if place in held][:BATCH]
    assert torch.equal(bank.places(order[:BATCH], BATCH), order[:BATCH])


@settings(max_examples=30)
@given(before=st.integers(0, 12), after=st.integers(0, 12))
def test_a_restored_bank_goes_on_as_the_first(before: int, after: int) -> None:
    def push(bank: ContextBank, first: int, count: int) -> None:
        for v in range(first, first + count):
            bank.push(image(v)[None], image(v)[None, :1], torch.tensor([True]))

    bank, restored = (ContextBank(5, (2, 5), torch.device("cpu")) for _ in range(2))
    push(bank, 0, before)
    restored.load({name: tensor.clone() for name, tensor in bank.state().items()})
    push(bank, before, after)
    push(restored, before, after)
    assert bank.is_ready() == restored.is_ready()
    for mine, other in zip(bank.state().values(), restored.state().values(), strict=True):
        assert torch.equal(mine, other)


def test_rows_are_written_alike_by_both_operations() -> None:
    """A GPU writes by the operation that asks it nothing; here both are run on the CPU."""
    for place in (torch.tensor([3, 0, 7, 8, 8]), torch.tensor([8, 8, 8, 8, 8]), torch.tensor([7, 8, 0, 1, 2])):
        one, other = torch.zeros(9, 2, 5, 3), torch.zeros(9, 2, 5, 3)
        rows = torch.rand(5, 3, 2, 5).permute(0, 2, 3, 1)
        write_rows(one, place, rows)
        torch._index_put_impl_(other, [place], rows, accumulate=False, unsafe=True)
        assert torch.equal(one[:8], other[:8]), "all but the place that is never read"


def test_an_emptied_bank_is_not_full() -> None:
    bank = ContextBank(2, (2, 5), torch.device("cpu"))
    bank.push(torch.ones(2, 3, 2, 5), torch.ones(2, 1, 2, 5), torch.tensor([True, True]))
    assert bank.is_ready()
    bank.empty()
    assert not bank.is_ready() and int(bank.fill()) == 0


def test_a_bank_that_does_not_fit_is_refused() -> None:
    assert bank_bytes(256, (224, 224)) == 257 * 224 * 224 * 4 * 4
    assert make_bank(2, 2, 4, (16, 12), torch.device("cpu")).volume == 8
    with pytest.raises(UserError, match=r"bank_batches 1024: .* 224 x 224 px takes [\d,]+ bytes, [\d,]+ are free"):
        make_bank(1024, 1024, 65536, (224, 224), torch.device("cpu"))


V1 = {"memory.limit_in_bytes": "3000000\n", "memory.usage_in_bytes": "1000000\n"}
V2 = {"memory.max": "3000000\n", "memory.current": "1000000\n"}
OF_V1 = V1 | {"memory.stat": "inactive_file 7\ntotal_inactive_file 250000\n"}
OF_V2 = V2 | {"memory.stat": "anon 7\ninactive_file 250000\n"}
NO_LIMIT = OF_V2 | {"memory.max": "max\n"}


@pytest.mark.parametrize(
    ("said", "folders", "free"),
    [
        ("0::/\n", {"": OF_V2}, 2_250_000),
        ("0::/job/step\n", {"job": OF_V2, "job/step": NO_LIMIT}, 2_250_000),
        ("4:memory:/docker/abc\n0::/\n", {"memory": OF_V1}, 2_250_000),
        ("3:cpuset,memory:/slurm/job:1\n", {"memory/slurm/job:1": OF_V1}, 2_250_000),
        ("0::/\n", {"": OF_V2 | {"memory.current": "4000000\n"}}, 0),
        ("0::/job\n", {"job": NO_LIMIT}, 5_120_000),
        ("3:cpuset:/\n", {"": OF_V1, "memory": OF_V1}, 5_120_000),
        (None, {"": OF_V2}, 5_120_000),
    ],
    ids=["container", "within a job", "container, version 1", "job, version 1", "full", "no limit", "others", "none"],
)
def test_a_container_has_no_more_than_its_limit(
    said: str | None, folders: dict[str, dict[str, str]], free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\n")
    if said is not None:
        (tmp_path / "proc/self/cgroup").write_text(said)
    for name, files in folders.items():
        (tmp_path / "cgroup" / name).mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (tmp_path / "cgroup" / name / file).write_text(text)
    monkeypatch.setattr(bank_module, "PROC", tmp_path / "proc")
    monkeypatch.setattr(bank_module, "CGROUP", tmp_path / "cgroup")
    assert free_bytes(torch.device("cpu")) == free
