"""Protocols: a file's recipe with the overrides of config.yaml, and which tables and printed values go with it."""

import os
from pathlib import Path
from typing import Any

from csa_core.config import flat, load_yaml, set_dotted, validate
from csa_core.errors import UserError, likely, nearest
from csa_core.methods import KEYS, METHODS, parse, recipe
from workflow.declarations import HERE, Protocol, Table, WorkflowConfig
from workflow.naming import Recipe, tidy

# Folders of the results that are of no protocol alone.
SHARED = ("benchmarks", "data", "figures", "logs", "partial", "published", "state")
# Keys of a run that differ between the runs of a protocol, and what sets them.
OF_ONE_RUN = {"method": "rows of tables name it", "seed": "seeds in config.yaml are for that"}
# The images of the published runs, in the number and classes that the paper has.
PUBLISHED_LIST = {"data.profile": "selection", "data.selection": "cifar100-lt-ir100"}


def read_protocol(config: WorkflowConfig) -> tuple[Recipe, Protocol]:
    """Return the recipe that a configuration asks for, overrides applied, and what else the protocol says.

    Raises:
        UserError: no such protocol, or one by which not every method can be trained.
    """
    path = _file_of(config.protocol)
    fields = load_yaml(path)
    fields = {} if fields is None else fields
    if isinstance(fields, dict):
        for key in fields.keys() & (WorkflowConfig.model_fields.keys() - Protocol.model_fields.keys()):
            raise UserError(f"{path}: {key} is a key of config.yaml; move it there")
        own = validate(Protocol, {key: fields.pop(key) for key in Protocol.model_fields if key in fields}, str(path))
    _check_every_method(fields, str(path))
    for key, instead in OF_ONE_RUN.items():
        for where, given in ((str(path), fields), ("config.yaml: overrides", config.overrides)):
            if key in given:
                raise UserError(f"{where}: {key} cannot be set for all runs; {instead}")
    for key in config.overrides.keys() & WorkflowConfig.model_fields.keys():
        raise UserError(f"config.yaml: overrides: {key} is a key of config.yaml itself; move it out of overrides")
    for key, value in config.overrides.items():
        fields = set_dotted(fields, key, value)
    if config.data_root:
        fields = set_dotted(fields, "data.root", config.data_root)
    _check_every_method(fields, "config.yaml: overrides" if config.overrides else str(path))
    name = tidy(path.stem)
    if name in SHARED:
        raise UserError(f"config.yaml: protocol: {path}: results/{name} is a folder of all protocols; rename the file")
    return Recipe(name, fields, folder_of(f"{folder_of(config.results, 'results')}/{name}", "results")), own


def folder_of(name: str, key: str) -> str:
    """Return the folder that a key of config.yaml names, as Snakemake writes it.

    Raises:
        UserError: a file is in its place, or its name means something else to Snakemake.
    """
    path = Path(os.path.normpath(name))
    if set(name) & set("{}<>"):
        raise UserError(
            f"config.yaml: {key}: '{name}' has one of {{}}<>, which Snakemake reads as a pattern; rename it"
        )
    try:
        first = next(each for each in (path, *path.parents) if each.exists())
        if not first.is_dir():
            raise UserError(f"config.yaml: {key}: {first} is not a folder; name another one")
    except OSError as error:
        raise UserError(f"config.yaml: {key}: '{name}' cannot be used ({error.strerror}); name another one") from None
    return (Path.cwd() if path == Path() else path).as_posix()  # "./table2.csv" is no name of a target


def tables_of(protocol: str, own: Protocol, every: dict[str, Table], mine: dict[str, Table]) -> dict[str, Table]:
    """Return which of all tables and figures a protocol draws: its own, or else those that are nobody's, and `mine`.

    Raises:
        UserError: it changes the runs of a table that it has not.
    """
    tables = {name: table for name, table in every.items() if table.protocol == protocol}
    tables = tables or {name: table for name, table in every.items() if table.protocol is None}
    tables |= {name: table for name, table in mine.items() if table.protocol in (None, protocol)}
    for name in own.tables:
        if name not in tables:
            raise UserError(f"protocol {protocol}: tables.{name}: no such table, {nearest(name, tables)}")
    return tables


def check_keys(config: dict[str, Any]) -> None:
    """See that no key of runs stands where those of config.yaml do, which is the mistake made most.

    Raises:
        UserError: naming the key, and where it belongs.
    """
    of_runs = set(KEYS) - {"seed", "method"}
    for key in config.keys() - WorkflowConfig.model_fields.keys():
        meant = likely(str(key), of_runs | WorkflowConfig.model_fields.keys())
        if meant and meant.partition(".")[0] in of_runs:
            example = f"--config 'overrides={{{meant}: {config[key]}}}'"
            raise UserError(
                f"config.yaml or --config: '{key}': {meant} is a key of runs; write it in overrides: {example}"
            )


def paper_heading(config: WorkflowConfig, own: Protocol) -> str | None:
    """Return what heads the paper's printed values, None where they may not stand beside ours.

    Overrides forbid them, but for those that say which copy of the images is read, or that they are the published ones.
    """
    overrides = flat(config.overrides)
    if overrides.pop("data.source", None) in ("demo", "cifar10"):
        return None
    overrides.pop("data.root", None)
    return own.paper_values if overrides.items() <= PUBLISHED_LIST.items() else None


def protocol_files() -> dict[str, Path]:
    """Return the files of the project's own protocols by name."""
    return {path.stem: path for path in (HERE / "protocols").glob("*.yaml")}


def _file_of(protocol: str) -> Path:
    """Return the file of a protocol, which is named, or given by its path."""
    known = protocol_files()
    path = known.get(protocol, Path(protocol))
    if path.stem in known and protocol not in known and path.resolve() != known[path.stem].resolve():
        raise UserError(f"config.yaml: protocol: {path} has the name of a protocol of the project; rename it")
    if protocol not in known and path.suffix not in (".yaml", ".yml"):
        hint = nearest(protocol, known)
        raise UserError(f"config.yaml: protocol: unknown name '{protocol}', {hint} (or a path ending in .yaml)")
    return path


def _check_every_method(fields: Any, where: str) -> None:
    """See that every method can be trained by a recipe."""
    if not isinstance(fields, dict):
        parse(fields, where)
    for method in METHODS:
        parse(recipe(fields, method), where)
