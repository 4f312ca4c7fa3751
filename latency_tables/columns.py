"""Operators as columns of numbers, so that tens of thousands are compared at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shrinkc.latency_tables.kernels.features import BINARY_OPS
from shrinkc.latency_tables.key import ELEMENT_BYTES, OpKey

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# Of `OpKey`, each as one integer column; pairs are (height, width).
NUMBERS = (
    *("in_channels", "out_channels", "kernel_h", "kernel_w", "stride_h", "stride_w"),
    *("dilation_h", "dilation_w", "in_h", "in_w", "out_h", "out_w", "groups"),
)
_PER_TAP = ("conv2d", "depthwise_conv2d", "conv_transpose2d")
_WEIGHTED = (*_PER_TAP, "linear")


def numbers(key: OpKey) -> tuple[int, ...]:
    """In the order of `NUMBERS`."""
    pairs = (key.kernel, key.stride, key.dilation, key.in_size, key.out_size)
    flat = (value for pair in pairs for value in pair)
    return (key.in_channels, key.out_channels, *flat, key.groups)


@dataclass(frozen=True, eq=False)
class OpColumns:
    """Operators of one kind (`op`, "conv2d") and precision. `table` is (operators, NUMBERS);
    `fused` says which of them have an activation."""

    op: str
    precision: str
    table: IntArray
    fused: NDArray[np.bool_]

    @classmethod
    def of(cls, keys: Sequence[OpKey]) -> OpColumns:
        """Columns of keys that share op and precision."""
        table = np.array([numbers(key) for key in keys], dtype=np.int64)
        fused = np.array([key.activation != "none" for key in keys])
        return cls(keys[0].op, keys[0].precision, table, fused)

    def column(self, name: str) -> FloatArray:
        return self.table[:, NUMBERS.index(name)].astype(np.float64)

    def area(self, name: str) -> FloatArray:
        """Height times width: of "kernel", "in" or "out"."""
        return self.column(f"{name}_h") * self.column(f"{name}_w")

    @property
    def multiplies(self) -> bool:
        """Whether such operators have multiply-accumulates."""
        return self.op in (*_WEIGHTED, "matmul")

    @cached_property
    def depth(self) -> FloatArray:
        """Multiply-accumulates behind each output, 1 where there are none."""
        if self.op in ("linear", "matmul"):
            return self.column("in_channels")
        if self.op in _PER_TAP:
            return self.column("in_channels") / self.column("groups") * self.area("kernel")
        return np.ones(len(self.table))

    @cached_property
    def work(self) -> FloatArray:
        """Multiply-accumulates; for operators that have none, what they read at least once."""
        outputs = self.column("out_channels") * self.area("out")
        if self.op == "conv_transpose2d":
            per_input = self.column("out_channels") / self.column("groups") * self.area("kernel")
            return self.column("in_channels") * self.area("in") * per_input
        if self.multiplies:
            return outputs * self.depth
        return np.maximum(outputs * self.area("kernel"), self.column("in_channels"))

    def bytes(self, batch: int) -> FloatArray:
        """Operands, result and weights, each moved once."""
        inputs = self.column("in_channels") * self.area("in")
        if self.op in BINARY_OPS:
            inputs = np.where(self.area("in") > 1, 2 * inputs, inputs)
        outputs = self.column("out_channels") * self.area("out")
        weights = self.column("out_channels") * self.depth if self.op in _WEIGHTED else 0.0
        return ELEMENT_BYTES[self.precision] * (batch * (inputs + outputs) + weights)
