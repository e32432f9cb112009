"""Whether what lies in the results is of this plan, told by what it carries.

Snakemake remembers what it made itself, in `.snakemake` of one working folder. Results that were copied, shared by two
checkouts, or outlived that folder are compared here, where they are asked for.
"""

from collections.abc import Callable, Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path

from csa_core.errors import Damaged, Missing, UserError
from csa_core.files import read_bytes, read_text
from csa_core.store import digest, read_header, read_json
from workflow.naming import Run
from workflow.plan import Plan
from workflow.report.all_claims import together
from workflow.sources import stated_digest

REPORT = Path(__file__).parent / "report"


def stale_run(plan: Plan, run: Run) -> bool:
    """Whether results are there that are of another configuration, code, data set or split than planned."""
    known = {key: value for key, value in wanted_digests(plan, run, _stated).items() if value}
    return _differs(lambda: known.items() <= read_json(Path(run.folder, "metrics.json"))["digests"].items())


def wanted_digests(plan: Plan, run: Run, stated: Callable[[Path], str]) -> dict[str, str]:
    """Return the digests that a run's results are to carry; those of a data set or split not made yet are empty.

    Args:
        stated: returns what the file of a data set or split states.
    """
    data = Path(plan.shared, "data", run.data)
    images = {"data": stated(data / "dataset.safetensors"), "split": stated(data / f"{run.split}.json")}
    return {"config": run.digest, "code": plan.code_of(run.config.method)} | images


def stale_table(plan: Plan, table: str, place: str = "") -> bool:
    """Whether a table is there that was drawn from something else; `place` is `partial/` where runs may lack."""
    path = Path(f"{plan.results}/{place}{table}.json")
    return _differs(lambda: read_json(path)["drawn_from"] == drawn_from(plan, table, bool(place)))


def stale_figure(plan: Plan, figure: str, table: str) -> bool:
    """Whether a figure is there that was drawn from something else."""
    path = Path(f"{plan.results}/figures/{figure}.svg")
    return _differs(lambda: drawn_from(plan, table).encode() in read_bytes(path))


def stale_claims(plan: Plan) -> bool:
    """Whether a list of claims is there that is not that of the tables."""
    tables = [Path(f"{plan.results}/{table}.claims.csv") for table in plan.usual]
    return _differs(lambda: read_bytes(Path(plan.results, "claims.csv")) == together(tables).encode())


def stale_choices(plan: Plan) -> bool:
    """Whether a list of choices is there that is not that of the tables."""
    tables = [Path(f"{plan.results}/{table}.choices.csv") for table in plan.choosing]
    chosen = Path(plan.results, "choices.csv")
    return _differs(lambda: read_bytes(chosen) == together(tables, "choices", order="table").encode())


def stale_page(plan: Plan) -> bool:
    """Whether a page is there that shows other tables, figures or runs."""
    results = Path(plan.results)
    tables = [results / f"{table}.json" for table in plan.usual]
    figures = [*(results / f"figures/{figure}.svg" for figure in plan.figures), results / "figures/contexts.png"]
    figures.append(results / "figures/mistakes.safetensors")
    return _differs(lambda: page_made_from(tables, figures).encode() in read_bytes(results / "report.html"))


def stale_gallery(plan: Plan, title: str) -> bool:
    """Whether a picture of contexts is there that was drawn of others, or says something else."""
    figures = Path(plan.results, "figures")
    contexts, drawn = figures / "contexts.safetensors", figures / "contexts.svg"
    return _differs(lambda: gallery_made_from(contexts, title).encode() in read_bytes(drawn))


def stale_images(plan: Plan, name: str) -> bool:
    """Whether `contexts` or `mistakes` are there of another run than the reference."""
    path = Path(f"{plan.results}/figures/{name}.safetensors")
    return _differs(lambda: read_header(path)["meta"]["run"] == plan.reference.digest)


def stale_data(plan: Plan, data: str) -> bool:
    """Whether a data set is there that was made from other keys, files or code.

    Raises:
        UserError: it is of other images, which are still where they were: those of another protocol.
    """
    path = Path(f"{plan.shared}/data/{data}/dataset.safetensors")
    try:
        made, _, place = str(read_header(path).get("made_from") or "").partition(" ")
    except Missing:
        return False
    except Damaged:
        return True
    if made in ("", made_from(plan, data)):  # made by hand, or long ago
        return False
    if place not in ("", plan.data_place(data)) and Path(place).exists():
        raise UserError(
            f"{path}: is of the images of {place}, not of {plan.data_place(data)}; rename one of the two, name other "
            "results, or remove that file"
        )
    return True


def origin(plan: Plan, data: str) -> str:
    """Return what the file of a data set says of its origin: what it is made from, and where its images lay."""
    return f"{made_from(plan, data)} {plan.data_place(data)}"


def made_from(plan: Plan, data: str) -> str:
    """Return a digest of what a data set is made from."""
    return digest([plan.data_json(data, False), plan.data_files(data), plan.data_code])


def drawn_from(plan: Plan, table: str, is_partial: bool = False) -> str:
    """Return a digest of what a table, and a figure of it, is drawn from: its declaration, its runs and the code."""
    return digest([plan.drawing(table), _report_code(), plan.finished(table) if is_partial else ""])


def page_made_from(tables: Iterable[Path], figures: Iterable[Path]) -> str:
    """Return a digest of what a page is made from: tables and their runs' provenance, figures, and the code.

    Raises:
        Missing: one of them is not there.
        KeyError: a table of another kind.
    """
    tables, figures = sorted(tables), sorted(figures)
    rows = [(path.parent, row) for path in tables for row in read_json(path)["rows"]]
    runs = sorted({(folder / run[1]).with_name("provenance.json") for folder, row in rows for run in row[1]})
    files = [*tables, *figures, *runs]
    return digest([[path.name, sha256(read_bytes(path)).hexdigest()] for path in files] + [_report_code()])


def gallery_made_from(contexts: Path, title: str) -> str:
    """Return a digest of what the picture of contexts is drawn from."""
    return digest([read_header(contexts)["sha256"], title, _report_code()])


def report_code() -> list[Path]:
    """Return the files that draw, without what editors and systems leave beside them."""
    return sorted(path for path in REPORT.glob("[!.]*") if path.suffix in (".py", ".j2", ".css", ".js"))


@cache
def _report_code() -> str:
    return digest([[path.name, read_text(path)] for path in report_code()])


_stated = cache(stated_digest)  # asked for every run of a plan


def _differs(is_same: Callable[[], bool]) -> bool:
    """Return whether what is there differs; what is not there does not, and what is damaged does.

    Raises:
        Unreadable: it is there and cannot be read.
    """
    try:
        return not is_same()
    except Missing:
        return False
    except (Damaged, KeyError, TypeError, AttributeError):
        return True
