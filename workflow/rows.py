"""Rows of a table: each declared one with its runs, once for each value where it stands for a sweep."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from csa_core.config import flat
from csa_core.errors import UserError, nearest
from csa_core.methods import METHODS
from workflow.declarations import Row, Table, WorkflowConfig
from workflow.naming import Recipe, Run, text_of, value_of


@dataclass(frozen=True)
class PlannedRow:
    """One row as it is drawn."""

    label: str
    series: str
    method: str
    head: str | None
    """Which head is scored; None is the one that predicts."""
    reference: bool
    """Whether all other rows are compared with it."""
    pool: int | None
    """Number of the sweep that it is of, None without one."""
    paper: dict[str, Any]
    """The paper's values in percent by column."""
    published: str
    """What others print of it, and where."""
    runs: tuple[Run, ...]
    """One for each seed."""

    @property
    def name(self) -> str:
        """What claims and figures call it."""
        return name_of(vars(self))

    def declaration(self, code: str) -> dict[str, Any]:
        """Return all that the row is drawn from, for runs that carry `code`."""
        keys = ("label", "series", "head", "reference", "pool", "paper", "published")
        shown = {key: getattr(self, key) for key in keys}
        digests = {"digests": [run.digest for run in self.runs], "parents": [run.parent_digest for run in self.runs]}
        return shown | {"run": self.runs[0].name, "code": code} | digests


def name_of(row: dict[str, Any]) -> str:
    """Return what claims and figures call a row: its series, if any, and its label."""
    return f"{row['series']} {row['label']}".strip()


def planned_rows(
    name: str, table: Table, changes: dict[str, Any], recipe: Recipe, config: WorkflowConfig
) -> list[PlannedRow]:
    """Return the rows of a table, sweeps spelt out.

    Args:
        name: the table's.
        changes: what the protocol changes for the table's runs.

    Raises:
        UserError: naming the row or the key that cannot be.
    """
    reference = recipe.run("csa", changes, config.seeds[0])
    rows = []
    for number, row in enumerate(table.rows):
        fixed = flat(changes) | flat(row.changes)  # by whole names: the row's word is the last
        for value, given in _spelt_out(name, row, fixed, recipe, config):
            own = _longer(name, row, given, recipe, config.seeds[0])
            runs = tuple(recipe.run(row.method, own, seed) for seed in config.seeds)
            kind = METHODS[row.method].scored_as(runs[0].config)
            if row.head and row.head not in kind.heads + (("ensemble",) if kind.ensemble else ()):
                raise UserError(f"{name}: method {row.method} has no head '{row.head}'; remove it from the row")
            planned = PlannedRow(
                **_names(name, row, value),
                method=row.method,
                head=row.head,
                reference=runs[0].name == reference.name and row.head in (None, kind.predicts),
                pool=number if row.sweep else None,
                paper=row.paper.get(text_of(value), {}) if row.sweep else row.paper,
                published=row.published,
                runs=runs,
            )
            rows.append(planned)
    counts = Counter((row.series, row.label) for row in rows)
    if twice := [row.name for row in rows if counts[row.series, row.label] > 1]:
        raise UserError(f"{name}: two rows are called '{twice[0]}'; name each value once")
    return rows


def names_of_the_paper(name: str, table: Table) -> list[str]:
    """Return the names of the rows that the paper has values of, whatever config.yaml sweeps."""
    names = []
    for row in table.rows:
        values = map(value_of, row.paper) if row.sweep else [None] if row.paper else []
        names += [name_of(_names(name, row, value)) for value in values]
    return names


def check_sweeps(config: WorkflowConfig, tables: Iterable[Table]) -> None:
    """See that every sweep of config.yaml is one that a table has, of whichever protocol."""
    used = {row.sweep for table in tables for row in table.rows if row.sweep}
    for name in config.sweeps:
        if name not in used:
            how = f"(a row with `sweep: {name}` in a file under workflow/tables/ would use it)"
            raise UserError(f"config.yaml: sweeps.{name}: no table has this sweep, {nearest(name, used)} {how}")


