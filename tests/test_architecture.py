"""What keeps the code as it was designed: one direction of imports, one place for each rule."""

import ast
import json
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from csa_core.errors import UserError
from csa_core.methods import METHODS
from tests.conftest import ROOT
from tests.helpers.patience import PATIENCE
from workflow.declarations import WorkflowConfig
from workflow.protocol import read_protocol
from workflow.schema import REFERENCE, SCHEMA, TABLE_SCHEMA, reference, schema, table_schema

LAYERS = [
    *("interrupt", "errors", "files", "layout", "store", "config", "vision", "ops", "data", "models", "evaluation"),
    *("methods", "use", "export", "compare", "code", "train", "commands", "finished", "cli", "__main__"),
]
MODULES = sorted((ROOT / "csa_core").rglob("*.py"))
WORKFLOW = sorted((ROOT / "workflow").rglob("*.py"))
RULES = [ROOT / "Snakefile", ROOT / "workflow/Snakefile", *sorted((ROOT / "workflow").rglob("*.smk"))]


def imported(path: Path) -> set[str]:
    """Return the names of modules, and of what is taken from them, that a file imports anywhere."""
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
        above = LAYERS[LAYERS.index(layer) + 1 :]
        assert not inner & set(above), f"{layer} imports {inner & set(above)}"


def test_every_file_belongs_to_a_layer() -> None:
    found = {path.relative_to(ROOT / "csa_core").parts[0].removesuffix(".py") for path in MODULES}
    assert found - {"__init__"} == set(LAYERS)


def test_only_commands_import_the_training() -> None:
    others = [path for path in MODULES if path.relative_to(ROOT / "csa_core").parts[0] not in ("train", "commands.py")]
    users = {path.name for path in others if any(name.startswith("csa_core.train") for name in imported(path))}
    assert users <= {"cli.py"}


def file_of(module: str) -> Path | None:
    """Return the file of a module of the package."""
    stem = ROOT.joinpath(*module.split("."))
    return next((file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file in MODULES), None)


def files_imported(path: Path) -> set[Path]:
    """Return the files of the package that a file imports, in functions and for type checking, too.

    A package that loads its modules lazily imports those that its stub names.
    """
    files = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        for name in names:
            # What is taken from a package is a module of it, or else of its own file.
            parts = [node.module, name] if isinstance(node, ast.ImportFrom) and node.module else [name]
            files.add(next((file for file in map(file_of, (".".join(parts), parts[0])) if file), path))
    stub = path.with_name("__init__.pyi")
    if path.name == "__init__.py" and stub.exists():
        nodes = [node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom)]
        assert all(node.level == 1 for node in nodes), "a stub imports its own modules"
        files |= {path.with_name(f"{node.module}.py") for node in nodes}
    return files - {path}


def test_files_import_each_other_in_no_circle() -> None:
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()
    graph = {path: files_imported(path) for path in MODULES}
    assert sum(map(len, graph.values())) > 2 * len(MODULES)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" <- ".join(str(path.relative_to(ROOT)) for path in error.args[1])) from None


def compared(tree: ast.AST) -> set[str]:
    """Return the strings that something is compared with, alone or among others."""
    sides: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides += [node.left, *node.comparators]
        if isinstance(node, ast.MatchValue):
            sides.append(node.value)
    sides += [leaf for side in sides if isinstance(side, ast.List | ast.Set | ast.Tuple) for leaf in side.elts]
    return {side.value for side in sides if isinstance(side, ast.Constant) and isinstance(side.value, str)}


COMPARISONS = [
    "m.method == 'csa'",
    "'csa' != m",
    "m in ('ce', 'csa')",
    "m not in {'csa'}",
    "match m:\n case 'csa': pass",
]
OTHERS = [path for path in MODULES + WORKFLOW if path.parent.name != "methods"]


@pytest.mark.parametrize("text", COMPARISONS)
def test_a_comparison_with_the_name_of_a_method_is_found(text: str) -> None:
    assert "csa" in compared(ast.parse(text))


@pytest.mark.parametrize("path", OTHERS, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_method_is_no_other_file_asks_by_its_name(path: Path) -> None:
    """It asks the method: `csa_core.methods.base` has what there is to ask."""
    program = {"csa"} if path.name == "cli.py" else set()
    assert not compared(ast.parse(path.read_text())) & (METHODS.keys() - program)


@pytest.mark.parametrize("module", ["csa_core", "csa_core.methods", "csa_core.cli", "workflow.plan"])
def test_configurations_and_plans_come_without_torch(module: str) -> None:
    asked = f"import sys, {module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == "False\n", done.stderr


def test_torchvision_is_imported_in_one_place() -> None:
    users = [p for p in MODULES if any(n.split(".")[0] == "torchvision" for n in imported(p))]
    assert [p.name for p in users] == ["vision.py"]


@pytest.mark.parametrize("path", WORKFLOW, ids=lambda p: p.name)
def test_the_workflow_uses_configuration_and_files_of_the_package_alone(path: Path) -> None:
    inner = {name.split(".")[1] for name in imported(path) if name.startswith("csa_core.")}
    assert inner <= {"code", "config", "errors", "files", "interrupt", "layout", "methods", "store"}


@pytest.mark.parametrize("path", RULES, ids=lambda p: p.name)
def test_rules_only_call_commands(path: Path) -> None:
    assert not re.findall(r"^ +(?:run|script|notebook|wrapper):.*", path.read_text(), re.M)


@pytest.mark.parametrize("path", MODULES + WORKFLOW, ids=lambda p: p.name)
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
    assert json.loads(TABLE_SCHEMA.read_text()) == table_schema(), "run `python -m workflow.schema`"
    assert REFERENCE.read_text() == reference(), "run `python -m workflow.schema`"


@pytest.mark.parametrize(
    "overrides", [{"reweighting": "deferred"}, {"reweighting": "none"}, {"method": "ce"}, {"seed": 2}]
)
def test_an_editor_and_the_workflow_take_the_same_overrides(overrides: dict[str, object]) -> None:
    def workflow_takes() -> bool:
        try:
            read_protocol(WorkflowConfig(overrides=overrides))
        except UserError:
            return False
        return True

    assert Draft202012Validator(schema()).is_valid({"overrides": overrides}) == workflow_takes()
