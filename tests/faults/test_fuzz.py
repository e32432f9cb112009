"""Whatever a file holds, reading it ends in a value or in one line: no traceback, no hang.

A few dozen cases of each kind in the ordinary suite, 2,000 each in `make test-faults`.
"""

import copy
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csa_core import store
from csa_core.config import DataConfig, parse_yaml, validate
from csa_core.data.dataset import Dataset
from csa_core.data.listed import read_lists
from csa_core.data.sources import read_dataset
from csa_core.data.split import NO_IMAGES, Split, _split, _together, read_split, write_split
from csa_core.errors import UserError
from csa_core.evaluation.scores import score
from csa_core.methods import parse
from csa_core.train.state.checkpoint import load_newest
from tests.conftest import TINY
from tests.helpers.workflows import SWEEPS, metrics, table
from workflow.declarations import Table, WorkflowConfig
from workflow.plan import Plan
from workflow.report.collect import collect
from workflow.standing import survey
from workflow.status import for_programs, report

SPLIT = DataConfig(source="demo", imbalance_ratio=4, max_class_count=16)
MANY = pytest.param(2000, marks=pytest.mark.slow)
Place = tuple[str | int, ...]
Kind = Callable[[Path, Dataset, Split], tuple[Any, Callable[[Any], object]]]

# What a value is changed into, as Python has it.
ODD: list[Any] = [
    *(None, True, 0, -1, 1, 2**31, 2**63, -(2**64), 10**400, 0.5, 7.5, -0.0, 1e308, 5e-324, float("nan"), float("inf")),
    *(
        "",
        " ",
        "x" * 3000,
        "\0",
        "\ud800",
        "\x1b[2J",
        "../../etc/passwd",
        "~",
        "=cmd()",
        "{x}",
        "NaN",
        "9" * 5000,
        "é\n|",
    ),
    *([], {}, [[]], [None], {"": None}, {"a": {"b": []}}, [[1, 2], [3]], ["a"], [1e400], list(range(50))),
]
TEXT = [
    *(
        "&a [*a]",
        "*a",
        "!!timestamp x",
        "!!bool x",
        "!!binary ü",
        "!!set {a}",
        "!!python/object:os.system {}",
        "<<: *a",
    ),
    *("{", "[", "]", "}", ":", "- ", "? ", "'", '"', "|", ">", "%", "@", "`", "\t", "#", "---\n", "...\n", "\n"),
    *(
        "1" * 5000,
        "0x" + "f" * 400,
        "1:1:1:1",
        "1e999",
        ".inf",
        "2020-13-45",
        "2020-01-01",
        "[" * 2000,
        "{a: " * 500,
        "~",
    ),
]


