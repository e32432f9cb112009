"""Randomness without hidden state: a generator for each (seed, stream, number)."""

import hashlib

import numpy as np

# A stream keeps its number for ever: results depend on it. One that has none is keyed by its name.
STREAMS = {"split": 0, "uniform": 1, "resampled": 2, "mix": 3, "bank": 4, "pretraining": 5, "views": 6}


def keyed_generator(seed: int, stream: str, number: int) -> np.random.Generator:
    """Return the counter-based generator of one stream at one epoch (or class).

    The same key gives the same picks on any device, whatever was drawn before: resuming at an
    epoch needs no state, and a new stream shifts no other.
    """
    key = STREAMS[stream] if stream in STREAMS else int.from_bytes(hashlib.sha256(stream.encode()).digest()[:4])
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, key, number))))
