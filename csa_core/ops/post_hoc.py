"""Logits of a finished run, corrected: NumPy arrays in, NumPy arrays out."""

import numpy as np


def adjusted(logits_nk: np.ndarray, class_counts_k: np.ndarray, strength: float) -> np.ndarray:
    """Return z_k - tau log pi_k, (N, K) float32 (Menon et al., 2021, section 4.1); pi_k is the share of class k."""
    log_prior_k = np.log(class_counts_k / class_counts_k.sum())
    return (logits_nk - strength * log_prior_k).astype(np.float32)


def tau_normalised(logits_nk: np.ndarray, weight_kc: np.ndarray, bias_k: np.ndarray, exponent: float) -> np.ndarray:
    """Return (z_k - b_k) / |w_k| ** tau, (N, K) float32 (Kang et al., 2020, section 4.3)."""
    norm_k = np.linalg.norm(weight_kc.astype(np.float64), axis=1)
    return ((logits_nk - bias_k.astype(np.float64)) / norm_k**exponent).astype(np.float32)
