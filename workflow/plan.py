"""The plan: what config.yaml, a protocol and the declared tables ask for, as runs, tables, figures and data sets.

It knows nothing of torch and trains nothing. The names of runs are `workflow.naming`'s.
"""

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from csa_core.code import code_digest, data_digest
from csa_core.config import validate
from csa_core.errors import UserError, nearest
from csa_core.methods import METHODS
from csa_core.store import digest
from workflow.declarations import WorkflowConfig, load_own_tables, load_tables
from workflow.naming import Run
from workflow.protocol import check_keys, folder_of, paper_heading, read_protocol, tables_of
from workflow.rows import PlannedRow, check_claims, check_sweeps, names_of_the_paper, planned_rows
from workflow.sources import Sources, contents, dataset_json, files_digest, split_json

# Further views of the runs of any table, as `curves-table5`; these are drawn without being asked for.
VIEWS = ("curves", "per_class", "classes", "confusion", "bank", "pretraining")
USUAL_VIEWS = ["curves-baselines", "per_class-baselines", "classes-baselines", "confusion-baselines"]
USUAL_VIEWS += ["bank-table2", "bank-table3", "pretraining-encoders"]


class Plan:
    """All that the rules ask: which runs a table needs, and which configuration a path stands for.

    Snakemake asks the same of each job again and again, so that answers are kept: a plan
    does not change, but that typed paths bring data sets and splits of their own.
    """

    def __init__(
        self, config: dict[str, Any], spell_out: Iterable[str] | None = None, codes: dict[str, str] | None = None
    ) -> None:
        """Read the declarations, and spell out all tables, or those few that are known to be needed at once.

        Args:
            codes: the code's digests by method, where they are known already.
        """
        check_keys(config)
        self.config = validate(WorkflowConfig, config, "config.yaml")
        if len(set(self.config.seeds)) < len(self.config.seeds):
            raise UserError(f"config.yaml: seeds {self.config.seeds} names a seed twice; name each once")
        self.recipe, self._own = read_protocol(self.config)
        self.protocol, self.results = self.recipe.protocol, self.recipe.results
        self.shared = Path(self.results).parent.as_posix()
        self.state = folder_of(self.config.state or f"{self.shared}/state", "state")
        every = load_tables()
        mine = load_own_tables(self.config.tables, every)
        self.tables = tables_of(self.protocol, self._own, every, mine)
        self.paper_heading = paper_heading(self.config, self._own)
        self._codes = dict(codes or {})
        for name in self.tables if spell_out is None else spell_out:
            self.rows(name)
        if spell_out is None:
            check_sweeps(self.config, [*every.values(), *mine.values()])
            for name, table in self.tables.items():
                check_claims(name, table, self.rows(name), self.recipe)

    # Runs.

    @property
    def reference(self) -> Run:
        """The protocol's reference run at the first seed."""
        return self.run("csa", {}, self.config.seeds[0])

    def run(self, method: str, changes: dict[str, Any], seed: int) -> Run:
        """Return the run that changes the protocol so."""
        return self.recipe.run(method, changes, seed)

    def run_at(self, name: str, seed: str) -> Run:
        """Return the run that a person typed; from then on its data set and split may be asked for, too."""
        run = self.recipe.run_at(name, seed)
        self._sources.add(run)
        return run

    def parent_files(self, run: Run) -> list[str]:
        """Return the weights that a run starts from: one file, or none."""
        parent = self.recipe.parent_of(run)
        return [parent.weights] if parent else []

    def with_parents(self, runs: list[Run]) -> list[Run]:
        """Return runs and all that they need trained before, each once."""
        needed: dict[str, Run] = {}
        for run in runs:
            step: Run | None = run
            while step and step.folder not in needed:
                needed[step.folder] = step
                step = self.recipe.parent_of(step)
        return list(needed.values())

    @cache  # noqa: B019 - one plan a process
    def runs_of(self, table: str) -> list[Run]:
        """Return every run that a table needs, each once."""
        return list({run.folder: run for row in self.rows(table) for run in row.runs}.values())

    def all_runs(self) -> list[Run]:
        """Return every run that a table of `all` needs, and those that they start from, each once."""
        return self.with_parents([run for table in self.usual for run in self.runs_of(table)])

    def every_run(self) -> list[Run]:
        """Return those of `all`, and after them those that the other tables need beside."""
        return self.with_parents([*self.all_runs(), *(run for table in self.extra for run in self.runs_of(table))])

    # Tables and figures.

    @property
    def usual(self) -> list[str]:
        """Names of the tables that `all` makes."""
        return [name for name, table in self.tables.items() if not table.extra]

    @property
    def choosing(self) -> list[str]:
        """Names of those of them that have a sweep whose value validation images can choose."""
        return [name for name in self.usual if self.chooses(name)]

    def chooses(self, table: str) -> bool:
        """Whether a table has a sweep of several values, all with validation images, and with the same."""
        pools: dict[int, list[Run]] = defaultdict(list)
        for row in self.rows(table):
            if row.pool is not None:
                pools[row.pool].append(row.runs[0])
        return any(
            len(runs) > 1
            and all(run.config.data.validates for run in runs)
            and len({(run.data, run.split) for run in runs}) == 1
            for runs in pools.values()
        )

    @property
    def extra(self) -> list[str]:
        """Names of the tables that are made by `extra` alone."""
        return [name for name, table in self.tables.items() if table.extra]

    @cache  # noqa: B019
    def rows(self, table: str) -> list[PlannedRow]:
        """Return the rows of a table with sweeps spelt out; the paper's values where they may stand there."""
        changes = self._own.tables.get(table, {})
        rows = planned_rows(table, self.tables[table], changes, self.recipe, self.config)
        return rows if self.paper_heading else [replace(row, paper={}, published="") for row in rows]

    def declaration(self, table: str) -> dict[str, Any]:
        """Return all that a table is made from; two equal ones give the same table from the same runs.

        Raises:
            UserError: no such table.
        """
        if table not in self.tables:
            raise UserError(f"{table}: no such table, {nearest(table, self.tables)}")
        rows = self.rows(table)
        figure = self.config.figure.model_dump(exclude_defaults=True)
        shown = self.tables[table].model_dump(mode="json", exclude={"rows"})
        facts: dict[str, Any] = {"results": self.results, "overrides": self.config.overrides}
        facts |= {"name": table, "protocol": self.protocol, "paper_heading": self.paper_heading}
        facts |= {"seeds": self.config.seeds, "rows": [self._declared(row) for row in rows]}
        own = names_of_the_paper(table, self.tables[table]) or [row.name for row in rows]
        claims = [claim | {"among": claim["among"] or own} for claim in shown["claims"]]
        return shown | facts | {"claims": claims} | ({"figure": figure} if figure else {})

    def _declared(self, row: PlannedRow) -> dict[str, Any]:
        parent = self.recipe.parent_of(row.runs[0])
        return row.declaration(self.code_of(row.method)) | {
            "parent": parent.name if parent else None,
            "data": row.runs[0].data,
            "split": row.runs[0].split,
        }

    @cache  # noqa: B019
    def drawing(self, *tables: str) -> str:
        """Return a digest that changes when one of these tables, or a figure of it, must be drawn anew."""
        return digest([self.declaration(table) for table in tables])

    def finished(self, table: str) -> str:
        """Return which results a table's runs have, so that a partial table knows when it is out of date."""
        paths = {run.folder: Path(run.folder, "metrics.json") for run in self.runs_of(table)}
        return digest(contents(paths, Path(self.state, "cache", f"metrics-{table}.json")))

    @property
    def figures(self) -> list[str]:
        """Names of the figures that `all` draws: the declared ones, and the usual views."""
        views = [view for view in USUAL_VIEWS if view.partition("-")[2] in self.tables]
        return [name for name in self.usual if self.tables[name].draw != "no"] + views

    @property
    def extra_figures(self) -> list[str]:
        """Names of the declared figures of the extra tables."""
        return [name for name in self.extra if self.tables[name].draw != "no"]

    def drawn(self, figure: str) -> tuple[str, str]:
        """Return what kind of figure it is, and the table whose runs it draws: `table2`, `curves-table5`.

        Raises:
            UserError: no such figure.
        """
        kind, _, table = figure.rpartition("-")
        if (kind and kind not in VIEWS) or table not in self.tables:
            raise UserError(f"{figure}: no such figure, {nearest(figure, [*self.figures, *self.tables])}")
        return kind or "points", table

    # Code.

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

    # Data sets and splits.

    @cached_property
    def _sources(self) -> Sources:
        """The data sets and splits that runs need: planned ones, and each that was typed."""
        return Sources(f"{self.shared}/data", [self.reference, *self.every_run()])

    def splits(self) -> list[str]:
        """Return the split files of all runs; each is made from its data set's file."""
        return self._sources.splits()

    def data_json(self, data: str, with_places: bool = True) -> str:
        """Return the configuration that makes a data set, as one sorted JSON string."""
        return dataset_json(self._sources.with_dataset(data), with_places)

    @cache  # noqa: B019
    def data_files(self, data: str) -> str:
        """Return a digest of the files that a data set is read from, so that changed ones are read again."""
        return files_digest(self._sources.with_dataset(data), Path(self.state, "cache", f"files-{data}.json"))

    def data_place(self, data: str) -> str:
        """Return where one's own images lie, a folder or a list, as an absolute path; nothing of other data sets."""
        config = self._sources.with_dataset(data).config.data
        own = {"folder": config.root, "image_list": config.train_list}.get(config.source)
        return os.path.realpath(own) if own and not config.selection else ""

    def split_json(self, data: str, split: str) -> str:
        """Return the configuration that makes a split, as one sorted JSON string."""
        return split_json(self._sources.with_split(data, split))
