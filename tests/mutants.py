"""Change the code in small ways, one at a time, and see whether a test notices.

    python -m tests.mutants csa_core/ops/bank.py tests/csa_core/ops/test_bank.py tests/csa_core/methods

The first word is the file that is changed, the others what pytest is given. A process of its own for each
change, forked from this one, which has imported torch and nothing of the project. Prints each change that no test
notices, and how many there were. A change that makes no difference to what the code does survives rightly:
read each line before writing a test.
"""

import argparse
import ast
import contextlib
import copy
import importlib.abc
import importlib.util
import io
import os
import random
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pandas
import pytest
import scipy.stats
import torch

LIBRARIES = (hypothesis, pandas, scipy.stats, torch)
"""Imported here so that no fork imports them again."""
SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.USub: ast.UAdd,
}  # fmt: skip
SECONDS = 300
"""Of CPU time, longer than the tests of any file take: a change that makes them loop for ever is noticed, too."""


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a changed tree."""

    def __init__(self, name: str, tree: ast.Module, path: Path) -> None:
        self.name, self.tree, self.path = name, tree, path

    def find_spec(self, name: str, *_: object) -> "importlib.machinery.ModuleSpec | None":
        """Answer for that module alone."""
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed tree."""
        exec(compile(self.tree, self.path, "exec"), module.__dict__)


def changes(tree: ast.Module) -> Iterator[tuple[str, ast.Module]]:
    """Return, for each operator, condition and constant, the tree with that changed, and what was done."""
    for number, node in enumerate(ast.walk(tree)):
        for what, change in _of(node):
            changed = copy.deepcopy(tree)
            there = next(each for i, each in enumerate(ast.walk(changed)) if i == number)
            change(there)
            yield f"line {getattr(node, 'lineno', 0)}: {what} in `{ast.unparse(node)[:90]}`", changed


def _of(node: ast.AST) -> Iterator[tuple[str, Callable[[Any], object]]]:
    if isinstance(node, ast.BinOp | ast.UnaryOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPPED:
        other = SWAPPED[type(node.op)]
        yield f"{type(node.op).__name__} -> {other.__name__}", lambda there: setattr(there, "op", other())
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED:
        other = SWAPPED[type(node.ops[0])]
        yield f"{type(node.ops[0]).__name__} -> {other.__name__}", lambda there: there.ops.__setitem__(0, other())
    if isinstance(node, ast.If | ast.IfExp):
        yield "condition -> True", lambda there: setattr(there, "test", ast.Constant(True))
        yield "condition -> False", lambda there: setattr(there, "test", ast.Constant(False))
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"-> {not node.value}", lambda there: setattr(there, "value", not there.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield f"-> {node.value + 1}", lambda there: setattr(there, "value", there.value + 1)


def is_noticed(name: str, tree: ast.Module, path: Path, tests: list[str]) -> bool:
    """Run the tests on a changed module, in a fork of this process; return whether one failed or hung."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        code, words = 1, [*tests, "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "default"]
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                sys.meta_path.insert(0, Changed(name, ast.fix_missing_locations(tree), path))
                code = int(pytest.main(words))
        finally:
            os._exit(code)  # whatever is raised: a copy must not go on as its parent
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def main() -> None:
    """Try the changes, and print those that no test notices."""
    parser = argparse.ArgumentParser("python -m tests.mutants", description=__doc__)
    parser.add_argument("file", type=Path, help="what is changed")
    parser.add_argument("tests", nargs="+", help="what pytest runs")
    parser.add_argument("--most", type=int, default=1000, help="so many changes at most, drawn at random")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tree = ast.parse(args.file.read_text())
    name = ".".join(args.file.with_suffix("").parts)
    if is_noticed(name, copy.deepcopy(tree), args.file.resolve(), args.tests):
        raise SystemExit("the tests fail without any change")
    found = list(changes(tree))
    drawn = random.Random(0).sample(found, min(args.most, len(found)))
    survivors = [what for what, changed in drawn if not is_noticed(name, changed, args.file.resolve(), args.tests)]
    for what in survivors:
        print(f"{args.file} {what}")
    print(f"{args.file}: {len(drawn)} changes of {len(found)}, {len(drawn) - len(survivors)} noticed")


if __name__ == "__main__":
    main()
