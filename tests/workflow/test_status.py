"""`make status`: what trains, what stopped, what failed, what is still to come, from real runs and their files."""

import argparse
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from csa_core import store
from csa_core.errors import UserError
from tests.conftest import ROOT, TINY
from tests.helpers.inside import run_inside
from tests.helpers.patience import wait_until
from tests.helpers.workflows import SWEEPS
from workflow import standing, status
from workflow.declarations import load_tables
from workflow.naming import Run
from workflow.plan import Plan
from workflow.report.declared import plan_option, read_plan

PRETRAINING = {"epochs": 3, "batch_size": 12, "projector_width": 16, "predictor_width": 4}
ONE_EACH = {key: values[:1] for key, values in SWEEPS.items()} | {"threshold": [0.05, 0.5]}


class Sweep:
    """A working folder whose runs are trained by the command of the rule."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        changes = {"epochs": 40, "evaluate_every": 10, "pretraining": PRETRAINING}
        (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY | changes))
        self.configure()

    def configure(self, **changes: Any) -> None:
        """Write the configuration."""
        config = {"protocol": "tiny.yaml", "seeds": [1, 2], "sweeps": ONE_EACH} | changes
        (self.folder / "mine.yaml").write_text(yaml.safe_dump(config))
        self.plan = Plan(config)

    def train(self, run: Run, *words: str) -> "subprocess.Popen[bytes]":
        """Start the training of a run, as its rule does."""
        command = [sys.executable, "-m", "csa_core", "train", "-", "--out", run.folder, "--state", "results/state"]
        (self.folder / run.log).parent.mkdir(parents=True, exist_ok=True)
        with (self.folder / run.log).open("wb") as log:
            process = subprocess.Popen([*command, "--checkpoint-seconds", "0", "--threads", "1", *words],
                                       cwd=self.folder, env=environment(), stdin=subprocess.PIPE,
                                       stdout=log, stderr=log)  # fmt: skip
        assert process.stdin
        process.stdin.write(run.json.encode())
        process.stdin.close()
        return process

    def look(self, *words: str, **env: str) -> str:
        """Return what the command says."""
        done = run_inside(status.main, ["--config", "mine.yaml", *words], self.folder, **env)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout

    def of(self, run: Run) -> dict[str, Any]:
        """Return what the command says of one run."""
        (entry,) = [entry for entry in json.loads(self.look("--json"))["runs"] if entry["run"] == run.folder]
        return dict(entry)

    def wait_for(self, run: Run, epoch: int) -> dict[str, Any]:
        """Wait until a run is so far."""
        seen: dict[str, Any] = {}

        def is_there() -> bool:
            seen.update(self.of(run))
            return seen["state"] == "running" and seen["epoch"] >= epoch

        wait_until(is_there, f"epoch {epoch}")
        return seen


def environment(**env: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **env}


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.chdir(tmp_path)
    return Sweep(tmp_path)


def counts(text: str, table: str) -> list[int]:
    """Return runs, finished, running, stopped, failed and pending of a table."""
    (line,) = re.findall(rf"^{table} .*$", text, re.M)
    return [int(word) for word in line.split()[1:7]]


@pytest.mark.long
def test_a_run_from_pending_to_finished_through_a_kill_and_a_signal(sweep: Sweep) -> None:
    run = sweep.plan.reference
    assert sweep.of(run)["state"] == "pending" and counts(sweep.look(), "table2") == [4, 0, 0, 0, 0, 4]
    process = sweep.train(run)
    entry = sweep.wait_for(run, 1)
    assert entry["process"][1] == process.pid and entry["epochs"] == 40 and entry["left"] > 0
    text = sweep.look()
    assert counts(text, "table2") == [4, 0, 1, 0, 0, 3] and counts(text, "all")[2] == 1
    assert re.search(
        r"running:\n  csa/seed=1  epoch \d+/40  train [\d.]+%  .*\d+ (?:s|min) left  \S+\n\npending:\n", text
    )
    process.kill()
    process.wait()
    assert sweep.of(run)["state"] == "running", "files alone cannot tell before it has been silent for a while"
    (later,) = [each for each in standing.survey(sweep.plan, time.time() + 720).runs if each.run == run]
    (epoch,) = {int(path.stem[6:]) for path in sorted(sweep.folder.glob("results/state/*/epoch-*"))[-1:]}
    silent = rf"no sign of life for 12 min \(process {process.pid} on \S+\); continues after epoch {epoch}"
    assert later.state == "stopped" and re.fullmatch(silent, later.note), later.note
    assert later.left == pytest.approx((40 - epoch) * standing.survey(sweep.plan, 0).pace[run.kind] + 3)

    process = sweep.train(run)
    sweep.wait_for(run, epoch + 1)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    text = sweep.look()
    assert re.search(r"stopped:\n  csa/seed=1  interrupted; continues after epoch \d+\n", text), text
    assert counts(text, "table2") == [4, 0, 0, 1, 0, 3] and "failed" not in text.splitlines()[1:]

    assert sweep.train(run).wait() == 0
    text = sweep.look()
    assert sweep.of(run)["state"] == "finished" and counts(text, "table2") == [4, 1, 0, 0, 0, 3]
    assert "two branches of resnet8" in text and "stopped:" not in text
    # Another configuration has the same place: what lies there is not of it.
    sweep.configure(overrides={"lr": 0.05})
    assert sweep.of(run) | {"left": 0} == sweep.of(run) | {"left": 0, "state": "pending"}
    assert sweep.of(run)["note"] == "was trained with another configuration or code"
    assert counts(sweep.look(), "table2") == [4, 0, 0, 0, 0, 4]


def test_a_failed_run_is_listed_with_the_last_line_of_its_log(sweep: Sweep) -> None:
    sweep.configure(overrides={"lr": 1e15, "lr_warmup_epochs": 0})
    run = sweep.plan.reference
    assert sweep.train(run).wait() == 2
    text = sweep.look()
    assert counts(text, "table2") == [4, 0, 0, 0, 1, 3]
    last = Path(run.log).read_text().splitlines()[-1]
    assert re.search(r"failed:\n  csa/seed=1  \d+ s ago  csa_core: \S.* is not finite in epoch 1", text)
    assert f"ago  {last}\n" in text and last == sweep.of(run)["note"]
    # With another configuration nothing has failed yet.
    sweep.configure()
    assert sweep.of(run)["state"] == "pending"
    # A job that ends before it trains gives no sign of life; its log is of whoever was there last.
    early = "csa_core: results/data/demo/dataset.safetensors: no such file; check the path"
    Path(run.log).write_text(f"{early}\n\n")
    later = time.time() + 1000
    os.utime(run.log, (later, later))
    assert (sweep.of(run)["state"], sweep.of(run)["note"]) == ("failed", early)
    for last in ("MemoryError", "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."):
        Path(run.log).write_text(f"epoch 3/40: ...\nTraceback (most recent call last):\n  ...\n{last}\n")
        os.utime(run.log, (later, later))
        assert (sweep.of(run)["state"], sweep.of(run)["note"]) == ("failed", last)
    Path(run.log).write_text("epoch 3/40: loss 1.0, accuracy 10.0%, 0.1 s an epoch, 00:10 left\n")
    assert sweep.of(run)["state"] == "pending"


def test_a_table_beside_all_is_told_of_once_a_run_of_its_own_has_begun(sweep: Sweep) -> None:
    sweep.configure(overrides={"lr": 1e15, "lr_warmup_epochs": 0})
    of_all = {run.folder for run in sweep.plan.all_runs()}
    assert sweep.train(sweep.plan.reference).wait() == 2
    assert not re.search(r"^methods ", sweep.look(), re.M), "it shares this run with the others"
    (focal,) = [run for run in sweep.plan.runs_of("methods") if run.folder.endswith("runs/focal/seed=1")]
    assert sweep.train(focal).wait() == 2
    needed = len(sweep.plan.with_parents(sweep.plan.runs_of("methods")))
    text = sweep.look()
    assert counts(text, "methods") == [needed, 0, 0, 0, 2, needed - 2]
    assert counts(text, "all") == [len(of_all), 0, 0, 0, 1, len(of_all) - 1]
    assert re.search(r"^  focal/seed=1 +\d+ s ago +csa_core: ", text, re.M)


def test_a_long_sweep_is_cut_short_unless_all_is_asked_for(sweep: Sweep) -> None:
    runs = len(sweep.plan.all_runs())
    text = sweep.look()
    assert f"  ... and {runs - status.LINES} more (--all shows them)" in text
    assert text.count("\n  ") == status.LINES + 1
    assert sweep.look("--all").count("\n  ") == runs and "... and" not in sweep.look("--all")
    said = json.loads(sweep.look("--json"))
    assert len(said["runs"]) == said["all"]["runs"] == said["all"]["pending"] == runs
    assert said["all"]["left"] is None and set(said["tables"]) == set(sweep.plan.usual)


@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}])
def test_in_a_terminal_lines_fit_and_colours_help(env: dict[str, str], sweep: Sweep) -> None:
    command = [sys.executable, "-m", "workflow.status", "--config", "mine.yaml"]
    ours, theirs = pty.openpty()
    usual = {"COLUMNS": "50", "TERM": "xterm"} | env
    kept = {key: value for key, value in environment(**usual).items() if key != "NO_COLOR" or "NO_COLOR" in env}
    with subprocess.Popen(command, cwd=sweep.folder, env=kept, stdout=theirs) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux says so when the other side has closed
                break
            if not part:
                break
            said += part
        process.wait()
    os.close(ours)
    plain = re.sub(r"\x1b\[[\d;]*m", "", said.decode())
    assert max(map(len, plain.splitlines())) == 50 and "…" in plain
    assert ("\x1b[1;36mpending:\x1b[0m" in said.decode()) == (not env)


def test_damaged_files_are_looked_over(sweep: Sweep) -> None:
    run = sweep.plan.reference
    for name, content in {"a": "{", "b": "[]", "c": '{"digests": {}}', "d": ""}.items():
        path = sweep.folder / "results/state" / name / store.PROGRESS
        path.parent.mkdir(parents=True)
        path.write_text(content)
    for content in ("", "{", "[]\n[]", '{\n"digests": {"config": 1}\n}', "\x00\x01"):
        Path(run.folder).mkdir(parents=True, exist_ok=True)
        Path(run.folder, "metrics.json").write_text(content)
        assert sweep.of(run)["state"] == "pending"


def test_it_is_watched(sweep: Sweep) -> None:
    command = [sys.executable, "-m", "workflow.status", "--config", "mine.yaml", "--watch", "0.5"]
    with subprocess.Popen(command, cwd=sweep.folder, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        seen = 0
        while seen < 2:
            line = process.stdout.readline()
            assert line, "it ended by itself"
            seen += line.startswith("all ")
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait() == 0


def planned(*given: str) -> Plan:
    parser = argparse.ArgumentParser()
    plan_option(parser)
    return read_plan(parser.parse_args(["--config", *given] if given else []))


def test_configurations_are_laid_over_each_other_as_snakemake_does_it(tmp_path: Path) -> None:
    overrides = "overrides: {lr: 0.1, data: {imbalance_ratio: 5}}"
    (tmp_path / "a.yaml").write_text(f"seeds: [7]\nsweeps: {{threshold: [0.5]}}\n{overrides}\n")
    (tmp_path / "b.yaml").write_text("overrides: {data: {split_seed: 3}}\n")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    plan = planned(str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"), str(tmp_path / "empty.yaml"), "seeds=[8, 9]")
    assert plan.config.seeds == [8, 9] and plan.config.sweeps["threshold"] == [0.5]
    assert plan.config.overrides == {"lr": 0.1, "data": {"imbalance_ratio": 5, "split_seed": 3}}
    usual = planned()
    assert plan.config.sweeps["mix"] == usual.config.sweeps["mix"] and usual.config.seeds == [1, 2, 3]
    assert planned("protocol=paper").tables.keys() == {
        name for name, table in load_tables().items() if table.protocol is None
    }
    (tmp_path / "list.yaml").write_text("[1]\n")
    for wrong in (str(tmp_path / "list.yaml"), "nowhere.yaml", "seeds=[", "seedz=[1]"):
        with pytest.raises(UserError):
            planned(wrong)


def test_a_run_on_other_images_is_not_finished(sweep: Sweep) -> None:
    """Once the data set was made again, what was trained on the old one is to be trained, as Snakemake does."""
    plan, run = sweep.plan, sweep.plan.reference
    own = {"config": run.digest, "code": plan.code_of(run.config.method)}
    data, split = Path(plan.shared, "data", run.data), {"sha256": "5" * 64}
    labels = {"test_labels": np.zeros(3)}
    images = {"data": store.tensors_digest(labels, {}), "split": split["sha256"]}
    state = Path(plan.state, "0" * 24)
    for folder in (Path(run.folder), state):
        store.write_json(folder / "metrics.json", store.sealed({"digests": own | images}))
    (state / "finished.json").write_text("{}")

    def stands() -> tuple[str, str]:
        entry = sweep.of(run)
        return entry["state"], entry["note"]

    assert stands()[0] == "finished", "of images that are not made yet nothing is known"
    store.write_tensors(data / "dataset.safetensors", labels, {})
    store.write_json(data / f"{run.split}.json", split)
    assert stands()[0] == "finished" and standing.doing(plan)(run).startswith("Fetch")
    store.write_tensors(data / "dataset.safetensors", {"test_labels": np.ones(3)}, {})
    assert stands() == ("pending", "was trained on other images") and standing.doing(plan)(run) == "Train"


def test_no_more_run_side_by_side_than_there_are_gpus(sweep: Sweep) -> None:
    for changes, wanted in (({"gpus": [0]}, 1), ({"gpus": [0], "jobs_per_gpu": 3}, 3), ({"threads": 4}, 16)):
        sweep.configure(**changes, **({"device": "cpu"} if "threads" in changes else {}))
        assert standing.side_by_side(sweep.plan, 64) == wanted
