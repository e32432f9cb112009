"""Names of runs: what a run changes of its protocol is its path, and a path that a person typed is a run again.

Two tables that need the same run so name the same path. Nothing here is read from a file or remembered but answers.
"""

import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from csa_core.config import PLACES, RunConfig, flat, set_dotted
from csa_core.errors import UserError, nearest, printable
from csa_core.methods import METHODS, parent_of, parse, recipe
from csa_core.store import canonical


@dataclass(frozen=True)
class Run:
    """One training run: its place under `<results>/<protocol>/runs/`, and its configuration."""

    name: str
    """What it changes: `csa/threshold=0.3`."""
    config: RunConfig
    results: str
    """Folder of all that is of its protocol."""

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

    @cached_property
    def parent_digest(self) -> str | None:
        """Digest of the configuration of the run that it starts from, None where it starts from none."""
        parent = parent_of(self.config)
        return None if parent is None else parent.digest()

    @property
    def data_fields(self) -> dict[str, Any]:
        """The keys of `data` that its jobs read; images of lists are read again by every job, from where they lie."""
        fields: dict[str, Any] = self.config.identity()["data"]
        if self.config.data.source == "image_list":
            fields |= self.config.data.model_dump(mode="json", include=PLACES, exclude_none=True)
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
        """Name of the data set; letters that Snakemake reads as a pattern are `_`."""
        return re.sub("[{}<>]", "_", self._data)

    @property
    def _data(self) -> str:
        data = self.config.data
        if data.selection:
            return tidy(f"selection-{Path(data.selection).stem}")
        more = "" if "resize" in data.as_before() else f"-{data.resize}"
        more += f"-{Path(val).stem}" if (val := data.val_folder or data.val_list) else ""
        size = f"-{data.image_size}px" if data.image_size else ""
        if data.source == "image_list":
            return tidy(f"list-{Path(str(data.train_list)).stem}-{data.side}px{more}")
        return tidy(f"folder-{Path(data.root).resolve().name}{size}{more}") if data.source == "folder" else data.source

    @cached_property
    def split(self) -> str:
        """Name of the long-tailed split."""
        data = self.config.data
        held = (
            f"-validation={text_of(data.validation)}-validation_seed={data.validation_seed}" if data.validation else ""
        )
        if data.profile in ("as_is", "selection"):
            return f"{data.profile}{held}"
        largest = f"-from-{data.max_class_count}" if data.max_class_count else ""
        which = data.subset if data.subset == "conventional" else f"split_seed={data.split_seed}"
        short = f"{data.imbalance_ratio:g}"  # six digits; a ratio that needs more has all, or two splits had one name
        ratio = short if float(short) == data.imbalance_ratio else text_of(data.imbalance_ratio)
        return f"{data.profile}-{ratio}{largest}-{which}{held}"


