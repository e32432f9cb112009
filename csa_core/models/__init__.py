"""Networks: a body with one linear head a branch, and SimSiam around a body. Loaded when a run first computes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
