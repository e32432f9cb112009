"""The plan: config.yaml, a protocol and the declared tables become runs, their paths and targets.

Pure: it reads the declarations, knows nothing of torch and trains nothing. A run is named by what
it changes from the protocol's reference, so two tables that need the same run name the same path.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from csa_core.config import RunConfig, load_yaml, parse, set_dotted, validate
from csa_core.errors import UserError, nearest
from csa_core.store import canonical, code_digest, digest
from workflow.declarations import HERE, Row, WorkflowConfig, load_tables

T = TypeVar("T")
# Further figures: name -> (kind, table whose runs it draws).
VIEWS = {
    "curves": ("curves", "baselines"),
    "per_class": ("per_class", "baselines"),
    "bank_by_threshold": ("bank", "table2"),
    "bank_by_volume": ("bank", "table3"),
}


@dataclass(frozen=True)
class Run:
    """One training run: its place under `results/runs/`, and its configuration."""

    name: str
    config: RunConfig

    @property
    def folder(self) -> str:
        """Folder of the results."""
        return f"results/runs/{self.name}/seed={self.config.seed}"

    @property
    def json(self) -> str:
        """The configuration as one sorted JSON string, without what the method does not read."""
        return canonical(self.config.identity() | {"data": self.config.data.model_dump(mode="json")})

    @property
    def data(self) -> str:
        """Name of the data set."""
        data = self.config.data
        size = f"-{data.image_size}px" if data.image_size else ""
        return f"folder-{Path(data.root).name}{size}" if data.source == "folder" else data.source

    @property
    def split(self) -> str:
        """Name of the long-tailed split."""
        data = self.config.data
        if data.profile == "as_is":
            return "as_is"
        largest = f"-from-{data.max_class_count}" if data.max_class_count else ""
        return f"{data.profile}-{data.imbalance_ratio:g}{largest}-split_seed={data.split_seed}"


class Plan:
    """All that the rules ask: which runs a table needs, and which configuration a path stands for."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = validate(WorkflowConfig, config, "config.yaml")
        if len(set(self.config.seeds)) < len(self.config.seeds):
            raise UserError(f"config.yaml: seeds {self.config.seeds} names a seed twice; name each once")
        self.protocol, self._base = _protocol(self.config)
        self.tables = load_tables()
        self._data: dict[str, Run] = {}
        self._splits: dict[tuple[str, str], Run] = {}
        for name in self.tables:
            self.runs_of(name)

    @property
    def reference(self) -> Run:
        """The protocol's reference run at the first seed."""
        return self.run("csa", {}, self.config.seeds[0])

    def run(self, method: str, changes: dict[str, Any], seed: int) -> Run:
        """Return the run that changes the protocol so; values equal to the protocol's are no change."""
        return self._run(method, canonical(changes), seed)

    @cache  # noqa: B019 - one plan a process
    def _run(self, method: str, changes: str, seed: int) -> Run:
        fields = self._base | {"method": method, "seed": seed}
        where = f"protocol {self.protocol}, {method}"
        base = parse(fields, where)
        for key, value in json.loads(changes).items():
            fields = set_dotted(fields, key, value)
        config = parse(fields, where)
        changed = _flat(config.model_dump(mode="json"))
        kept = {key: value for key, value in changed.items() if _flat(base.model_dump(mode="json"))[key] != value}
        for key in kept:
            if key.partition(".")[0] not in config.reads():
                raise UserError(f"{where}: {key} has no effect there; remove it from the row")
        name = "+".join(f"{key}={_text(kept[key])}" for key in sorted(kept))
        run = Run("/".join(part for part in (self.protocol, method, name) if part), config)
        self._data.setdefault(run.data, run)
        self._splits.setdefault((run.data, run.split), run)
        return run

    def run_at(self, name: str, seed: str) -> Run:
        """Return the run that a person typed: `csa/threshold=0.3` and a seed.

        Raises:
            UserError: it is not a run, or not written the one way that this plan writes it.
        """
        method, _, text = name.partition("/")
        changes: dict[str, Any] = {}
        for part in filter(None, text.split("+")):
            key, equals, value = part.partition("=")
            if not equals:
                raise UserError(f"target {name}: expected key=value, as in csa/threshold=0.3, got '{part}'")
            values = [_value(item) for item in value.split(",")]
            changes[key] = values if len(values) > 1 else values[0]
        run = self.run(method, changes, int(seed))
        if run.name != f"{self.protocol}/{name}" or str(int(seed)) != seed:
            raise UserError(f"target {name}/seed={seed}: is called {run.folder}; ask for that")
        return run

    def run_of(self, wildcards: Any) -> Run:
        """Return the run that the wildcards `run` and `seed` of a rule stand for; a wrong one ends Snakemake."""
        return or_one_line(self.run_at, wildcards.run, wildcards.seed)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return the rows of a table with sweeps spelt out, and the run and digests of each."""
        rows = []
        for row, values in self._spelt_out(table):
            runs = [self.run(row.method, values["changes"], seed) for seed in self.config.seeds]
            is_reference = runs[0].name == self.reference.name and row.head in (None, "resampling")
            rows.append(
                {
                    "label": values["label"],
                    "series": values["series"],
                    "head": row.head,
                    "reference": is_reference,
                    "paper": values["paper"] if self.is_paper else {},
                    "run": runs[0].name,
                    "digests": [run.config.digest() for run in runs],
                }
            )
        return rows

    def _spelt_out(self, table: str) -> Iterator[tuple[Row, dict[str, Any]]]:
        """Yield each row of a table, once for each value where it stands for a sweep."""
        for row in self.tables[table].rows:
            if row.sweep is None:
                yield row, {"label": row.label, "series": row.series, "changes": row.changes, "paper": row.paper}
                continue
            if row.sweep not in self.config.sweeps:
                raise UserError(f"config.yaml: sweeps.{row.sweep} is missing, {table} needs it; list its values there")
            for given in self.config.sweeps[row.sweep]:
                changes = row.changes | {row.sweep: given}
                config = self.run(row.method, changes, self.config.seeds[0]).config
                value = _flat(config.model_dump(mode="json"))[row.sweep]
                parts, text = value if isinstance(value, list) else [value], _text(value)
                names = {name: getattr(row, name).format(*parts, value=text) for name in ("label", "series")}
                yield row, names | {"changes": changes, "paper": row.paper.get(text, {})}

    def runs_of(self, table: str) -> list[Run]:
        """Return every run that a table needs, each once."""
        runs = {}
        for row, values in self._spelt_out(table):
            for seed in self.config.seeds:
                run = self.run(row.method, values["changes"], seed)
                runs[run.folder] = run
        return list(runs.values())

    def all_runs(self) -> list[Run]:
        """Return every run that any table needs, each once."""
        return list({run.folder: run for table in self.tables for run in self.runs_of(table)}.values())

    def declaration(self, table: str) -> dict[str, Any]:
        """Return all that a table is made from; two equal ones give the same table from the same runs.

        Raises:
            UserError: no such table.
        """
        if table not in self.tables:
            raise UserError(f"{table}: no such table, {nearest(table, self.tables)}")
        shown = self.tables[table].model_dump(mode="json", exclude={"rows"})
        facts = {"name": table, "protocol": self.protocol, "overrides": self.config.overrides}
        return shown | facts | {"seeds": self.config.seeds, "rows": self.rows(table)}

    def drawing(self, *tables: str) -> str:
        """Return a digest that changes when one of these tables, or a figure of it, must be drawn anew."""
        return digest([self.declaration(table) for table in tables] + [self.code])

    @property
    def code(self) -> str:
        """Code version that results carry: the pinned one, or the digest of the code."""
        return self.config.code_version or code_digest()

    def to_estimate(self) -> dict[str, Any]:
        """Return what `workflow.estimate` needs of every run and table."""
        kinds = {"csa": "two branches"}
        runs = {
            run.folder: {"epochs": run.config.epochs, "kind": kinds.get(run.config.method, "one branch")}
            for run in self.all_runs()
        }
        return {"runs": runs, "tables": {t: [run.folder for run in self.runs_of(t)] for t in self.tables}}

    @property
    def figures(self) -> list[str]:
        """Names of all figures: the declared ones, and further views of the runs of a table."""
        return [name for name, table in self.tables.items() if table.draw != "no"] + list(VIEWS)

    def drawn(self, figure: str) -> tuple[str, str]:
        """Return what kind of figure it is, and the table whose runs it draws."""
        if figure not in self.figures:
            raise UserError(f"{figure}: no such figure, {nearest(figure, self.figures)}")
        return VIEWS.get(figure, ("points", figure))

    def finished(self, table: str) -> str:
        """Return which runs of a table are there, so that a partial table knows when it is out of date."""
        paths = [Path(run.folder, "metrics.json") for run in self.runs_of(table)]
        return digest([str(path) for path in paths if path.exists()])

    @property
    def is_paper(self) -> bool:
        """Whether runs are the paper's own, so that its printed values may stand beside ours."""
        return self.protocol == "paper" and not self.config.overrides

    def data_json(self, data: str) -> str:
        """Return the configuration that makes a data set, as one sorted JSON string."""
        fields = self._data[data].config.data.model_dump(mode="json", include={"source", "root", "image_size"})
        return canonical({"data": fields})

    def split_json(self, data: str, split: str) -> str:
        """Return the configuration that makes a split, as one sorted JSON string."""
        return canonical({"data": self._splits[data, split].config.data.model_dump(mode="json")})


