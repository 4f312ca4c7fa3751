"""The `host` target: every operator is measured here, alone, when its price is first asked."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np

from ..latency_tables.key import OpKey
from ..latency_tables.table import OpEstimate
from .bench import bench
from .errors import ExportError, TableError
from .export import ops
from .export.tflite import write_tflite
from .runtimes import TfliteRunner

MIN_SECONDS, MAX_RUNS = 0.02, 10_000  # of runs per operator, at least 5


class HostTable:
    """A cost table that runs one-operator TFLite files on this machine, one thread.

    fp32 only: an int8 file needs calibrated ranges. Raises TableError for other precisions.
    """

    target = "host"

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._measured: dict[OpKey, OpEstimate] = {}

    def estimate(self, key: OpKey) -> OpEstimate:
        self.network_overhead_ms(key.precision)
        known = self._measured.get(key)
        if known is None:
            known = self._measured[key] = self._measure(key)
        return known

    def network_overhead_ms(self, precision: str) -> float:
        if precision != "fp32":
            raise TableError(f"target host measures fp32 operators, not {precision}")
        return 0.0

    def _measure(self, key: OpKey) -> OpEstimate:
        try:
            runner = TfliteRunner(write_tflite(one_operator(key)), self._threads)
        except (ExportError, NotImplementedError):
            return OpEstimate(0.0, "not measured: no one-operator file", True)
        (timing,) = bench((runner,), runs=MAX_RUNS, warmup=2, max_seconds=MIN_SECONDS)
        return OpEstimate(timing.median_ms, "measured here", False)


def one_operator(key: OpKey) -> ops.Program:
    """A program of just this operator. Raises NotImplementedError for kinds it cannot make."""
    x = ops.Value("x", (1, key.in_channels, *key.in_size))
    y = ops.Value("y", (1, key.out_channels, *key.out_size))
    op = _make(key, x, y)
    inputs = tuple(o for o in dict.fromkeys(op.operands()) if isinstance(o, ops.Value))
    return ops.Program(inputs, (op,), (op.output,))


def _make(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    random = np.random.default_rng(0)

    def weight(*shape: int) -> ops.FloatArray:
        return random.standard_normal(shape, dtype=np.float32) * 0.1

    name, bias, fused = key.op, weight(key.out_channels), cast(ops.FusedActivation, key.activation)
    if name in ("conv2d", "depthwise_conv2d"):
        shape = (key.out_channels, key.in_channels // key.groups, *key.kernel)
        rest = (key.stride, _pads(key), key.dilation, key.groups, fused)
        return ops.Conv("op", y, x, weight(*shape), bias, *rest)
    if name == "linear":
        rows = (1, key.in_size[0]) if key.in_size[0] > 1 else (1,)
        x, y = (replace(v, shape=(*rows, v.shape[1])) for v in (x, y))
        return ops.Linear("op", y, x, weight(key.out_channels, key.in_channels), bias, fused)
    if name in _BINARY:
        return ops.Binary("op", y, x, replace(x, name="x2"), _BINARY[name], fused)
    if name in ("max_pool", "avg_pool"):
        if name == "max_pool":
            return ops.MaxPool("op", y, x, key.kernel, key.stride, _pads(key))
        return ops.AvgPool("op", y, x, key.kernel, key.stride, _pads(key), False)
    if name in ("mean", "sum", "max"):
        if y.shape[2:] != (1, 1):
            raise NotImplementedError(name)
        return ops.Reduce("op", y, x, name, (2, 3), True)
    if name == "resize":
        return ops.Resize("op", y, x, "bilinear")
    if name == "softmax":
        return ops.Softmax("op", y, x, 1)
    if name in _UNARY:
        return ops.Unary("op", y, x, _UNARY[name])
    raise NotImplementedError(name)


_BINARY: dict[str, ops.BinaryKind] = {
    **{"add": "add", "sub": "sub", "mul": "mul", "div": "div"},
    **{"maximum": "maximum", "minimum": "minimum"},
}
_UNARY: dict[str, ops.UnaryKind] = {
    **{"relu": "relu", "relu6": "relu6", "sigmoid": "sigmoid", "tanh": "tanh"},
    **{"hard_swish": "hard_swish", "hard_sigmoid": "hard_sigmoid", "silu": "silu"},
    **{"gelu": "gelu", "exp": "exp", "sqrt": "sqrt", "abs": "abs", "neg": "neg"},
}


def _pads(key: OpKey) -> ops.Pads:
    """What the sizes imply; the odd one at the bottom right."""
    before: list[int] = []
    after: list[int] = []
    for size, out, k, s, d in zip(
        *(key.in_size, key.out_size, key.kernel, key.stride, key.dilation), strict=True
    ):
        total = max((out - 1) * s + d * (k - 1) + 1 - size, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return before[0], before[1], after[0], after[1]
