"""Images in, planned batches out: sources, long-tailed splits, the plan of an epoch, augmentation.

What computes is loaded when a run first computes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
