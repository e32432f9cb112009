"""What keeps the code as it was designed: one direction of imports, one place for each rule."""

import ast
import json
from pathlib import Path

import pytest

from tests.conftest import ROOT
from workflow.schema import SCHEMA, schema

LAYERS = ["errors", "store", "config", "vision", "data", "method", "models", "train", "commands", "cli", "__main__"]
MODULES = sorted((ROOT / "csa_core").rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    layer = path.relative_to(ROOT / "csa_core").parts[0].removesuffix(".py")
    names = imported(path)
    assert not {name for name in names if name.split(".")[0] in ("snakemake", "pandas", "matplotlib", "workflow")}
    inner = {name.split(".")[1] for name in names if name.startswith("csa_core.")} & set(LAYERS)
    if layer in LAYERS:
        # `method` may look at nothing of `data`; otherwise a layer may use those before it.
        above = LAYERS[LAYERS.index(layer) + 1 :]
        assert not inner & set(above), f"{layer} imports {inner & set(above)}"


def test_torchvision_is_imported_in_one_place() -> None:
    users = [p for p in MODULES if any(n.split(".")[0] == "torchvision" for n in imported(p))]
    assert [p.name for p in users] == ["vision.py"]


@pytest.mark.parametrize("path", sorted((ROOT / "workflow").rglob("*.py")), ids=lambda p: p.name)
def test_the_workflow_uses_configuration_and_files_of_the_package_alone(path: Path) -> None:
    inner = {name.split(".")[1] for name in imported(path) if name.startswith("csa_core.")}
    assert inner <= {"config", "errors", "store"}


@pytest.mark.parametrize("path", MODULES + sorted((ROOT / "workflow").rglob("*.py")), ids=lambda p: p.name)
def test_nothing_unsafe_is_called(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            assert call not in ("torch.load", "torch.save", "pickle.load", "pickle.loads", "np.random.seed")
            assert call not in ("torch.manual_seed", "torch.seed", "random.seed", "eval", "exec")
            assert call not in ("torch.cuda.manual_seed", "torch.cuda.manual_seed_all", "yaml.load", "yaml.unsafe_load")
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), "a bare except"


def test_the_schema_for_editors_is_generated_from_the_code() -> None:
    assert json.loads(SCHEMA.read_text()) == schema(), "run `python -m workflow.schema`"
