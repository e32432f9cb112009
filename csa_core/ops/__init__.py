"""What methods are made of: pure functions on tensors, and the bank, the one state among them.

Loaded when a run first computes, so that reading a configuration never waits for torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
