"""From module to both files: every operator, and random graphs, equal to PyTorch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graph_files import check
from hypothesis import HealthCheck, given, settings
from random_graphs import conv_graphs
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.export.lower import lower, unsupported
from shrinkc.compiler.export.onnx import write_onnx
from shrinkc.compiler.pipeline.run import sample_inputs
from shrinkc.errors import InputError, UnsupportedOperatorError


class Apply(nn.Module):
    """A function behind a convolution, as a network has it."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))  # type: ignore[operator]


def expanded_gate(x: Tensor) -> Tensor:
    return x * x.mean((2, 3), keepdim=True).sigmoid().expand_as(x)


OPERATORS = {
    "asymmetric pad": nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 6, 3, 2)),
    "dilated": nn.Conv2d(8, 6, 3, padding=2, dilation=2),
    "grouped": nn.Conv2d(8, 12, 3, padding=1, groups=4),
    "depthwise multiplier": nn.Conv2d(8, 16, (3, 5), 2, padding=(1, 2), groups=8),
    "transposed": nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1),
    "transposed grouped": nn.ConvTranspose2d(8, 4, 2, 2, groups=2, bias=False),
    "batch norm left over": nn.Sequential(nn.AvgPool2d(2), nn.BatchNorm2d(8), nn.ReLU()),
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "leaky": nn.LeakyReLU(0.2),
    "prelu": nn.PReLU(8),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "hard swish": nn.Hardswish(),
    "hard sigmoid": nn.Hardsigmoid(),
    "silu": nn.SiLU(),
    "mish": nn.Mish(),
    "elu": nn.ELU(),
    "gelu": nn.GELU(),
    "gelu tanh": nn.GELU("tanh"),
    "hardtanh": nn.Hardtanh(-0.3, 0.4),
    "arithmetic": lambda x: (2 - x) / (x.abs() + 1) * torch.rsqrt(x * x + 1) - x**2,
    "broadcast": lambda x: x + x.mean(1, keepdim=True) * x[:, :, :1],
    "split": lambda x: torch.cat(torch.split(x, [1, 4, 3], 1)[::-1], 1),
    "chunk": lambda x: torch.maximum(*x.chunk(2, 1)),
    "slice": lambda x: x[:, 1::2, 1:-1, ::2],
    "channel shuffle": nn.ChannelShuffle(4),
    "flatten linear": nn.Sequential(nn.Flatten(), nn.Linear(8 * 9 * 7, 5)),
    "pad": lambda x: F.pad(x, (1, 2, 0, 1), value=-1.5),
    "reflect": lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),
    "max pool": nn.MaxPool2d(3, 2, 1),
    "max pool ceil": nn.MaxPool2d(2, 2, ceil_mode=True),
    "avg pool": nn.AvgPool2d(3, 2, 1),
    "avg pool uncounted": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "avg pool ceil": nn.AvgPool2d(2, 2, ceil_mode=True),
    "avg pool larger than the map": nn.AvgPool2d(20, ceil_mode=True),
    "adaptive": nn.AdaptiveAvgPool2d((3, 7)),
    "adaptive uneven": nn.AdaptiveAvgPool2d((4, 5)),
    "global": nn.AdaptiveAvgPool2d(1),
    "global max": nn.AdaptiveMaxPool2d(1),
    "mean": lambda x: x.mean((2, 3)),
    "nearest": nn.Upsample(scale_factor=2),
    "nearest odd": lambda x: F.interpolate(x, size=(13, 10)),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "bilinear corners": lambda x: F.interpolate(
        x, size=(13, 10), mode="bilinear", align_corners=True
    ),
    "pixel shuffle": nn.PixelShuffle(2),
    "softmax": nn.Softmax(1),
    "layer norm": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2),
    "group norm": nn.GroupNorm(2, 8),
    "squeeze-excite": expanded_gate,
    "tokens": lambda x: torch.softmax(x.flatten(2).mT @ x.flatten(2), -1).sum(1),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name: str) -> None:
    torch.manual_seed(1)
    model = Apply(OPERATORS[name]).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean.normal_()
    x = torch.randn(1, 4, 9, 7)
    check(capture(model, (x,)), (x,))


@pytest.mark.parametrize("opset", [13, 14, 17, 18, 20, 22])
@pytest.mark.parametrize("name", ["hard swish", "layer norm", "mean", "gelu", "global max", "pad"])
def test_opsets(name: str, opset: int) -> None:
    x = torch.randn(1, 4, 9, 7)
    check(capture(Apply(OPERATORS[name]).eval(), (x,)), (x,), opset)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(conv_graphs())
def test_random_graphs(graph: fx.GraphModule) -> None:
    graph = graph.float()
    check(graph, sample_inputs(graph, torch.float32))


def test_an_impossible_opset_says_which_are() -> None:
    x = torch.randn(1, 4, 9, 7)
    program = lower(capture(Apply(nn.ReLU()), (x,)))
    with pytest.raises(InputError, match="`opset` 12: give 13 to"):
        write_onnx(program, 12)


def test_what_cannot_be_lowered_is_named() -> None:
    x = torch.randn(1, 4, 9, 7)
    graph = capture(Apply(lambda x: F.max_pool2d(x.flatten(1, 2), 2)), (x,))
    with pytest.raises(UnsupportedOperatorError, match=r"'max_pool2d' \(MaxPool2d\)"):
        lower(graph)
    assert [p.node for p in unsupported(graph)] == ["max_pool2d"]


def test_weights_used_twice_are_written_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x))

    x = torch.randn(1, 4, 9, 7)
    graph = capture(Twice(), (x,))
    check(graph, (x,))
    assert len(write_onnx(lower(graph)).graph.initializer) == 2


def test_a_network_that_returns_its_input_and_one_value_twice() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            y = x.relu()
            return x, y, y

    x = torch.randn(1, 4, 9, 7)
    check(capture(Odd(), (x,)), (x,))
