"""Files that are whole or absent, and digests that tell whether they are what they claim.

Every file that the project keeps goes through `write_bytes`; every tensor file carries the
SHA-256 of its content and is checked when it is read. The format is safetensors: no pickle.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from csa_core.errors import UserError

Tensors = dict[str, np.ndarray]

# The files of a finished run. metrics.json is written last: where it is, the others are.
RESULTS = ("history.csv", "weights.safetensors", "predictions.safetensors", "provenance.json", "metrics.json")
# In the state of a run that is being trained, or was: how far it is, and when it last said so.
PROGRESS = "progress.json"


def write_bytes(path: Path, content: bytes, lasting: bool = True) -> None:
    """Write a file so that a reader, or a crash, meets the old content or the new, never half.

    Args:
        lasting: wait until a power cut cannot take it back; what is written again in seconds need not.
    """
    path = Path(path)
    if not path.name:
        raise UserError(f"{path}: is a folder; name a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        temporary.replace(path)
        if lasting:
            _sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); free or choose another place") from None
    finally:  # a signal, too, may arrive in the middle
        with suppress(OSError):
            temporary.unlink()


def write_in_place(path: Path, content: bytes) -> None:
    """Write a file that readers hold open while it grows, and that is no result: a crash may leave half of it."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.write(content)
            file.truncate()
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); free or choose another place") from None


def remove(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        UserError: it is not allowed.
    """
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be removed ({error.strerror}); remove it or choose another place") from None


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        UserError: something is in the way, or it is not allowed.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be made ({error.strerror}); choose another folder") from None


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def canonical(value: Any) -> str:
    """Return `value` as one JSON string with sorted keys: equal values, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value, in hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def write_json(path: Path, value: dict[str, Any], lasting: bool = True) -> None:
    """Write a JSON object for people and programs: a line for each key, in the order given; NaN refused."""
    lines = (f"{json.dumps(key)}: {json.dumps(part, allow_nan=False)}" for key, part in value.items())
    write_bytes(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode(), lasting)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: missing, unreadable or damaged.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except ValueError:
        raise UserError(f"{path}: is not JSON; delete it and make it again") from None


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON object with the SHA-256 over all of it as its last key."""
    return value | {"sha256": digest(value)}


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a JSON object that was written `sealed`, and return it without its SHA-256.

    Raises:
        UserError: missing, damaged, or its content does not match its SHA-256.
    """
    value = read_json(path)
    try:
        is_sound = value.pop("sha256") == digest(value)
    except (AttributeError, KeyError, TypeError, ValueError):  # no object, no SHA-256, or NaN in it
        is_sound = False
    if is_sound:
        return value
    raise UserError(f"{path}: content does not match its SHA-256; delete it and make it again")


def write_tensors(path: Path, tensors: Tensors, meta: dict[str, Any]) -> None:
    """Write named arrays with `meta` (JSON values) and the SHA-256 over both."""
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    header = canonical({"meta": meta, "sha256": tensors_digest(tensors, meta)})
    # One metadata key only: safetensors does not keep the order of several.
    write_bytes(path, safetensors.numpy.save(tensors, metadata={"csa": header}))


def read_tensors(path: Path) -> tuple[Tensors, dict[str, Any], str]:
    """Read what `write_tensors` wrote; return the arrays, their meta and the SHA-256 they match.

    Raises:
        UserError: missing, not such a file, or its content does not match its digest.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})["csa"])
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        meta, stated = header["meta"], header["sha256"]
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file; check the path") from None
        what = "cannot be read" if isinstance(error, OSError) else "damaged or not ours"
        raise UserError(f"{path}: {what}; delete it and make it again") from None
    if tensors_digest(tensors, meta) != stated:
        raise UserError(f"{path}: content does not match its SHA-256; delete it and make it again")
    return tensors, meta, stated


def tensors_digest(tensors: Tensors, meta: dict[str, Any]) -> str:
    """Return the SHA-256 over names, types, shapes, contents and `meta`."""
    sha = hashlib.sha256(canonical(meta).encode())
    for name in sorted(tensors):
        array = tensors[name]
        sha.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        sha.update(np.asarray(array, order="C").data)
    return sha.hexdigest()
