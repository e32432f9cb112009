"""What a bfloat16 run computes in which precision, and what `auto` stands for.

Any processor computes bfloat16 in torch, only not faster; so no test here asks for one that has it.
The types are those of torch's own operations as they are dispatched, in and outside the body.
"""

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from csa_core import ops
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.errors import UserError
from csa_core.methods.base import Stats
from csa_core.models import precision
from csa_core.train.loop import Options, train, train_epoch
from csa_core.train.run import Run
from tests.conftest import tiny
from tests.helpers.runs import cut_short

CPU = torch.device("cpu")
RECIPE = {"epochs": 1, "batch_size": 12, "lr": 0.05, "projector_width": 24, "predictor_width": 8, "sam": "none"}
Types = dict[str, set[torch.dtype]]


class Dispatched(TorchDispatchMode):
    """Notes the floating types of each operation's arguments and results, within `body`'s forward pass or not."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.inside: Types = defaultdict(set)
        self.outside: Types = defaultdict(set)
        self._notes = self.outside
        body.register_forward_pre_hook(lambda *_: setattr(self, "_notes", self.inside))
        body.register_forward_hook(lambda *_: setattr(self, "_notes", self.outside))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                self._notes[func.overloadpacket.__name__].add(leaf.dtype)
        return result


def steps(config: Any, dataset: Dataset, split: Split) -> tuple[Run, Dispatched]:
    """Train two shifted steps of a run, and return it with what was dispatched."""
    run = Run(config, dataset, split, CPU)
    run.network.train()
    batches = run.images.batches(run.method.plan(0))
    with Dispatched(run.network.body) as dispatched:
        for _ in range(2):
            stats = run.method.step(run, next(batches), "context_shift")
            assert stats["shifted"], "the bank must be full: the test would show less"
    return run, dispatched


LOSSES = dict.fromkeys(("uniform_loss", "resampling_loss"), "logit_adjustment")
ADJUSTED: dict[str, Any] = {"warmup_epochs": 0, "threshold": 0.0} | LOSSES


@pytest.fixture(scope="module")
def trained(dataset: Dataset, split: Split) -> tuple[Run, Dispatched]:
    """Two steps of a bfloat16 run with everything on."""
    return steps(tiny(precision="bfloat16", **ADJUSTED), dataset, split)


def test_convolutions_are_bfloat16_forth_and_back(trained: tuple[Run, Dispatched]) -> None:
    _, dispatched = trained
    assert dispatched.inside["convolution"] == {torch.bfloat16}
    assert dispatched.outside["convolution_backward"] == {torch.bfloat16}


FLOAT32 = {
    "pooling": "mean",
    "heads": "addmm",
    "losses": "_log_softmax",
    "mean over the batch": "nll_loss_forward",
    "gradient of the losses": "_log_softmax_backward_data",
    "confidence": "_softmax",
    "mask's size": "upsample_bicubic2d",
    "mask's exponent": "pow",
    "mixing": "mul",
    "bank": "index_copy_",
    "weights and momentum": "_fused_sgd_",
}


@pytest.mark.parametrize("what", FLOAT32)
def test_outside_the_body_all_is_float32(what: str, trained: tuple[Run, Dispatched]) -> None:
    assert trained[1].outside[FLOAT32[what]] == {torch.float32}


def test_nothing_else_outside_the_body_is_bfloat16(trained: tuple[Run, Dispatched]) -> None:
    """What is left are the way out of it and the way back through it."""
    low = {name for name, types in trained[1].outside.items() if torch.bfloat16 in types}
    through = {"convolution_backward", "native_batch_norm_backward", "threshold_backward", "add", "add_"}
    through |= {"_to_copy", "detach", "alias", "new_empty_strided", "copy_", "empty_like"}
    views = {"slice_backward", "constant_pad_nd", "view", "as_strided", "select_backward", "clone"}
    assert low <= through | views


@pytest.mark.parametrize("name", ["uniform", "resampling"])
def test_logits_are_float32(name: str, trained: tuple[Run, Dispatched]) -> None:
    run, _ = trained
    x = torch.randn(4, 3, 16, 12)
    features = run.method.features(run.network, x)
    logits = run.network.head(name, features)
    assert features.dtype == logits.dtype == torch.float32
    weight, bias = run.network.weight(name), run.network.heads.get_parameter(f"{name}.bias")
    wanted = features.double().mean((2, 3)) @ weight.double().T + bias.double()
    torch.testing.assert_close(logits.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["ce", "logit_adjustment"])
def test_losses_and_log_priors_are_float32_to_their_last_digits(method: str, dataset: Dataset, split: Split) -> None:
    run = Run(tiny(precision="bfloat16", method=method), dataset, split, CPU)
    run.network.train()
    batch = next(run.images.batches(run.method.plan(0)))
    seen: list[Tensor] = []
    run.network.heads["single"].register_forward_hook(lambda *call: seen.append(call[2].detach()))
    loss = run.method.step(run, batch, "single")["loss"]
    prior = torch.tensor(np.log(split.class_counts / split.class_counts.sum())) * (method != "ce")
    wanted = cross_entropy(seen[0].double() + prior, batch.streams["uniform"][1])
    assert loss.dtype == torch.float32 and float(loss) == pytest.approx(float(wanted), rel=1e-6)


def test_statistics_of_batch_norm_are_float32(dataset: Dataset, split: Split) -> None:
    run = Run(tiny(precision="bfloat16"), dataset, split, CPU)
    run.network.train()
    norm: Any = run.network.get_submodule("body.bn")
    seen: list[Tensor] = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    run.method.features(run.network, torch.randn(16, 3, 16, 12))
    assert seen[0].dtype == torch.bfloat16 and norm.running_mean.dtype == norm.running_var.dtype == torch.float32
    flat = seen[0].double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_mean.double(), 0.1 * flat.mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.running_var.double(), 0.9 + 0.1 * flat.var(1), rtol=1e-5, atol=1e-6)


def test_weights_gradients_and_momentum_are_float32(trained: tuple[Run, Dispatched]) -> None:
    run, _ = trained
    for name, weight in run.network.named_parameters():
        momentum = run.optimizer.state[weight]["momentum_buffer"]
        assert weight.grad is not None
        assert {weight.dtype, weight.grad.dtype, momentum.dtype} == {torch.float32}, name
    weight = run.network.get_parameter("body.conv.weight")
    for tensor in (weight, run.optimizer.state[weight]["momentum_buffer"]):
        assert not torch.equal(tensor, tensor.bfloat16().float()), "digits that bfloat16 has not"


def test_a_gradient_is_that_of_a_network_that_rounds_its_convolutions_alone(dataset: Dataset, split: Split) -> None:
    """It points where the float32 one points, up to the rounding; and it is not the same."""
    gradients = []
    for name in ("float32", "bfloat16"):
        run = Run(tiny(precision=name, method="ce"), dataset, split, CPU)
        run.network.train()
        batch = next(run.images.batches(run.method.plan(0)))
        run.method.step(run, batch, "single")
        gradients.append(torch.cat([p.grad.flatten() for p in run.network.parameters() if p.grad is not None]))
    assert not torch.equal(*gradients)
    assert float(cosine_similarity(gradients[0], gradients[1], dim=0)) > 0.995


def test_the_bank_holds_the_images_as_they_are_and_float32_masks(dataset: Dataset, split: Split) -> None:
    run: Any = Run(tiny(precision="bfloat16", threshold=0.0, warmup_epochs=0), dataset, split, CPU)
    run.network.train()
    batch = next(run.images.batches(run.method.plan(0)))
    run.method.step(run, batch, "context_shift")
    state = run.method.bank.state()
    assert torch.equal(state["images"].permute(0, 3, 1, 2), batch.streams["uniform"][0])
    assert state["masks"].dtype == torch.float32
    assert not torch.equal(state["masks"], state["masks"].bfloat16().float())


def test_evaluation_is_float32(trained: tuple[Run, Dispatched], dataset: Dataset, split: Split) -> None:
    run, _ = trained
    plain = Run(tiny(precision="float32", **ADJUSTED), dataset, split, CPU)
    plain.load(run.state())
    ours, wanted = run.scored_logits()["test"], plain.scored_logits()["test"]
    assert ours.keys() == wanted.keys() and all(np.array_equal(ours[head], wanted[head]) for head in wanted)
    with Dispatched(run.network.body) as dispatched:
        run.scored_logits()["test"]
    types = set().union(*dispatched.inside.values(), *dispatched.outside.values())
    assert torch.float32 in types and torch.bfloat16 not in types


def test_float32_rounds_nothing(dataset: Dataset, split: Split) -> None:
    run, dispatched = steps(tiny(precision="float32", **ADJUSTED), dataset, split)
    types = set().union(*dispatched.inside.values(), *dispatched.outside.values())
    assert torch.float32 in types and torch.bfloat16 not in types
    x = torch.randn(4, 3, 16, 12)
    run.network.eval()
    assert torch.equal(run.method.features(run.network, x), run.network.body(x))


def pretraining(name: str, dataset: Dataset, split: Split, **changes: Any) -> Run:
    config = tiny(method="simsiam", precision=name, pretraining=RECIPE | changes)
    run = Run(config, dataset, split, CPU)
    run.network.train()
    return run


def first_step(run: Run) -> Stats:
    return run.method.step(run, run.images.at(run.method.plan(0), 0), "pretraining")


def flat(run: Run) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in run.network.parameters()])


@pytest.mark.parametrize(("sam", "alike"), [("none", 0.98), ("sam", 0.85)])
def test_pretraining_in_bfloat16_is_near_float32(sam: str, alike: float, dataset: Dataset, split: Split) -> None:
    runs = [pretraining(name, dataset, split, sam=sam) for name in ("float32", "bfloat16")]
    start = flat(runs[0])
    losses = [float(first_step(run)["loss"]) for run in runs]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], abs=0.01)
    moves = [flat(run) - start for run in runs]
    assert not torch.equal(*moves) and float(cosine_similarity(moves[0], moves[1], dim=0)) > alike
    for weight in runs[1].network.parameters():
        assert weight.dtype == runs[1].optimizer.state[weight]["momentum_buffer"].dtype == torch.float32


def test_simsiams_projector_predictor_and_loss_are_float32(dataset: Dataset, split: Split) -> None:
    run = pretraining("bfloat16", dataset, split)
    types: Types = defaultdict(set)
    for name, layer in run.network.named_modules():
        if isinstance(layer, nn.Linear | nn.BatchNorm1d | nn.Conv2d):
            kind = name.partition(".")[0]
            layer.register_forward_hook(
                lambda _, inputs, out, kind=kind: types[kind].update({inputs[0].dtype, out.dtype})
            )
    loss = first_step(run)["loss"]
    assert types["projector"] == types["predictor"] == {torch.float32} and loss.dtype == torch.float32
    assert torch.bfloat16 in types["body"]
    for name, buffer in run.network.named_buffers():
        assert buffer.dtype == (torch.int64 if name.endswith("tracked") else torch.float32)


def test_sam_climbs_in_float32_and_returns_to_the_bit(
    dataset: Dataset, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pretraining("bfloat16", dataset, split, sam="sam", sam_radius=0.05)
    weights = list(run.network.parameters())
    start, ascend, away = [w.detach().clone() for w in weights], ops.ascend, []

    def measured(parameters: Any, radius: float) -> list[Tensor]:
        before = ascend(parameters, radius)
        away.append(
            torch.cat([(w.detach().double() - s.double()).flatten() for w, s in zip(weights, start, strict=True)])
        )
        return before

    monkeypatch.setattr(ops, "ascend", measured)
    run.optimizer.param_groups[0]["lr"] = 0.0
    first_step(run)
    assert float(away[0].norm()) == pytest.approx(0.05, rel=1e-4), "bfloat16 would lose most of so small a step"
    assert all(torch.equal(w, s) for w, s in zip(weights, start, strict=True))


@pytest.mark.parametrize(
    ("here", "wanted"),
    [
        ({"avx2", "avx512_f", "avx512_bf16"}, "bfloat16"),
        ({"avx2", "avx512_f", "amx_bf16", "amx_tile"}, "bfloat16"),
        ({"avx2", "avx512_f"}, "float32"),
        (set(), "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_processor_has_it(
    here: set[str], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: dict.fromkeys(here, True) | {"cpu": "name"}, raising=False
    )
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "")
    assert precision.resolve("auto", CPU, "resnet32", (32, 32)) == wanted
    assert precision.resolve("auto", CPU, "resnet8", (16, 16)) == "float32", "too small to gain"
    assert precision.resolve("auto", torch.device("cuda"), "resnet32", (32, 32)) == "float32"
    for name in ("float32", "bfloat16", "tf32"):
        assert precision.resolve(name, CPU, "resnet8", (16, 16)) == name


@pytest.mark.parametrize(
    ("flags", "wanted"), [("fpu avx2 avx512_bf16", True), ("avx2 amx_bf16", True), ("avx2", False)]
)
def test_an_older_torch_asks_linux(flags: str, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"processor : 0\nflags\t\t: {flags}\n")
    assert precision.has_bfloat16() is wanted

    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert not precision.has_bfloat16(), "no Linux either"


def test_operations_are_those_of_the_layers() -> None:
    """Two a multiply-add: 3 x 3 convolutions of CIFAR's ResNet-8 on 16 x 16, counted by hand."""
    first, one = 16 * 16 * 9 * 3 * 16, 2 * 16 * 16 * 9 * 16 * 16
    two, three = 8 * 8 * 9 * (16 * 32 + 32 * 32), 4 * 4 * 9 * (32 * 64 + 64 * 64)
    assert precision.forward_operations("resnet8", (16, 16)) == 2 * (first + one + two + three)


