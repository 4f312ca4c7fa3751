"""Functions that networks call, through both files, beside the user's module at every scale."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from both_files import SCALES, Behind, check
from torch import Tensor, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.export.onnx import write_onnx
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.errors import CaptureError, UnsupportedOperatorError

Function = Callable[[Tensor], object]


FUNCTIONS: dict[str, Function] = {
    "sign": torch.sign,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "round to a decimal": lambda x: torch.round(x, decimals=1),
    "trunc": torch.trunc,
    "frac": torch.frac,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": lambda x: torch.tan(x.clamp(-1, 1)),
    "log1p": lambda x: torch.log1p(x.abs()),
    "log1p of little": lambda x: torch.log1p(x * 1e-3),
    "log2": lambda x: torch.log2(x.abs() + 1),
    "log10": lambda x: torch.log10(x.abs() + 1),
    "expm1": lambda x: torch.expm1(x.clamp(max=20) * 1e-2),
    "exp2": lambda x: torch.exp2(x.clamp(max=10)),
    "lerp": lambda x: torch.lerp(x, x.flip(3), 0.3),
    "hypot": lambda x: torch.hypot(x, x.flip(2)),
    "remainder": lambda x: x % 3.0,
    "remainder below 0": lambda x: x % -3.0,
    "remainder of two": lambda x: torch.remainder(x, x.flip(3).abs() + 0.5),
    "fmod": lambda x: torch.fmod(x, -2.5),
    "floor division": lambda x: x // 1.5,
    "division, floor": lambda x: torch.div(x, -0.7, rounding_mode="floor"),
    "division, trunc": lambda x: torch.div(x, 0.7, rounding_mode="trunc"),
    "minimum with a number": lambda x: torch.minimum(x, torch.tensor(1.0)),
    "maximum with a constant": lambda x: torch.maximum(x, torch.linspace(-1, 1, 8).view(8, 1, 1)),
    "clamp by tensors": lambda x: torch.clamp(
        x, torch.tensor(-0.5), torch.linspace(0, 2, 8).view(8, 1, 1)
    ),
    "divided by an integer": lambda x: x / torch.tensor(3),
    # --- truth
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "where of numbers": lambda x: torch.where(x >= 0.1, 1.0, -1.0),
    "where broadcasts": lambda x: torch.where(x.mean(1, keepdim=True) > 0.1, x, torch.zeros(1)),
    "where both": lambda x: torch.where((x > 0) & (x < 0.5), x, x.flip(2)),
    "a gate": lambda x: x * (x > 0),
    "peaks": lambda x: x * (F.max_pool2d(x, 3, 1, 1) == x).float(),
    "not equal": lambda x: (x.round() != 0).float(),
    "less": lambda x: (x < 0.2).float(),
    "less or equal": lambda x: (x >= 0.2).float(),
    "between tensors": lambda x: (x <= x.flip(3) + 1).float(),
    "masked fill": lambda x: x.masked_fill(x < 0, -7.0),
    "masked softmax": lambda x: F.softmax(
        x.masked_fill(x < x.mean(1, keepdim=True) - 0.1, float("-inf")), 1
    ),
    "or": lambda x: ((x > 1) | (x < -1)).float(),
    "exclusive or": lambda x: torch.logical_xor(x > 0, x > 1).float(),
    "not": lambda x: (~(x > 0)).float(),
    "truths added": lambda x: ((x > 0) + (x > -1)).float(),
    "truths counted": lambda x: (x > 0).sum(1).float(),
    "any": lambda x: (x > 2).any(1).float(),
    "all": lambda x: (x > -5).all(1, keepdim=True).float(),
    # --- casts
    "to an integer and back": lambda x: x.to(torch.int32).float() + x,
    "integer arithmetic": lambda x: (x.long() * 3 - 1).float() / 7,
    "integers divided": lambda x: x.argmax(1) // 3,
    "truth of a number": lambda x: x.relu().bool().float(),
    "a constant of truths": lambda x: x * torch.tensor([True, False] * 4).view(8, 1, 1),
    "a constant of integers": lambda x: x + torch.arange(8).view(8, 1, 1),
    # --- reductions
    "amin": lambda x: x.amin(1),
    "min of a dimension": lambda x: x.min(2)[0],
    "max of a dimension": lambda x: x.max(1),
    "min and where": lambda x: x.min(3),
    "product": lambda x: x.clamp(-2, 2).prod(1),
    "norm of order 1": lambda x: x.norm(p=1, dim=1),
    "largest norm": lambda x: torch.linalg.vector_norm(x, float("inf"), (2, 3)),
    "logsumexp": lambda x: torch.logsumexp(x, 1),
    "logsumexp of two": lambda x: torch.logsumexp(x, (2, 3), keepdim=True),
    "cosine similarity": lambda x: F.cosine_similarity(x, x.flip(3) + 1),
    "root mean square norm": lambda x: F.rms_norm(x.permute(0, 2, 3, 1), (8,)),
    "log softmax": lambda x: F.log_softmax(x * 40, 1),
    "log softmax of classes": lambda x: F.log_softmax(x.mean((2, 3)) * 40, -1),
    # --- order
    "argmax": lambda x: x.argmax(1),
    "argmin": lambda x: x.argmin(3, keepdim=True),
    "argmax of a flattened map": lambda x: x.flatten(1).argmax(1),
    "argmax as a number": lambda x: x.argmax(1, keepdim=True) * x,
    "is it the largest": lambda x: x.argmax(1) == 2,
    "top values": lambda x: x.topk(3, 1)[0],
    "smallest": lambda x: x.topk(2, 3, largest=False).values,
    "sorted": lambda x: x.sort(1)[0],
    # --- moving
    "flip": lambda x: x + x.flip(3),
    "flip channels and rows": lambda x: x.flip(1, 2),
    "picked": lambda x: x[..., [5, 1, 3, 2, 8, 0, 7, 4, 6, 9]],
    "times a vector": lambda x: F.softmax(x.permute(0, 2, 3, 1), -1).matmul(torch.arange(8.0)),
    "vector times matrix": lambda x: torch.arange(9.0).matmul(x),
    "grid": lambda x: (
        x + torch.stack(torch.meshgrid(*map(torch.arange, x.shape[2:]))).repeat(4, 1, 1)
    ),
    "both halves of a constant": lambda x: (
        x[:, :4] + torch.cat(torch.arange(8.0).chunk(2)[::-1])[:1]
    ),
    "outputs of every kind": lambda x: (x, x.argmax(1), x > 0, torch.arange(4), torch.ones(2, 3)),
    "one output twice": lambda x: (x.argmax(1),) * 2,
    "a list of outputs": lambda x: x.split(4, 1),
    # --- resizing
    "nearest": lambda x: F.interpolate(x, scale_factor=1.3),
    "nearest, smaller": lambda x: F.interpolate(x, scale_factor=0.7),
    "nearest, recomputed": lambda x: F.interpolate(
        x, scale_factor=1.3, recompute_scale_factor=True
    ),
    "nearest exact": lambda x: F.interpolate(x, size=(13, 17), mode="nearest-exact"),
    "nearest exact, smaller": lambda x: F.interpolate(x, size=(4, 3), mode="nearest-exact"),
    "nearest exact, twice": lambda x: F.interpolate(x, scale_factor=2, mode="nearest-exact"),
    "bilinear": lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear"),
    "bilinear, antialiased": lambda x: F.interpolate(
        x, size=(5, 4), mode="bilinear", antialias=True
    ),
    "bicubic": lambda x: F.interpolate(x, scale_factor=1.7, mode="bicubic"),
    "area": lambda x: F.interpolate(x, size=(3, 5), mode="area"),
}


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("by_export", [False, True], ids=["traced", "exported"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str, by_export: bool) -> None:
    torch.manual_seed(0)
    check(Behind(FUNCTIONS[name], by_export), (1, 3, 9, 10))


def test_indices_of_the_largest() -> None:
    """Of zeros all are the largest: which comes first is not said."""
    check(Behind(lambda x: x.flatten(1).topk(5)), (1, 3, 9, 10), scales=SCALES[:-1])
    check(Behind(lambda x: x.argsort(1, descending=True)), (1, 3, 9, 10), scales=SCALES[:-1])


def test_integers_are_returned_as_integers() -> None:
    def outputs(x: Tensor) -> tuple[Tensor, ...]:
        return x.argmax(1), x.argmax(1).int(), x > 0, (x > 0).sum(1), x.round().long()

    x = torch.randn(1, 3, 9, 10)
    graph = capture(Behind(outputs).eval(), (x,))
    types = [torch.int64, torch.int32, torch.bool, torch.int64, torch.int64]
    assert [y.dtype for y in graph(x)] == types
    assert [v.dtype for v in lower(graph).outputs] == ["int64", "int32", "bool", "int64", "int64"]


def test_an_index_needs_no_detour_over_floats() -> None:
    graph = capture(Behind(lambda x: x.argmax(1)).eval(), (torch.randn(1, 3, 9, 10),))
    assert [node.op_type for node in write_onnx(lower(graph)).graph.node] == ["Conv", "ArgMax"]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x.to(torch.uint8), "a cast to uint8, which wraps large numbers around"),
        (lambda x: x.long() & 3, "the bits of integers"),
        (lambda x: x + torch.tensor([2**24 + 1] * 10), "integers beyond 16,777,216"),
        (lambda x: x[x > 0], "its shape follows the numbers"),
    ],
)
def test_what_is_refused(function: Function, reason: str) -> None:
    with pytest.raises(CaptureError, match=reason):
        capture(Behind(function).eval(), (torch.randn(1, 3, 9, 10),))


def test_what_only_onnx_can_say_is_named() -> None:
    """TFLite's comparisons broadcast four dimensions."""

    def function(x: Tensor) -> Tensor:
        parts = x.reshape(x.shape[0], 2, 4, 9, 10)
        return (parts > parts.mean((1, 3), keepdim=True)).float()

    program = lower(capture(Behind(function).eval(), (torch.randn(2, 3, 9, 10),)))
    write_onnx(program)
    with pytest.raises(UnsupportedOperatorError, match=r"greater broadcasts at most 4"):
        write_tflite(program)


def test_a_scalar_parameter_may_still_be_trained() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.scale = nn.Conv2d(3, 4, 3), nn.Parameter(torch.tensor(2.0))
            self.register_buffer("offset", torch.tensor(0.5))

        def forward(self, x: Tensor) -> Tensor:
            return torch.clamp(self.conv(x) * self.scale + self.offset, max=self.scale)

    graph = capture(Scaled().eval(), (torch.randn(1, 3, 6, 6),))
    assert dict(graph.named_parameters()).keys() == {"conv.weight", "conv.bias", "scale"}
    graph(torch.randn(1, 3, 6, 6))[0].sum().backward()
    assert graph.scale.grad is not None
    check(Scaled(), (1, 3, 6, 6))
