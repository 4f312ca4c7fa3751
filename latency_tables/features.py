"""What an operator costs a CPU that runs convolutions as matrix products, in countable amounts.

A fitted table prices these amounts (`FEATURES`, one coefficient each). The shape of the model is
how TFLite's built-in kernels work: a convolution is lowered to patches (im2col, only when the
kernel is larger than 1×1) and one matrix product; the product runs in fixed tiles, so every
extent is rounded up to its tile and widths have cliffs there; tensors larger than what stays in
cache are paid for twice; a product with a single column (linear layers, 1×1 maps) is bound by
reading the weights once; grouped convolutions run in the reference kernel, a multiply-accumulate
at a time; everything else moves bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from .key import OpKey

# Name → unit of its coefficient. KB are 1000 bytes.
FEATURES = {
    "gemm": "us_per_mmac",  # multiply-accumulates of tiled matrix products
    "deep_gemm": "us_per_mmac",  # the part of them beyond the depth whose panels fit in L1
    "depthwise": "us_per_mmac",  # multiply-accumulates of depthwise convolutions
    "grouped": "us_per_mmac",  # of grouped convolutions, which run outside the matrix kernels
    "activations": "us_per_kb",  # bytes convolutions read, write and rearrange
    "uncached": "us_per_kb",  # the part of them beyond what stays in cache, tensor by tensor
    "weights": "us_per_kb",  # weights packed for a matrix product
    "vector_weights": "us_per_kb",  # weights read for a product with one column
    "patch_rows": "us_per_thousand",  # rows copied into patches
    "elementwise": "us_per_kb",  # bytes every other operator reads and writes
    "operator": "us_per_op",  # 1 for each operator
    "network": "us_per_network",  # 1 for each inference; no operator has it
}
OPERATOR_FEATURES = len(FEATURES) - 1  # the last one belongs to the network

MATRIX_OPS = frozenset({"conv2d", "linear", "matmul"})
PRICED_OPS = MATRIX_OPS | {"depthwise_conv2d", "conv_transpose2d"}  # by more than their bytes
BINARY_OPS = frozenset({"add", "sub", "mul", "div", "pow", "maximum", "minimum"})
# One or two reads, a few instructions, one write.
ELEMENTWISE_OPS = frozenset(
    {"add", "sub", "mul", "maximum", "minimum", "relu", "relu6", "clip", "abs", "neg"}
    | {"leaky_relu", "prelu", "hard_swish", "hard_sigmoid"}
)
IMAGE_CHANNELS = 4  # a convolution on so few channels reads the picture


@dataclass(frozen=True, slots=True)
class Tiles:
    """The matrix kernel's block: extents are rounded up to these. From the runtime's source."""

    out_channels: int
    pixels: int
    depth: int
    depthwise: int  # channels a depthwise kernel takes at a time


@dataclass(frozen=True, slots=True)
class Caches:
    """L1 data cache of a core, and the size up to which a tensor is taken to stay in L2."""

    l1_bytes: int
    resident_bytes: int


Amounts = tuple[
    float, float, float, float, float, float, float, float, float, float, float
]  # of one operator, in the order of `FEATURES` without the last


def operator_class(key: OpKey) -> str:
    """The name under which a table records what it has seen of such operators."""
    if _is_grouped(key):
        return "grouped_conv"
    if key.op in MATRIX_OPS:
        if prod(key.out_size) == 1:
            return "matrix_vector"
        if key.op != "conv2d":
            return "matrix_product"
        if prod(key.kernel) == 1:
            return "pointwise_conv"
        return "image_conv" if key.in_channels <= IMAGE_CHANNELS else "dense_conv"
    return "elementwise" if key.op in ELEMENTWISE_OPS else key.op


def amounts(key: OpKey, tiles: Tiles, caches: Caches) -> Amounts:
    """The operator's amount of every feature but the last, in the order of `FEATURES`."""
    if _is_grouped(key):
        return _grouped(key, caches)
    if key.op in MATRIX_OPS:
        if prod(key.out_size) == 1:
            return _matrix_vector(key, tiles)
        return _matrix_product(key, tiles, caches)
    if key.op == "depthwise_conv2d":
        return _depthwise(key, tiles, caches)
    if key.op == "conv_transpose2d":
        return _transposed(key, tiles, caches)
    return _elementwise(key)


def _is_grouped(key: OpKey) -> bool:
    return key.op == "conv2d" and key.groups > 1


def round_up(value: int, multiple: int) -> int:
    """The least multiple that is not below `value`."""
    return -(-value // multiple) * multiple


def _matrix_product(key: OpKey, tiles: Tiles, caches: Caches) -> Amounts:
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
    deep = plane * max(0.0, padded - in_l1)
    tensors = (key.input_elements, key.output_elements, patches, patches)
    moved, uncached = _moved(key, caches, tensors)
    weights = rows * depth * key.element_bytes / 1e3
    return (plane * padded, deep, 0.0, 0.0, moved, uncached, weights, 0.0, copies, 0.0, 1.0)


def _matrix_vector(key: OpKey, tiles: Tiles) -> Amounts:
    rows = round_up(key.out_channels, tiles.out_channels)
    weights = rows * key.in_channels * prod(key.kernel) * key.element_bytes / 1e3
    return (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, weights, 0.0, 0.0, 1.0)


def _depthwise(key: OpKey, tiles: Tiles, caches: Caches) -> Amounts:
    channels = round_up(key.out_channels, tiles.depthwise)
    macs = channels * prod(key.out_size) * prod(key.kernel) / 1e6
    moved, uncached = _moved(key, caches, (key.input_elements, key.output_elements))
    return (0.0, 0.0, macs, 0.0, moved, uncached, 0.0, 0.0, 0.0, 0.0, 1.0)


def _grouped(key: OpKey, caches: Caches) -> Amounts:
    moved, uncached = _moved(key, caches, (key.input_elements, key.output_elements))
    return (0.0, 0.0, 0.0, key.macs / 1e6, moved, uncached, 0.0, 0.0, 0.0, 0.0, 1.0)


def _elementwise(key: OpKey) -> Amounts:
    """Operands or pooling windows read, result written; nothing is assumed to stay in cache."""
    operands = 2 if key.op in BINARY_OPS and prod(key.in_size) > 1 else 1
    read = max(operands * key.input_elements, prod(key.kernel) * key.output_elements)
    moved_kb = (read + key.output_elements) * key.element_bytes / 1e3
    return (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, moved_kb, 1.0)


def _moved(key: OpKey, caches: Caches, tensors: tuple[int, ...]) -> tuple[float, float]:
    """KB of the tensors (given in elements), and KB by which each exceeds the cache."""
    sizes = [elements * key.element_bytes for elements in tensors]
    return sum(sizes) / 1e3, sum(max(0, size - caches.resident_bytes) for size in sizes) / 1e3
