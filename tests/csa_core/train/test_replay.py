"""What lets a GPU replay a step from a graph, shown on the CPU.

A CUDA graph repeats the same operations on the same memory. So does a trace of all operations of a
step, from the plan to the optimizer: replaying it instead of the step must train the same network
to the bit. A value read on the host, a branch on one or a shape that follows one would be frozen
in the trace.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import gpu
from csa_core import store
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split, make_split
from csa_core.methods.base import Stats
from csa_core.methods.csa import Csa
from csa_core.models.precision import allow_tf32
from csa_core.train import loop
from csa_core.train.loop import train_epoch
from csa_core.train.replay import Replay
from csa_core.train.run import Run
from tests.conftest import TINY, tiny
from tests.helpers.runs import fit

CPU = torch.device("cpu")
# Eight steps an epoch: after three plain ones of a phase the others are replayed.
DATA = TINY["data"] | {"imbalance_ratio": 1, "max_class_count": 30}  # type: ignore[operator]
WHOLE = {"data": DATA, "epochs": 6, "lr_warmup_epochs": 3, "lr_drops": [3, 5], "plain_epochs": 2}
STAGE = {"epochs": 6, "lr_drops": [3]}
HOST_ASKS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")


class Traces:
    """Captures steps as a CUDA graph does: the trace is not a step, and its replays work in place."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.traced: list[list[str]] = []
        self.replays = 0
        self.made: list[weakref.ref[Callable[[], Stats]]] = []

    def __call__(self, step: Callable[[], Stats]) -> Callable[[], Stats]:
        memory = self.memory()
        before = [tensor.clone() for tensor in memory]
        graph = make_fx(lambda: step(), tracing_mode="real")()
        with torch.no_grad():
            for tensor, value in zip(memory, before, strict=True):
                tensor.copy_(value)
        self.traced.append([node.target.__name__ for node in graph.graph.nodes if node.op == "call_function"])

        def replay() -> Stats:
            self.replays += 1
            with torch.no_grad():  # the trace holds the backward pass as operations like any other
                return graph()

        self.made.append(weakref.ref(replay))
        return replay

    def memory(self) -> list[Tensor]:
        """All tensors that a step changes."""
        run = self.run
        bank = list(vars(run.method.bank).values()) if isinstance(run.method, Csa) and run.method.bank else []
        watching = [*vars(run.guard).values(), *run.guard._largest.values()]
        momentum = [state["momentum_buffer"] for state in run.optimizer.state.values()]
        assert run.replay
        found = [*run.network.state_dict().values(), *momentum, *bank, *watching, run.replay._number]
        return [value for value in found if isinstance(value, Tensor)]


def as_on_a_gpu(config: Any, dataset: Dataset) -> Run:
    """A run whose guard waits for nobody and whose learning rate lies on the device."""
    run = Run(config, dataset, make_split(dataset, config.data), CPU)
    run.guard._waits = False
    for group in run.optimizer.param_groups:
        group["lr"] = torch.tensor(0.0)
    return run


def long(*values: object) -> Any:
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("changes", "phases"),
    [
        ({}, 3),
        long({"bank_batches": 3, "mix": ["beta", 1.0, 3.0], "activation_map": "cam", "mask_forward": "eval"}, 3),
        long({"bank_batches": 0, "resampling_loss": "logit_adjustment"}, 3),
        long({"bank_reset": "epoch", "bank_batches": 4, "bank_start": "batch"}, 3),
        ({"method": "ce"}, 1),
        long({"method": "class_balanced", "balance_ratio": 0.5}, 1),
        long({"method": "logit_adjustment"}, 1),
        long({"uniform_mixup": 1.0, "activation_map": "box"}, 3),
        long({"method": "progressive"}, 1),
        long({"method": "drs", "deferred_until": 3}, 2),
        ({"method": "ldam", "reweighting": "deferred", "deferred_until": 3}, 2),
        long({"method": "focal", "reweighting": "always"}, 1),
        long({"method": "vs"}, 1),
        long({"method": "remix", "reweighting": "always"}, 1),
        long({"method": "cmo", "unpasted_epochs": [0, 3]}, 2),
        long({"method": "crt", "second_stage": STAGE}, 1),
        long({"method": "lws", "second_stage": STAGE, "batch_norm": "moving"}, 1),
        long({"method": "mislas", "mislas": {"epochs": 6}}, 1),
    ],
)
def test_replaying_the_operations_of_a_step_trains_the_same_network(
    changes: dict[str, Any], phases: int, dataset: Dataset
) -> None:
    config = tiny(**WHOLE, **changes)
    plain, replayed = (as_on_a_gpu(config, dataset) for _ in range(2))
    traces = Traces(replayed)
    replayed.replay = Replay(replayed._step_of, replayed.method.is_steady, CPU, traces)
    for epoch in range(config.epochs):
        assert train_epoch(replayed, epoch) == train_epoch(plain, epoch)
    assert len(traces.traced) == phases and replayed.replay.was_used
    assert sum(made() is not None for made in traces.made) == 1, "what was captured goes with its phase"
    assert traces.replays >= 48 - 6 * phases - (20 if changes.get("bank_reset") else 0), "few steps were plain ones"
    wanted, state = plain.state(), replayed.state()
    assert all(np.array_equal(wanted[name], state[name]) for name in wanted)
    for names in traces.traced:
        assert not [name for name in names if name.startswith(HOST_ASKS)], "the host asked the device"


