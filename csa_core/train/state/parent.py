"""The finished run that another starts from: read, and refused unless it is the very one asked for."""

from pathlib import Path
from typing import Any

from csa_core import store
from csa_core.config import RunConfig
from csa_core.errors import UserError
from csa_core.methods import parent_of


def read_parent(path: Path | None, config: RunConfig, data: str, split: str) -> tuple[store.Tensors | None, str]:
    """Return the weights of the run that `config` starts from and their SHA-256; (None, "") if it starts from none.

    Args:
        path: weights.safetensors of that run, its parent, or the folder with it.
        data, split: digests of the run's data set and split, which must be the parent's too.

    Raises:
        UserError: missing, damaged, of no run, or of one of another method, architecture, recipe, data or split.
    """
    wanted = parent_of(config)
    if wanted is None:
        if path is not None:
            raise UserError(f"--parent: this {config.method} run starts from no other; leave --parent out")
        return None, ""
    if path is None:
        sets = "".join(f" --set {change}" for change in _asked(config, wanted))
        raise UserError(
            f"--parent is missing: this {config.method} run starts from a finished run; train that with{sets} "
            "--out PARENT, then give --parent PARENT"
        )
    path = path / "weights.safetensors" if path.is_dir() else path
    weights, label, digest = store.read_tensors(path)
    try:
        method, identity = label["config"]["method"], dict(label["config"])
        stated = {key: str(label["digests"][key]) for key in ("data", "split")}
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: holds no trained weights; name those of a {wanted.method} run") from None
    if method != wanted.method:
        raise UserError(f"{path}: is of a {method} run; this {config.method} run starts from method {wanted.method}")
    for key, have, want in differences(identity, wanted.identity()):
        raise UserError(f"{path}: was trained with {key} {have}, this run asks for {want}; train or name that one")
    for key, want in (("data", data), ("split", split)):
        if stated[key] != want:
            what = "other data" if key == "data" else "another split"
            raise UserError(
                f"{path}: was trained on {what} (digest {stated[key][:12]}, not {want[:12]}); train it on this"
            )
    return weights, digest


def _asked(config: RunConfig, wanted: RunConfig) -> list[str]:
    """Return what must be set, as `key=value`, so that the configuration of a run becomes that of its parent."""
    found = differences(config.identity(), wanted.identity())
    changed = [(key, want) for key, _, want in found if key != "method" and want != "null"]
    return [f"method={wanted.method}", *("{}={}".format(key, want.strip('"')) for key, want in changed)]


def differences(have: dict[str, Any], want: dict[str, Any], prefix: str = "") -> list[tuple[str, str, str]]:
    """Return (dotted key, value there, value asked for) of every leaf that differs."""
    found = []
    for key in sorted(have.keys() | want.keys()):
        one, other = have.get(key), want.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append((prefix + key, store.canonical(one), store.canonical(other)))
    return found
