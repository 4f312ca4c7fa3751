"""Operator lists of the published networks that fitted tables are fitted to.

Each function returns what TFLite executes at batch 1, in order: batch norms folded, ReLU and
ReLU6 fused, TensorFlow's "SAME" padding inside the convolutions (output size ⌈size / stride⌉).

Architectures: Howard 2017 (MobileNetV1), Sandler 2018 (V2), Howard 2019 (V3) as in TF-slim with
its 1001 classes; EfficientNet-Lite as in tensorflow/tpu; ResNet-50 v1.5 (He 2016, the stride in
the 3×3 convolution) as in MLPerf Inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.makers.sources.sequence import OpSequence

OpList = tuple[OpKey, ...]


def make_divisible(value: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor` that is not more than 10% below `value`."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def mobilenet_v1(width: float, size: int, precision: str) -> OpList:
    """Depthwise-separable blocks; channels are ⌊c · width⌋, at least 8."""
    net = OpSequence(precision, size)
    net.conv(max(int(32 * width), 8), 3, 2, "relu6")
    blocks = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2))
    for out, stride in (*blocks, *((512, 1),) * 5, (1024, 2), (1024, 1)):
        net.depthwise(3, stride, "relu6")
        net.conv(max(int(out * width), 8), activation="relu6")
    net.global_pool()
    net.classifier(1001)
    return tuple(net.ops)


def _inverted_residual(
    net: OpSequence,
    *,
    expanded: int,
    out: int,
    kernel: int,
    stride: int,
    activation: str,
    squeeze_excite: bool = False,
) -> None:
    """Expand, depthwise, (squeeze and excite,) project, add when the shapes allow."""
    before = net.channels
    if expanded > before:
        _conv_act(net, expanded, activation=activation)
    _depthwise_act(net, kernel, stride, activation)
    if squeeze_excite:
        _squeeze_excite(net)
    net.conv(out)
    if stride == 1 and out == before:
        net.elementwise("add")


def _conv_act(
    net: OpSequence, out: int, kernel: int = 1, stride: int = 1, activation: str = "relu6"
) -> None:
    """Hard-swish is an operator of its own in TFLite; ReLU and ReLU6 are fused."""
    if activation == "hard_swish":
        net.conv(out, kernel, stride)
        net.elementwise("hard_swish")
    else:
        net.conv(out, kernel, stride, activation)


def _depthwise_act(net: OpSequence, kernel: int, stride: int, activation: str) -> None:
    if activation == "hard_swish":
        net.depthwise(kernel, stride, "none")
        net.elementwise("hard_swish")
    else:
        net.depthwise(kernel, stride, activation)


def _squeeze_excite(net: OpSequence) -> None:
    """MobileNetV3's: squeeze to a quarter; the hard sigmoid is an add with ReLU6 and a mul."""
    channels, size = net.channels, net.size
    net.global_pool()
    net.conv(make_divisible(channels / 4), activation="relu")
    net.conv(channels)
    net.elementwise("add", "relu6")
    net.elementwise("mul")
    net.size = size
    net.elementwise("mul")


# expansion, channels at width 1, repeats, stride
_V2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(width: float, size: int, precision: str) -> OpList:
    """The last convolution keeps its 1280 channels at widths below 1."""
    net = OpSequence(precision, size)
    net.conv(make_divisible(32 * width), 3, 2, "relu6")
    for expansion, out, repeats, stride in _V2_STAGES:
        for index in range(repeats):
            _inverted_residual(
                net,
                expanded=make_divisible(net.channels * expansion),
                out=make_divisible(out * width),
                kernel=3,
                stride=stride if index == 0 else 1,
                activation="relu6",
            )
    net.conv(make_divisible(1280 * max(width, 1.0)), activation="relu6")
    net.global_pool()
    net.classifier(1001)
    return tuple(net.ops)


@dataclass(frozen=True)
class _V3Block:
    """`expanded` and `out` are channels at width 1."""

    expanded: int
    out: int
    kernel: int
    stride: int
    squeeze_excite: bool = False
    hard_swish: bool = False


