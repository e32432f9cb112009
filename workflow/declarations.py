"""What a person declares: `config.yaml`, and a YAML file for each table, figure and its claims."""

from collections.abc import Collection
from glob import glob
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from csa_core.config import PathText, Seed, Strict, load_yaml, validate
from csa_core.errors import UserError, nearest

HERE = Path(__file__).parent
Column = Literal["all", "many", "medium", "few", "balanced", "harmonic_mean", "geometric_mean", "worst_class", "ece"]
Head = Literal["uniform", "resampling", "ensemble", "single", "knn", "linear", "knn_untrained"]

# Of a table they would be another's: lists over all tables, and the picture of contexts.
TAKEN = ("claims", "choices", "contexts")
DEVICES = ["auto", "cpu", "cuda", "cuda:0", "mps"]


class FigureConfig(Strict):
    """How large figures are, and their letters."""

    width: Annotated[float, Field(ge=2, le=20)] = 3.35
    """Inches of a column: 3.35 of a paper of two columns, 6 and more on a slide."""
    font: Annotated[float, Field(ge=4, le=40)] = 7
    """Size of the letters in points: 7 in a paper, 14 and more on a slide."""
    title: bool = True
    """Whether title, protocol and seeds stand above a figure; false for a paper, whose caption says them."""


class WorkflowConfig(Strict):
    """What `config.yaml` may say."""

    protocol: PathText = "demo"
    """demo, short, paper, imagenet_lt, or the path of a protocol file of your own."""
    seeds: Annotated[list[Seed], Field(min_length=1)] = [1, 2, 3]
    """Training seeds; each run is trained once for each."""
    sweeps: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """The values that each sweep of a table takes, by key of a run."""
    overrides: dict[str, Any] = {}
    """Keys of the protocol to change for every run."""
    tables: list[PathText] = []
    """Files of tables of your own, as mine/*.yaml; docs/tables.md has their keys."""
    results: Annotated[PathText, Field(min_length=1)] = "results"
    """Folder of all that is made: tables, figures and runs, data sets and logs."""
    state: Annotated[PathText, Field(min_length=1)] | None = None
    """Folder of checkpoints, of finished runs' states and of caches; null is results/state."""
    data_root: Annotated[PathText, Field(min_length=1)] | None = None
    """Folder of the original images or archives, in place of the protocol's data.root."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:[0-9]+)?)$", examples=DEVICES)] = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    gpus: Literal["auto"] | Annotated[list[int | str], Field(min_length=1)] = "auto"
    """GPUs that training jobs are given, each its own: auto finds those here; else numbers or UUIDs."""
    jobs_per_gpu: Annotated[int, Field(ge=1, le=64)] = 1
    """Training jobs that may share a GPU."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads of one training job; a run of several ranks takes as many for each."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """torch.compile the networks: auto does it for long float32 runs on a CPU."""
    capture: Literal["auto", "no"] = "auto"
    """Replay training steps as CUDA graphs: auto does it on one GPU, with images in memory."""
    workers: Annotated[int, Field(ge=0, le=1024)] | None = None
    """image_list: processes that decode images for each rank; null takes the cores that training leaves idle."""
    figure: FigureConfig = FigureConfig()
    """Width and font of figures, and whether they have a title."""
    code_version: Annotated[str, Field(pattern=r"^[\w.+-]+$")] | None = None
    """null: a change of the code trains again; a text is the version that results carry instead."""


class Protocol(Strict):
    """What a protocol file may say beside the keys of a run."""

    tables: dict[str, dict[str, Any]] = {}
    """What the runs of single tables change, as `table6: {model: resnet18_cifar}`."""
    paper_values: str | None = None
    """Heading of the paper's printed values; `paper` alone shows the difference from them, null shows none."""


class Row(Strict):
    """One row of a table, or one for each value of a sweep."""

    label: str
    """What the row is called; `{value}` stands for the sweep's value, `{0}`, `{1}` for parts of a list."""
    series: str = ""
    """Figures: what the row's points belong to; may hold the same placeholders."""
    method: str = "csa"
    """Method of the run."""
    changes: dict[str, Any] = {}
    """What the run changes from the protocol."""
    epochs_times: Annotated[int, Field(ge=1)] = 1
    """How many times the protocol's epochs it trains; lr_drops move with them."""
    warmup_share: Annotated[float, Field(ge=0, lt=1)] | None = None
    """csa: what share of the epochs is warm-up, in place of warmup_epochs; one epoch at least has the shift."""
    sweep: str | None = None
    """Key of a run: the row stands for each value under `sweeps` in config.yaml."""
    head: Head | None = None
    """Which head is scored; null is the one that predicts."""
    paper: dict[str, Any] = {}
    """The paper's values in percent by column; by value and column for a sweep. Rows that have some are the paper's."""
    published: str = ""
    """What others print of All in percent on CIFAR100-LT with ratio 100, and where, as `42.6 (Remix, Table 1)`."""

    @model_validator(mode="after")
    def _prints_numbers(self) -> "Row":
        known = get_args(Column)
        for values in self.paper.values() if self.sweep else [self.paper]:
            if not isinstance(values, dict):
                raise ValueError(
                    f"paper: of a sweep it is by value and column, as {{'0.8': {{all: 45.8}}}}, not {values}"
                )
            for column, number in values.items():
                if column not in known:
                    raise ValueError(f"paper: unknown column '{column}', {nearest(column, known)}")
                if isinstance(number, bool) or not isinstance(number, int | float):
                    raise ValueError(f"paper: {column}: '{number}' is no number of percent; write it as 45.8")
        return self


