"""The methods: a file each, and a line here. Importing them does not import torch."""

from functools import cache
from typing import Any

from csa_core.config import RunConfig, validate
from csa_core.errors import UserError, nearest
from csa_core.methods.base import Method
from csa_core.methods.cmo import Cmo
from csa_core.methods.csa import Csa
from csa_core.methods.drs import Drs
from csa_core.methods.focal import Focal
from csa_core.methods.ldam import Ldam
from csa_core.methods.mislas import Mislas
from csa_core.methods.mixup import Mixup
from csa_core.methods.post_hoc import LogitAdjusted, TauNormalised
from csa_core.methods.progressive import Progressive
from csa_core.methods.remix import Remix
from csa_core.methods.reweighting import Reweighting
from csa_core.methods.second_stage import ClassifierRetraining, LearnedScales
from csa_core.methods.simsiam import SimSiam
from csa_core.methods.single import ClassBalanced, CrossEntropy, LogitAdjustment
from csa_core.methods.vs import Vs

METHODS: dict[str, type[Method]] = {
    "ce": CrossEntropy,
    "class_balanced": ClassBalanced,
    "logit_adjustment": LogitAdjustment,
    "progressive": Progressive,
    "drs": Drs,
    "reweighting": Reweighting,
    "focal": Focal,
    "ldam": Ldam,
    "vs": Vs,
    "mixup": Mixup,
    "remix": Remix,
    "cmo": Cmo,
    "csa": Csa,
    "simsiam": SimSiam,
    "crt": ClassifierRetraining,
    "lws": LearnedScales,
    "mislas": Mislas,
    "post_hoc_adjustment": LogitAdjusted,
    "tau_normalisation": TauNormalised,
}
DEFAULT = "csa"
KEYS = sorted({key for method in METHODS.values() for key in method.Config.model_fields})
"""The keys of runs of all methods."""


def parse(fields: Any, where: str, remedy: str = "remove it") -> RunConfig:
    """Validate `fields` (a mapping as YAML gives it) as the configuration of a run of its method.

    Args:
        where: what a message begins with.
        remedy: for a key of another method.

    Raises:
        UserError: naming the dotted key in `where` and the remedy.
    """
    name = fields.get("method", DEFAULT) if isinstance(fields, dict) else DEFAULT
    if not isinstance(name, str) or name not in METHODS:
        raise UserError(f"{where}: method: unknown name '{name}', {nearest(str(name), METHODS)}")
    config = METHODS[name].Config
    if isinstance(fields, dict):
        for key in fields:
            if key not in config.model_fields and (owners := readers(key)):
                who = f"{', '.join(owners)} {'do' if len(owners) > 1 else 'does'}"
                raise UserError(f"{where}: {key}: method {name} does not read it ({who}); {remedy}")
    return validate(config, fields, where)


@cache
def readers(key: str) -> tuple[str, ...]:
    """Return the methods that have a key of their own."""
    configs = {name: method.Config for name, method in METHODS.items()}
    return tuple(name for name, config in configs.items() if key in config.model_fields.keys() - config.borrowed)


def recipe(fields: dict[str, Any], method: str) -> dict[str, Any]:
    """Return what one method reads of a recipe, which may hold the keys of several."""
    others = {key for key in fields if readers(key)} - set(METHODS[method].Config.model_fields)
    return {key: value for key, value in fields.items() if key not in others} | {"method": method}


def parent_of(config: RunConfig) -> RunConfig | None:
    """Return the run that this one starts from, None where it starts from none."""
    fields = config.parent()
    return None if fields is None else parse(fields, f"the run that {config.method} starts from")
