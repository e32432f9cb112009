"""What the test set says of a network: logits, scores, and probes of an encoder. Loaded when a run first computes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