_V3_LARGE = (
    _V3Block(16, 16, 3, 1),
    _V3Block(64, 24, 3, 2),
    _V3Block(72, 24, 3, 1),
    _V3Block(72, 40, 5, 2, squeeze_excite=True),
    _V3Block(120, 40, 5, 1, squeeze_excite=True),
    _V3Block(120, 40, 5, 1, squeeze_excite=True),
    _V3Block(240, 80, 3, 2, hard_swish=True),
    _V3Block(200, 80, 3, 1, hard_swish=True),
    _V3Block(184, 80, 3, 1, hard_swish=True),
    _V3Block(184, 80, 3, 1, hard_swish=True),
    _V3Block(480, 112, 3, 1, squeeze_excite=True, hard_swish=True),
    _V3Block(672, 112, 3, 1, squeeze_excite=True, hard_swish=True),
    _V3Block(672, 160, 5, 2, squeeze_excite=True, hard_swish=True),
    _V3Block(960, 160, 5, 1, squeeze_excite=True, hard_swish=True),
    _V3Block(960, 160, 5, 1, squeeze_excite=True, hard_swish=True),
)
_V3_SMALL = (
    _V3Block(16, 16, 3, 2, squeeze_excite=True),
    _V3Block(72, 24, 3, 2),
    _V3Block(88, 24, 3, 1),
    _V3Block(96, 40, 5, 2, squeeze_excite=True, hard_swish=True),
    _V3Block(240, 40, 5, 1, squeeze_excite=True, hard_swish=True),
    _V3Block(240, 40, 5, 1, squeeze_excite=True, hard_swish=True),
    _V3Block(120, 48, 5, 1, squeeze_excite=True, hard_swish=True),
    _V3Block(144, 48, 5, 1, squeeze_excite=True, hard_swish=True),
    _V3Block(288, 96, 5, 2, squeeze_excite=True, hard_swish=True),
    _V3Block(576, 96, 5, 1, squeeze_excite=True, hard_swish=True),
    _V3Block(576, 96, 5, 1, squeeze_excite=True, hard_swish=True),
)


def mobilenet_v3(
    variant: Literal["large", "small"],
    width: float,
    size: int,
    precision: str,
    *,
    minimalistic: bool = False,
) -> OpList:
    """Minimalistic: 3×3 kernels, ReLU, no squeeze-excite. The layer before the classifier keeps
    its channels at widths below 1."""
    blocks, last, head = {
        "large": (_V3_LARGE, 960, 1280),
        "small": (_V3_SMALL, 576, 1024),
    }[variant]
    swish = "relu" if minimalistic else "hard_swish"
    net = OpSequence(precision, size)
    _conv_act(net, make_divisible(16 * width), 3, 2, swish)
    wide_before = 16
    for block in blocks:
        _inverted_residual(
            net,
            expanded=make_divisible(net.channels * block.expanded / wide_before),
            out=make_divisible(block.out * width),
            kernel=3 if minimalistic else block.kernel,
            stride=block.stride,
            activation=swish if block.hard_swish else "relu",
            squeeze_excite=block.squeeze_excite and not minimalistic,
        )
        wide_before = block.out
    _conv_act(net, make_divisible(last * width), activation=swish)
    net.global_pool()
    _conv_act(net, make_divisible(head * max(width, 1.0)), activation=swish)
    net.classifier(1001)
    return tuple(net.ops)


# width, depth, input size
EFFICIENTNET_LITE = {
    0: (1.0, 1.0, 224),
    1: (1.0, 1.1, 240),
    2: (1.1, 1.2, 260),
    3: (1.2, 1.4, 280),
    4: (1.4, 1.8, 300),
}
# repeats, kernel, stride, expansion, channels, at width and depth 1
_LITE_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def efficientnet_lite(variant: int, precision: str) -> OpList:
    """Stem and head keep their width, the first and the last stage their depth."""
    width, depth, size = EFFICIENTNET_LITE[variant]
    net = OpSequence(precision, size)
    net.conv(32, 3, 2, "relu6")
    for index, (repeats, kernel, stride, expansion, out) in enumerate(_LITE_STAGES):
        scaled = index not in (0, len(_LITE_STAGES) - 1)
        for repeat in range(ceil(repeats * depth) if scaled else repeats):
            _inverted_residual(
                net,
                expanded=net.channels * expansion,
                out=make_divisible(out * width),
                kernel=kernel,
                stride=stride if repeat == 0 else 1,
                activation="relu6",
            )
    net.conv(1280, activation="relu6")
    net.global_pool()
    net.classifier(1000)
    return tuple(net.ops)


def resnet50(size: int, precision: str) -> OpList:
    """v1.5; the projection shortcut runs before the residual branch."""
    net = OpSequence(precision, size)
    net.conv(64, 7, 2, "relu")
    net.max_pool(3, 2)
    for middle, repeats, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(repeats):
            _bottleneck(net, middle, stride if index == 0 else 1)
    net.global_pool()
    net.classifier(1001)
    return tuple(net.ops)


def _bottleneck(net: OpSequence, middle: int, stride: int) -> None:
    channels, size = net.channels, net.size
    if channels != 4 * middle:
        net.conv(4 * middle, 1, stride)
        net.channels, net.size = channels, size
    net.conv(middle, activation="relu")
    net.conv(middle, 3, stride, "relu")
    net.conv(4 * middle)
    net.elementwise("add", "relu")
