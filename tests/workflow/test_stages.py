"""Rows of runs that start from another row's run: names, what is planned, and a whole workflow of them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import yaml

from csa_core.errors import UserError
from tests.conftest import ROOT, TINY
from tests.helpers.patience import PATIENCE
from tests.helpers.project import copy_project
from workflow.plan import Plan
from workflow.standing import survey

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
ON_CSA: dict[str, Any] = {"method": "post_hoc_adjustment", "changes": {"first_stage": "csa"}}
(PAGE,) = re.findall(r"```yaml\n(# workflow/tables/stages.yaml\n.*?)```", (ROOT / "docs/stages.md").read_text(), re.S)
TABLE: dict[str, Any] = yaml.safe_load(PAGE)
TABLE["rows"].append({"label": "Ours, both heads, adjusted", "head": "ensemble", **ON_CSA})
STAGED = ["crt", "lws", "post_hoc_adjustment", "tau_normalisation"]


def plan(**changes: Any) -> Plan:
    return Plan(CONFIG | changes, spell_out=())


@pytest.mark.parametrize("protocol", ["demo", "short", "paper"])
@pytest.mark.parametrize("method", STAGED)
def test_a_run_starts_from_the_run_that_a_table_has(method: str, protocol: str) -> None:
    p = plan(protocol=protocol)
    run = p.run(method, {}, 2)
    assert run.folder == f"results/{protocol}/runs/{method}/seed=2"
    assert p.recipe.parent_of(run) == p.run("ce", {}, 2) and run.parent_digest == p.run("ce", {}, 2).digest
    assert p.parent_files(run) == [f"results/{protocol}/runs/ce/seed=2/weights.safetensors"]
    on_csa = p.run(method, {"first_stage": "csa", "threshold": 0.3}, 2)
    assert on_csa.name == f"{method}/first_stage=csa+threshold=0.3"
    assert p.recipe.parent_of(on_csa) == p.run("csa", {"threshold": 0.3}, 2)
    assert p.run_at(on_csa.name, "2") == on_csa
    with pytest.raises(UserError, match="threshold has no effect"):
        p.run(method, {"threshold": 0.3}, 2)
    pretrained = p.run(method, {"pretrained": True}, 2)
    chain = [each.name for each in p.with_parents([pretrained])]
    assert chain[1] == "ce/pretrained=true" and chain[2] == "simsiam" and len(chain) == 4


def test_the_second_stage_is_as_long_as_its_protocol_says() -> None:
    stages = {}
    for protocol in ("demo", "short", "paper"):
        run = plan(protocol=protocol).run("crt", {}, 1)
        stages[protocol] = (run.epochs, run.config.second_stage.lr_drops)  # type: ignore[attr-defined]
    assert stages == {"demo": (6, (2, 4)), "short": (6, (2, 4)), "paper": (30, (10, 20))}


def test_what_trains_nothing_is_estimated_at_its_start_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    p = plan(protocol="demo", seeds=[1])
    post_hoc = p.run("post_hoc_adjustment", {}, 1)
    monkeypatch.setattr(p, "all_runs", lambda: [post_hoc, p.run("crt", {}, 1)])
    monkeypatch.setattr(p, "tables", {})
    standing, other = survey(p, 0.0).runs
    assert 0 < standing.left < 10 and np.isnan(other.left), "the other has a pace, which is not measured yet"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with a protocol of seconds and the table of docs/stages.md, with a row more, drawn."""
    folder = tmp_path_factory.mktemp("stages") / "project"
    copy_project(folder)
    protocol = TINY | {"epochs": 3, "lr_drops": [2], "second_stage": {"epochs": 2, "lr_drops": [1]}}
    protocol |= {"mislas": {"epochs": 2}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(protocol))
    config = yaml.safe_load((folder / "config.yaml").read_text()) | {"protocol": "tiny.yaml", "seeds": [1]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "workflow/tables/stages.yaml").write_text(yaml.safe_dump(TABLE))
    assert trained(folder) == 9
    snakemake(folder, "results/stages.csv")
    return folder


def trained(folder: Path, *words: str) -> int:
    """Return how many runs a dry run announces."""
    lines = [line.split() for line in snakemake(folder, "results/stages.csv", "--dry-run", *words).splitlines()]
    return max((int(words[1]) for words in lines if len(words) == 2 and words[0] == "train"), default=0)


def snakemake(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.long
def test_one_first_stage_serves_every_row(project: Path) -> None:
    runs = project / "results/tiny/runs"
    found = sorted(str(path.parent.parent.relative_to(runs)) for path in runs.rglob("seed=1/metrics.json"))
    on_csa = ["post_hoc_adjustment/first_stage=csa", "crt/first_stage=csa"]
    assert found == sorted(["ce", "csa", *STAGED, "mislas", *on_csa])
    digests = {}
    for name in ("ce", "csa"):
        with safetensors.safe_open(runs / name / "seed=1/weights.safetensors", "numpy") as file:
            digests[name] = json.loads(file.metadata()["csa"])["sha256"]
    for name in found:
        stated = json.loads((runs / name / "seed=1/metrics.json").read_text())["digests"].get("parent")
        parent = digests["csa" if name.endswith("=csa") else "ce"]
        assert stated == (None if name in ("ce", "csa") else parent)


@pytest.mark.long
def test_the_table_has_the_numbers_of_the_saved_logits(project: Path) -> None:
    table = pd.read_csv(project / "results/stages.csv").set_index(["label", "column"])["mean_percent"]
    labels = safetensors.numpy.load_file(project / "results/data/demo/dataset.safetensors")["test_labels"]
    (path,) = (project / "results/data/demo").glob("exponential-*.json")
    counts = np.array(json.loads(path.read_text())["class_counts"])

    def stored(run: str, what: str = "predictions") -> dict[str, np.ndarray]:
        return safetensors.numpy.load_file(project / f"results/tiny/runs/{run}/seed=1/{what}.safetensors")

    prior = np.log(counts / counts.sum())
    ce, csa, head = stored("ce")["single"], stored("csa"), stored("ce", "weights")
    norms = np.linalg.norm(head["heads.single.weight"], axis=1)
    expected = {
        "Post-hoc logit adjustment": ce - prior,
        "tau-normalisation": (ce - head["heads.single.bias"]) / norms,
        "Ours, uniform head, adjusted": csa["uniform"] - prior,
        "Ours, both heads, adjusted": (csa["uniform"] + csa["resampling"]) / 2 - prior,
        "cRT": stored("crt")["single"],
    }
    few = counts[labels] < 20
    for label, logits in expected.items():
        right = logits.argmax(1) == labels
        assert table[label, "all"] == pytest.approx(100 * right.mean()), label
        assert table[label, "few"] == pytest.approx(100 * right[few].mean()), label
    assert len({round(table[row["label"], "all"], 6) for row in TABLE["rows"]}) > 4, "rows are of different runs"


@pytest.mark.long
def test_a_change_of_the_first_stage_trains_again_what_starts_from_it(project: Path) -> None:
    assert trained(project, "--config", "overrides={threshold: 0.5}") == 3
    assert trained(project, "--config", "overrides={second_stage: {lr: 0.05}}") == 3
    assert trained(project) == 0
