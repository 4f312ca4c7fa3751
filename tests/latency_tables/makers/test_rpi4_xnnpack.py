"""The shipped XNNPACK table: rebuilt, true to its few figures, and open about how few they are."""

import pytest
from unlike_networks import (
    extrapolated,
    googlenet,
    regnet_y_400mf,
    resnet18,
    squeezenet,
    total_ms,
    vgg16,
)

from shrinkc.latency_tables.makers.sources.networks import (
    OpList,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    resnet50,
)
from shrinkc.latency_tables.store import load_table
from shrinkc.latency_tables.table import LatencyTable


@pytest.fixture(scope="module")
def xnnpack() -> LatencyTable:
    return load_table("rpi4/tflite-xnnpack")


@pytest.mark.parametrize(
    ("ops", "published_ms"),
    [
        (mobilenet_v1(1.0, 224, "fp32"), 77),
        (mobilenet_v2(1.0, 224, "fp32"), 46),
        (mobilenet_v3("large", 1.0, 224, "fp32"), 40),
        (mobilenet_v3("small", 1.0, 224, "fp32"), 15),
        (mobilenet_v1(1.0, 224, "int8"), 24),
        (mobilenet_v2(1.0, 224, "int8"), 17),
    ],
)
def test_the_published_figures_come_out(
    xnnpack: LatencyTable, ops: OpList, published_ms: float
) -> None:
    assert total_ms(xnnpack, ops) == pytest.approx(published_ms, rel=0.05)


def test_it_says_on_how_little_it_rests(xnnpack: LatencyTable) -> None:
    """The note, and the error of each figure predicted from the others."""
    assert "8 bits rest on two figures" in xnnpack.meta.note
    for precision, figures, unlike in (("fp32", 7, 8), ("int8", 2, 9)):
        rows = [v.held_out for v in xnnpack.validation if v.precision == precision]
        assert rows.count("none") == rows.count("network") == rows.count("family") == figures
        assert rows.count("unlike") == unlike


def test_networks_that_no_part_of_the_fit_is_of_are_predicted(xnnpack: LatencyTable) -> None:
    """SiLU, GELU, attention, mixed convolutions: by counted instructions."""
    error = xnnpack.mean_error_percent("fp32", "unlike")
    assert error is not None
    assert error < 20


def test_networks_unlike_the_data_come_out_in_order_and_say_so(xnnpack: LatencyTable) -> None:
    """By size; ResNet-50 between what ncnn takes on this board (262 ms, Winograd) and twice it."""
    ordered = (squeezenet(), googlenet(), resnet18(), resnet50(224, "fp32"), vgg16())
    times = [total_ms(xnnpack, ops) for ops in ordered]
    assert times == sorted(times)
    squeeze, google, resnet, fifty, vgg = times
    assert 35 < squeeze < 70
    assert 120 < google < 280
    assert 150 < resnet < 300
    assert 262 < fifty < 571  # 571: the same board with ruy
    assert 1200 < vgg < 2600
    for ops in (*ordered, regnet_y_400mf()):
        kernels = {max(key.kernel) for key in extrapolated(xnnpack, ops) if key.op == "conv2d"}
        assert kernels & {3, 5}


def test_grouped_convolutions_are_products_and_not_the_reference_kernel(
    xnnpack: LatencyTable,
) -> None:
    """RegNetY-400MF has MobileNetV2's multiply-accumulates and a third more."""
    ruy = load_table("rpi4/tflite-ruy")
    ours, theirs = total_ms(xnnpack, regnet_y_400mf()), total_ms(ruy, regnet_y_400mf())
    assert 46 < ours < 80
    assert theirs > 1.8 * ours
