"""XNNPACK: what an operator costs it, in countable amounts.

No patches: the matrix kernel reads its rows through pointers (Dukhan 2019, "The Indirect
Convolution Algorithm"). A block of a few pixels is multiplied with all weights before the next
block begins, so weights that do not stay in L1 are read again for every block. Grouped
convolutions are a product for each group, whose output channels are rounded up to the tile.
Transposed convolution needs no extra pass, nor does the padding in front of a window, which is no
operator here.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from shrinkc.latency_tables.kernels.features import (
    MATRIX_OPS,
    POOLING_OPS,
    Caches,
    Tiles,
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
    streamed: float = 0.0  # KB of weights beyond L1, read for every block of pixels
    depthwise: float = 0.0  # million multiply-accumulates of depthwise convolutions
    activations: float = 0.0  # KB that convolutions read and write
    uncached: float = 0.0  # the part of them beyond what stays in cache, tensor by tensor
    weights: float = 0.0  # KB of weights fetched from memory once
    pooling: float = 0.0  # KB of pooling windows read and results written
    elementwise: float = 0.0  # KB every other operator reads and writes
    functions: float = 0.0  # thousand exponentials and the like
    operator: float = 1.0


FEATURES = {
    "gemm": "us_per_mmac",
    "streamed": "us_per_kb",
    "depthwise": "us_per_mmac",
    "activations": "us_per_kb",
    "uncached": "us_per_kb",
    "weights": "us_per_kb",
    "pooling": "us_per_kb",
    "elementwise": "us_per_kb",
    "functions": "us_per_thousand",
    "operator": "us_per_op",
    "network": "us_per_network",
}


def amounts(key: OpKey, tiles: Tiles, caches: Caches) -> Amounts:
    """The operator's amount of every feature but the last, in the order of `FEATURES`."""
    if key.op in MATRIX_OPS or key.op == "conv_transpose2d":
        return _product(key, tiles, caches)
    if key.op == "depthwise_conv2d":
        return _depthwise(key, tiles, caches)
    if key.op in POOLING_OPS:
        return Amounts(pooling=window_kilobytes(key))
    return Amounts(elementwise=operand_kilobytes(key), functions=thousand_functions(key))


def _product(key: OpKey, tiles: Tiles, caches: Caches) -> Amounts:
    """For every group a product of (rows, depth) weights and (depth, pixels). A transposed
    convolution is a few small convolutions, which together have its multiply-accumulates."""
    transposed = key.op == "conv_transpose2d"
    pixels = prod(key.in_size if transposed else key.out_size)
    rows = round_up(key.out_channels // key.groups, tiles.out_channels)
    depth = round_up(key.in_channels // key.groups, tiles.depth) * prod(key.kernel)
    if pixels == 1:  # a kernel of its own, bound by reading the weights
        return Amounts(weights=kilobytes(key, key.groups * rows * depth))
    blocks, again = round_up(pixels, tiles.pixels), rows * depth * key.element_bytes
    tensors = (key.input_elements, key.output_elements)
    beyond_l1 = max(0, again - caches.l1_bytes) / 1e3
    return Amounts(
        gemm=key.groups * rows * depth * blocks / 1e6,
        streamed=key.groups * blocks // tiles.pixels * beyond_l1,
        activations=kilobytes(key, *tensors),
        uncached=uncached_kilobytes(key, caches, *tensors),
        weights=kilobytes(key, key.groups * rows * depth),
    )


def _depthwise(key: OpKey, tiles: Tiles, caches: Caches) -> Amounts:
    channels = round_up(key.out_channels, tiles.depthwise)
    tensors = (key.input_elements, key.output_elements)
    return Amounts(
        depthwise=channels * prod(key.out_size) * prod(key.kernel) / 1e6,
        activations=kilobytes(key, *tensors),
        uncached=uncached_kilobytes(key, caches, *tensors),
    )
