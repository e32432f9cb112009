"""Snakemake's command line, looked at before Snakemake does: `__definitions__` of our profiles call `check`.

What it meets before it reads the Snakefile it answers by a traceback and exit code 1. A profile is read earlier still.
"""

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from csa_core.config import load_yaml, parse_yaml
from csa_core.errors import UserError, nearest, say
from csa_core.store import read_json

T = TypeVar("T")
CONFIG_FILES = (".yaml", ".yml", ".json")
KEY = re.compile(r"[a-zA-Z_][\w-]*\w")  # what Snakemake takes as a key
LAST = "targets come first, as in snakemake results/table2.csv"


def check(given: argparse.Namespace) -> None:
    """See to what Snakemake would stumble over; on a mistake print its one line and exit with 2.

    Args:
        given: what Snakemake's own parser reads.
    """
    with_cache(Path(given.directory or "."))
    or_one_line(check_command, given.config, given.configfile or ())


def check_command(config_args: Iterable[Any] | None, configfiles: Iterable[Any]) -> None:
    """See that `--config` holds keys and `--configfile` files of them, and that nothing is given twice.

    Snakemake would take the last of two, and spell out aliases that stand for billions of values.

    Raises:
        UserError: naming key or file.
    """
    for option, short in (("--config", "-C"), ("--configfile", "--configfiles")):
        if sum(word.partition("=")[0] in (option, short) for word in sys.argv[1:]) > 1:
            raise UserError(f"{option} is given twice, and Snakemake reads the last alone; put all behind one {option}")
    words = [str(arg) for arg in config_args or ()]
    for word in words:
        _check_pair(word)
    for key, count in Counter(word.partition("=")[0] for word in words).items():
        if count > 1:
            raise UserError(f"--config: {key} is given {count} times; give it once")
    for path in configfiles:
        if not str(path).startswith("/dev/"):  # a pipe of the shell can be read once only
            _check_file(Path(path))


def _check_pair(word: str) -> None:
    key, equals, value = word.partition("=")
    if not equals:
        raise UserError(f"--config {word}: is no KEY=VALUE; if it is a target, {LAST} --config seeds=[1]")
    if not KEY.fullmatch(key):
        from workflow.declarations import WorkflowConfig

        outer, *inner = key.split(".")
        if inner and KEY.fullmatch(outer):
            outer, *inner = (outer, *inner) if outer in WorkflowConfig.model_fields else ("overrides", outer, *inner)
            meant = "".join(f"{{{name}: " for name in inner) + value + "}" * len(inner)
            raise UserError(f"--config {word}: a key within a key is written as --config '{outer}={meant}'")
        raise UserError(f"--config {word}: '{key}' is no key, {nearest(key, WorkflowConfig.model_fields)}")
    if value[:1] in ("{", "[", "&"):
        parse_yaml(value, f"--config {key}")


def _check_file(path: Path) -> None:
    is_config = path.suffix in CONFIG_FILES
    try:
        value = read_json(path) if path.suffix == ".json" else load_yaml(path)
    except UserError as error:
        if is_config:
            raise UserError(f"--configfile: {error}") from None
        value = None
    if not isinstance(value, dict):
        more = "" if is_config else f"; if it is a target, {LAST} --configfile mine.yaml"
        raise UserError(f"--configfile {path}: holds no keys with their values{more}")


def with_cache(folder: Path) -> None:
    """Let Snakemake keep its cache in the working folder where the home folder is missing or cannot be written to."""
    from snakemake.common import get_appdirs  # type: ignore[import-untyped]

    home = Path(get_appdirs().user_cache_dir)
    with suppress(OSError):
        home.mkdir(parents=True, exist_ok=True)
    if not os.access(home, os.W_OK | os.X_OK):
        os.environ["XDG_CACHE_HOME"] = str(folder.absolute() / ".snakemake" / "cache")


def requested() -> list[str]:
    """Return the targets of the command line, as Snakemake's own parser reads it; it tells a Snakefile of none."""
    program = Path(sys.argv[0])
    if program.stem != "snakemake" and program.parent.name != "snakemake":
        return []  # another program drives Snakemake
    from snakemake.cli import get_argument_parser  # type: ignore[import-untyped]

    return list(get_argument_parser().parse_known_args(sys.argv[1:])[0].targets)


def or_one_line(function: Callable[..., T], *args: Any) -> T:
    """Call `function` for a rule; on bad input print its one line and exit with 2.

    Snakemake itself would show a traceback and exit with 1.
    """
    try:
        return function(*args)
    except UserError as error:
        say(f"snakemake: {error}")
    except OSError as error:
        say(f"snakemake: {error.filename}: cannot be read ({error.strerror})")
    sys.exit(2)