def check_claims(name: str, table: Table, rows: list[PlannedRow], recipe: Recipe) -> None:
    """See that claims speak of rows that the table has, or would have with other values in its sweeps."""
    known = {row.name for row in rows} | set(names_of_the_paper(name, table))
    for number, claim in enumerate(table.claims):
        spoken_of = [term.row for term in claim.more + claim.less] + [claim.row] + claim.among + claim.apart
        for row in filter(None, spoken_of):
            if row not in known and not any(_could_be(row, each, recipe) for each in table.rows if each.sweep):
                raise UserError(f"{name}: claims.{number}: no row is called '{row}', {nearest(row, known)}")


def _could_be(name: str, row: Row, recipe: Recipe) -> bool:
    """Whether a row of a sweep has this name for some value."""
    fixed = re.split(r"\{[^}]*\}", f"{row.series} {row.label}".strip())
    match = re.fullmatch("(.+)".join(map(re.escape, fixed)), name)
    if match is None or "{value}" not in row.label:
        return match is not None
    value = value_of(match[1])
    try:
        run = recipe.run(row.method, row.changes | {str(row.sweep): value}, 1)
    except UserError:
        return False
    return text_of(flat(run.config.model_dump(mode="json")).get(str(row.sweep))) == match[1]


def _spelt_out(
    name: str, row: Row, fixed: dict[str, Any], recipe: Recipe, config: WorkflowConfig
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield each value of a row's sweep, as its runs have it, and the changes of these; without a sweep None."""
    if row.sweep is None:
        yield None, fixed
        return
    if row.sweep not in config.sweeps:
        raise UserError(f"config.yaml: sweeps.{row.sweep} is missing, {name} needs it; list its values there")
    for given in config.sweeps[row.sweep]:
        changes = fixed | {row.sweep: given}
        try:
            fields = flat(recipe.run(row.method, changes, config.seeds[0]).config.model_dump(mode="json"))
        except UserError as error:
            recipe.run(row.method, fixed, config.seeds[0])  # sound without the value
            raise UserError(f"config.yaml: sweeps.{row.sweep}: {str(error).partition(': ')[2]}") from None
        if row.sweep not in fields:
            raise UserError(f"{name}: sweep {row.sweep} is not one key; {nearest(row.sweep, fields)}")
        yield fields[row.sweep], changes


def _longer(name: str, row: Row, changes: dict[str, Any], recipe: Recipe, seed: int) -> dict[str, Any]:
    """Return a row's changes with epochs and drops of the learning rate times, and the warm-up the share, it says."""
    config: Any = recipe.run(row.method, changes, seed).config
    for key, read, is_given in (
        ("epochs_times", "epochs", row.epochs_times > 1),
        ("warmup_share", "warmup_epochs", row.warmup_share is not None),
    ):
        if is_given and not hasattr(config, read):
            raise UserError(f"{name}: row '{row.label}': method {row.method} has no {read}; remove {key}")
    if row.warmup_share is not None and "warmup_epochs" in {*flat(row.changes), row.sweep}:
        raise UserError(f"{name}: row '{row.label}': warmup_share is in place of warmup_epochs; give one of them")
    if row.epochs_times > 1:
        changes = changes | {"epochs": config.epochs * row.epochs_times}
        if config.lr_schedule == "drops":
            changes |= {"lr_drops": [epoch * row.epochs_times for epoch in config.lr_drops]}
    if row.warmup_share is not None:
        config = recipe.run(row.method, changes, seed).config
        most = max(0, config.epochs - config.plain_epochs - 1)
        changes = changes | {"warmup_epochs": min(round(row.warmup_share * config.epochs), most)}
    return changes


def _names(name: str, row: Row, value: Any) -> dict[str, Any]:
    """Return label and series of a row for a value of its sweep."""
    if row.sweep is None:
        return {"label": row.label, "series": row.series}
    parts = value if isinstance(value, list) else [value]
    try:
        return {key: getattr(row, key).format(*parts, value=text_of(value)) for key in ("label", "series")}
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        raise UserError(f"{name}: label '{row.label}' may hold {{value}}, {{0}}, {{1}} only") from None
