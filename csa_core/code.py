"""Which code a result depends on, as a digest: a run is trained again when what can change its numbers has changed.

That is all of the package but what only reads, writes, starts and shows (`AROUND`), and but the files
of other methods. Comments, docstrings, layout and the words of a message where it is raised are no part of
it, nor is the version of Python. Images and splits have digests of their own, so what makes them is left out here.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
AROUND = {
    *("__init__.py", "__main__.py", "cli.py", "code.py", "commands.py"),
    *("errors.py", "files.py", "interrupt.py", "layout.py", "store.py"),
    *("compare.py", "export.py", "finished.py", "use.py"),
    *("data/cifar.py", "data/demo.py", "data/folder.py", "data/listfile.py", "data/same.py"),
    *("data/selection.py", "data/sources.py"),
    "evaluation/mistakes.py",
    *("methods/__init__.py", "methods/gallery.py"),
    *("train/launch.py", "train/memory.py"),
    *("train/monitor/__init__.py", "train/monitor/events.py", "train/monitor/live.py", "train/monitor/progress.py"),
    *("train/state/__init__.py", "train/state/checkpoint.py", "train/state/lock.py", "train/state/results.py"),
}
"""What cannot change the numbers of a run: the command line, files, locks, signs of life, and what makes its images."""
MESSAGES = {"print", "say", "add_note", "warn"}
"""Functions that tell a person something."""


@cache
def code_digest(method: str) -> str:
    """Return the SHA-256 of the code that the numbers of a method's runs depend on."""
    return _digest(files_of(method))


@cache
def data_digest() -> str:
    """Return the SHA-256 of the code that makes data sets and splits."""
    return _digest(["config.py", "layout.py", *_below("data")])


def files_of(method: str) -> list[str]:
    """Return the files, relative to the package, that the numbers of a method's runs depend on."""
    from csa_core.methods import METHODS

    own = [METHODS[method].__module__.rpartition(".")[2] + ".py"]
    for name in own:  # grows: what a method builds on, and that again
        own += [each for each in _imported_methods(PACKAGE / "methods" / name) if each not in own]
    others = [name for name in _below("") if name not in AROUND and not name.startswith("methods/")]
    return sorted([*others, *(f"methods/{name}" for name in own if f"methods/{name}" not in AROUND)])


def normalised(source: bytes) -> str:
    """Return what a source file does, as text: its syntax tree without places, bare strings and messages."""

    def text(node: Any) -> str:
        if isinstance(node, list):
            return f"[{','.join(text(item) for item in node if not _is_bare_string(item))}]"
        if not isinstance(node, ast.AST):
            return repr(node)
        if isinstance(node, ast.Raise):
            return f"Raise({text(node.exc.func) if isinstance(node.exc, ast.Call) else text(node.exc)})"
        if isinstance(node, ast.Call) and _name(node.func) in MESSAGES:
            return f"Message({_name(node.func)})"
        if isinstance(node, ast.JoinedStr):  # Python 3.12 adds an empty text behind some format
            node.values = [part for part in node.values if not (isinstance(part, ast.Constant) and not part.value)]
        # Fields that are empty are left out: versions of Python differ in which there are.
        fields = ((name, getattr(node, name, None)) for name in node._fields if name != "kind")
        kept = (f"{name}={text(value)}" for name, value in fields if value not in (None, []) or name == "value")
        return f"{type(node).__name__}({','.join(kept)})"

    return text(ast.parse(source))


def _digest(names: list[str]) -> str:
    sha = hashlib.sha256()
    for name in names:
        sha.update(f"{name}:{_normalised_file(PACKAGE / name)};".encode())
    return sha.hexdigest()


@cache
def _normalised_file(path: Path) -> str:
    return normalised(path.read_bytes())


def _below(folder: str) -> list[str]:
    return sorted(path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / folder).rglob("*.py"))


def _imported_methods(path: Path) -> list[str]:
    """Return the files of `methods` that a file imports."""
    modules = [node.module or "" for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.ImportFrom)]
    return [module.rpartition(".")[2] + ".py" for module in modules if module.startswith("csa_core.methods.")]


def _is_bare_string(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
