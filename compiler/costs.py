"""Deployment operators → latency keys → milliseconds on a target."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Protocol

from ..latency_tables.key import OpKey
from ..latency_tables.table import OpEstimate
from .export import ops


class CostTable(Protocol):
    """What prices operators: a latency table, or the machine itself."""

    @property
    def target(self) -> str: ...

    def estimate(self, key: OpKey) -> OpEstimate: ...

    def network_overhead_ms(self, precision: str) -> float: ...


@dataclass(frozen=True)
class AsMeasured:
    """A table whose sums over operators come out as whole networks were measured.

    factors  precision → measured over summed up
    """

    table: CostTable
    factors: Mapping[str, float]

    @property
    def target(self) -> str:
        return self.table.target

    def estimate(self, key: OpKey) -> OpEstimate:
        known = self.table.estimate(key)
        return replace(known, ms=known.ms * self.factors[key.precision])

    def network_overhead_ms(self, precision: str) -> float:
        return self.table.network_overhead_ms(precision) * self.factors[precision]


@dataclass(frozen=True)
class LayerLatency:
    """One operator's share, and how the table knows it."""

    name: str
    op: str
    ms: float
    source: str
    macs: int


@dataclass(frozen=True)
class Prediction:
    """A network on a target."""

    target: str
    precision: str
    layers: tuple[LayerLatency, ...]
    overhead_ms: float

    @property
    def total_ms(self) -> float:
        return self.overhead_ms + sum(layer.ms for layer in self.layers)

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)


def predict(
    program: ops.Program,
    table: CostTable,
    precision: str = "fp32",
    keep_fp32: Collection[str] = (),
) -> Prediction:
    """Price every operator of the program. Raises TableError when the table lacks `precision`.

    `keep_fp32`: names of operators that compute in fp32 within an int8 network. A conversion on the
    way in or out counts as an addition in fp32 of such a tensor, which moves about twice the bytes.
    """
    layers: list[LayerLatency] = []
    for name, key in _priced(program, precision, keep_fp32):
        estimate = table.estimate(key)
        source = f"{estimate.source}, extrapolated" if estimate.extrapolated else estimate.source
        layers.append(LayerLatency(name, key.op, estimate.ms, source, key.macs))
    return Prediction(table.target, precision, tuple(layers), table.network_overhead_ms(precision))


def _priced(
    program: ops.Program, precision: str, keep_fp32: Collection[str]
) -> Iterator[tuple[str, OpKey]]:
    """Name and key of what takes time, in execution order."""
    in_fp32 = {op.output.name: op.name in keep_fp32 for op in program.ops}
    converted: set[tuple[str, bool]] = set()
    for op in program.ops:
        here = in_fp32[op.output.name]
        for x in op.operands():
            if in_fp32.get(x.name, here) != here and (x.name, here) not in converted:
                converted.add((x.name, here))
                channels, size = _sizes(x)
                key = OpKey("add", channels, channels, in_size=size, out_size=size)
                yield f"{x.name} to {'fp32' if here else precision}", key
        key = op_key(op, "fp32" if here else precision)
        if key is not None:
            yield op.name, key


def macs(program: ops.Program) -> int:
    """Multiply-accumulates of one inference at batch 1."""
    return sum(key.macs for _, key in keyed(program, "fp32"))


def keyed(program: ops.Program, precision: str) -> list[tuple[ops.Op, OpKey]]:
    """Every operator that takes time, with its key; reshapes move nothing and are left out."""
    pairs = ((op, op_key(op, precision)) for op in program.ops)
    return [(op, key) for op, key in pairs if key is not None]


def op_key(op: ops.Op, precision: str) -> OpKey | None:
    """The latency key of an operator; None for what is free."""
    return _KEYS[type(op)](op, precision)


def _sizes(operand: ops.Operand) -> tuple[int, tuple[int, int]]:
    """(channels, (height, width)) of images; (features, (the rest, 1)) of anything else."""
    shape = operand.shape
    if len(shape) == 4:
        return shape[1], (shape[2], shape[3])
    if len(shape) < 2:
        return prod(shape), (1, 1)
    return shape[-1], (prod(shape[1:-1]), 1)


