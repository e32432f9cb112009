"""docs/new-method.md, followed in a copy of the project, where its method has another name: it is there already."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.conftest import ROOT
from tests.helpers.project import copy_project

pytestmark = pytest.mark.long
PAGE = (ROOT / "docs" / "new-method.md").read_text()
RENAMED = PAGE.replace("drs", "my_drs").replace("Drs", "MyDrs")
BLOCK = re.compile(r"^```(python|sh|yaml)\n(?:# (?P<where>[^\n]+)\n)?(?P<text>.*?)^```$", re.M | re.S)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which the page's files and lines have been written, and the demo is short."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder)
    if (ROOT / ".mypy_cache").is_dir():  # what mypy has seen, it need not read again
        shutil.copytree(ROOT / ".mypy_cache", folder / ".mypy_cache")
    for path in ("workflow/protocols/demo.yaml", "docs/examples/demo.yaml"):
        fields = yaml.safe_load((folder / path).read_text())
        fields |= {"epochs": 4, "lr_drops": [3], "lr_warmup_epochs": 1, "evaluate_every": 0, "warmup_epochs": 1}
        (folder / path).write_text(yaml.safe_dump(fields))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"seeds": [1]}))
    for match in BLOCK.finditer(RENAMED):
        where, text = match["where"] or "", match["text"]
        if where.startswith("in "):
            registry = folder / where.removeprefix("in ")
            imported, line = text.strip().splitlines()
            whole, opening = registry.read_text(), "METHODS: dict[str, type[Method]] = {\n"
            whole = whole.replace("from csa_core.methods.csa", f"{imported}\nfrom csa_core.methods.csa", 1)
            registry.write_text(whole.replace(opening, f"{opening}    {line}\n"))
        elif where:
            (folder / where).write_text(text)
    return folder


def run(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    bin_folder = Path(sys.executable).parent
    command = re.sub(r"^csa ", f"{sys.executable} -m csa_core ", command)
    command = re.sub(r"^snakemake ", f"{bin_folder}/snakemake ", command)
    env = {"PATH": f"{bin_folder}:/usr/bin:/bin", "PYTHONPATH": str(folder), "HOME": str(folder)}
    return subprocess.run(["bash", "-ec", command], cwd=folder, capture_output=True, text=True, env=env)


def test_its_file_is_the_shipped_one() -> None:
    shipped, _ = [match for match in BLOCK.finditer(PAGE) if (match["where"] or "").startswith("csa_core")]
    assert (ROOT / shipped["where"]).read_text() == shipped["text"]
    registry = (ROOT / "csa_core/methods/__init__.py").read_text()
    lines, _ = [match["text"] for match in BLOCK.finditer(PAGE) if (match["where"] or "").startswith("in ")]
    assert all(line in registry for line in lines.splitlines())


def test_its_commands_train_the_new_method(project: Path) -> None:
    for match in BLOCK.finditer(RENAMED):
        if match[1] == "sh":
            done = run(match["text"].strip(), project)
            assert done.returncode == 0, done.stdout + done.stderr
    table = pd.read_csv(project / "results/my_drs.csv")
    assert set(table["label"]) == {"Deferred re-sampling", "Cross-entropy", "Ours"}
    assert table.loc[table["label"] != "Ours", "difference_percent"].notna().all(), "the reference run is a row"
    assert (project / "results/my_drs/metrics.json").exists()
    assert (project / "results/csa_poly/metrics.json").exists()


def test_linters_and_types_accept_the_files(project: Path) -> None:
    names = "csa_core/methods/my_drs.py csa_core/methods/csa_poly.py"
    for command in (f"ruff check {names}", f"ruff format --check {names}", f"mypy {names}"):
        done = run(command, project)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "my_drs" in run("csa keys", project).stdout


def test_its_loss_is_the_one_that_is_stated(project: Path) -> None:
    ask = (
        'python -c "import torch; from csa_core.methods.csa_poly import poly; z = torch.tensor([[1., 3.], [2., 2.]]);'
        ' p = z.softmax(1)[[0, 1], [0, 1]]; print(float(poly(z, torch.tensor([0, 1])) - (1 - p - p.log()).mean()))"'
    )
    assert abs(float(run(ask, project).stdout)) < 1e-6


def test_other_methods_are_not_trained_again(project: Path) -> None:
    ask = "python -c \"from csa_core.code import code_digest; print(code_digest('csa'), code_digest('ce'))\""
    assert run(ask, project).stdout == run(ask, ROOT).stdout
