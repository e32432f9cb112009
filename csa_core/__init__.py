"""Context-shift augmentation for long-tail learning: the method and its trainer.

Source: "How Re-sampling Helps for Long-Tail Learning?" (NeurIPS 2023), appendix.
Importing this package is cheap: nothing here loads torch until a run needs it.
`csa_core.load(folder)` returns a trained run to predict with.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
