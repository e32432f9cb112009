"""Where things lie: one key each for results, state and original data, and nothing beside them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.helpers.patience import PATIENCE
from tests.helpers.workflows import Folder

TARGETS = ("table4.csv", "figures/curves-table4.svg", "figures/contexts.png")


def snakemake(folder: Folder, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "MPL"))} | env
    return subprocess.run(
        folder.command(*words), capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, env=environment
    )


@pytest.mark.long
def test_everything_lies_where_the_keys_say(tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    folder, there = Folder(work), tmp_path / "project"
    made = {"data.safetensors", "tiny.yaml", "mine.yaml", ".snakemake"}
    folder.write(seeds=[1], results=str(there / "out"), state=str(there / "scratch"), gpus=[0, 1])
    done = snakemake(folder, "prepare", HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (there / "out").iterdir()} == {"data", "logs"}, "nothing is trained to prepare"
    done = snakemake(folder, *(f"{there}/out/{target}" for target in TARGETS), HOME=str(home))
    assert done.returncode == 0, done.stderr
    run = there / "out/tiny/runs/csa/seed=1"
    assert json.loads((run / "provenance.json").read_text())["visible_gpus"] in ("0", "1")
    log = (there / "out/tiny/logs/figures/contexts-data.log").read_text()
    assert re.search(r"\([01] is given\)", log), f"drawing has a device of its own, too: {log}"
    assert {path.name for path in there.iterdir()} == {"out", "scratch"}
    made_there = {path.name.partition(".")[0] for path in (there / "out").iterdir()}
    assert made_there == {"data", "figures", "logs", "table4", "tiny"}
    assert not (there / "out/state").exists() and list((there / "scratch").glob("*/finished.json"))
    assert {path.name for path in work.iterdir()} <= made, "nothing beside Snakemake's own folder"
    # What Snakemake keeps at home of remote sources is its own and empty here.
    left = [path for path in home.rglob("*") if path.is_file()]
    assert not left, left

    (tmp_path / "usual").mkdir()
    words = ["-m", "workflow.status", "--config", str(work / "mine.yaml"), "--json"]
    told = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=work, env=dict(os.environ, PYTHONPATH=str(ROOT))
    )
    states = {run["run"]: run["state"] for run in json.loads(told.stdout)["runs"]}
    assert states[str(run)] == "finished" and states[f"{there}/out/tiny/runs/ce/seed=1"] == "pending"

    usual = Folder(tmp_path / "usual")
    usual.write(seeds=[1])
    assert usual.snakemake("results/table4.csv").returncode == 0
    for name in ("table4.csv", "table4.md", "tiny/runs/csa/seed=1/metrics.json"):
        assert usual.read(f"results/{name}") == (there / "out" / name).read_bytes(), "the same bytes"


def test_original_images_are_read_from_the_root_that_is_named(tmp_path: Path) -> None:
    from PIL import Image

    for part, count in (("train", 12), ("test", 4)):
        for k, name in enumerate("ab"):
            images = tmp_path / "photos" / part / name
            images.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (16, 16), (90 * k + i, 40, i + (9 if part == "test" else 0))).save(images / f"{i}.png")
    folder = Folder(tmp_path)
    protocol = yaml.safe_load((tmp_path / "tiny.yaml").read_text())
    protocol["data"] = {"source": "folder", "root": "elsewhere", "image_size": 16, "profile": "as_is"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(protocol))
    folder.write(seeds=[1], data_root=str(tmp_path / "photos"))
    done = folder.snakemake("prepare")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results/data/folder-photos-16px/as_is.json").is_file()