@dataclass(frozen=True, eq=False)  # compared by identity, so that its answers can be kept
class Recipe:
    """What all runs of a protocol have in common; it turns what one changes into a `Run`, and a path into one."""

    protocol: str
    fields: dict[str, Any]
    """Keys of its runs, with overrides applied; some may be of certain methods alone."""
    results: str
    """Folder of all that is of it."""

    def run(self, method: str, changes: dict[str, Any], seed: int) -> Run:
        """Return the run that changes the protocol so; values equal to the protocol's are no change.

        Raises:
            UserError: there is no such run.
        """
        try:
            text = canonical(changes)
        except ValueError:  # not JSON
            raise UserError(f"{method} with {changes}: NaN and infinity are not allowed; name a number") from None
        return self._run(method, text, seed)

    @cache  # noqa: B019 - one recipe a process
    def _run(self, method: str, changes: str, seed: int) -> Run:
        self._unchanged(method, seed)  # says what is wrong without the changes
        fields = recipe(self.fields, method) | {"seed": seed}
        where = f"protocol {self.protocol}, {method}"
        for key, value in json.loads(changes).items():
            if key in ("method", "seed"):
                raise UserError(f"{where}: {key} is not a change; a row and config.yaml name it")
            fields = set_dotted(fields, key, value)
        config = parse(fields, where)
        # Which images a profile names, and from where, goes with the profile.
        if unread := self._changed(config).keys() - flat(config.read()).keys() - {"data.selection", "data.source"}:
            what = "has no effect with what the row and the overrides say; remove one of them"
            raise UserError(f"{where}: {min(unread)} {what}")
        return self._named(config)

    @cache  # noqa: B019
    def _unchanged(self, method: str, seed: int) -> dict[str, Any]:
        """Return the flat keys of a method's run that changes nothing."""
        if method not in METHODS:
            raise UserError(f"protocol {self.protocol}: unknown method '{method}', {nearest(method, METHODS)}")
        fields = recipe(self.fields, method) | {"seed": seed}
        return flat(parse(fields, f"protocol {self.protocol}, {method}").model_dump(mode="json"))

    def _changed(self, config: RunConfig) -> dict[str, Any]:
        """Return the flat keys of a configuration that are not as in its method's run that changes nothing."""
        base = self._unchanged(config.method, config.seed)
        return {key: value for key, value in flat(config.model_dump(mode="json")).items() if value != base[key]}

    def _named(self, config: RunConfig) -> Run:
        """Return the run of a configuration, named by what it changes and reads."""
        changed, read = self._changed(config), flat(config.read())
        name = "+".join(f"{key}={text_of(changed[key])}" for key in sorted(changed.keys() & read.keys()))
        for key in sorted(changed.keys() & read.keys()):
            text = text_of(changed[key])
            if set(text) & set("/+{}<>") or value_of(text) != changed[key]:
                raise UserError(
                    f"{config.method} with {key}={text}: a run's folder is named by what it changes, and this would "
                    "lead elsewhere or be read as something else; name a file or folder with letters, digits and . _ - "
                    "alone, or set it for the whole protocol"
                )
        return Run("/".join(part for part in (config.method, name) if part), config, self.results)

    @cache  # noqa: B019
    def run_at(self, name: str, seed: str) -> Run:
        """Return the run that a person typed: `csa/threshold=0.3` and a seed.

        Raises:
            UserError: it is not a run, or not written the one way that runs are named.
        """
        method, _, text = name.partition("/")
        changes: dict[str, Any] = {}
        for part in filter(None, text.split("+")):
            key, equals, value = part.partition("=")
            if not equals:
                raise UserError(
                    f"target {name}: '{part}' is no key=value, as between method and seed in csa/threshold=0.3/seed=1"
                )
            changes[key] = value_of(value)
        # A path says what its run reads, and only the profile `selection` reads a selection.
        if changes.get("data.profile", "selection") != "selection":
            changes.setdefault("data.selection", None)
        run = self.run(method, changes, int(seed))
        if run.name != name or str(run.config.seed) != seed:
            raise UserError(f"target {name}/seed={seed}: is called {run.folder}; ask for that")
        return run

    def parent_of(self, run: Run) -> Run | None:
        """Return the run that a run starts from, None where it starts from none."""
        config = parent_of(run.config)
        return None if config is None else self._named(config)


def tidy(name: str) -> str:
    """Return a name as it may be part of a path: braces and angle brackets stand for something else to Snakemake."""
    return re.sub(r"[{}<>]", "_", printable(name))


def text_of(value: Any) -> str:
    """Write a value as it stands in a path; floats by repr, so that 0.3 is 0.3."""
    if isinstance(value, list):
        return ",".join(text_of(item) for item in value) + ("," if len(value) < 2 else "")
    return value if isinstance(value, str) else canonical(value)


def value_of(text: str) -> Any:
    """Read a value that `text_of` wrote: a list of one has a comma behind it, as in Python, an empty one is a comma."""
    if "," in text:
        return [value_of(item) for item in text.split(",") if item]
    try:
        return json.loads(text)
    except ValueError:
        return text