def or_one_line(function: Callable[..., T], *args: Any) -> T:
    """Call `function`; on bad input print its one line and exit with 2, where Snakemake would print a traceback."""
    try:
        return function(*args)
    except UserError as error:
        print(f"snakemake: {error}", file=sys.stderr)
        sys.exit(2)


def _protocol(config: WorkflowConfig) -> tuple[str, dict[str, Any]]:
    """Return the name and the fields of the protocol, overrides applied and checked."""
    known = {path.stem: path for path in (HERE / "protocols").glob("*.yaml")}
    path = known.get(config.protocol, Path(config.protocol))
    if config.protocol not in known and path.suffix not in (".yaml", ".yml"):
        hint = nearest(config.protocol, known)
        raise UserError(f"config.yaml: protocol: unknown name '{config.protocol}', {hint} (or a path ending in .yaml)")
    fields = load_yaml(path) or {}
    parse(fields, str(path))
    for key in ("method", "seed"):
        if key in fields or key in config.overrides:
            raise UserError(f"{path}: {key} is not a protocol's to set; tables and config.yaml name it")
    for key, value in config.overrides.items():
        fields = _overlay(fields, key, value)
    parse(fields, "config.yaml: overrides" if config.overrides else str(path))
    return path.stem, fields


def _overlay(fields: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        for inner, leaf in value.items():
            fields = _overlay(fields, f"{key}.{inner}", leaf)
        return fields
    return set_dotted(fields, key, value)


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    """Return nested fields with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": leaf for inner, leaf in value.items()}
        else:
            flat[key] = value
    return flat


def _text(value: Any) -> str:
    """Write a value as it stands in a path; floats by repr, so that 0.3 is 0.3."""
    if isinstance(value, list):
        return ",".join(_text(item) for item in value)
    return canonical(value).strip('"')


def _value(text: str) -> Any:
    """Read a value that `_text` wrote."""
    try:
        return json.loads(text)
    except ValueError:
        return text
