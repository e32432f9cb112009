"""The plan: config.yaml, a protocol and the declared tables become runs, their paths and targets.

Pure: it reads the declarations, knows nothing of torch and trains nothing. A run is named by what
it changes from the protocol's reference, so two tables that need the same run name the same path.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

from csa_core.code import code_digest, data_digest
from csa_core.config import RunConfig, load_yaml, parse_yaml, set_dotted, validate
from csa_core.errors import UserError, nearest
from csa_core.methods import METHODS, parent_of, parse, recipe
from csa_core.store import canonical, digest
from workflow.declarations import HERE, Protocol, Row, WorkflowConfig, load_tables

T = TypeVar("T")
# Further views of the runs of any table, as `curves-table5`; these are drawn without being asked for.
VIEWS = ("curves", "per_class", "bank", "pretraining")
USUAL_VIEWS = ["curves-baselines", "per_class-baselines", "bank-table2", "bank-table3", "pretraining-encoders"]


@dataclass(frozen=True)
class Run:
    """One training run: its place under `<results>/runs/`, and its configuration."""

    name: str
    config: RunConfig
    results: str = "results"

    @property
    def folder(self) -> str:
        """Folder of the results."""
        return f"{self.results}/runs/{self.name}/seed={self.config.seed}"

    @property
    def log(self) -> str:
        """File that the training's progress and errors go to."""
        return f"{self.results}/logs/runs/{self.name}/seed={self.config.seed}.log"

    @cached_property
    def json(self) -> str:
        """The configuration as one sorted JSON string, without what the run does not read."""
        return canonical(self.config.identity() | {"data": self.data_fields})

    @cached_property
    def digest(self) -> str:
        """Digest of the configuration."""
        return self.config.digest()

    @property
    def data_fields(self) -> dict[str, Any]:
        """The keys of `data` that its jobs read; images of lists are read again by every job, from where they lie."""
        fields: dict[str, Any] = self.config.identity()["data"]
        if self.config.data.source == "image_list":
            fields |= self.config.data.model_dump(mode="json", include={"root", "train_list", "test_list"})
        return fields

    @property
    def weights(self) -> str:
        """File of the trained weights."""
        return f"{self.folder}/weights.safetensors"

    @property
    def epochs(self) -> int:
        """How many epochs it trains."""
        return self.config.total_epochs

    @property
    def ranks(self) -> int:
        """How many processes train it."""
        return self.config.processes

    @property
    def kind(self) -> str:
        """What an epoch's time depends on."""
        return self.config.cost

    @cached_property
    def data(self) -> str:
        """Name of the data set."""
        data = self.config.data
        if data.selection:
            return f"selection-{Path(data.selection).stem}"
        size = f"-{data.image_size}px" if data.image_size else ""
        if data.source == "image_list":
            return f"list-{Path(str(data.train_list)).stem}-{data.side}px"
        return f"folder-{Path(data.root).resolve().name}{size}" if data.source == "folder" else data.source

    @cached_property
    def split(self) -> str:
        """Name of the long-tailed split."""
        data = self.config.data
        if data.profile in ("as_is", "selection"):
            return data.profile
        largest = f"-from-{data.max_class_count}" if data.max_class_count else ""
        return f"{data.profile}-{data.imbalance_ratio:g}{largest}-split_seed={data.split_seed}"