def processor(monkeypatch: pytest.MonkeyPatch, *sets: str) -> None:
    """Pretend to be on a processor with these instruction sets, where the tiny network is large enough."""
    monkeypatch.setattr(precision, "instruction_sets", lambda: set(sets))
    monkeypatch.setattr(precision, "GAINS_FROM", 0)


def fit(config: Any, dataset: Dataset, split: Split, folder: Path, **options: Any) -> dict[str, Any]:
    return train(config, dataset, split, Options(folder / "out", folder / "state", CPU, "code", **options))


def test_a_checkpoint_is_not_continued_in_another_precision(
    dataset: Dataset, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same `auto`, begun on a processor with bfloat16 and started again on one without."""
    whole = fit(tiny(precision="auto"), dataset, split, tmp_path / "float32")
    processor(monkeypatch, "avx512_bf16")
    cut_short(tiny(precision="auto"), dataset, split, tmp_path)
    assert list((tmp_path / "state").glob("*/epoch-*"))
    processor(monkeypatch, "avx2")
    capfd.readouterr()
    metrics = fit(tiny(precision="auto"), dataset, split, tmp_path)
    assert "continuing" not in capfd.readouterr().err
    assert metrics == whole and metrics["computed"]["precision"] == "float32"
    # Back on the first, the checkpoint is still there, and goes on.
    processor(monkeypatch, "avx512_bf16")
    metrics = fit(tiny(precision="auto"), dataset, split, tmp_path)
    assert "continuing after epoch" in capfd.readouterr().err
    assert metrics["computed"]["precision"] == metrics["digests"]["precision"] == "bfloat16"


def test_a_finished_run_is_not_trained_again(
    dataset: Dataset, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor(monkeypatch, "amx_bf16")
    metrics = fit(tiny(precision="auto"), dataset, split, tmp_path)
    before = (tmp_path / "out" / "metrics.json").read_bytes()
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert metrics["computed"]["precision"] == provenance["precision"] == "bfloat16"
    assert provenance["processor"]["name"] and isinstance(provenance["processor"]["has"], list)
    shutil.rmtree(tmp_path / "out")

    def never(*_: object) -> None:
        raise AssertionError("it trains")

    monkeypatch.setattr("csa_core.train.run.Run.steps", never)
    fit(tiny(precision="auto"), dataset, split, tmp_path)
    assert (tmp_path / "out" / "metrics.json").read_bytes() == before


def test_a_precision_by_name_is_part_of_what_a_run_is() -> None:
    names = ("auto", "float32", "bfloat16")
    assert len({tiny(precision=name).digest() for name in names}) == 3
    assert tiny(precision="auto").digest() == tiny().digest()
    assert len({tiny(method="simsiam", precision=name).digest() for name in names}) == 3


def test_an_epoch_in_bfloat16_is_near_one_in_float32(dataset: Dataset, split: Split) -> None:
    rows = []
    for name in ("float32", "bfloat16"):
        run = Run(tiny(precision=name, lr=0.01), dataset, split, CPU)
        rows.append(train_epoch(run, 1))
        assert all(parameter.dtype == torch.float32 for parameter in run.network.parameters())
    assert rows[0]["loss"] != rows[1]["loss"]
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=0.02)


def test_resuming_in_bfloat16_changes_no_tensor(dataset: Dataset, split: Split) -> None:
    config = tiny(precision="bfloat16")
    run = Run(config, dataset, split, CPU)
    for epoch in range(2):
        train_epoch(run, epoch)
    state = run.state()
    resumed = Run(config, dataset, split, CPU)
    resumed.load(state)
    for each in (run, resumed):
        train_epoch(each, 2)
    one, other = run.state(), resumed.state()
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "'cuda:0' has no memory left, others use it; wait"),
        (RuntimeError("CUDA error: out of memory"), "'cuda:0' has no memory left, others use it; wait"),
        (
            RuntimeError("CUDA error: no kernel image is available"),
            "no kernels for 'cuda:0'; install one",
        ),
        (RuntimeError("CUDA error: invalid device ordinal"), r"'cuda:0' is not available here \(CUDA error: invalid"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_not_said_to_be_absent(
    error: RuntimeError, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "ones", fails)
    with pytest.raises(UserError, match=f"device: .*{line}"):
        precision.device_named("cuda:0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("given", "is_said"), [("0", True), ("GPU-1,GPU-2", True), ("", False), ("-1", False)])
def test_a_gpu_that_torch_does_not_find_is_said(
    given: str, is_said: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert precision.device_named("auto").type == "cpu"
    assert ("finds no GPU" in capsys.readouterr().err) == is_said
