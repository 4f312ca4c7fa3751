"""Amounts of XNNPACK's kernels, counted by hand."""

from dataclasses import replace

import pytest

from shrinkc.latency_tables.kernels.counted import COLUMNS, FILE, RUNTIME, per_value
from shrinkc.latency_tables.kernels.features import Caches, Tiles
from shrinkc.latency_tables.kernels.xnnpack import amounts
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.rows import read_rows

TILES, CACHES = Tiles(8, 4, 1, 4), Caches(32 * 1024, 512 * 1024)
SMALL = (7, 7)


def counted(key: OpKey, tiles: Tiles = TILES) -> dict[str, float]:
    """The amounts that are not zero, by feature."""
    return {name: value for name, value in amounts(key, tiles, CACHES)._asdict().items() if value}


def test_small_weights_stay_in_l1() -> None:
    key = OpKey("conv2d", 20, 30, in_size=SMALL, out_size=SMALL)
    assert counted(key) == pytest.approx(
        {
            "gemm": 32 * 52 * 20 / 1e6,
            "activations": (20 + 30) * 49 * 4 / 1e3,
            "weights": 32 * 20 * 4 / 1e3,
            "operator": 1,
        }
    )


def test_large_weights_are_read_again_for_every_block_of_pixels() -> None:
    key = OpKey("conv2d", 512, 512, in_size=SMALL, out_size=SMALL)
    assert counted(key)["streamed"] == pytest.approx(13 * (512 * 512 * 4 - 32768) / 1e3)


def test_a_dense_convolution_makes_no_patches() -> None:
    key = OpKey("conv2d", 64, 64, (3, 3), in_size=(56, 56), out_size=(56, 56))
    tensor = 64 * 3136 * 4
    assert counted(key)["activations"] == pytest.approx(2 * tensor / 1e3)
    assert counted(key)["uncached"] == pytest.approx(2 * (tensor - 524288) / 1e3)
    assert counted(key)["gemm"] == pytest.approx(key.macs / 1e6)


def test_depth_is_padded_tap_by_tap() -> None:
    key = OpKey("conv2d", 20, 32, (3, 3), in_size=SMALL, out_size=SMALL, precision="int8")
    assert counted(key, Tiles(8, 2, 8, 16))["gemm"] == pytest.approx(32 * 50 * 24 * 9 / 1e6)


def test_groups_are_padded_each() -> None:
    """Four groups of 20 → 20 channels: each pays for 24."""
    key = OpKey("conv2d", 80, 80, (3, 3), groups=4, in_size=SMALL, out_size=SMALL)
    assert counted(key)["gemm"] == pytest.approx(4 * 24 * 20 * 9 * 52 / 1e6)
    assert "streamed" not in counted(key)  # a group's weights stay in L1


def test_a_single_column_only_reads_weights() -> None:
    linear = OpKey("linear", 1280, 1000)
    expected = {"weights": 1280 * 1000 * 4 / 1e3, "operator": 1.0}
    assert counted(linear) == pytest.approx(expected)
    assert counted(replace(linear, op="conv2d")) == pytest.approx(expected)


def test_depthwise_convolutions_fill_vectors_of_channels() -> None:
    key = OpKey("depthwise_conv2d", 30, 30, (5, 5), groups=30, in_size=SMALL, out_size=SMALL)
    assert counted(key)["depthwise"] == pytest.approx(32 * 49 * 25 / 1e6)


def test_a_transposed_convolution_costs_its_multiply_accumulates() -> None:
    key = OpKey("conv_transpose2d", 16, 8, (2, 2), (2, 2), in_size=(8, 8), out_size=(16, 16))
    assert counted(key)["gemm"] == pytest.approx(key.macs / 1e6)


def test_products_with_tokens_are_told_from_convolutions() -> None:
    key = OpKey("linear", 192, 768, in_size=(196, 1), out_size=(196, 1))
    assert counted(key)["tokens"] == counted(key)["gemm"] == pytest.approx(key.macs / 1e6)


def test_everything_else_moves_bytes_and_executes_what_was_counted() -> None:
    """An operator that pads, too: what a window pads is part of the window."""
    add = OpKey("add", 16, 16, in_size=SMALL, out_size=SMALL)
    assert counted(add)["elementwise"] == pytest.approx(3 * 784 * 4 / 1e3)
    pad = counted(replace(add, op="pad", out_size=(9, 9)))
    assert pad["elementwise"] == pytest.approx((784 + 16 * 81) * 4 / 1e3)
    assert (
        counted(replace(add, op="silu"))["vector"] > 4 * counted(replace(add, op="relu"))["vector"]
    )
    pool = OpKey("max_pool", 16, 16, (3, 3), in_size=SMALL, out_size=SMALL)
    assert counted(pool)["vector"] == pytest.approx(9 * 784 * per_value()["max_pool"][0] / 1e6)


def test_what_xnnpack_does_not_take_is_built_in() -> None:
    gelu = OpKey("gelu", 16, 16, in_size=SMALL, out_size=SMALL)
    assert counted(gelu)["built_in"] > 80 * 784 / 1e6
    assert "vector" not in counted(gelu)
    product = OpKey("matmul", 64, 196, in_size=(196, 1), out_size=(196, 1))
    assert counted(product)["built_in"] == pytest.approx(
        product.macs * per_value()["matmul"][0] / 1e6
    )


def test_the_catalogue_holds_what_the_exporter_writes() -> None:
    """Every operator was counted in several shapes, and instructions are of some kind."""
    rows = read_rows(FILE, COLUMNS)
    assert {row.text("runtime") for row in rows} >= {RUNTIME, "litert-2/xnnpack"}
    kinds = {"conv2d", "depthwise_conv2d", "conv_transpose2d", "linear", "matmul", "resize"}
    assert kinds | {"silu", "gelu", "softmax", "layer_norm"} <= per_value().keys()
    for row in rows:
        parts = sum(row.count(name, least=0) for name in ("vector", "loads", "stores"))
        assert parts <= 1.01 * row.count("instructions", least=0) + 2000
