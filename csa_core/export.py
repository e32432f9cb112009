"""A trained run as a file that other programs load: ONNX, TorchScript, or weights that say how they are used.

ONNX and TorchScript files take pixels as decoded and resized, (N, H, W, 3) uint8; normalisation, batch norm and what
the method does with its logits are inside. A JSON file beside each says the rest, and so does the file itself.
"""

import copy
import io
import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from csa_core import store
from csa_core.data.batch import Normaliser
from csa_core.errors import UserError
from csa_core.models.folded import folded
from csa_core.use import RESIZING, Trained

NEEDED = ("onnx", "onnxscript")  # packages, for ONNX alone


class Exported(nn.Module):
    """Pixels in, logits of every head and the pooled features out: what a run computes, in one module."""

    def __init__(self, run: Trained) -> None:
        super().__init__()
        mean_sd = np.array(run.use["mean"]), np.array(run.use["sd"])
        whole, normalise = folded(run.network).to("cpu"), Normaliser(mean_sd, torch.device("cpu"))
        self.body, self.heads = whole.body, getattr(whole, "heads", nn.ModuleDict())
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", normalise.scale)
        self.register_buffer("shift", normalise.shift)
        self.corrected = _corrections(run, self.heads) if self.heads else {}
        for name, (factor, offset) in self.corrected.items():  # buffers go where the module goes
            self.register_buffer(f"{name}_factor", factor)
            self.register_buffer(f"{name}_offset", offset)
        self.has_ensemble = "ensemble" in run.heads

    def forward(self, pixels_bhwc: Tensor) -> dict[str, Tensor]:
        """Map (N, H, W, 3) uint8 to the logits, (N, K) float32, of each head, and `features`, (N, C)."""
        images = (pixels_bhwc.float() * self.scale + self.shift).permute(0, 3, 1, 2)
        features = self.body(images).mean((2, 3))
        logits = {name: head(features) for name, head in self.heads.items()}
        for name in self.corrected:
            logits[name] = logits[name] * getattr(self, f"{name}_factor") + getattr(self, f"{name}_offset")
        if self.has_ensemble:
            logits["ensemble"] = torch.stack(list(logits.values())).mean(0)
        return logits | {"features": features}


def export(run: Trained, form: str, out: Path) -> dict[str, Any]:
    """Write a run as onnx, torchscript or safetensors, and beside it as JSON what is to know of it, which is returned.

    Raises:
        UserError: a package that the format needs is not there, or the run cannot be written so.
    """
    if form == "onnx" and (missing := [name for name in NEEDED if find_spec(name) is None]):
        raise UserError(f"--format onnx: needs {' and '.join(missing)}; pip install {' '.join(NEEDED)}")
    said = _description(run, form)
    if form == "safetensors":
        weights = {name: tensor.cpu().numpy() for name, tensor in run.network.state_dict().items()}
        store.write_tensors(out, weights, run.label | {"use": run.use})
    else:
        # A copy, whose outputs need no gradient: they are for prediction.
        module, height_width = copy.deepcopy(Exported(run)).eval().requires_grad_(False), run.image_size
        pixels = torch.zeros(2, *height_width, 3, dtype=torch.uint8)
        with warnings.catch_warnings(action="ignore"), torch.no_grad():  # both exporters speak of their own future
            content = {"onnx": _onnx, "torchscript": _torchscript}[form](module, pixels, said)
        store.write_bytes(out, content)
    store.write_json(description_of(out), said)
    return said


def description_of(out: Path) -> Path:
    """Return where the description of an exported file lies: each has its own, whatever else its folder holds."""
    return out.with_name(f"{out.name}.json")


def _onnx(module: Exported, pixels: Tensor, said: dict[str, Any]) -> bytes:
    program: Any = torch.onnx.export(
        module,
        (pixels,),
        input_names=["pixels"],
        output_names=list(said["outputs"]),
        dynamic_shapes=({0: torch.export.Dim("N")},),
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    for key, value in said.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    return bytes(model.SerializeToString())


def _torchscript(module: Exported, pixels: Tensor, said: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    traced: Any = torch.jit.trace(module, pixels, strict=False)
    torch.jit.save(traced, buffer, _extra_files={"description.json": json.dumps(said)})
    return buffer.getvalue()


def _description(run: Trained, form: str) -> dict[str, Any]:
    """Return what a program must know of an exported run."""
    (height, width), use = run.image_size, run.use
    classes, channels = len(run.class_names), run.network.body.features
    described = {
        "format": form,
        "method": run.method.config.method,
        "architecture": use["architecture"],
        "class_names": use["class_names"],
        "image_size": {"height": height, "width": width},
        "decoding": "RGB, 8 bits a channel, upright by EXIF, transparency on white",
        "resizing": RESIZING[use["resizing"]],
        "normalisation": {"formula": "(pixel / 255 - mean) / sd", "mean": use["mean"], "sd": use["sd"]},
        "predicts": run.predicts,
        "digests": run.label["digests"],
    }
    if form == "safetensors":
        return described | {"heads": list(run.heads)}
    described["normalisation"] |= {"where": "inside the model: feed it pixels"}
    outputs = {head: ["N", classes] for head in run.heads} | {"features": ["N", channels]}
    return described | {"input": {"pixels": ["N", height, width, 3], "type": "uint8"}, "outputs": outputs}


class _Given(nn.Module):
    """Stands in for a network whose heads all say one value."""

    def __init__(self, heads: nn.ModuleDict, classes: int, value: float) -> None:
        super().__init__()
        self.heads, self.row = heads, torch.full((1, classes), value)

    def forward(self, _: Tensor) -> dict[str, Tensor]:
        return dict.fromkeys(self.heads, self.row)


def _corrections(run: Trained, heads: nn.ModuleDict) -> dict[str, tuple[Tensor, Tensor]]:
    """Return factor and offset, (K,) each, by which a method's logits differ from its network's; of most they do not.

    They are found by giving the method logits of 0 and 1; those of 3 show that there is no more to it.

    Raises:
        UserError: there is more.
    """
    pixel, classes = np.zeros((1, 1, 1, 3), dtype=np.uint8), len(run.class_names)
    of_0, of_1, of_3 = (run.through(_Given(heads, classes, value), pixel) for value in (0.0, 1.0, 3.0))
    found = {}
    for name in heads:
        offset, factor = of_0[name][0], of_1[name][0] - of_0[name][0]
        if not np.allclose(of_3[name][0], 3 * factor + offset, rtol=1e-4, atol=1e-4):
            raise UserError(
                f"--format: what {run.method.config.method} does with its logits is no scale and shift of each class, "
                "and these formats hold no more; use --format safetensors"
            )
        if not (np.all(offset == 0) and np.all(factor == 1)):
            found[name] = torch.from_numpy(factor), torch.from_numpy(offset)
    return found
