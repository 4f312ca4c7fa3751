"""operator to latency key"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

from shrinkc.compiler.export import ops
from shrinkc.latency_tables.key import OpKey


def macs(program: ops.Program) -> int:
    """Multiply-accumulates of one inference at batch 1."""
    return sum(key.macs for _, key in keyed(program, "fp32"))


def keyed(program: ops.Program, precision: str) -> list[tuple[ops.Op, OpKey]]:
    """Every operator that takes time, with its key, as often as it is computed; reshapes move
    nothing and are left out."""
    batch = batch_of(program)
    return [
        (op, key)
        for op in program.ops
        for key, times in op_keys(op, precision, batch)
        for _ in range(times)
    ]


def batch_of(program: ops.Program) -> int:
    """How many samples the program's shapes are of: the first dimension of what it reads."""
    whole = [v for v in program.inputs if len(v.shape) > 1]
    first = next((v for v in whole if v.batch_axis == 0), next(iter(whole), None))
    return 1 if first is None else first.shape[0]


def op_keys(op: ops.Op, precision: str, batch: int = 1) -> tuple[tuple[OpKey, int], ...]:
    """The latency keys of an operator on one of `batch` samples, and how often each is computed;
    none for what is free. A recurrent layer is the products it consists of: one of the whole
    sequence, then one a step."""
    if isinstance(op, ops.Recurrent):
        return _recurrent(op, precision)
    key = op_key(op, precision, batch)
    return () if key is None else ((key, 1),)


def op_key(op: ops.Op, precision: str, batch: int = 1) -> OpKey | None:
    """The latency key of an operator that is one; None for what is free. What a sample folds into
    the first dimension, as windows of attention are, counts as more rows."""
    key = _KEYS[type(op)](op, precision)
    if key is None:
        return None
    rank = len(op.output.shape)  # what has fewer dimensions is broadcast, without the batch
    whole = (x for x in op.operands() if len(x.shape) >= rank)
    before = max((_folded(x, batch) for x in whole), default=1)
    after = _folded(op.output, batch)
    (height, width), (rows, columns) = key.in_size, key.out_size
    return replace(key, in_size=(before * height, width), out_size=(after * rows, columns))


def _folded(operand: ops.Operand, batch: int) -> int:
    shape = operand.shape
    return max(1, shape[0] // batch) if len(shape) > 1 else 1


def _recurrent(op: ops.Recurrent, precision: str) -> tuple[tuple[OpKey, int], ...]:
    rows, inputs = op.weight_ih.shape
    whole = OpKey(
        *("linear", inputs, rows),
        in_size=(op.steps, 1),
        out_size=(op.steps, 1),
        precision=precision,
    )
    return (whole, 1), (OpKey("linear", op.hidden, rows, precision=precision), op.steps)


def operand_sizes(operand: ops.Operand) -> tuple[int, tuple[int, int]]:
    """(channels, (height, width)) of images; (features, (the rest, 1)) of anything else."""
    shape = operand.shape
    if len(shape) == 4:
        return shape[1], (shape[2], shape[3])
    if len(shape) < 2:
        return prod(shape), (1, 1)
    return shape[-1], (prod(shape[1:-1]), 1)


def _key(name: str, source: ops.Operand, result: ops.Value, precision: str, **fields: Any) -> OpKey:
    (inputs, in_size), (outputs, out_size) = operand_sizes(source), operand_sizes(result)
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


def _dynamic_conv(op: ops.DynamicConv, precision: str) -> OpKey:
    """As if the filters were known."""
    name = "depthwise_conv2d" if op.groups == op.a.shape[1] > 1 else "conv2d"
    fields = {"stride": op.stride, "dilation": op.dilation, "groups": op.groups}
    return _key(name, op.a, op.output, precision, kernel=op.b.shape[2:], **fields)


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
    return _key(op.kind, _largest(op), op.output, precision, activation=op.activation)


def _largest(op: ops.Op) -> ops.Operand:
    return max(op.operands(), key=lambda operand: prod(operand.shape))


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
    ops.Compare: lambda op, p: _key(op.kind, _largest(op), op.output, p),
    ops.Where: lambda op, p: _key("where", _largest(op), op.output, p),
    ops.Integers: _plain("cast"),
    ops.Constant: _free,
    ops.Gather: _plain("gather"),
    ops.Pick: lambda op, p: _key("gather", op.a, op.output, p),
    ops.GridSample: lambda op, p: _key("grid_sample", op.a, op.output, p),
    ops.DynamicConv: _dynamic_conv,
    ops.Embedding: lambda op, p: _key("gather", op.output, op.output, p),
    ops.ArgMax: _plain("argmax"),
    ops.CumSum: _plain("cumsum"),
    ops.TopK: _plain("topk"),
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
