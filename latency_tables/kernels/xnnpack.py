"""XNNPACK: what an operator costs it, in countable amounts.

No patches: the matrix kernel reads its rows through pointers (Dukhan 2019, "The Indirect
Convolution Algorithm"). A block of a few pixels is multiplied with all weights before the next
block begins, so weights that do not stay in L1 are read again for every block. Grouped
convolutions are a product for each group, whose output channels are rounded up to the tile.
Transposed convolution needs no extra pass, nor does the padding in front of a window, which is no
operator here. Everything else costs the instructions that were counted (`counted`) and the bytes it
moves; what XNNPACK does not take runs in TFLite's own kernels, on one core.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from shrinkc.latency_tables.kernels.counted import per_value, values
from shrinkc.latency_tables.kernels.features import (
    MATRIX_OPS,
    Caches,
    Tiles,
    kilobytes,
    operand_kilobytes,
    round_up,
    uncached_kilobytes,
)
from shrinkc.latency_tables.key import OpKey

NOT_COUNTED = (5.0, False)  # instructions for a value of any other operator, as of a comparison


class Amounts(NamedTuple):
    """Of one operator; a table prices each."""

    gemm: float = 0.0  # million multiply-accumulates of tiled matrix products
    tokens: float = 0.0  # those of them on rows of tokens, which no window slides over
    streamed: float = 0.0  # KB of weights beyond L1, read for every block of pixels
    depthwise: float = 0.0  # million multiply-accumulates of depthwise convolutions
    activations: float = 0.0  # KB that convolutions read and write
    uncached: float = 0.0  # the part of them beyond what stays in cache, tensor by tensor
    weights: float = 0.0  # KB of weights fetched from memory once
    elementwise: float = 0.0  # KB every other operator reads and writes
    vector: float = 0.0  # million instructions of its own kernels for them
    built_in: float = 0.0  # million instructions of kernels that are not its own
    operator: float = 1.0


FEATURES = {
    "gemm": "us_per_mmac",
    "tokens": "us_per_mmac",
    "streamed": "us_per_kb",
    "depthwise": "us_per_mmac",
    "activations": "us_per_kb",
    "uncached": "us_per_kb",
    "weights": "us_per_kb",
    "elementwise": "us_per_kb",
    "vector": "us_per_million",
    "built_in": "us_per_million",
    "operator": "us_per_op",
    "network": "us_per_network",
}


def amounts(key: OpKey, tiles: Tiles, caches: Caches) -> Amounts:
    """The operator's amount of every feature but the last, in the order of `FEATURES`."""
    each, taken = per_value().get(key.op, NOT_COUNTED)
    if taken and (key.op in MATRIX_OPS or key.op == "conv_transpose2d"):
        return _product(key, tiles, caches)
    if key.op == "depthwise_conv2d":
        return _depthwise(key, tiles, caches)
    million, moved = each * values(key) / 1e6, operand_kilobytes(key)
    if taken:
        return Amounts(elementwise=moved, vector=million)
    return Amounts(elementwise=moved, built_in=million)


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
    gemm = key.groups * rows * depth * blocks / 1e6
    return Amounts(
        gemm=gemm,
        tokens=gemm if key.op == "linear" else 0.0,
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
