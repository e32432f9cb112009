"""The formats of what is kept, and digests that tell whether it is what it claims.

Every file that the project keeps goes through `write_bytes`; every tensor file carries the
SHA-256 of its content and is checked when it is read. The format is safetensors: no pickle.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import safetensors.numpy

from csa_core.errors import Damaged, untrusted
from csa_core.files import (
    MOST_TEXT,
    make_folder,
    names_in,
    open_regular,
    read_bytes,
    remove,
    remove_abandoned,
    write_bytes,
    write_in_place,
    write_together,
)

__all__ = [
    "make_folder",
    "names_in",
    "read_bytes",
    "remove",
    "remove_abandoned",
    "write_bytes",
    "write_in_place",
    "write_together",
]

Tensors = dict[str, np.ndarray]

# The files of a finished run. metrics.json is written last: where it is, the others are.
RESULTS = ("history.csv", "weights.safetensors", "predictions.safetensors", "provenance.json", "metrics.json")
# In the state of a run that is being trained, or was: how far it is, and when it last said so.
PROGRESS = "progress.json"


def canonical(value: Any) -> str:
    """Return `value` as one JSON string with sorted keys: equal values, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value, in hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def write_json(path: Path, value: dict[str, Any], lasting: bool = True) -> None:
    """Write a JSON object for people and programs."""
    write_bytes(path, json_text(value).encode(), lasting)


def json_text(value: dict[str, Any]) -> str:
    """Return a JSON object as text: a line for each key, in the order given; NaN refused."""
    lines = (f"{json.dumps(key)}: {json.dumps(part, allow_nan=False)}" for key, part in value.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        Unreadable: missing, or not to be read.
        Damaged: no JSON, or NaN or infinity in it.
    """
    content = read_bytes(path, MOST_TEXT)
    with untrusted(f"{path}: is not JSON; name another file, or make it again"):
        return json.loads(content, parse_constant=_refuse)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON object with the SHA-256 over all of it as its last key."""
    return value | {"sha256": digest(value)}


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a JSON object that was written `sealed`, and return it without its SHA-256.

    Raises:
        Unreadable: missing, or not to be read.
        Damaged: no JSON object, or one that does not match its SHA-256.
    """
    value = read_json(path)
    with untrusted(f"{path}: content does not match its SHA-256; delete it and make it again"):
        if value.pop("sha256") != digest(value):
            raise ValueError
    return dict(value)


def write_tensors(path: Path, tensors: Tensors, meta: dict[str, Any], made_from: str = "") -> None:
    """Write named arrays with `meta` (JSON values) and the SHA-256 over both, and what the file is recognised by."""
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    header = canonical({"meta": meta, "sha256": tensors_digest(tensors, meta), "made_from": made_from})
    # One metadata key only: safetensors does not keep the order of several.
    write_bytes(path, safetensors.numpy.save(tensors, metadata={"csa": header}))


def read_tensors(path: Path) -> tuple[Tensors, dict[str, Any], str]:
    """Read what `write_tensors` wrote; return the arrays, their meta and the SHA-256 they match.

    Raises:
        Unreadable: missing, or not to be read.
        Damaged: not such a file, or its content does not match its digest.
    """
    content = read_bytes(path)
    with untrusted(f"{path}: damaged or not ours; name another file, or make it again"):
        tensors, header = _parsed(content)
        meta, stated = header["meta"], header["sha256"]
        found = tensors_digest(tensors, meta)
    if found != stated:
        raise Damaged(f"{path}: content does not match its SHA-256; delete it and make it again")
    return tensors, meta, stated


def read_header(path: Path) -> dict[str, Any]:
    """Read what `write_tensors` says of a file, unchecked and without the arrays: `meta`, `sha256`, `made_from`.

    Raises:
        Unreadable: missing, or not to be read.
        Damaged: not such a file.
    """
    with open_regular(path) as file, untrusted(f"{path}: damaged or not ours; name another file, or make it again"):
        header = json.loads(_entries(file)[0]["__metadata__"]["csa"])
        return {"meta": dict(header["meta"]), "sha256": str(header["sha256"]), "made_from": header.get("made_from")}


def read_tensor(path: Path, name: str) -> np.ndarray:
    """Read one array of what `write_tensors` wrote, unchecked and without the others.

    Raises:
        Unreadable: missing, or not to be read.
        Damaged: not such a file, or without such an array.
    """
    with open_regular(path) as file, untrusted(f"{path}: holds no {name}; delete it and make it again"):
        entries, start = _entries(file)
        first, last = entries[name]["data_offsets"]
        file.seek(start + first)
        return np.frombuffer(file.read(last - first), TYPES[entries[name]["dtype"]]).reshape(entries[name]["shape"])


def _entries(file: IO[bytes]) -> tuple[dict[str, Any], int]:
    """Return what stands at the beginning of a safetensors file, and where its arrays begin."""
    length = int.from_bytes(file.read(8), "little")
    if length > MOST_TEXT:
        raise ValueError(length)
    return json.loads(file.read(length)), 8 + length


# The types that we may write, by their names in the format.
TYPES = {"BOOL": "?", "U8": "<u1", "I32": "<i4", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8"}


def _parsed(content: bytearray) -> tuple[Tensors, dict[str, Any]]:
    """Return the arrays of a safetensors file, which share its memory, and our part of its header.

    Whatever is wrong with it raises some exception. The library's own reader maps the file instead: there a disk that
    fails is a signal, and no memory ends the process.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:start])
    header = json.loads(entries.pop("__metadata__")["csa"])
    body = memoryview(content)[start:]
    tensors = {}
    for name, entry in sorted(entries.items()):
        first, last = entry["data_offsets"]
        array = np.frombuffer(body[first:last], TYPES[entry["dtype"]])
        if array.size != math.prod(entry["shape"]):
            raise ValueError(name)
        tensors[name] = np.require(array.reshape(entry["shape"]), requirements="A")
    return tensors, header


def tensors_digest(tensors: Tensors, meta: dict[str, Any]) -> str:
    """Return the SHA-256 over names, types, shapes, contents and `meta`."""
    sha = hashlib.sha256(canonical(meta).encode())
    for name in sorted(tensors):
        array = tensors[name]
        sha.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        sha.update(np.asarray(array, order="C").data)
    return sha.hexdigest()
