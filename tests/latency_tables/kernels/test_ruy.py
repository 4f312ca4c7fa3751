"""Amounts of TFLite's built-in kernels, counted by hand."""

from dataclasses import replace

import pytest

from shrinkc.latency_tables.kernels.features import Caches, Tiles
from shrinkc.latency_tables.kernels.ruy import amounts
from shrinkc.latency_tables.key import OpKey

TILES, CACHES = Tiles(8, 8, 1, 4), Caches(32 * 1024, 512 * 1024)
SMALL = (14, 14)


def counted(key: OpKey, tiles: Tiles = TILES) -> dict[str, float]:
    """The amounts that are not zero, by feature."""
    return {name: value for name, value in amounts(key, tiles, CACHES)._asdict().items() if value}


def test_a_pointwise_convolution_is_one_padded_product() -> None:
    key = OpKey("conv2d", 20, 30, in_size=(7, 7), out_size=(7, 7))
    assert counted(key) == pytest.approx(
        {
            "gemm": 32 * 56 * 20 / 1e6,
            "outputs": 32 * 49 / 1e3,
            "activations": (20 + 30) * 49 * 4 / 1e3,
            "weights": 32 * 20 * 4 / 1e3,
            "operator": 1,
        }
    )


def test_depth_is_padded_where_the_kernel_is_deep() -> None:
    key = OpKey("conv2d", 20, 30, in_size=(7, 7), out_size=(7, 7), precision="int8")
    found = counted(key, Tiles(4, 4, 16, 8))
    assert found["gemm"] == pytest.approx(32 * 52 * 32 / 1e6)
    assert found["activations"] == pytest.approx((20 + 30) * 49 / 1e3)


def test_a_dense_convolution_also_makes_patches_and_leaves_l1() -> None:
    key = OpKey("conv2d", 64, 64, (3, 3), in_size=(56, 56), out_size=(56, 56))
    found, tensor, patches = counted(key), 64 * 3136 * 4, 576 * 3136 * 4
    assert found["patch_rows"] == pytest.approx(3136 * 3 / 1e3)
    assert found["activations"] == pytest.approx((2 * tensor + 2 * patches) / 1e3)
    beyond = 2 * (tensor - 524288) + 2 * (patches - 524288)
    assert found["uncached"] == pytest.approx(beyond / 1e3)
    assert found["deep_gemm"] == pytest.approx(64 * 3136 * (576 - 512) / 1e6)


def test_a_single_column_only_reads_weights() -> None:
    linear = OpKey("linear", 1280, 1000)
    expected = {"vector_weights": 1280 * 1000 * 4 / 1e3, "operator": 1.0}
    assert counted(linear) == pytest.approx(expected)
    assert counted(replace(linear, op="conv2d")) == pytest.approx(expected)


def test_depthwise_convolutions_fill_vectors_of_channels() -> None:
    key = OpKey("depthwise_conv2d", 30, 30, (5, 5), groups=30, in_size=SMALL, out_size=SMALL)
    assert counted(key)["depthwise"] == pytest.approx(32 * 196 * 25 / 1e6)


def test_grouped_convolutions_start_a_loop_for_every_tap() -> None:
    found = counted(OpKey("conv2d", 32, 32, (3, 3), groups=4, in_size=SMALL, out_size=SMALL))
    assert found["grouped"] == pytest.approx(32 * 196 * 8 * 9 / 1e6)
    assert found["grouped_taps"] == pytest.approx(32 * 196 * 9 / 1e6)
    assert "gemm" not in found


def test_a_transposed_convolution_adds_columns_into_its_output() -> None:
    key = OpKey("conv_transpose2d", 16, 8, (2, 2), (2, 2), in_size=(7, 7), out_size=SMALL)
    found = counted(key)
    assert found["gemm"] == pytest.approx(32 * 56 * 16 / 1e6)
    assert found["patch_rows"] == pytest.approx(49 * 2 / 1e3)


def test_everything_else_moves_bytes() -> None:
    size = (10, 10)
    add = OpKey("add", 16, 16, in_size=size, out_size=size)
    assert counted(add) == pytest.approx({"elementwise": 3 * 1600 * 4 / 1e3, "operator": 1})
    relu = replace(add, op="relu")
    assert counted(relu)["elementwise"] == pytest.approx(2 * 1600 * 4 / 1e3)
    pool = OpKey("max_pool", 16, 16, (3, 3), (2, 2), in_size=size, out_size=(5, 5))
    assert counted(pool) == pytest.approx({"pooling": (9 + 1) * 400 * 4 / 1e3, "operator": 1})
    mean = OpKey("mean", 16, 16, in_size=size)
    assert counted(mean)["pooling"] == pytest.approx((1600 + 16) * 4 / 1e3)


def test_exponentials_cost_more_than_their_bytes() -> None:
    silu = OpKey("silu", 16, 16, in_size=(10, 10), out_size=(10, 10))
    assert counted(silu)["functions"] == pytest.approx(1.6)
    assert "functions" not in counted(replace(silu, op="hard_swish"))
