"""Post-hoc corrections of a finished run: nothing is trained, its logits are scored in another way.

*Logit adjustment* (Menon et al., 2021) takes the prior of the long-tailed training set out of the logits, and
*tau-normalisation* (Kang et al., 2020) the norms of the classifier's weights, which grow with the classes. Their
strength is set beforehand, 1 by default: choosing it by test accuracy would be training on the test set. Each head of
the first stage is corrected by itself, and an ensemble is of the corrected heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from csa_core import ops
from csa_core.methods.base import Method
from csa_core.methods.first_stage import FIRST_STAGES, StagedConfig

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


class PostHocConfig(StagedConfig):
    """Another reading of a finished run."""

    @property
    def total_epochs(self) -> int:
        """None: nothing is trained."""
        return 0

    @property
    def processes(self) -> int:
        """How many processes score it."""
        return 1

    @property
    def cost(self) -> str:
        """What the time of an epoch depends on; there is none."""
        return "no training"


class LogitAdjustedConfig(PostHocConfig):
    """Post-hoc logit adjustment."""

    method: Literal["post_hoc_adjustment"] = "post_hoc_adjustment"
    post_hoc_strength: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the log prior that is subtracted from the logits (tau)."""


class TauNormalisedConfig(PostHocConfig):
    """Tau-normalisation of the classifier."""

    method: Literal["tau_normalisation"] = "tau_normalisation"
    norm_exponent: Annotated[float, Field(ge=0, le=2)] = 1.0
    """The weights of each class are divided by their norm to the power of this, biases left out (tau)."""


class PostHoc(Method):
    """The network of a finished run with the logits of each head corrected."""

    @classmethod
    def scored_as(cls, config: Any) -> type[Method]:
        """Return the method of the first stage, whose heads these are."""
        return FIRST_STAGES[config.first_stage]

    def start_from(self, network: Any, parent: dict[str, Tensor]) -> None:
        """Take over the whole network."""
        network.load_state_dict(parent)

    def logits(self, network: Any, final: bool) -> dict[str, np.ndarray]:
        """Return the corrected logits, (N, K), of the test set by head."""
        logits = super().logits(network, final)
        return {name: self.corrected(z, network.heads[name]) for name, z in logits.items()}

    def corrected(self, logits_nk: np.ndarray, head: nn.Linear) -> np.ndarray:
        """Return the logits, (N, K) float32, of one head as they are scored."""
        raise NotImplementedError


class LogitAdjusted(PostHoc):
    """argmax of z_k - tau log pi_k, pi_k the share of class k in the long-tailed training set."""

    Config: ClassVar[type[StagedConfig]] = LogitAdjustedConfig

    def corrected(self, logits_nk: np.ndarray, head: nn.Linear) -> np.ndarray:
        """Return z_k - tau log pi_k."""
        return ops.adjusted(logits_nk, self.class_counts, self.config.post_hoc_strength)


class TauNormalised(PostHoc):
    """argmax of (z_k - b_k) / |w_k| ** tau, w_k and b_k weights and bias of class k in the linear head."""

    Config: ClassVar[type[StagedConfig]] = TauNormalisedConfig

    def corrected(self, logits_nk: np.ndarray, head: nn.Linear) -> np.ndarray:
        """Return (z_k - b_k) / |w_k| ** tau."""
        weight_kc, bias_k = (part.detach().cpu().numpy() for part in (head.weight, head.bias))
        return ops.tau_normalised(logits_nk, weight_kc, bias_k, self.config.norm_exponent)
