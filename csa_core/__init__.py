"""Context-shift augmentation for long-tail learning: the method and its trainer.

Source: "How Re-sampling Helps for Long-Tail Learning?" (NeurIPS 2023), appendix.
Importing this package is cheap: nothing here loads torch until a run needs it.
"""

__version__ = "0.1.0"