class Term(Strict):
    """One cell of a table, as a claim speaks of it."""

    row: str
    """Series, if any, and label of the row."""
    column: Column = "all"
    """Group of classes, or measure."""


class Claim(Strict):
    """One statement that the appendix makes in words, and what in the table would show it.

    `best` and `insensitive` speak of the appendix's own rows, whatever a sweep adds or leaves out.

    `contrast`: the sum of `more` minus the sum of `less` is above zero.
    `best`: `row` is above every other row but those under `apart`.
    `insensitive`: every other row is within `margin` points of `row`.
    """

    text: str
    """What is claimed, in the appendix's words where they are few."""
    section: str
    """Where it says so."""
    kind: Literal["contrast", "best", "insensitive"] = "contrast"
    """How it is judged."""
    more: list[Term] = []
    """Contrast: cells that count in favour."""
    less: list[Term] = []
    """Contrast: cells that count against."""
    row: str = ""
    """Best, insensitive: label of the row that all others are compared with."""
    among: list[str] = []
    """Best, insensitive: the rows that it speaks of; empty: those with values of the paper, or all if none has."""
    apart: list[str] = []
    """Best: labels of rows that are not rivals."""
    margin: Annotated[float, Field(gt=0)] = 1.0
    """Insensitive: how many percentage points are no difference that matters."""
    interval: Literal["paired", "pooled"] = "paired"
    """What the verdict rests on: differences seed by seed, or the spread of all rows of a sweep taken together."""

    @model_validator(mode="after")
    def _is_complete(self) -> "Claim":
        if self.kind == "contrast" and not (self.more and len(self.more) == len(self.less)):
            raise ValueError("a contrast needs as many cells under more as under less, one at least")
        if self.kind != "contrast" and not self.row:
            raise ValueError(f"{self.kind} needs the label of a row")
        return self


class Table(Strict):
    """One table or figure: a file under `workflow/tables/`."""

    title: Annotated[str, Field(min_length=1)]
    """What it shows."""
    row_name: Annotated[str, Field(min_length=1)]
    """Heading of the first column, or name of the horizontal axis."""
    source: str
    """Where the paper has it."""
    note: str = ""
    """What a reader must know beside the numbers; shown under the table."""
    paper_sd: Annotated[float, Field(gt=0)] | None = None
    """Sd over seeds, in points of All, that the paper's single runs are taken to have."""
    protocol: str | None = None
    """The one protocol that it is of; a protocol with tables of its own draws no others."""
    extra: bool = False
    """Whether it is made by the target `extra` and not by `all`."""
    columns: list[Column | Literal["shifted_steps"]] = ["all", "many", "medium", "few"]
    """Groups of classes and measures that are shown; shifted_steps counts the steps with context shift (csa)."""
    draw: Literal["no", "categories", "line", "scatter"] = "no"
    """Whether its first column is drawn too, over categories, over a number, or as All against Few."""
    rows: Annotated[list[Row], Field(min_length=1)]
    """The rows, in order."""
    claims: list[Claim] = []
    """What the appendix says of it."""

    @field_validator("columns")
    @classmethod
    def _has_a_measure(cls, columns: list[str]) -> list[str]:
        if not set(columns) - {"shifted_steps"}:
            raise ValueError("needs a group of classes or a measure, such as all")
        return columns


def load_tables() -> dict[str, Table]:
    """Return the tables and figures of all protocols by name, in the order of their names."""
    paths = sorted((HERE / "tables").glob("*.yaml"))
    return {path.stem: _load_table(path, str(path.relative_to(HERE.parent))) for path in paths}


def load_own_tables(patterns: list[str], known: Collection[str]) -> dict[str, Table]:
    """Return a person's own tables by name.

    Args:
        patterns: of files, from the working folder, as `mine/*.yaml`.
        known: names of the project's tables, which are taken.

    Raises:
        UserError: a pattern is of no file, a name is taken, or a file declares no table.
    """
    tables: dict[str, Table] = {}
    for pattern in patterns:
        paths = sorted(map(Path, glob(pattern)))  # noqa: PTH207 - a pattern may be absolute
        if not paths:
            raise UserError(f"config.yaml: tables: '{pattern}' matches no file; it is looked up from {Path.cwd()}")
        for path in paths:
            if path.stem in known or path.stem in tables:
                raise UserError(f"{path}: there is a table of the name '{path.stem}' already; rename the file")
            tables[path.stem] = _load_table(path, str(path))
    return tables


def _load_table(path: Path, where: str) -> Table:
    table = validate(Table, load_yaml(path), where)
    if path.stem in TAKEN:
        raise UserError(f"{where}: {path.stem} is a file of the results already; rename the file")
    if not path.stem.isidentifier():
        raise UserError(f"{where}: name the file with letters, digits and _ alone; it is the name of a target")
    return table
