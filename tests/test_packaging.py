"""What others install, and what the conventions of the ecosystem ask for."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.helpers.patience import PATIENCE

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a network from what is under version control."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("csa_core", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    words = ["-m", "pip", "wheel", str(source), "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(out)]
    words.append("--disable-pip-version-check")
    subprocess.run([sys.executable, *words], check=True, capture_output=True, timeout=PATIENCE)
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "csa_core").rglob("*.py")}
    data = {str(path.relative_to(ROOT)) for path in (ROOT / "csa_core/data/selections").glob("*.txt")}
    stubs = {str(path.relative_to(ROOT)) for path in (ROOT / "csa_core").rglob("*.pyi")}
    assert len(data) > 0 and names == code | data | stubs | {"csa_core/py.typed"}


def test_the_installed_package_brings_a_command(wheel: Path, tmp_path: Path) -> None:
    install = [
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--disable-pip-version-check",
        "--quiet",
        "--target",
        str(tmp_path / "site"),
        str(wheel),
    ]
    subprocess.run([sys.executable, *install], check=True, capture_output=True, timeout=PATIENCE)
    csa = tmp_path / "site/bin/csa"
    run = {"capture_output": True, "text": True, "cwd": tmp_path, "env": {"PYTHONPATH": str(tmp_path / "site")}}
    shown = subprocess.run([csa, "--help"], **run)  # type: ignore[call-overload]
    assert shown.returncode == 0 and shown.stdout.startswith("usage: csa ")
    (tmp_path / "bad.yaml").write_text("thresold: 1\n")
    refused = subprocess.run([csa, "train", "bad.yaml", "--out", "x"], **run)  # type: ignore[call-overload]
    assert refused.returncode == 2 and "thresold" in refused.stderr and "threshold" in refused.stderr


def test_the_lock_holds_what_is_imported_and_exact_versions() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+", line) for line in lines)
    locked = {normal(line.partition("==")[0]) for line in lines}
    imported = set()
    for path in [*(ROOT / "csa_core").rglob("*.py"), *(ROOT / "workflow").rglob("*.py")]:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    others = imported - sys.stdlib_module_names - {"csa_core", "workflow"}
    providers = packages_distributions()
    assert len(others) > 8
    assert not {name for name in others if not locked & set(map(normal, providers.get(name, [])))}


def normal(name: str) -> str:
    """Return the name of a distribution as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_python_that_is_declared_is_tested() -> None:
    declared = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c]
    assert PROJECT["requires-python"] == f">={declared[0]}"
    job = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == declared
    assert job["steps"][-1]["run"] == "bash .ci/run" and "exec make test" in (ROOT / ".ci/run").read_text()


def test_the_hooks_are_the_linters() -> None:
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    tools = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in repo["hooks"]}
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    assert tools == {line.split()[0].removeprefix("$(BIN)/") for line in lint.splitlines()[1:]}


def test_the_workflow_is_found_where_the_catalog_looks() -> None:
    words = ["-m", "snakemake", "results/table4.csv", "--snakefile", "workflow/Snakefile", "--dry-run"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
