"""Trainers side by side, signals in the middle of a step, and memory that is kept or runs out."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
import yaml

from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.errors import UserError
from csa_core.ops.bank import ContextBank, bank_bytes
from tests.conftest import ROOT, TINY, Cli, tiny, tiny_fields
from tests.helpers.patience import PATIENCE
from tests.helpers.runs import results


@pytest.mark.long
@pytest.mark.parametrize("trainers", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_of_trainers_started_together_one_proceeds(trainers: int, tmp_path: Path) -> None:
    """They meet at a gate, so that none is done before the last one has asked for the lock."""
    gate = """
import os, sys, time
from csa_core import cli
from csa_core.train import loop
whole = loop._train_epochs
def wait(*arguments):
    while len(os.listdir(sys.argv[1])) < int(sys.argv[2]):
        time.sleep(0.05)
    return whole(*arguments)
loop._train_epochs = wait
code = cli.main(sys.argv[3:])
open(os.path.join(sys.argv[1], str(os.getpid())), "w").close()
sys.exit(code)
"""
    (tmp_path / "gate").mkdir()
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(TINY))
    out = tmp_path / "together"
    words = ["train", str(config), "--out", str(out), "--threads", "1"]
    command = [sys.executable, "-c", gate, str(tmp_path / "gate"), str(trainers - 1), *words]
    each = [
        subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(trainers)
    ]
    logs = [process.communicate(timeout=PATIENCE)[1] for process in each]
    codes = [process.returncode for process in each]
    assert sorted(codes) == [0] + [2] * (trainers - 1), logs
    holder = f"process {each[codes.index(0)].pid} on {socket.gethostname()} is training this run"
    for code, log in zip(codes, logs, strict=True):
        assert code == 0 or (holder in log and log.count("\n") == 1), log
    alone = subprocess.run([*command[:4], "0", *words[:3], str(tmp_path / "alone"), *words[4:]], cwd=ROOT)
    assert alone.returncode == 0
    assert results(out) == results(tmp_path / "alone")


def test_a_lock_falls_with_its_holder(tmp_path: Path) -> None:
    """SIGKILL, and the next one takes the lock and writes its own name over the stale one."""
    holding = """
