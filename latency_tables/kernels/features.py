"""What a CPU's price model counts: tiles, caches, kinds of operators, bytes moved.

The models themselves, one for each library of kernels, are `ruy` and `xnnpack`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from shrinkc.latency_tables.key import OpKey

MATRIX_OPS = frozenset({"conv2d", "linear", "matmul"})
BINARY_OPS = frozenset({"add", "sub", "mul", "div", "pow", "maximum", "minimum"})
# One or two reads, a few instructions, one write.
ELEMENTWISE_OPS = frozenset(
    {"add", "sub", "mul", "maximum", "minimum", "relu", "relu6", "clip", "abs", "neg"}
    | {"leaky_relu", "prelu", "hard_swish", "hard_sigmoid"}
)
POOLING_OPS = frozenset({"max_pool", "avg_pool", "mean", "sum", "max"})
# At least one exponential, logarithm, root or error function for every value.
FUNCTION_OPS = frozenset(
    {"sigmoid", "tanh", "silu", "mish", "gelu", "gelu_tanh", "elu", "softplus", "erf"}
    | {"exp", "log", "sqrt", "rsqrt", "pow", "softmax"}
)
# By more than their bytes.
PRICED_OPS = MATRIX_OPS | POOLING_OPS | FUNCTION_OPS | {"depthwise_conv2d", "conv_transpose2d"}
# What `operator_class` says of the operators that networks mostly have.
CLASSES = (
    *("image_conv", "dense_conv", "pointwise_conv", "depthwise_conv2d", "grouped_conv"),
    *("conv_transpose2d", "matrix_vector", "matrix_product", "elementwise", "concat", "resize"),
    *("max_pool", "avg_pool", "mean", "sigmoid", "silu", "gelu", "softmax", "layer_norm"),
)
IMAGE_CHANNELS = 4  # a convolution on so few channels reads the image


@dataclass(frozen=True, slots=True)
class Tiles:
    """The matrix kernel's block: extents are rounded up to these. From the library's source."""

    out_channels: int
    pixels: int
    depth: int
    depthwise: int  # channels a depthwise kernel takes at a time


@dataclass(frozen=True, slots=True)
class Caches:
    """L1 data cache of a core, and the size up to which a tensor is taken to stay in L2."""

    l1_bytes: int
    resident_bytes: int


def operator_class(key: OpKey) -> str:
    """The name under which a table records what it has seen of such operators."""
    if is_grouped(key):
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


def is_grouped(key: OpKey) -> bool:
    """A grouped convolution that is not depthwise."""
    return key.op == "conv2d" and key.groups > 1


def round_up(value: int, multiple: int) -> int:
    """The least multiple that is not below `value`."""
    return -(-value // multiple) * multiple


def kilobytes(key: OpKey, *tensors: int) -> float:
    """Of tensors given in elements. KB are 1000 bytes."""
    return sum(tensors) * key.element_bytes / 1e3


def uncached_kilobytes(key: OpKey, caches: Caches, *tensors: int) -> float:
    """By how much each tensor (in elements) exceeds what stays in cache, together."""
    sizes = (elements * key.element_bytes for elements in tensors)
    return sum(max(0, size - caches.resident_bytes) for size in sizes) / 1e3


def window_kilobytes(key: OpKey) -> float:
    """Every pooling window read, every result written."""
    read = max(key.input_elements, prod(key.kernel) * key.output_elements)
    return kilobytes(key, read, key.output_elements)


def operand_kilobytes(key: OpKey) -> float:
    """Every operand read, the result written."""
    operands = 2 if key.op in BINARY_OPS and prod(key.in_size) > 1 else 1
    return kilobytes(key, operands * key.input_elements, key.output_elements)


def thousand_functions(key: OpKey) -> float:
    """Values of which an exponential or the like is taken, in thousands."""
    return key.output_elements / 1e3 if key.op in FUNCTION_OPS else 0.0
