"""The optimizer: torch's own to the bit, without what its class imports."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from csa_core.train.sgd import Sgd
from tests.conftest import ROOT, tiny_fields
from tests.helpers.patience import PATIENCE


@settings(max_examples=20)
@given(st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.0, 2e-4, 0.1]), st.integers(0, 5))
def test_it_is_torchs_sgd_to_the_bit(momentum: float, weight_decay: float, seed: int) -> None:
    """Two groups, of which the second has no gradient at first, and a learning rate that changes."""
    generator = torch.Generator().manual_seed(seed)
    start = [torch.randn(shape, generator=generator) for shape in ((4, 3), (7,), (2, 2, 3), (5,))]
    ours, torchs = ([torch.nn.Parameter(tensor.clone()) for tensor in start] for _ in range(2))
    mine = Sgd([ours[:2], ours[2:]], 0.1, momentum, weight_decay)
    groups = [{"params": torchs[:2]}, {"params": torchs[2:]}]
    theirs = torch.optim.SGD(groups, lr=0.1, momentum=momentum, weight_decay=weight_decay, fused=True)
    for step in range(5):
        mine.zero_grad()
        theirs.zero_grad()
        for i in range(2 if step < 2 else 4):
            gradient = torch.randn(start[i].shape, generator=generator)
            ours[i].grad, torchs[i].grad = gradient.clone(), gradient.clone()
        for optimizer in (mine, theirs):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / (step + 1)
            optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, torchs, strict=True))
    assert momentum or not mine.state, "without momentum there is nothing to keep"
    moving = [theirs.state[parameter].get("momentum_buffer") for parameter in torchs]
    for parameter, buffer in zip(ours, moving, strict=True):
        kept = mine.state.get(parameter, {}).get("momentum_buffer")
        assert kept is None if buffer is None else kept is not None and torch.equal(kept, buffer)


def test_a_rate_on_the_device_is_each_groups_own() -> None:
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = Sgd([parameters[:1], parameters[1:]], torch.tensor(0.5), 0.0, 0.0)
    optimizer.param_groups[0]["lr"].fill_(0.25)
    for parameter in parameters:
        parameter.grad = torch.ones(2)
    optimizer.step()
    assert [parameter.tolist() for parameter in parameters] == [[0.75, 0.75], [0.5, 0.5]]


def test_nothing_moves_where_something_was_not_finite() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = Sgd([[parameter]], 0.1, 0.9, 0.0)
    parameter.grad = torch.ones(3)
    optimizer.step()
    before, momentum = parameter.detach().clone(), optimizer.state[parameter]["momentum_buffer"].clone()
    optimizer.found_inf = torch.ones(1)
    parameter.grad = torch.full((3,), torch.nan)
    optimizer.step()
    assert torch.equal(parameter, before) and torch.equal(optimizer.state[parameter]["momentum_buffer"], momentum)


@pytest.mark.parametrize("method", ["csa", pytest.param("simsiam", marks=pytest.mark.long)])
def test_a_training_imports_no_compiler(method: str, tmp_path: Path) -> None:
    """It would cost each process a second or more."""
    pretraining = {"sam": "sam", "epochs": 1, "batch_size": 12, "projector_width": 16, "predictor_width": 4}
    fields = tiny_fields(method=method, pretraining=pretraining)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(fields))
    words = ["train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out"), "--threads", "1"]
    script = f"import sys; from csa_core.cli import main; print(main({words}), 'torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert done.stdout.splitlines()[-1:] == ["0 False"], done.stdout + done.stderr
