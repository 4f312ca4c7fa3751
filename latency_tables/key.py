"""What one deployed operator is, as far as its latency goes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

PRECISIONS = ("fp32", "fp16", "int8")
ELEMENT_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True, slots=True)
class OpKey:
    """One operator as the runtime executes it (activation fused, padding fused away).

    op            conv2d, depthwise_conv2d, conv_transpose2d, linear, matmul, add, sub, mul, div,
                  maximum, minimum, pow, max_pool, avg_pool, mean, sum, max, concat, slice,
                  reshape, transpose, pad, resize, depth_to_space, softmax, layer_norm, expand, or
                  an activation that stands alone (relu, hard_swish, gelu, …)
    in_channels   of the first operand; for linear the input features
    out_channels  of the result
    kernel, stride, dilation, in_size, out_size    (height, width); 1 where it means nothing.
                  For operands of other ranks (tokens, sequences), in_size and out_size hold
                  (product of the middle dimensions, 1)
    groups        of a grouped convolution (depthwise_conv2d: in_channels)
    activation    fused: none, relu, relu6
    precision     fp32, fp16 or int8
    """

    op: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    in_size: tuple[int, int] = (1, 1)
    out_size: tuple[int, int] = (1, 1)
    activation: str = "none"
    precision: str = "fp32"

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference at batch 1; 0 for what has none."""
        if self.op in ("conv2d", "depthwise_conv2d"):
            per_output = self.in_channels // self.groups * prod(self.kernel)
            return self.output_elements * per_output
        if self.op == "conv_transpose2d":
            per_input = self.out_channels // self.groups * prod(self.kernel)
            return self.input_elements * per_input
        if self.op in ("linear", "matmul"):
            return self.output_elements * self.in_channels
        return 0

    @property
    def input_elements(self) -> int:
        """Elements of the first operand."""
        return self.in_channels * prod(self.in_size)

    @property
    def output_elements(self) -> int:
        """Elements of the result."""
        return self.out_channels * prod(self.out_size)

    @property
    def weight_elements(self) -> int:
        """Elements of the weight tensor; 0 for what has none."""
        if self.op in ("conv2d", "depthwise_conv2d", "conv_transpose2d"):
            return self.in_channels * self.out_channels // self.groups * prod(self.kernel)
        return self.in_channels * self.out_channels if self.op == "linear" else 0

    @property
    def element_bytes(self) -> int:
        """Bytes of one activation or weight in this precision."""
        return ELEMENT_BYTES[self.precision]