def places(value: Any, before: Place = ()) -> list[Place]:
    """Return where something stands in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [before, *(place for key, part in list(inner)[:40] for place in places(part, (*before, key)))]


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """Return a JSON value with one to three of its parts changed, removed or added to."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        last: Any
        *path, last = draw(st.sampled_from(places(value)[1:] or [("",)]))
        parent = value
        for key in path:
            parent = parent[key]
        odd = copy.deepcopy(draw(st.sampled_from(ODD)))
        how = draw(st.sampled_from(["change", "remove", "add"]))
        if how == "change" or not isinstance(parent, dict | list):
            parent[last] = odd
        elif how == "remove":
            del parent[last]
        elif isinstance(parent, dict):
            parent[draw(st.sampled_from(["", "x", "sha256", "method", "\0"]))] = odd
        else:
            parent.append(odd)
        if not isinstance(value, dict) or not value:
            break
    return value


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Return bytes that are cut, flipped, or hold others somewhere."""
    place = draw(st.integers(0, max(len(content) - 1, 0)))
    how = draw(st.sampled_from(["cut", "flip", "insert", "replace"]))
    other = draw(
        st.sampled_from([b"\xff\xfe", b"[" * 100_000, b"9" * 100_000, b"\0" * 9, b"{", b'"', b"1e999", b"NaN"])
    )
    if how == "cut":
        return content[:place]
    if how == "flip":
        return content[:place] + bytes([content[place] ^ 1 << draw(st.integers(0, 7))]) + content[place + 1 :]
    return content[:place] + other + content[place + (len(other) if how == "replace" else 0) :]


def text_of(value: Any) -> bytes:
    try:
        return json.dumps(value).encode()
    except ValueError:  # a number too long for Python to write
        return b'{"sha256": ' + b"9" * 5000 + b"}"


def sealed(value: Any) -> bytes:
    try:
        return text_of(store.sealed({key: part for key, part in value.items() if key != "sha256"}))
    except (ValueError, AttributeError, TypeError):  # NaN, or no mapping any more
        return text_of(value)


def either(value: Any, write: Callable[[Any], bytes] = text_of) -> st.SearchStrategy[bytes]:
    return changed(value).map(write) | damaged(write(value))


def configuration(folder: Path, dataset: Dataset, split: Split) -> tuple[Any, Callable[[Any], object]]:
    config = {"protocol": "demo", "seeds": [1, 2], "sweeps": {"threshold": [0.1]}, "overrides": {"lr": 0.1}}
    shown = {"title": "t", "row_name": "r", "source": "s", "rows": [{"label": "{value}", "sweep": "threshold"}]}
    kinds: list[tuple[dict[str, Any], Callable[[Any], object]]] = [
        (TINY, lambda fields: parse(fields, "run.yaml").digest()),
        (config, lambda fields: validate(WorkflowConfig, fields, "config.yaml")),
        (shown, lambda fields: validate(Table, fields, "table.yaml")),
    ]

    @st.composite
    def texts(draw: st.DrawFn) -> tuple[str, Callable[[Any], object]]:
        fields, use = draw(st.sampled_from(kinds))
        text = yaml.safe_dump(draw(changed(fields)) if draw(st.booleans()) else fields, allow_unicode=True)
        for _ in range(draw(st.integers(0, 3))):
            place = draw(st.integers(0, len(text)))
            text = text[:place] + draw(st.sampled_from(TEXT)) + text[place:]
        return text, use

    return texts(), lambda case: case[1](parse_yaml(case[0], "run.yaml"))


def splits(folder: Path, dataset: Dataset, split: Split) -> tuple[Any, Callable[[Any], object]]:
    path = folder / "split.json"
    write_split(path, split, dataset, SPLIT)
    content = store.read_json(path)

    def resealed(value: Any) -> bytes:
        with suppress(AttributeError, KeyError, TypeError, ValueError, OverflowError):  # no split, so no digest
            held = _together(value["validation"]) if "validation" in value else NO_IMAGES
            counts = np.asarray(value["class_counts"], dtype=np.int64)
            made = _split(_together(value["indices"]), counts, value["recipe"], value["data"], held)
            value = value | {"sha256": made.digest}
        return text_of(value)

    def read(text: bytes) -> None:
        path.write_bytes(text)
        read_split(path, dataset, SPLIT)

    return either(content) | changed(content).map(resealed), read


def data_files(folder: Path, dataset: Dataset, split: Split) -> tuple[Any, Callable[[Any], object]]:
    """With a right digest: what is in them is what is odd."""
    path = folder / "data.safetensors"
    names = ("train_images", "train_labels", "test_images", "test_labels")
    tensors = {name: getattr(dataset, name) for name in names}
    other = st.sampled_from([np.zeros(0), np.zeros((2, 0, 4, 3), "u1"), np.full(120, -5), np.arange(120), np.array(3),
                             np.ones((120, 16, 12, 3), "u1"), np.full(120, 2**62), np.zeros(120, bool)])  # fmt: skip

    @st.composite
    def files(draw: st.DrawFn) -> Any:
        made = dict(tensors)
        for _ in range(draw(st.integers(0, 2))):
            made[draw(st.sampled_from([*names, "self", "x\0", "sizes", "train_paths"]))] = draw(other)
        return made, draw(changed({"source": "demo", "class_names": list("abcd"), "side": 32}))

    def read(case: Any) -> None:
        try:
            store.write_tensors(path, *case)
        except (ValueError, UnicodeEncodeError):
            return  # no JSON
        read_dataset(path, SPLIT)

    return files(), read


def safetensors(folder: Path, dataset: Dataset, split: Split) -> tuple[Any, Callable[[Any], object]]:
    path = folder / "epoch-000001.safetensors"
    tensors = {"a": np.arange(6.0).reshape(2, 3), "b": np.zeros((0, 2), "f4"), "c": np.array([True])}
    store.write_tensors(path, tensors, {"digests": {"x": "y"}, "epoch": 1})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    inner = json.loads(header["__metadata__"]["csa"])

    def whole(header: Any) -> bytes:
        text = text_of(header)
        return len(text).to_bytes(8, "little") + text + content[8 + length :]

    def with_inner(own: Any) -> bytes:
        return whole(header | {"__metadata__": {"csa": text_of(own).decode()}})

    def resealed(meta: Any) -> bytes:
        with suppress(ValueError):  # NaN
            return with_inner(inner | {"meta": meta, "sha256": store.tensors_digest(tensors, meta)})
        return with_inner(inner | {"meta": meta})

    metas = changed({"meta": inner["meta"]}).map(lambda value: value.get("meta"))

    def read(text: bytes) -> None:
        path.write_bytes(text)
        load_newest(folder, {"x": "y"})
        path.write_bytes(text)
        store.read_header(path)
        store.read_tensors(path)

    return changed(header).map(whole) | changed(inner).map(with_inner) | metas.map(resealed) | damaged(content), read


def lists(folder: Path, dataset: Dataset, split: Split) -> tuple[Any, Callable[[Any], object]]:
    for name in ("a", "b"):
        (folder / name).mkdir()
        for number in range(3):
            (folder / name / f"{number}.png").write_bytes(b"x")
    text = "".join(f"{name}/{number}.png {label}\n" for label, name in enumerate("ab") for number in range(2))
    (folder / "test.txt").write_text("a/2.png 0\nb/2.png 1\n")
    data = DataConfig(source="image_list", root=str(folder), train_list=str(folder / "train.txt"),
                      test_list=str(folder / "test.txt"), profile="as_is")  # fmt: skip
    odd = st.sampled_from(
        ["\0", " ", "9" * 5000, "-1", "²", "\x85", "\u2028", "/etc/passwd 0\n", "../x 0\n", "a 0\n", "\x1b"]
    )

    @st.composite
    def texts(draw: st.DrawFn) -> bytes:
        place = draw(st.integers(0, len(text)))
        return (text[:place] + draw(odd) + text[place + draw(st.integers(0, 4)) :]).encode()

    def read(content: bytes) -> None:
        (folder / "train.txt").write_bytes(content)
        read_lists(data)

    return texts() | damaged(text.encode()), read


def metrics_files(folder: Path, dataset: Dataset, split: Split) -> tuple[Any, Callable[[Any], object]]:
    shown = table(results=str(folder), seeds=[2])
    shown["rows"] = shown["rows"][1:]
    shown["rows"][0] |= {"digests": ["ce-2"], "parents": [None]}
    value = metrics("ce", 2, 1)
    labels = np.repeat([0, 1], 10)
    value["heads"]["single"] = score(np.eye(2)[(labels + (np.arange(20) % 5 == 0)) % 2], labels, value["groups"])
    path = folder / "runs/ce/seed=2/metrics.json"
    path.parent.mkdir(parents=True)

    def read(content: bytes) -> None:
        path.write_bytes(content)
        collect(shown)

    return either(value, sealed), read


def live_files(folder: Path, dataset: Dataset, split: Split) -> tuple[Any, Callable[[Any], object]]:
    """What `make status` reads: junk in them is no answer, and no error either."""
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    config = {"protocol": str(folder / "tiny.yaml"), "seeds": [1], "sweeps": SWEEPS, "results": str(folder / "results")}
    plan = Plan(config, spell_out=())
    plan.tables = {"table4": plan.tables["table4"]}
    run, state = plan.reference, folder / "results/state/x"
    digests = {"config": run.digest, "code": plan.code_of("csa")}
    beat = {"digests": digests, "out": run.folder, "epoch": 2, "epochs": 5, "seconds_per_epoch": 0.5, "host": "vm",
            "train_accuracy": 0.5, "test_accuracy": None, "updated": "2026-01-01T00:00:00Z", "process": 7}  # fmt: skip
    files: dict[Path, Any] = {
        state / "progress.json": beat,
        Path(run.folder, "metrics.json"): {"digests": digests},
        Path(run.folder, "provenance.json"): {"seconds": 3.5},
        Path(run.log): "csa_core: an error\n",
    }
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)

    @st.composite
    def cases(draw: st.DrawFn) -> tuple[Path, bytes]:
        path = draw(st.sampled_from(list(files)))
        return path, draw(either(files[path]) if isinstance(files[path], dict) else damaged(b"csa_core: an error\n"))

    def read(case: tuple[Path, bytes]) -> None:
        for path in files:
            path.unlink(missing_ok=True)
        case[0].write_bytes(case[1])
        found = survey(plan, time.time())
        assert "\x1b" not in "".join(report(found, 1, 10))
        json.dumps(for_programs(found, 1), allow_nan=False)

    return cases(), read


KINDS = [configuration, splits, data_files, safetensors, lists, metrics_files, live_files]


@pytest.mark.parametrize("examples", [40, MANY])
@pytest.mark.parametrize("kind", KINDS)
def test_a_value_or_one_line(
    kind: Callable[..., tuple[Any, Callable[[Any], object]]],
    examples: int,
    dataset: Dataset,
    split: Split,
    tmp_path: Path,
) -> None:
    strategy, read = kind(tmp_path, dataset, split)
    seen: dict[str, float] = {"cases": 0, "refused": 0, "slowest": 0}

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def check(case: Any) -> None:
        start = time.perf_counter()
        try:
            read(case)
        except UserError as error:
            assert str(error).isprintable()
            seen["refused"] += 1
        seen["cases"] += 1
        seen["slowest"] = max(seen["slowest"], time.perf_counter() - start)

    check()
    print(f"{kind.__name__}: {seen}")
    assert seen["cases"] >= examples
