"""The precision that a run's network computes in: asked for by name, or chosen for the processor.

bfloat16 is for the body alone: the operations that autocast knows, convolutions above all, take it
there. Pooling, heads, losses, masks, bank, weights, optimizer and evaluation are float32 always. TF32 is a
switch of the whole process: all products and convolutions of a GPU use it, those of evaluation, too.
"""

import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from csa_core.errors import UserError, say
from csa_core.models.resnet import make_body

GAINS_FROM = 10e6
"""Floating-point operations of an image's forward pass from which `auto` takes bfloat16 on a CPU that has it."""


def place(network: nn.Module, device: torch.device) -> Any:
    """Put a network on the device, in the memory format that convolutions are fastest in."""
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def device_named(name: str | torch.device) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        UserError: there is none here, none that networks are trained on, one whose memory others have taken,
            or one that this torch cannot compute on.
    """
    if name == "auto":  # mps only where it is named: nothing here was tested on it
        name = "cuda" if torch.cuda.is_available() else "cpu"
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "").strip()
        if name == "cpu" and given not in ("", "-1", "NoDevFiles"):
            say(f"csa_core: note: this torch finds no GPU ({given} is given) and computes on the CPU; see nvidia-smi")
    try:
        device = torch.device(name)
        if str(device) != "cpu" and device.type not in ("cuda", "mps"):
            raise RuntimeError
        torch.ones(1, device=device).add_(1).cpu()  # a GPU that this torch has no kernels for has memory, too
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        if "out of memory" in str(error):
            raise UserError(
                f"device: '{name}' has no memory left, others use it; wait, or use another device"
            ) from None
        if "kernel image" in str(error):
            raise UserError(
                f"device: this torch has no kernels for '{name}'; install one built for that GPU, or use cpu"
            ) from None
        reason = f" ({str(error).splitlines()[0]})" if "CUDA" in str(error) else ""
        raise UserError(f"device: '{name}' is not available here{reason}; use auto or cpu") from None
    return device


def features(body: nn.Module, images_bchw: Tensor, precision: str) -> Tensor:
    """Return the last feature maps, (B, C, H', W'); the body alone computes in `precision`."""
    if precision != "bfloat16":
        maps: Tensor = body(images_bchw)
        return maps
    with torch.autocast(images_bchw.device.type, torch.bfloat16):
        maps = body(images_bchw)
    return maps.float()


def resolve(precision: str, device: torch.device, model: str, image_size: tuple[int, int]) -> str:
    """Return the precision that `auto` stands for here; any other name is itself.

    On a CPU: bfloat16 where the processor has instructions for it and the network is large enough to
    gain (benchmarks/README.md). On a GPU: float32, until somebody has measured the others there.
    """
    if precision != "auto":
        return precision
    gains = device.type == "cpu" and has_bfloat16() and forward_operations(model, image_size) >= GAINS_FROM
    return "bfloat16" if gains else "float32"


def allow_tf32(is_allowed: bool) -> None:
    """Let GPUs multiply and convolve in TF32, or in full float32, which torch alone does not mean in convolutions.

    By the older names of these switches: after the newer ones (`fp32_precision`) torch refuses to read
    the older, which torch.compile does.
    """
    torch.backends.cuda.matmul.allow_tf32 = is_allowed
    torch.backends.cudnn.allow_tf32 = is_allowed


def has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16: AVX512_BF16 or AMX."""
    return bool(instruction_sets() & {"avx512_bf16", "amx_bf16"})


def instruction_sets() -> set[str]:
    """Return the processor's instruction sets that speed depends on, by the names of Linux."""
    there: set[str] = set()
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        there = {name for name, value in capabilities().items() if value is True}
    if not there:  # an older torch
        with suppress(OSError):
            there = set(Path("/proc/cpuinfo").read_text().split())
    return there & {"avx2", "avx512_f", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_tile"}


@cache
def forward_operations(model: str, image_size: tuple[int, int]) -> int:
    """Return the floating-point operations of one image's way through the body: two a product of its convolutions.

    One image goes through, in milliseconds. Neither torch's own counter nor its device `meta` would do:
    they import its compiler, which makes a folder for a cache before anything has been checked.
    """
    counts: list[int] = []

    def count(layer: nn.Conv2d, _: object, out: Tensor) -> None:
        counts.append(2 * out.numel() * layer.weight[0].numel())

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        body = make_body(model).eval()
        for layer in body.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(count)
        body(torch.empty(1, 3, *image_size))
    return sum(counts)
