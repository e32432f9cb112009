"""Several processes that train one run: who this one is, and what they tell each other.

Started by `torchrun` (which `train` calls where a run has several ranks), each process is a rank with
a device of its own. Every rank plans the whole epoch and takes its part of each batch. One process
alone is rank 0 of 1, and nothing here does anything.
"""

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


def ranks() -> int:
    """Return how many processes train this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this one; 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def own_part(count: int) -> np.ndarray:
    """Return which of `count` things this rank works on: consecutive numbers."""
    return np.array_split(np.arange(count), ranks())[rank()]


def gather(tensor: Tensor) -> Tensor:
    """Return the tensors of all ranks, of one shape each, joined in the order of the ranks."""
    if ranks() == 1:
        return tensor
    # Over channels-last memory the bytes of an image would come in another order.
    whole = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(ranks())]
    dist.all_gather(whole, tensor.contiguous())
    return torch.cat(whole)


def own_rows(tensor: Tensor) -> Tensor:
    """Return this rank's part of the rows of a batch, in the order of the ranks."""
    return tensor if ranks() == 1 else tensor.chunk(ranks())[rank()]


def partners(images_bchw: Tensor, labels_b: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Return another image with its label for each of this rank's, from the batch of all ranks.

    Args:
        pairs: the partner of each image by its place, (B,) int64, B the batch of all ranks.
    """
    place = own_rows(pairs)
    # Pixel by pixel, as the images lie in memory.
    return gather(images_bchw).permute(0, 2, 3, 1)[place].permute(0, 3, 1, 2), gather(labels_b)[place]


def gather_rows(rows: np.ndarray, count: int, device: torch.device) -> np.ndarray:
    """Return (count, ...) from the rows of `own_part(count)` of every rank."""
    if ranks() == 1:
        return rows
    each = -(-count // ranks())
    padded = np.concatenate([rows, np.zeros((each - len(rows), *rows.shape[1:]), dtype=rows.dtype)])
    whole = gather(torch.from_numpy(padded).to(device)).cpu().numpy()
    parts = [whole[r * each :][: len(part)] for r, part in enumerate(np.array_split(np.arange(count), ranks()))]
    return np.concatenate(parts)


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks."""
    if ranks() > 1:
        dist.all_reduce(values)
    return values


def decided_by_first_rank(flag: bool, device: torch.device) -> bool:
    """Return what rank 0 says."""
    if ranks() == 1:
        return flag
    said = torch.tensor(int(flag), device=device)
    dist.broadcast(said, 0)
    return bool(said)


def share_buffers(network: torch.nn.Module) -> None:
    """Give every rank the running statistics of rank 0, which evaluation and checkpoints use."""
    if ranks() > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def wait() -> None:
    """Wait until every rank has come here."""
    if ranks() > 1:
        dist.barrier()
