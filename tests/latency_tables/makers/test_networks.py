"""The generated operator lists against what the papers and repositories publish."""

from collections import Counter

import pytest

from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.makers.sources.networks import (
    OpList,
    efficientnet_lite,
    make_divisible,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    resnet50,
)


def mmacs(ops: OpList) -> float:
    return sum(key.macs for key in ops) / 1e6


def mparams(ops: OpList) -> float:
    """Weights without biases."""
    return sum(key.weight_elements for key in ops) / 1e6


@pytest.mark.parametrize(
    ("ops", "published_mmacs", "published_mparams"),
    [
        (mobilenet_v1(1.0, 224, "fp32"), 569, 4.24),
        (mobilenet_v1(0.25, 128, "fp32"), 14, 0.47),
        (mobilenet_v2(1.0, 224, "fp32"), 300, 3.47),
        (mobilenet_v2(1.3, 224, "fp32"), 509, 5.34),
        (mobilenet_v2(0.5, 160, "fp32"), 50, 1.95),
        (mobilenet_v2(0.35, 96, "fp32"), 11, 1.66),
        (mobilenet_v3("large", 1.0, 224, "fp32"), 217, 5.4),
        (mobilenet_v3("large", 1.0, 224, "fp32", minimalistic=True), 209, 3.9),
        (mobilenet_v3("small", 1.0, 224, "fp32"), 56, 2.5),
        (mobilenet_v3("small", 0.75, 224, "fp32"), 44, 2.0),
        (efficientnet_lite(0, "fp32"), 407, 4.7),
        (efficientnet_lite(4, "fp32"), 2640, 13.0),
        (resnet50(224, "fp32"), 4090, 25.5),
    ],
)
def test_size_as_published(ops: OpList, published_mmacs: float, published_mparams: float) -> None:
    """Some count biases or batch norms, some cut off the decimals."""
    assert mmacs(ops) == pytest.approx(published_mmacs, rel=0.06, abs=1)
    assert mparams(ops) == pytest.approx(published_mparams, rel=0.03)


def test_operator_counts_as_tflite_fuses() -> None:
    kinds = Counter(key.op for key in mobilenet_v2(1.0, 224, "fp32"))
    assert kinds == {
        **{"conv2d": 35, "depthwise_conv2d": 17, "add": 10},
        **{"mean": 1, "linear": 1, "softmax": 1},
    }
    large = Counter(key.op for key in mobilenet_v3("large", 1.0, 224, "fp32"))
    assert (large["hard_swish"], large["mean"], large["depthwise_conv2d"]) == (21, 9, 15)


@pytest.mark.parametrize(
    "ops",
    [
        mobilenet_v1(0.5, 160, "int8"),
        mobilenet_v2(0.35, 96, "int8"),
        mobilenet_v3("small", 1.0, 224, "int8"),
        efficientnet_lite(3, "int8"),
    ],
)
def test_operators_fit_together(ops: OpList) -> None:
    """Each reads what an earlier one (or the image) left."""
    left = {(3, ops[0].in_size)}
    for key in ops:
        assert key.precision == "int8"
        assert (key.in_channels, key.in_size) in left
        left.add((key.out_channels, key.out_size))


@pytest.mark.parametrize(
    ("value", "expected"), [(32 * 0.35, 16), (16 * 0.35, 8), (24 * 0.5, 16), (1664.0, 1664), (1, 8)]
)
def test_make_divisible(value: float, expected: int) -> None:
    assert make_divisible(value) == expected
    assert make_divisible(value) >= 0.9 * value


def test_same_padding_rounds_sizes_up() -> None:
    stem = mobilenet_v1(1.0, 127, "fp32")[0]
    assert stem == OpKey(
        *("conv2d", 3, 32, (3, 3), (2, 2)),
        in_size=(127, 127),
        out_size=(64, 64),
        activation="relu6",
    )
