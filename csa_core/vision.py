"""torchvision, importable beside any torch build. Import it from here and nowhere else.

torchvision's package from the registry is built for CUDA; beside a CPU-only torch its compiled
operators do not load, and its Python code then fails to import because two of them are unknown.
Declaring their schemas is enough for data sets, transforms and models. With matching builds the
first import succeeds and nothing is declared.
"""

import torch

try:
    import torchvision
except RuntimeError as error:
    if "does not exist" not in str(error):
        raise
    torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

from torchvision.transforms.v2 import functional

__all__ = ["functional", "torchvision"]
