"""Steps replayed: on a GPU the whole step, from the plan to the optimizer, is one CUDA graph.

A step is some seven hundred small kernels, and the host cannot launch them as fast as a large GPU
works them off. A graph is launched as one. It repeats the same kernels on the same memory, so all
that changes from step to step must lie on the device: the plan of the epoch, the number of the
step in it, the learning rate and the bank.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from csa_core.data.plan import EpochPlan, Picks
from csa_core.methods.base import Stats

Capture = Callable[[Callable[[], Stats]], Callable[[], Stats]]
EAGER_STEPS = 3
"""Steps of a phase before one is captured: libraries choose their kernels and workspaces in the first."""


class Replay:
    """The steps of one run, captured once a phase and replayed until it ends; its graph and memory then go."""

    def __init__(
        self,
        train: Callable[[EpochPlan[Picks], str], Stats],
        is_steady: Callable[[str], bool],
        device: torch.device,
        capture: Capture,
        stream: torch.cuda.Stream | None = None,
    ) -> None:
        """Replay `train`, which takes one step of a phase.

        Args:
            is_steady: whether the next step of a phase is the same operations as the one before.
            capture: turns a step into what repeats it: `captured` on a GPU.
            stream: where steps run; the default one captures none.
        """
        self._train, self._is_steady, self._capture = train, is_steady, capture
        self._stream = stream
        self._number = torch.zeros(1, dtype=torch.int64, device=device)
        self._plan: EpochPlan[Picks] | None = None
        self._phase = ""
        self._replay: Callable[[], Stats] | None = None
        self._eager = 0
        self.was_used = False
        """Whether a step was captured: those of some methods never are."""

    def steps(self, plan: EpochPlan[Picks], phase: str) -> Iterator[Stats]:
        """Train the steps of one epoch."""
        if self._plan is None or phase != self._phase:  # the graph of a finished phase gives its memory back
            self._plan, self._phase, self._replay, self._eager = plan, phase, None, 0
        else:
            self._plan.copy_(plan)
        self._number.zero_()
        for _ in range(plan.steps):
            with aside(self._stream):
                stats = self._step()
            yield stats

    def _step(self) -> Stats:
        if not self._is_steady(self._phase):
            return self._run_eagerly()
        if self._replay is None:
            self._eager += 1
            if self._eager <= EAGER_STEPS:
                return self._run_eagerly()
            self._replay, self.was_used = self._capture(self._run_eagerly), True
        return self._replay()

    def _run_eagerly(self) -> Stats:
        """Train on the step of the plan whose number lies on the device."""
        assert self._plan is not None
        one = self._plan.of_step(self._number)
        self._number += 1
        return self._train(one, self._phase)


@contextmanager
def aside(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Work on `stream`, after what came before and before what comes after; the host waits for neither."""
    if stream is None:
        yield
        return
    around = torch.cuda.current_stream(stream.device)
    stream.wait_stream(around)
    with torch.cuda.stream(stream):
        yield
    around.wait_stream(stream)


def captured(step: Callable[[], Stats]) -> Callable[[], Stats]:
    """Capture a step on the current stream of the GPU; return what launches it and gives its scalars."""
    graph = torch.cuda.CUDAGraph()
    # Other threads of this process, as of a library, may use the GPU meanwhile.
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
        stats = step()

    def replay() -> Stats:
        graph.replay()
        return stats

    return replay
