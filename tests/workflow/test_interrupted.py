"""Ctrl-C in the middle of a sweep: what the last line says, and that it is true."""

import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers.patience import PATIENCE, wait_until
from tests.helpers.workflows import RUN, Folder


@pytest.mark.long
def test_the_last_line_says_what_continues_and_no_finished_epoch_is_lost(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write(overrides={"epochs": 4000, "lr_drops": [], "evaluate_every": 0}, seeds=[1])
    command = folder.command(RUN)
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    history = tmp_path / Path(RUN).parent / "history.partial.csv"
    wait_until(lambda: history.is_file() and history.read_text().count("\n") > 2, "the second epoch")
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=PATIENCE)[1].rstrip().splitlines()[-1]
    continues = f"snakemake {shlex.join(command[3:])}"
    assert said == f"snakemake: interrupted; what is done is kept, and the same command continues: {continues}"
    log = (tmp_path / "results/tiny/logs/runs/csa/seed=1.log").read_text().splitlines()[-1]
    assert log.startswith("csa_core: interrupted; the same command continues from the last checkpoint, after epoch ")
    assert list(tmp_path.glob("results/state/*/epoch-*.safetensors")), (
        "half a minute had not passed: the signal wrote it"
    )
