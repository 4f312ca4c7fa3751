"""TFLite's built-in kernels on ruy: what an operator costs them, in countable amounts.

A convolution is lowered to patches (im2col, only when the kernel is larger than 1×1) and one
matrix product; the product runs in fixed tiles, so every extent is rounded up to its tile and
widths have cliffs there; tensors larger than what stays in cache are paid for twice; a product
with a single column (linear layers, 1×1 maps) is bound by reading the weights once; grouped
convolutions run in the reference kernel, a multiply-accumulate at a time; everything else moves
bytes.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from shrinkc.latency_tables.kernels.features import (
    MATRIX_OPS,
    POOLING_OPS,
    Caches,
    Tiles,
    is_grouped,
    kilobytes,
    operand_kilobytes,
    round_up,
    thousand_functions,
    uncached_kilobytes,
    window_kilobytes,
)
from shrinkc.latency_tables.key import OpKey


class Amounts(NamedTuple):
    """Of one operator; a table prices each."""

    gemm: float = 0.0  # million multiply-accumulates of tiled matrix products
    deep_gemm: float = 0.0  # the part of them beyond the depth whose panels fit in L1
    outputs: float = 0.0  # thousand results of matrix products, rescaled and stored
    depthwise: float = 0.0  # million multiply-accumulates of depthwise convolutions
    grouped: float = 0.0  # of grouped convolutions, which run outside the matrix kernels
    grouped_taps: float = 0.0  # million times their innermost loop, over a group, starts
    activations: float = 0.0  # KB that convolutions read, write and rearrange
    uncached: float = 0.0  # the part of them beyond what stays in cache, tensor by tensor
    weights: float = 0.0  # KB of weights packed for a matrix product
    vector_weights: float = 0.0  # KB of weights read for a product with one column
    patch_rows: float = 0.0  # thousand rows copied into patches
    pooling: float = 0.0  # KB of pooling windows read and results written
    elementwise: float = 0.0  # KB every other operator reads and writes
    functions: float = 0.0  # thousand exponentials and the like
    operator: float = 1.0


FEATURES = {
    "gemm": "us_per_mmac",
    "deep_gemm": "us_per_mmac",
    "outputs": "us_per_thousand",
    "depthwise": "us_per_mmac",
    "grouped": "us_per_mmac",
    "grouped_taps": "us_per_million",
    "activations": "us_per_kb",
    "uncached": "us_per_kb",
    "weights": "us_per_kb",
    "vector_weights": "us_per_kb",
    "patch_rows": "us_per_thousand",
    "pooling": "us_per_kb",
    "elementwise": "us_per_kb",
    "functions": "us_per_thousand",
    "operator": "us_per_op",
    "network": "us_per_network",
}


def amounts(key: OpKey, tiles: Tiles, caches: Caches) -> Amounts:
    """The operator's amount of every feature but the last, in the order of `FEATURES`."""
    if is_grouped(key):
        return _grouped(key, caches)
    if key.op in MATRIX_OPS:
        return _vector(key, tiles) if prod(key.out_size) == 1 else _lowered(key, tiles, caches)
    if key.op == "depthwise_conv2d":
        return _depthwise(key, tiles, caches)
    if key.op == "conv_transpose2d":
        return _transposed(key, tiles, caches)
    if key.op in POOLING_OPS:
        return Amounts(pooling=window_kilobytes(key))
    return Amounts(elementwise=operand_kilobytes(key), functions=thousand_functions(key))


def _lowered(key: OpKey, tiles: Tiles, caches: Caches) -> Amounts:
    taps, pixels = prod(key.kernel), prod(key.out_size)
    depth = key.in_channels * taps
    patches = depth * pixels if taps > 1 else 0
    copies = pixels * key.kernel[0] / 1e3 if taps > 1 else 0.0
    rows = round_up(key.out_channels, tiles.out_channels)
    return _product(key, (rows, depth, pixels), patches, copies, tiles, caches)


def _transposed(key: OpKey, tiles: Tiles, caches: Caches) -> Amounts:
    """A matrix product per input pixel, whose columns are then added into the output."""
    pixels, depth = prod(key.in_size), key.in_channels // key.groups
    rows = round_up(key.out_channels * prod(key.kernel), tiles.out_channels)
    copies = key.groups * pixels * key.kernel[0] / 1e3
    return _product(key, (rows, depth, pixels), rows * pixels, copies, tiles, caches)


def _product(
    key: OpKey,
    extents: tuple[int, int, int],
    patches: int,
    copies: float,
    tiles: Tiles,
    caches: Caches,
) -> Amounts:
    """A product of (rows, depth) weights and (depth, pixels), with `patches` elements written
    and read in between and `copies` thousand rows copied to make them."""
    rows, depth, pixels = extents
    plane = rows * round_up(pixels, tiles.pixels) / 1e6
    padded = round_up(depth, tiles.depth)
    in_l1 = caches.l1_bytes / ((tiles.out_channels + tiles.pixels) * key.element_bytes)
    tensors = (key.input_elements, key.output_elements, patches, patches)
    return Amounts(
        gemm=plane * padded,
        deep_gemm=plane * max(0.0, padded - in_l1),
        outputs=rows * pixels / 1e3,
        activations=kilobytes(key, *tensors),
        uncached=uncached_kilobytes(key, caches, *tensors),
        weights=kilobytes(key, rows * depth),
        patch_rows=copies,
    )


def _vector(key: OpKey, tiles: Tiles) -> Amounts:
    rows = round_up(key.out_channels, tiles.out_channels)
    return Amounts(vector_weights=kilobytes(key, rows * key.in_channels * prod(key.kernel)))


def _depthwise(key: OpKey, tiles: Tiles, caches: Caches) -> Amounts:
    channels = round_up(key.out_channels, tiles.depthwise)
    tensors = (key.input_elements, key.output_elements)
    return Amounts(
        depthwise=channels * prod(key.out_size) * prod(key.kernel) / 1e6,
        activations=kilobytes(key, *tensors),
        uncached=uncached_kilobytes(key, caches, *tensors),
    )


def _grouped(key: OpKey, caches: Caches) -> Amounts:
    tensors = (key.input_elements, key.output_elements)
    return Amounts(
        grouped=key.macs / 1e6,
        grouped_taps=key.output_elements * prod(key.kernel) / 1e6,
        activations=kilobytes(key, *tensors),
        uncached=uncached_kilobytes(key, caches, *tensors),
    )