class Plan:
    """All that the rules ask: which runs a table needs, and which configuration a path stands for.

    Snakemake asks the same of each job again and again, so that answers are kept: a plan does not change.
    """

    def __init__(
        self, config: dict[str, Any], spell_out: Iterable[str] | None = None, codes: dict[str, str] | None = None
    ) -> None:
        """Read the declarations, and spell out all tables, or those few that are known to be needed at once.

        Args:
            codes: the code's digests by method, where they are known already.
        """
        self._codes = dict(codes or {})
        self.config = validate(WorkflowConfig, config, "config.yaml")
        if len(set(self.config.seeds)) < len(self.config.seeds):
            raise UserError(f"config.yaml: seeds {self.config.seeds} names a seed twice; name each once")
        self.results = Path(self.config.results).as_posix()
        self.state = Path(self.config.state or f"{self.results}/state").as_posix()
        self.protocol, self._base, own = _protocol(self.config)
        self.tables = load_tables(self.protocol)
        self._changes_of, self._paper_values = own.tables, own.paper_values
        for table in own.tables:
            if table not in self.tables:
                hint = nearest(table, self.tables)
                raise UserError(f"protocol {self.protocol}: tables.{table}: no such table, {hint}")
        self._data: dict[str, Run] = {}
        self._splits: dict[tuple[str, str], Run] = {}
        for name in self.tables if spell_out is None else spell_out:
            self.rows(name)

    @property
    def reference(self) -> Run:
        """The protocol's reference run at the first seed."""
        return self.run("csa", {}, self.config.seeds[0])

    def run(self, method: str, changes: dict[str, Any], seed: int) -> Run:
        """Return the run that changes the protocol so; values equal to the protocol's are no change."""
        try:
            return self._run(method, canonical(changes), seed)
        except ValueError:  # not JSON
            raise UserError(f"{method} with {changes}: NaN and infinity are no values; name a number") from None

    @cache  # noqa: B019 - one plan a process
    def _unchanged(self, method: str, seed: int) -> dict[str, Any]:
        """Return the flat keys of a method's run that changes nothing."""
        if method not in METHODS:
            raise UserError(f"protocol {self.protocol}: unknown method '{method}', {nearest(method, METHODS)}")
        fields = recipe(self._base, method) | {"seed": seed}
        return _flat(parse(fields, f"protocol {self.protocol}, {method}").model_dump(mode="json"))

    @cache  # noqa: B019
    def _run(self, method: str, changes: str, seed: int) -> Run:
        base = self._unchanged(method, seed)
        fields = recipe(self._base, method) | {"seed": seed}
        where = f"protocol {self.protocol}, {method}"
        for key, value in json.loads(changes).items():
            if key in ("method", "seed"):
                raise UserError(f"{where}: {key} is not a change; a row and config.yaml name it")
            fields = set_dotted(fields, key, value)
        config = parse(fields, where)
        changed = _flat(config.model_dump(mode="json"))
        kept = {key: value for key, value in changed.items() if base[key] != value}
        # Which images a profile names, and from where, goes with the profile.
        for key in kept.keys() - _flat(config.identity()).keys() - {"data.selection", "data.source"}:
            raise UserError(f"{where}: {key} has no effect with what the row and the overrides say; remove one of them")
        return self._named(config, base)

    def _named(self, config: RunConfig, base: dict[str, Any]) -> Run:
        """Return the run of a configuration, named by what it changes of `base` and reads."""
        changed, read = _flat(config.model_dump(mode="json")), _flat(config.identity())
        name = "+".join(f"{key}={_text(changed[key])}" for key in sorted(read) if base[key] != changed[key])
        run = Run("/".join(part for part in (self.protocol, config.method, name) if part), config, self.results)
        self._data.setdefault(run.data, run)
        self._splits.setdefault((run.data, run.split), run)
        return run

    def encoder_of(self, run: Run) -> Run | None:
        """Return the pre-training run whose encoder a run needs, None where it needs none."""
        config = parent_of(run.config)
        if config is None:
            return None
        return self._named(config, self._unchanged(config.method, config.seed))

    def with_encoders(self, runs: list[Run]) -> list[Run]:
        """Return runs and all that they need trained before, each once."""
        needed: dict[str, Run] = {}
        for run in runs:
            step: Run | None = run
            while step and step.folder not in needed:
                needed[step.folder] = step
                step = self.encoder_of(step)
        return list(needed.values())

    @cache  # noqa: B019
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
            changes[key] = _value(value)
        run = self.run(method, changes, int(seed))
        if run.name != f"{self.protocol}/{name}" or str(run.config.seed) != seed:
            raise UserError(f"target {name}/seed={seed}: is called {run.folder}; ask for that")
        return run

    def run_of(self, wildcards: Any) -> Run:
        """Return the run that the wildcards `run` and `seed` of a rule stand for."""
        return self.run_at(wildcards.run, wildcards.seed)

    def encoder_file(self, wildcards: Any) -> list[str]:
        """Return the weights that this run starts from, as the input of a rule: one file, or none."""
        encoder = self.encoder_of(self.run_of(wildcards))
        return [encoder.weights] if encoder else []

    @cache  # noqa: B019
    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return the rows of a table with sweeps spelt out, and the run and digests of each."""
        rows = []
        reference = self.run("csa", self._changes_of.get(table, {}), self.config.seeds[0])
        for row, values in self._spelt_out(table):
            runs = [self.run(row.method, values["changes"], seed) for seed in self.config.seeds]
            kind = METHODS[row.method]
            heads = kind.heads + (("ensemble",) if kind.ensemble else ())
            if row.head and row.head not in heads:
                raise UserError(f"{table}: method {row.method} has no head '{row.head}'; remove it from the row")
            is_reference = runs[0].name == reference.name and row.head in (None, kind.predicts)
            rows.append(
                {
                    "label": values["label"],
                    "series": values["series"],
                    "head": row.head,
                    "reference": is_reference,
                    "pool": values["pool"],
                    "paper": values["paper"] if self.paper_heading else {},
                    "run": runs[0].name,
                    "code": self.code_of(row.method),
                    "digests": [run.digest for run in runs],
                }
            )
        names = [(row["series"], row["label"]) for row in rows]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise UserError(f"{table}: two rows are called '{' '.join(twice[0]).strip()}'; name each value once")
        return rows

    def _spelt_out(self, table: str) -> Iterator[tuple[Row, dict[str, Any]]]:
        """Yield each row of a table, once for each value where it stands for a sweep; `pool` numbers the sweep."""
        for number, row in enumerate(self.tables[table].rows):
            fixed = self._longer(row, self._changes_of.get(table, {}) | row.changes)
            if row.sweep is None:
                yield row, _names(table, row, None) | {"changes": fixed, "paper": row.paper, "pool": None}
                continue
            if row.sweep not in self.config.sweeps:
                raise UserError(f"config.yaml: sweeps.{row.sweep} is missing, {table} needs it; list its values there")
            for given in self.config.sweeps[row.sweep]:
                changes = fixed | {row.sweep: given}
                fields = _flat(self.run(row.method, changes, self.config.seeds[0]).config.model_dump(mode="json"))
                if row.sweep not in fields:
                    raise UserError(f"{table}: sweep {row.sweep} is not one key; {nearest(row.sweep, fields)}")
                text = _text(fields[row.sweep])
                own = {"changes": changes, "paper": row.paper.get(text, {}), "pool": number}
                yield row, _names(table, row, fields[row.sweep]) | own

    def _longer(self, row: Row, changes: dict[str, Any]) -> dict[str, Any]:
        """Return a row's changes with epochs and drops of the learning rate times what it says."""
        if row.epochs_times == 1:
            return changes
        config: Any = self.run(row.method, changes, self.config.seeds[0]).config
        longer: dict[str, Any] = {"epochs": config.epochs * row.epochs_times}
        if config.lr_schedule == "drops":
            longer["lr_drops"] = [epoch * row.epochs_times for epoch in config.lr_drops]
        return changes | longer

    def _own_rows(self, table: str) -> list[str]:
        """Return the names of the rows that the paper has values of, or of all rows where it has none."""
        own = []
        for row in self.tables[table].rows:
            values = map(_value, row.paper) if row.sweep else [None] if row.paper else []
            own += [name_of(_names(table, row, value)) for value in values]
        return own or [name_of(row) for row in self.rows(table)]

    @cache  # noqa: B019
    def runs_of(self, table: str) -> list[Run]:
        """Return every run that a table needs, each once."""
        runs = {}
        for row, values in self._spelt_out(table):
            for seed in self.config.seeds:
                run = self.run(row.method, values["changes"], seed)
                runs[run.folder] = run
        return list(runs.values())

    def all_runs(self) -> list[Run]:
        """Return every run that any table needs, and their encoders, each once."""
        return self.with_encoders([run for table in self.tables for run in self.runs_of(table)])

    def declaration(self, table: str) -> dict[str, Any]:
        """Return all that a table is made from; two equal ones give the same table from the same runs.

        Raises:
            UserError: no such table.
        """
        if table not in self.tables:
            raise UserError(f"{table}: no such table, {nearest(table, self.tables)}")
        shown = self.tables[table].model_dump(mode="json", exclude={"rows"})
        facts: dict[str, Any] = {"results": self.results, "overrides": self.config.overrides}
        facts |= {"name": table, "protocol": self.protocol, "paper_heading": self.paper_heading}
        facts |= {"seeds": self.config.seeds, "rows": self.rows(table)}
        claims = [claim | {"among": claim["among"] or self._own_rows(table)} for claim in shown["claims"]]
        return shown | facts | {"claims": claims}

    @cache  # noqa: B019
    def drawing(self, *tables: str) -> str:
        """Return a digest that changes when one of these tables, or a figure of it, must be drawn anew."""
        return digest([self.declaration(table) for table in tables])

    def code_of(self, method: str) -> str:
        """Return the version of the code that a method's results carry: the pinned one, or the code's digest."""
        if self.config.code_version:
            return self.config.code_version
        if method not in self._codes:
            self._codes[method] = code_digest(method)
        return self._codes[method]

    @property
    def codes(self) -> dict[str, str]:
        """The versions of the code of all methods."""
        return {method: self.code_of(method) for method in METHODS}

    @property
    def data_code(self) -> str:
        """Version of the code that makes data sets and splits."""
        return self.config.code_version or data_digest()

    @property
    def figures(self) -> list[str]:
        """Names of the figures that are always drawn: the declared ones, and the usual views."""
        views = [view for view in USUAL_VIEWS if view.partition("-")[2] in self.tables]
        return [name for name, table in self.tables.items() if table.draw != "no"] + views

    def drawn(self, figure: str) -> tuple[str, str]:
        """Return what kind of figure it is, and the table whose runs it draws: `figure1`, `curves-table5`.

        Raises:
            UserError: no such figure.
        """
        kind, _, table = figure.rpartition("-")
        known = kind in VIEWS if kind else figure in self.figures
        if not known or table not in self.tables:
            raise UserError(f"{figure}: no such figure, {nearest(figure, self.figures)}")
        return kind or "points", table

    def table_of(self, figure: str) -> str:
        """Return the table whose runs a figure draws."""
        return self.drawn(figure)[1]

    def finished(self, table: str) -> str:
        """Return which runs of a table are there, so that a partial table knows when it is out of date."""
        paths = [Path(run.folder, "metrics.json") for run in self.runs_of(table)]
        return digest([str(path) for path in paths if path.exists()])

    @cached_property
    def paper_heading(self) -> str | None:
        """What heads the paper's printed values, where the protocol lets them stand beside ours.

        Overrides forbid them, but for those that say where the same images come from.
        """
        flat = _flat(self.config.overrides)
        is_recipe = flat.keys() <= {"data.source", "data.root", "data.selection"}
        return self._paper_values if is_recipe and flat.get("data.source") not in ("demo", "cifar10") else None

    def splits(self) -> list[str]:
        """Return the split files of all runs; each is made from its data set's file."""
        self.all_runs()
        return [f"{self.results}/data/{data}/{split}.json" for data, split in self._splits]

    def data_json(self, data: str) -> str:
        """Return the configuration that makes a data set, as one sorted JSON string."""
        if data not in self._data:
            raise UserError(f"target {self.results}/data/{data}: no run uses it, {nearest(data, self._data)}")
        config = self._data[data].config.data
        reads = {
            "demo": {"source"},
            "folder": {"source", "root", "image_size"},
            "image_list": {"source", "root", "image_size", "train_list", "test_list"},
        }
        read = reads.get(config.source, {"source", "root"}) | ({"profile", "selection"} if config.selection else set())
        return canonical({"data": config.model_dump(mode="json", include=read)})

    def data_files(self, data: str) -> str:
        """Return a digest of names, sizes and times of a folder's images or of lists: a changed one is read again."""
        config = self._data[data].config.data
        if config.source not in ("folder", "image_list"):
            return ""
        lists = [Path(str(path)) for path in (config.train_list, config.test_list) if Path(str(path)).is_file()]
        files = lists or sorted(path for path in Path(config.root).glob("t*/*/*") if path.is_file())
        return digest([(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files])

    def split_json(self, data: str, split: str) -> str:
        """Return the configuration that makes a split, as one sorted JSON string."""
        if (data, split) not in self._splits:
            names = [name for of, name in self._splits if of == data]
            raise UserError(f"target {self.results}/data/{data}/{split}.json: no run uses it, {nearest(split, names)}")
        fields = self._splits[data, split].data_fields
        del fields["groups"]  # groups are of scores
        return canonical({"data": fields})


def or_one_line(function: Callable[..., T], *args: Any) -> T:
    """Call `function` for a rule; on bad input print its one line and exit with 2.

    Snakemake itself would show a traceback and exit with 1.
    """
    try:
        return function(*args)
    except UserError as error:
        print(f"snakemake: {error}", file=sys.stderr)
        sys.exit(2)


def retyped(value: Any) -> Any:
    """Return a list or mapping of `--config` with its numbers: Snakemake leaves all within it as text, `['1', '2']`.

    Raises:
        UserError: text within it is not YAML.
    """
    if isinstance(value, dict):
        return {key: retyped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [retyped(inner) for inner in value]
    read = parse_yaml(value, "--config") if isinstance(value, str) else value
    return value if isinstance(read, dict | list) else read  # text in quotes that looks like one


def _protocol(config: WorkflowConfig) -> tuple[str, dict[str, Any], Protocol]:
    """Return the protocol's name, the fields of its runs with overrides applied, and what else it says."""
    known = {path.stem: path for path in (HERE / "protocols").glob("*.yaml")}
    path = known.get(config.protocol, Path(config.protocol))
    if path.stem in known and config.protocol not in known:
        raise UserError(f"config.yaml: protocol: {path} has the name of a protocol of the project; rename it")
    if config.protocol not in known and path.suffix not in (".yaml", ".yml"):
        hint = nearest(config.protocol, known)
        raise UserError(f"config.yaml: protocol: unknown name '{config.protocol}', {hint} (or a path ending in .yaml)")
    fields = load_yaml(path) or {}
    if isinstance(fields, dict):
        own = validate(Protocol, {key: fields.pop(key) for key in Protocol.model_fields if key in fields}, str(path))
    _check_recipe(fields, str(path))
    for key in ("method", "seed"):
        if key in fields or key in config.overrides:
            raise UserError(f"{path}: {key} is not a protocol's to set; tables and config.yaml name it")
    for key, value in config.overrides.items():
        fields = set_dotted(fields, key, value)
    if config.data_root:
        fields = set_dotted(fields, "data.root", config.data_root)
    _check_recipe(fields, "config.yaml: overrides" if config.overrides else str(path))
    return path.stem, fields, own


def _names(table: str, row: Row, value: Any) -> dict[str, Any]:
    """Return label and series of a row for a value of its sweep."""
    if row.sweep is None:
        return {"label": row.label, "series": row.series}
    parts = value if isinstance(value, list) else [value]
    try:
        return {name: getattr(row, name).format(*parts, value=_text(value)) for name in ("label", "series")}
    except (KeyError, IndexError, ValueError):
        raise UserError(f"{table}: label '{row.label}' may hold {{value}}, {{0}}, {{1}} alone") from None


def name_of(row: dict[str, Any]) -> str:
    """Return what claims and figures call a row: its series, if any, and its label."""
    return f"{row['series']} {row['label']}".strip()


def _check_recipe(fields: Any, where: str) -> None:
    """See that every method can be trained by a recipe."""
    if not isinstance(fields, dict):
        parse(fields, where)
    for method in METHODS:
        parse(recipe(fields, method), where)


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
        return ",".join(_text(item) for item in value) + ("," if len(value) < 2 else "")
    return canonical(value).strip('"')


def _value(text: str) -> Any:
    """Read a value that `_text` wrote: a list of one has a comma behind it, as in Python, an empty one is a comma."""
    if "," in text:
        return [_value(item) for item in text.split(",") if item]
    try:
        return json.loads(text)
    except ValueError:
        return text
