"""The context memory bank Q: a first-in-first-out ring of images and their background masks."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from csa_core.errors import UserError

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
LIMIT_2 = ("memory.max", "memory.current", "inactive_file")
LIMIT_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""Of control groups, versions 2 and 1: the file of the limit, that of what is taken, and what of it can be freed."""


def bank_bytes(volume: int, size: tuple[int, int]) -> int:
    """Return the memory of a bank: (V + 1) x H x W x 4 channels (image and mask) x 4 bytes."""
    return (volume + 1) * size[0] * size[1] * 4 * 4


def make_bank(batches: int, start: int, batch_size: int, size: tuple[int, int], device: torch.device) -> "ContextBank":
    """Return an empty bank of some batches, drawn from once it holds `start`, if the device has the memory.

    Raises:
        UserError: it does not.
    """
    needed = bank_bytes(batches * batch_size, size)
    if needed > (free := free_bytes(device)):
        height, width = size
        raise UserError(
            f"bank_batches {batches}: a bank of {batches} x batch_size {batch_size} images of {height} x {width} px "
            f"takes {needed:,} bytes, {free:,} are free on {device}; lower one of them"
        )
    return ContextBank(batches * batch_size, size, device, start * batch_size)


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device, or can be freed, in bytes; in a container, up to its limit."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, to use again
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError, IndexError, ValueError):  # Linux
        free.append(1024 * int((PROC / "meminfo").read_text().partition("MemAvailable:")[2].split()[0]))
    with suppress(OSError, ValueError):
        free += _left_by_limits()
    return max(0, min(free))


def _left_by_limits() -> Iterator[int]:
    """Yield what each limit leaves that this process is under: of a container, a batch job, those around it."""
    for line in (PROC / "self/cgroup").read_text().splitlines():
        _, kinds, name = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        folder = (CGROUP / "memory" if kinds else CGROUP) / name.lstrip("/")
        limit, taken, cache = LIMIT_1 if kinds else LIMIT_2
        for group in (folder, *folder.parents):  # a container may see its own group at the root, under any name
            with suppress(OSError, ValueError):  # no such group here, or no limit: "max"
                most, now = (int((group / each).read_text()) for each in (limit, taken))
                stated = dict(each.split() for each in (group / "memory.stat").read_text().splitlines())
                yield most - now + int(stated.get(cache, 0))


class ContextBank:
    """Bank of `volume` contexts; what is pushed beyond that replaces the oldest.

    One place beyond the ring takes the images that are not confident, so that a push has the same
    shape at every step and never waits for the device.
    """

    def __init__(self, volume: int, size: tuple[int, int], device: torch.device, drawn_from: int | None = None) -> None:
        """Begin empty.

        Args:
            drawn_from: contexts from which the bank may be drawn from; all of `volume` where not given.
        """
        self.volume = volume
        self._drawn_from = volume if drawn_from is None else drawn_from
        self._images_nhwc = torch.zeros(volume + 1, *size, 3, device=device)
        self._masks = torch.zeros(volume + 1, 1, *size, device=device)
        self._pushed = torch.zeros((), dtype=torch.int64, device=device)
        self._is_ready = False

    def push(self, images_bchw: Tensor, masks_b1hw: Tensor, confident_b: Tensor) -> None:
        """Append the confident images in order (line 13); at most `volume` a call."""
        order = confident_b.cumsum(0) - 1
        place = ((self._pushed + order) % self.volume).masked_fill(~confident_b, self.volume)
        write_rows(self._images_nhwc, place, images_bchw.permute(0, 2, 3, 1))
        write_rows(self._masks, place, masks_b1hw)
        self._pushed += confident_b.sum()

    def is_ready(self) -> bool:
        """Whether the bank holds enough contexts to be drawn from (line 18); asks the device only until it does."""
        self._is_ready = self._is_ready or int(self._pushed) >= self._drawn_from
        return self._is_ready

    def places(self, order: Tensor, count: int) -> Tensor:
        """Return the first `count` places of a planned order that hold a context, (count,) int64.

        Of a random order of all places these are a draw without replacement from those that are held,
        however many: of a full bank, its first ones. An order of `count` places is for a full bank alone.
        """
        if len(order) == count:
            return order
        # The ring is filled from its start, so place p holds a context once more than p were pushed.
        is_empty = (order >= self._pushed).byte()
        return order[is_empty.sort(stable=True).indices[:count]]

    def draw(self, place_b: Tensor) -> tuple[Tensor, Tensor]:
        """Return the contexts at `place_b` (line 19): images (B, 3, H, W) and masks (B, 1, H, W)."""
        return self._images_nhwc[place_b].permute(0, 3, 1, 2), self._masks[place_b]

    def fill(self) -> Tensor:
        """Return how many contexts the bank holds, a scalar tensor."""
        return self._pushed.clamp(max=self.volume)

    def empty(self) -> None:
        """Forget everything (line 3)."""
        self._pushed.zero_()
        self._is_ready = False

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold; the place beyond the ring is never read."""
        return {"images": self._images_nhwc[:-1], "masks": self._masks[:-1], "pushed": self._pushed}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over a `state()`."""
        self._images_nhwc[:-1] = state["images"]
        self._masks[:-1] = state["masks"]
        self._pushed.copy_(state["pushed"])
        self._is_ready = False


def write_rows(target: Tensor, place_b: Tensor, rows: Tensor) -> None:
    """Write `rows` to the places of `target` along its first dimension.

    Where algorithms have to be deterministic, a GPU's `index_copy_` asks the device whether all places lie
    inside, which a captured step must not do. Here they do, and `unsafe` leaves the question out.
    """
    if target.is_cuda:
        torch._index_put_impl_(target, [place_b], rows, accumulate=False, unsafe=True)
    else:
        target.index_copy_(0, place_b, rows)
