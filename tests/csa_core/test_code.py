"""A run's code digest changes with what can change its numbers, and with nothing else."""

import ast
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from csa_core import code
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.methods import METHODS
from csa_core.train.loop import train_epoch
from csa_core.train.metrics import make_metrics
from csa_core.train.run import Run
from tests.conftest import ROOT, tiny

# A file is looked at once in all these tests, and again where one has changed it.
normalised = cache(code.normalised)
RECIPE = {"epochs": 2, "batch_size": 12, "projector_width": 24, "predictor_width": 8}


@pytest.fixture
def digest_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Digest the package of a method after a change: a text that a file holds, and what stands there instead."""
    shutil.copytree(ROOT / "csa_core", tmp_path / "csa_core")
    monkeypatch.setattr(code, "PACKAGE", tmp_path / "csa_core")
    monkeypatch.setattr(code, "_normalised_file", lambda path: normalised(path.read_bytes()))

    def digest(method: str, name: str = "", old: str = "", new: str = "") -> str:
        code.code_digest.cache_clear()
        path = tmp_path / "csa_core" / (name or "errors.py")
        text = path.read_text() if path.exists() else ""
        assert old in text, f"{name} no longer holds {old!r}"
        path.write_text(text.replace(old, new, 1) if old else text + new)
        found = code.code_digest(method)
        path.write_text(text) if text else path.unlink(missing_ok=True)
        return found

    yield digest
    code.code_digest.cache_clear()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("methods/csa.py", "# line 18", "# the bank"),
        ("methods/csa.py", "(lines 6-28)", "(its body)"),
        ("ops/bank.py", "lower one of them", "lower either"),
        ("config.py", "must rise, each epoch once", "must rise"),
        ("train/loop.py", "continuing after epoch", "going on after epoch"),
        ("cli.py", "", "\nMORE = 1\n"),
        ("commands.py", "", "\nMORE = 1\n"),
        ("use.py", "", "\nMORE = 1\n"),
        ("export.py", "", "\nMORE = 1\n"),
        ("compare.py", "", "\nMORE = 1\n"),
        ("finished.py", "", "\nMORE = 1\n"),
        ("train/monitor/live.py", "SECONDS = 5.0", "SECONDS = 9.0"),
        ("train/state/lock.py", "", "\nMORE = 1\n"),
        ("train/monitor/events.py", "", "\nMORE = 1\n"),
        ("train/monitor/progress.py", "", "\nMORE = 1\n"),
        ("train/launch.py", "", "\nMORE = 1\n"),
        ("methods/single.py", "return loss, {", "return 2 * loss, {"),
        ("methods/simsiam.py", "/ 2", "/ 3"),
        ("methods/another.py", "", "MORE = 1\n"),
    ],
)
def test_what_cannot_change_the_numbers_trains_nothing_again(
    name: str, old: str, new: str, digest_of: Callable[..., str]
) -> None:
    assert digest_of("csa", name, old, new) == digest_of("csa")


@pytest.mark.parametrize(
    ("method", "name", "old", "new"),
    [
        ("csa", "methods/csa.py", "uniform_loss + resampling_loss, {", "uniform_loss, {"),
        ("csa", "methods/shifted.py", "2 * counted", "3 * counted"),
        ("ce", "methods/single.py", "argmax(1)", "argmin(1)"),
        ("simsiam", "methods/simsiam.py", "/ 2", "/ 3"),
        ("ce", "methods/base.py", "branches: ClassVar[int] = 1", "branches: ClassVar[int] = 9"),
        ("ce", "methods/schedule.py", "0.1 **", "0.2 **"),
        ("ce", "models/resnet.py", "nn.Conv2d(3, 16, 3, 1, 1", "nn.Conv2d(3, 16, 3, 1, 2"),
        ("ce", "models/precision.py", "GAINS_FROM = 10e6", "GAINS_FROM = 1e6"),
        ("ce", "train/run.py", "loss.backward()", "(2 * loss).backward()"),
        ("ce", "train/loop.py", "range(first, epochs)", "range(first + 1, epochs)"),
        ("ce", "data/plan.py", "< 0.5", "< 0.4"),
        ("ce", "evaluation/scores.py", "bins: int = 15", "bins: int = 10"),
        ("ce", "config.py", "lr: Annotated[float, Field(gt=0)] = 0.2", "lr: Annotated[float, Field(gt=0)] = 0.1"),
    ],
)
def test_what_can_change_the_numbers_trains_again(
    method: str, name: str, old: str, new: str, digest_of: Callable[..., str]
) -> None:
    assert digest_of(method, name, old, new) != digest_of(method)


@pytest.mark.long
def test_every_number_of_every_covered_file_counts() -> None:
    """But those that a message shows."""
    for name in sorted({name for method in METHODS for name in code.files_of(method)}):
        source = (ROOT / "csa_core" / name).read_text()
        tree = ast.parse(source)
        before = code.normalised(source.encode())
        told = {id(node) for outer in ast.walk(tree) if is_told(outer) for node in ast.walk(outer)}
        for node in ast.walk(tree):
            value = node.value if isinstance(node, ast.Constant) else None
            if isinstance(value, int | float) and not isinstance(value, bool) and id(node) not in told:
                assert isinstance(node, ast.Constant)
                node.value = value + 1
                assert code.normalised(ast.unparse(tree).encode()) != before, f"{name} line {node.lineno}"
                node.value = value


def is_told(node: ast.AST) -> bool:
    call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)
    return isinstance(node, ast.Raise) or (call and code._name(node.func) in code.MESSAGES)  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", METHODS)
def test_all_that_runs_while_numbers_are_made_is_covered(method: str, dataset: Dataset, split: Split) -> None:
    ran: set[str] = set()
    package = str(ROOT / "csa_core") + "/"

    def note(frame: FrameType, event: str, _: Any) -> None:
        if frame.f_code.co_filename.startswith(package):
            ran.add(frame.f_code.co_filename.removeprefix(package))

    changes: dict[str, Any] = {"method": method, "epochs": 3, "lr_drops": [], "mask_forward": "eval"}
    config = tiny(**changes | ({"pretraining": RECIPE | {"sam": "sam"}} if method == "simsiam" else {}))
    sys.setprofile(note)
    try:
        run = Run(config, dataset, split, torch.device("cpu"))
        for epoch in range(config.total_epochs):
            train_epoch(run, epoch)
        make_metrics(config, dataset, split, run.method.logits_by_part(run.network, final=True), {})
    finally:
        sys.setprofile(None)
    # Digests and files of JSON and tensors: what they hold is digested itself.
    assert ran - {"store.py", "errors.py"} <= set(code.files_of(method))
    assert len(ran) > 15