def test_capture_can_be_turned_off(
    dataset: Dataset, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Captured(Exception):
        pass

    def capture(step: Callable[[], Stats]) -> Callable[[], Stats]:
        raise Captured

    class OnGpu(Run):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.replay = Replay(self._step_of, self.method.is_steady, CPU, capture)

    monkeypatch.setattr(loop, "Run", OnGpu)
    with pytest.raises(Captured):
        fit(tiny(), dataset, split, tmp_path / "captured")
    off = fit(tiny(), dataset, split, tmp_path / "off", capture="no")
    assert store.read_json(tmp_path / "off/out/provenance.json")["captured"] is False
    monkeypatch.undo()
    assert off == fit(tiny(), dataset, split, tmp_path / "plain")


def test_tf32_is_set_where_torch_compile_can_read_it() -> None:
    """torch refuses to read the older switches after the newer were set; its compiler reads the older ones."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        for is_allowed in (True, False):
            allow_tf32(is_allowed)
            assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (is_allowed,) * 2
            assert torch.get_float32_matmul_precision() == ("high" if is_allowed else "highest")
            assert (torch.backends.cudnn.conv.fp32_precision == "tf32") is is_allowed  # type: ignore[attr-defined]
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_script_for_a_gpu_says_that_there_is_none(capfd: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line == "benchmarks.gpu: torch finds no CUDA GPU here; run it on a machine that has one"


class Operations(TorchDispatchMode):
    """Records each operation with the shapes, types and memory layouts of what it works on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [a for a in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        self.seen.append(f"{function} {[(tuple(t.shape), t.dtype, t.stride()) for t in tensors]}")
        return function(*args, **(kwargs or {}))


def each_step(run: Run, epochs: range, phase: str) -> Iterator[list[str]]:
    for epoch in epochs:
        plan = run.method.plan(epoch)
        for step in range(plan.steps):
            with Operations() as operations:
                run.method.step(run, run.images.at(plan, step), phase)
            yield operations.seen


@pytest.mark.parametrize("threshold", [0.0, 0.26])
def test_every_step_is_the_same_operations_once_the_bank_was_full(
    threshold: float, dataset: Dataset, split: Split
) -> None:
    """However many images are confident; 0.26 of four classes lets some in and keeps some out."""
    run = Run(tiny(threshold=threshold, bank_batches=2, warmup_epochs=0, epochs=6), dataset, split, CPU)
    run.guard._waits = False
    run.network.train()
    run.guard.start_epoch()
    steps = [*each_step(run, range(6), "context_shift")]
    assert isinstance(run.method, Csa) and run.method.bank and run.method.bank.is_ready()
    kinds = Counter(tuple(step) for step in steps)
    (usual, often), *others = kinds.most_common()
    assert often >= 8 and set(map(tuple, steps[-often:])) == {usual}, "from some step on they are all alike"
    assert sum(often for _, often in others) == len(steps) - often
    assert not any(f"aten.{name}." in line for line in usual for name in HOST_ASKS), "no step asks the device"
