"""The recipe for a new ablation in CONTRIBUTING.md, followed to the letter."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.conftest import ROOT, TINY
from tests.helpers.patience import PATIENCE
from tests.helpers.project import copy_project


@pytest.mark.long
def test_three_steps_to_a_new_ablation(tmp_path: Path) -> None:
    values, table = re.findall(r"```yaml\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)[:2]
    copy = tmp_path / "project"
    copy_project(copy)
    # Step 1 and 2, with two of the values and a protocol of seconds so that the test is quick.
    added = yaml.safe_load(values)["sweeps"]
    assert len(added["mask_exponent"]) == 4
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["sweeps"]["mask_exponent"] = added["mask_exponent"][1:3]
    config |= {"protocol": "tiny.yaml", "seeds": [1]}
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    (copy / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"epochs": 2, "lr_drops": [], "plain_epochs": 0}))
    (copy / "workflow/tables/mask_exponent.yaml").write_text(table)
    # Step 3.
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "results/mask_exponent.csv"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    result = pd.read_csv(copy / "results/mask_exponent.csv", dtype={"label": str})
    assert result["label"].unique().tolist() == ["1.0", "2.0"]
    assert result["run"].unique().tolist() == ["csa/mask_exponent=1.0", "csa"]

    # A change of the drawing code draws again and trains nothing; one of the trainer trains again,
    # and one of its comments does not.
    def announced() -> str:
        done = subprocess.run([*command, "--dry-run"], cwd=copy, capture_output=True, text=True, timeout=PATIENCE)
        return done.stdout + done.stderr

    assert "Nothing to be done" in announced()
    with (copy / "workflow/report/tables.py").open("a") as file:
        file.write("# touched\n")
    assert set(re.findall(r"^(train|table) +\d+$", announced(), re.M)) == {"table"}
    assert subprocess.run(command, cwd=copy, capture_output=True, timeout=PATIENCE).returncode == 0
    with (copy / "csa_core/methods/csa.py").open("a") as file:
        file.write('# touched\n"touched"\n')
    assert "Nothing to be done" in announced()
    with (copy / "csa_core/methods/csa.py").open("a") as file:
        file.write("touched = True\n")
    assert set(re.findall(r"^(train) +(\d+)$", announced(), re.M)) == {("train", "2")}
