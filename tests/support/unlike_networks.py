"""Operator lists of published networks that no shipped CPU table is fitted to, 224×224."""

from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.makers.sources.networks import OpList
from shrinkc.latency_tables.makers.sources.sequence import OpSequence
from shrinkc.latency_tables.table import LatencyTable


def total_ms(table: LatencyTable, ops: OpList) -> float:
    return table.network_overhead_ms(ops[0].precision) + sum(table.estimate(k).ms for k in ops)


def extrapolated(table: LatencyTable, ops: OpList) -> list[OpKey]:
    return [key for key in ops if table.estimate(key).extrapolated]


def resnet18(precision: str = "fp32") -> OpList:
    net = OpSequence(precision, 224)
    net.conv(64, 7, 2, "relu")
    net.max_pool(3, 2)
    for out, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)):
        _basic_block(net, out, stride)
    _basic_block(net, 512, 1)
    net.global_pool()
    net.classifier(1000)
    return tuple(net.ops)


def _basic_block(net: OpSequence, out: int, stride: int) -> None:
    channels, size = net.channels, net.size
    if channels != out:
        net.conv(out, 1, stride)
        net.channels, net.size = channels, size
    net.conv(out, 3, stride, "relu")
    net.conv(out, 3)
    net.elementwise("add", "relu")


def vgg16(precision: str = "fp32") -> OpList:
    net = OpSequence(precision, 224)
    for out, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            net.conv(out, 3, 1, "relu")
        net.max_pool(2, 2)
    net.channels, net.size = 512 * 49, 1
    for out in (4096, 4096, 1000):
        net.conv(out)
    return tuple(net.ops)


def squeezenet(precision: str = "fp32") -> OpList:
    """Version 1.1."""
    net = OpSequence(precision, 224)
    net.conv(64, 3, 2, "relu")
    net.max_pool(3, 2)
    for index, (squeeze, expand) in enumerate(((16, 64), (32, 128), (48, 192), (64, 256))):
        for _ in range(2):
            net.conv(squeeze, activation="relu")
            _branches(net, ((1, expand),), ((3, expand),))
        if index < 2:
            net.max_pool(3, 2)
    net.conv(1000, activation="relu")
    net.global_pool()
    return tuple(net.ops)


def _branches(net: OpSequence, *branches: tuple[tuple[int, int], ...]) -> None:
    """Each branch a chain of (kernel, channels); the results concatenated."""
    before = net.channels
    for branch in branches:
        net.channels = before
        for kernel, out in branch:
            net.conv(out, kernel, 1, "relu")
    net.channels = sum(branch[-1][1] for branch in branches)
    net.elementwise("concat")


# 1×1; 1×1 and 3×3; 1×1 and 5×5; after a 3×3 pooling 1×1
_INCEPTIONS = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        *((192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64)),
        *((112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128)),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


def googlenet(precision: str = "fp32") -> OpList:
    net = OpSequence(precision, 224)
    net.conv(64, 7, 2, "relu")
    net.max_pool(3, 2)
    net.conv(64, activation="relu")
    net.conv(192, 3, 1, "relu")
    for stage in _INCEPTIONS:
        net.max_pool(3, 2)
        for a, b1, b3, c1, c5, d in stage:
            net.max_pool(3, 1)
            _branches(net, ((1, a),), ((1, b1), (3, b3)), ((1, c1), (5, c5)), ((1, d),))
    net.global_pool()
    net.classifier(1000)
    return tuple(net.ops)


def regnet_y_400mf(precision: str = "fp32") -> OpList:
    """Groups of 8 channels, squeeze-excite to a quarter of the block's input."""
    net = OpSequence(precision, 224)
    net.conv(32, 3, 2, "relu")
    for out, repeats in ((48, 1), (104, 3), (208, 6), (440, 6)):
        for repeat in range(repeats):
            _regnet_block(net, out, 2 if repeat == 0 else 1)
    net.global_pool()
    net.classifier(1000)
    return tuple(net.ops)


def _regnet_block(net: OpSequence, out: int, stride: int) -> None:
    channels, size = net.channels, net.size
    if stride == 2:
        net.conv(out, 1, stride)
        net.channels, net.size = channels, size
    net.conv(out, activation="relu")
    net.grouped(out, 3, stride, out // 8, "relu")
    after = net.size
    net.global_pool()
    net.conv(channels // 4, activation="relu")
    net.conv(out)
    net.elementwise("sigmoid")
    net.size = after
    net.elementwise("mul")
    net.conv(out)
    net.elementwise("add", "relu")
