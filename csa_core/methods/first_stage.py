"""Runs that start from a finished run of another method, their first stage: the keys that they share.

They have the keys of every method that a first stage may be of, so that a run and its first stage are written in one
configuration, and they read those of the one named. What the first stage is, is part of what such a run is.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import create_model, model_validator

from csa_core.config import Supervised, validate
from csa_core.errors import UserError
from csa_core.methods.base import Method
from csa_core.methods.csa import Csa
from csa_core.methods.mixup import Mixup
from csa_core.methods.single import ClassBalanced, CrossEntropy, LogitAdjustment

FIRST_STAGES: dict[str, type[Method]] = {
    "ce": CrossEntropy,
    "class_balanced": ClassBalanced,
    "logit_adjustment": LogitAdjustment,
    "mixup": Mixup,
    "csa": Csa,
}
# Their keys without what holds between these, which is asked of the one that is named.
_KEYS: dict[str, Any] = {
    key: (field.annotation, field)
    for stage in FIRST_STAGES.values()
    for key, field in stage.Config.model_fields.items()
    if key not in Supervised.model_fields
}
_FirstStageKeys: Any = create_model("_FirstStageKeys", __base__=Supervised, __module__=__name__, **_KEYS)


class StagedConfig(_FirstStageKeys):  # type: ignore[misc]
    """What starts from a finished run on the same data, with the same body and seed."""

    borrowed = frozenset(_KEYS)
    first_stage: Literal["ce", "class_balanced", "logit_adjustment", "mixup", "csa"] = "ce"
    """Method of the finished run that it starts from; the keys of that method describe it."""

    @model_validator(mode="after")
    def _first_stage_is_sound(self) -> Self:
        try:
            first = self.first()
        except UserError as error:
            raise ValueError(str(error)) from None
        if getattr(first, "loss", None) == "ldam":
            raise ValueError("loss: ldam has a cosine head, and a second stage is of a linear one; choose another")
        return self

    def first(self) -> Supervised:
        """Return the configuration of the first stage."""
        config: Any = FIRST_STAGES[self.first_stage].Config
        first: Supervised = validate(config, self.parent(), f"first stage {self.first_stage}")
        return first

    def parent(self) -> dict[str, Any] | None:
        """Return the first stage."""
        keys = set(FIRST_STAGES[self.first_stage].Config.model_fields)
        fields: dict[str, Any] = self.model_dump(mode="json", include=keys)
        return fields | {"method": self.first_stage}

    def unread(self) -> set[str]:
        """Return the keys that neither it nor its first stage reads."""
        own = type(self).model_fields.keys() - _FirstStageKeys.model_fields.keys()
        return type(self).model_fields.keys() - own - {"method"} - self.first().read().keys()
