"""Progressively balanced sampling (Kang et al., 2020): from every image alike to every class alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from csa_core.config import Supervised
from csa_core.methods.single import CrossEntropy

if TYPE_CHECKING:
    import numpy as np


class ProgressiveConfig(Supervised):
    """Training on images that are re-sampled ever more."""

    method: Literal["progressive"] = "progressive"


class Progressive(CrossEntropy):
    """Cross-entropy; class c is drawn with (t / T) / K + (1 - t / T) n_c / N in epoch t of T, counted from 0."""

    Config: ClassVar[type[Supervised]] = ProgressiveConfig

    def streams(self, epoch: int) -> dict[str, np.ndarray | None]:
        """Return the one re-sampled stream."""
        done = epoch / self.config.epochs
        return {"resampled": done / len(self.class_counts) + (1 - done) * self.class_counts / self.class_counts.sum()}