def _key(name: str, source: ops.Operand, result: ops.Value, precision: str, **fields: Any) -> OpKey:
    (inputs, in_size), (outputs, out_size) = _sizes(source), _sizes(result)
    return OpKey(
        name, inputs, outputs, in_size=in_size, out_size=out_size, precision=precision, **fields
    )


def _conv(op: ops.Conv, precision: str) -> OpKey:
    _, per_group, kh, kw = op.weight.shape
    depthwise = per_group == 1 and op.groups == op.x.shape[1] and op.groups > 1
    return _key(
        "depthwise_conv2d" if depthwise else "conv2d",
        *(op.x, op.output, precision),
        kernel=(kh, kw),
        stride=op.stride,
        dilation=op.dilation,
        groups=op.groups,
        activation=op.activation,
    )


def _conv_transpose(op: ops.ConvTranspose, precision: str) -> OpKey:
    return _key(
        "conv_transpose2d",
        *(op.x, op.output, precision),
        kernel=(op.weight.shape[2], op.weight.shape[3]),
        stride=op.stride,
        dilation=op.dilation,
        groups=op.groups,
        activation=op.activation,
    )


def _linear(op: ops.Linear, precision: str) -> OpKey:
    outputs, inputs = op.weight.shape
    rows = prod(op.x.shape[1:-1])
    return OpKey(
        *("linear", inputs, outputs),
        in_size=(rows, 1),
        out_size=(rows, 1),
        activation=op.activation,
        precision=precision,
    )


def _matmul(op: ops.MatMul, precision: str) -> OpKey:
    shape, depth = op.output.shape, op.a.shape[-1]
    rows = prod(shape[1:-1])
    return OpKey(
        "matmul", depth, shape[-1], in_size=(rows, 1), out_size=(rows, 1), precision=precision
    )


def _pool(name: str) -> Callable[[Any, str], OpKey]:
    def key(op: ops.MaxPool | ops.AvgPool, precision: str) -> OpKey:
        fields = {"kernel": op.kernel, "stride": op.stride}
        return _key(name, op.x, op.output, precision, **fields)

    return key


def _binary(op: ops.Binary, precision: str) -> OpKey:
    larger = max((op.a, op.b), key=lambda o: prod(o.shape))
    return _key(op.kind, larger, op.output, precision, activation=op.activation)


def _plain(name: str) -> Callable[[Any, str], OpKey]:
    return lambda op, precision: _key(name, op.x, op.output, precision)


def _concat(op: ops.Concat, precision: str) -> OpKey:
    return _key("concat", op.output, op.output, precision)


# NCHW ↔ NHWC, tokens ↔ features: the TFLite writer stores tensors so that these cost nothing
_LAYOUT_ONLY = {(0, 2, 3, 1), (0, 3, 1, 2), (0, 2, 1)}


def _transpose(op: ops.Transpose, precision: str) -> OpKey | None:
    free = op.perm in _LAYOUT_ONLY
    return None if free else _key("transpose", op.x, op.output, precision)


def _free(op: ops.Op, precision: str) -> None:
    return None


_KEYS: dict[type[ops.Op], Callable[[Any, str], OpKey | None]] = {
    ops.Conv: _conv,
    ops.ConvTranspose: _conv_transpose,
    ops.Linear: _linear,
    ops.MatMul: _matmul,
    ops.ChannelAffine: lambda op, p: _key("mul", op.x, op.output, p, activation=op.activation),
    ops.PRelu: _plain("prelu"),
    ops.Unary: lambda op, p: _key(op.kind, op.x, op.output, p),
    ops.Binary: _binary,
    ops.Concat: _concat,
    ops.Slice: _plain("slice"),
    ops.Reshape: _free,
    ops.Transpose: _transpose,
    ops.BatchExpand: _free,
    ops.Pad: _plain("pad"),
    ops.MaxPool: _pool("max_pool"),
    ops.AvgPool: _pool("avg_pool"),
    ops.Reduce: lambda op, p: _key(op.kind, op.x, op.output, p),
    ops.Resize: _plain("resize"),
    ops.DepthToSpace: _plain("depth_to_space"),
    ops.Softmax: _plain("softmax"),
    ops.LayerNorm: _plain("layer_norm"),
}