import os, signal, sys
from pathlib import Path
from csa_core.train.state.lock import hold
with hold(Path(sys.argv[1]), Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    taking = """
import sys
from pathlib import Path
from csa_core.train.state.lock import hold
with hold(Path(sys.argv[1]), Path(sys.argv[1])):
    print(Path(sys.argv[1], "holder.json").read_text())
"""
    killed = subprocess.Popen([sys.executable, "-c", holding, str(tmp_path)], cwd=ROOT)
    assert killed.wait(timeout=PATIENCE) == -signal.SIGKILL
    assert json.loads((tmp_path / "holder.json").read_text())["process"] == killed.pid
    with subprocess.Popen([sys.executable, "-c", taking, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as taker:
        said = json.loads(taker.communicate(timeout=PATIENCE)[0])
    assert taker.returncode == 0 and said == {"process": taker.pid, "host": socket.gethostname()}
    assert not (tmp_path / "holder.json").exists()


SIGNALLED = """
import os, signal, sys
from csa_core import cli
from csa_core.train import loop
number, epoch, step = (int(word) for word in sys.argv[1:4])
class Signalled(loop.Run):
    def steps(self, now):
        for i, stats in enumerate(super().steps(now), 1):
            print("step", now + 1, i, flush=True)
            if (now + 1, i) == (epoch, step):
                os.kill(os.getpid(), number)
            yield stats
loop.Run = Signalled
sys.exit(cli.main(sys.argv[4:]))
"""


@pytest.mark.parametrize(
    "every", ["1000", pytest.param("0", marks=pytest.mark.long)]
)  # seconds between checkpoints: a signal writes one, too
@pytest.mark.parametrize(
    ("number", "epoch", "step", "where"),
    [
        (signal.SIGTERM, 3, 2, "from the last checkpoint, after epoch 2"),
        pytest.param(signal.SIGINT, 1, 1, "from the start", marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_it_within_a_step_and_says_where_it_will_continue(
    number: int, epoch: int, step: int, where: str, every: str, tmp_path: Path
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(TINY))
    words = ["train", str(config), "--out", str(tmp_path / "out"), "--threads", "1", "--checkpoint-seconds", every]
    command = [sys.executable, "-c", SIGNALLED, str(number), str(epoch), str(step), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 128 + number
    assert done.stderr.splitlines()[-1] == f"csa_core: interrupted; the same command continues {where}"
    assert done.stdout.splitlines()[-1] == f"step {epoch} {step}", "another step was begun"
    again = subprocess.run(
        [*command[:3], "0", "0", "0", *words], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    first = again.stdout.splitlines()[0]
    assert again.returncode == 0 and first == f"step {epoch} 1", again.stderr


IN_TRAINING = ("train", "run.yaml", "--out", "out", "--threads", "1", "--device", "cpu")
COMMANDS = {
    "csa_core": ("keys",),
    "workflow.status": (),
    "workflow.estimate": (),
    "workflow.publish": ("draw", "nothere"),
    "workflow.devices": ("--state", "devices", "0", "--", "true"),
    "workflow.report.tables": ("table2", "--out", "table2"),
    "workflow.report.figures": ("figure1", "--out", "figure1"),
    "workflow.report.all_claims": ("nothere.csv", "--out", "claims.csv"),
    "workflow.report.page": ("nothere.json", "--out", "report.html"),
}


@pytest.mark.parametrize(
    ("module", "words", "every"),
    [
        *((module, words, 60) for module, words in list(COMMANDS.items())[:3]),
        *(pytest.param(module, words, 9, marks=pytest.mark.slow) for module, words in COMMANDS.items()),
        pytest.param("csa_core", IN_TRAINING, 80, marks=pytest.mark.long),
    ],
)
def test_a_signal_while_a_command_imports_what_it_needs(
    module: str, words: tuple[str, ...], every: int, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    said.mkdir()
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(TINY))
    start = "csa_core.cli" if module == "csa_core" else "argparse"
    script = [sys.executable, "-m", "tests.helpers.interrupted", start, str(every), str(said), module, *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(script, cwd=tmp_path, env=env, capture_output=True, timeout=PATIENCE)
    files = sorted(said.iterdir())
    assert len(files) > 2
    for file in files:
        assert file.name.endswith(":130"), f"{file.name}: {file.read_text()}"
        where = "from where it stopped"
        if words == IN_TRAINING:  # once it trains, it knows where
            where = f"({where}|from the start|from the last checkpoint, after epoch [0-9]+)"
        line = f"{module.partition('.')[0]}: interrupted; the same command continues {where}\n"
        assert re.fullmatch(line, file.read_text()), f"{file.name}: {file.read_text()}"


IN_THE_END = """
import os, signal, sys
from csa_core import cli
from csa_core.train.state import results
whole = results.{function}
def signalled(*words, **named):
    os.kill(os.getpid(), signal.SIGINT)
    return whole(*words, **named)
results.{function} = signalled
sys.exit(cli.main(sys.argv[1:]))
"""


ENDINGS = list(product(("csa", "ce"), ("make_metrics", "describe"), ("1000", "0")))


@pytest.mark.parametrize(
    ("method", "function", "every"),
    [
        ENDINGS[0],
        pytest.param(*ENDINGS[-1], marks=pytest.mark.long),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ENDINGS[1:-1]),
    ],
)
def test_a_signal_in_the_final_evaluation_loses_no_epoch(
    method: str, function: str, every: str, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tiny_fields(method=method)))
    words = ["train", str(tmp_path / "run.yaml"), "--threads", "1", "--checkpoint-seconds", every, "--out"]
    script = IN_THE_END.format(function=function)
    command = [sys.executable, "-c", script, *words, str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 130, done.stderr
    said = "csa_core: interrupted; the same command continues from the last checkpoint, after epoch 5"
    assert done.stderr.splitlines()[-1] == said
    again = cli(*words, tmp_path / "out")
    assert again.returncode == 0 and "continuing after epoch 5 of 5" in again.stderr, again.stderr
    assert "epoch 5/5: " not in again.stderr, "nothing is trained again"
    assert not list((tmp_path / "out").glob("state/*/epoch-*"))
    assert cli(*words, tmp_path / "whole").returncode == 0
    assert results(tmp_path / "out") == results(tmp_path / "whole")


GROWTH = """
import sys
import torch
from csa_core.data.sources import load_source
from csa_core.data.split import make_split
from csa_core.train.loop import train_epoch
from csa_core.train.run import Run
from tests.conftest import tiny

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

config = tiny(threshold=0.0, epochs=100, lr_drops=[])
dataset = load_source(config.data)
split = make_split(dataset, config.data)
run = Run(config, dataset, split, torch.device("cpu"))
sizes = []
for epoch in range(51):
    row = train_epoch(run, epoch)
    sizes.append(resident())
assert row["phase"] == "context_shift" and row["bank_fill"] == 1 and len(split.indices) // 16 == 5
print((sizes[-1] - sizes[10]) / 1e6)  # 40 epochs of five steps
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory of a process as Linux tells it")
def test_two_hundred_steps_keep_no_memory() -> None:
    done = subprocess.run([sys.executable, "-c", GROWTH], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 5, f"{done.stdout} MB more after 200 steps"


def test_out_of_memory_is_one_line_with_batch_and_bank(tmp_path: Path) -> None:
    from csa_core.train.memory import one_line_when_out_of_memory

    expected = (16 + 1) * 16 * 12 * 4 * 4
    message = f"^out of memory with batch_size 16 and a context bank of {expected:,} bytes"
    with pytest.raises(UserError, match=message), one_line_when_out_of_memory(tiny(), (16, 12)):
        torch.zeros(2**55)


def test_a_bank_that_cannot_fit_is_refused_before_training(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(TINY))
    large = ("--set", "bank_batches=1024", "--set", "batch_size=65536", "--set", "bank_start=batch")
    done = cli("train", tmp_path / "run.yaml", "--out", tmp_path / "out", *large)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    expected = (1024 * 65536 + 1) * 16 * 16 * 4 * 4
    assert f"a bank of 1024 x batch_size 65536 images of 16 x 16 px takes {expected:,} bytes" in done.stderr
    assert not (tmp_path / "out/metrics.json").exists()


def test_the_bytes_of_the_bank_are_those_it_takes() -> None:
    config = tiny(bank_batches=3)
    bank = ContextBank(3 * config.batch_size, (16, 12), torch.device("cpu"))
    assert bank_bytes(3 * config.batch_size, (16, 12)) == bank._images_nhwc.nbytes + bank._masks.nbytes


def test_another_error_is_not_called_out_of_memory(dataset: Dataset, split: Split, tmp_path: Path) -> None:
    from csa_core.train.memory import one_line_when_out_of_memory

    with pytest.raises(RuntimeError, match="size mismatch"), one_line_when_out_of_memory(tiny(), (16, 12)):
        raise RuntimeError("size mismatch")


@pytest.mark.parametrize("workers", [None, 1, 4])
def test_the_number_of_workers_changes_no_pixel(
    workers: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is what a machine gives that does not know its processors."""
    from tests.helpers.images import folder, folder_of_images

    first = folder(folder_of_images(tmp_path)).digest
    monkeypatch.setattr(os, "cpu_count", lambda: workers)
    assert folder(tmp_path).digest == first
    assert re.fullmatch("[0-9a-f]{64}", first)
