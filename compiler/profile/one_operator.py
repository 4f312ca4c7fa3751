"""Programs of one operator, to time it: alone, or with the neighbours that its cost depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np

from shrinkc.compiler.export import ops
from shrinkc.latency_tables.key import OpKey

NARROW = 8  # channels at the far end of a neighbour: as cheap as a convolution gets


def one_operator(key: OpKey) -> ops.Program:
    """A program of just this operator, with random weights. What a key does not say is what
    networks mostly have: a `mul` by one factor per channel, a `concat` of two halves, a `slice`
    of the first channels, a bilinear `resize`. Raises NotImplementedError for kinds without."""
    x, y = _value("x", key.in_channels, key.in_size), _value("y", key.out_channels, key.out_size)
    return _program(_make(key, x, y))


def with_neighbours(key: OpKey) -> tuple[ops.Program, ops.Program] | None:
    """An element-wise operator on images between two convolutions, and the same without it: what
    it costs a runtime that computes it inside a convolution, or changes the layout for it. None
    for all others."""
    kind = _UNARY.get(key.op) or _BINARY.get(key.op)
    if kind is None or key.in_size == (1, 1) or key.in_size != key.out_size:
        return None
    x, z = _value("x", NARROW, key.in_size), _value("z", NARROW, key.out_size)
    wide, deep, y = (_value(name, key.out_channels, key.out_size) for name in ("a", "b", "y"))
    first = _pointwise("first", x, wide)
    if key.op in _UNARY or key.op == "mul":
        op, before = _make(key, wide, y), (first,)
    else:  # a shortcut around a convolution
        op = replace(_binary(key, deep, y), b=wide)
        before = (first, _depthwise("second", wide, deep))
    last = _pointwise("last", before[-1].output, z)
    inside = (*before, op, replace(last, x=y))
    return _program(*inside), _program(*before, last)


def tiny() -> ops.Program:
    """As little as a network can do: what is left is the cost of an inference, or of asking how
    long a kernel takes."""
    x, y = _value("x", NARROW, (1, 1)), _value("y", NARROW, (1, 1))
    return _program(ops.Unary("tiny", y, x, "relu"))


def _program(*chain: ops.Op) -> ops.Program:
    made = {op.output for op in chain}
    read = dict.fromkeys(o for op in chain for o in op.operands() if isinstance(o, ops.Value))
    return ops.Program(tuple(v for v in read if v not in made), chain, (chain[-1].output,))


def _value(name: str, channels: int, size: ops.Pair) -> ops.Value:
    return ops.Value(name, (1, channels, *size))


def _weight(*shape: int) -> ops.FloatArray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32) * np.float32(0.1)


def _pointwise(name: str, x: ops.Value, y: ops.Value) -> ops.Conv:
    weight = _weight(y.shape[1], x.shape[1], 1, 1)
    return ops.Conv(name, y, x, weight, _weight(y.shape[1]))


def _depthwise(name: str, x: ops.Value, y: ops.Value) -> ops.Conv:
    channels = y.shape[1]
    weight = _weight(channels, 1, 1, 1)
    return ops.Conv(name, y, x, weight, _weight(channels), groups=channels)


def _make(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    if key.op in _BINARY:
        return _binary(key, x, y)
    if key.op in _UNARY:
        return ops.Unary("op", y, x, _UNARY[key.op], _PARAMETERS.get(key.op, ()))
    if key.op not in _MAKERS:
        raise NotImplementedError(key.op)
    return _MAKERS[key.op](key, x, y)


def _fused(key: OpKey) -> ops.FusedActivation:
    match key.activation:
        case "relu" | "relu6":
            return key.activation
        case _:
            return "none"


def _conv(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    weight = _weight(key.out_channels, key.in_channels // key.groups, *key.kernel)
    rest = (key.stride, _pads(key), key.dilation, key.groups, _fused(key))
    return ops.Conv("op", y, x, weight, _weight(key.out_channels), *rest)


def _conv_transpose(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    before, after, extra = [0, 0], [0, 0], [0, 0]
    for axis in (0, 1):
        reach = key.dilation[axis] * (key.kernel[axis] - 1) + 1
        cut = (key.in_size[axis] - 1) * key.stride[axis] + reach - key.out_size[axis]
        before[axis], after[axis] = max(cut, 0) // 2, max(cut, 0) - max(cut, 0) // 2
        extra[axis] = max(-cut, 0)
    weight = _weight(key.in_channels, key.out_channels // key.groups, *key.kernel)
    pads = (before[0], before[1], after[0], after[1])
    rest = (key.stride, pads, key.dilation, key.groups, (extra[0], extra[1]), _fused(key))
    return ops.ConvTranspose("op", y, x, weight, _weight(key.out_channels), *rest)


def _linear(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    x, y = _rows(key, x), _rows(key, y)
    weight = _weight(key.out_channels, key.in_channels)
    return ops.Linear("op", y, x, weight, _weight(key.out_channels), _fused(key))


def _rows(key: OpKey, value: ops.Value) -> ops.Value:
    """Features last: (1, features), or (1, rows, features)."""
    rows = (1, key.in_size[0]) if key.in_size[0] > 1 else (1,)
    return replace(value, shape=(*rows, value.shape[1]))


def _matmul(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    rows = key.in_size[0]
    a, y = (replace(v, shape=(1, rows, v.shape[1])) for v in (x, y))
    return ops.MatMul("op", y, a, ops.Value("x2", (1, key.in_channels, key.out_channels)))


def _binary(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Binary:
    if key.op == "pow":
        two: ops.Operand = ops.Const("two", np.array(2, np.float32))
        return ops.Binary("op", y, x, two, "pow", _fused(key))
    spread = key.op == "mul" and key.in_size != (1, 1)
    other = ops.Value("x2", (1, key.in_channels, 1, 1) if spread else x.shape)
    return ops.Binary("op", y, x, other, _BINARY[key.op], _fused(key))


def _prelu(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    return ops.PRelu("op", y, x, _weight(key.in_channels))


def _layer_norm(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    x, y = _rows(key, x), _rows(key, y)
    channels = key.in_channels
    return ops.LayerNorm("op", y, x, _weight(channels), _weight(channels), 1e-5)


def _concat(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    if key.out_channels < 2:
        raise NotImplementedError("concat of one channel")
    half = key.out_channels // 2
    sizes = (half, key.out_channels - half)
    parts = (_value(f"x{i}", n, key.out_size) for i, n in enumerate(sizes))
    return ops.Concat("op", y, tuple(parts), 1)


def _slice(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    for axis, (size, kept) in enumerate(zip(x.shape, y.shape, strict=True)):
        if size != kept:
            rest = (*y.shape[axis + 1 :],) == (*x.shape[axis + 1 :],)
            if rest and kept < size:
                return ops.Slice("op", y, x, axis, 0, kept)
            break
    raise NotImplementedError("slice of several dimensions")


def _pad(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    added = [b - a for a, b in zip(x.shape, y.shape, strict=True)]
    if min(added) < 0:
        raise NotImplementedError("pad that crops")
    before = tuple(n // 2 for n in added)
    return ops.Pad("op", y, x, before, tuple(n - b for n, b in zip(added, before, strict=True)))


def _transpose(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    return ops.Transpose("op", replace(y, shape=(*x.shape[:2], *x.shape[:1:-1])), x, (0, 1, 3, 2))


def _max_pool(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    return ops.MaxPool("op", y, x, key.kernel, key.stride, _pads(key))


def _avg_pool(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    return ops.AvgPool("op", y, x, key.kernel, key.stride, _pads(key), False)


def _reduce(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    if y.shape[2:] != (1, 1):
        raise NotImplementedError(f"{key.op} of one dimension")
    match key.op:
        case "mean" | "sum" | "max" | "min" | "prod":
            return ops.Reduce("op", y, x, key.op, (2, 3), True)
        case _:
            raise NotImplementedError(key.op)


def _compare(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    return ops.Compare("op", y, x, replace(x, name="x2"), _COMPARISONS[key.op])


def _where(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    return ops.Where("op", y, replace(x, name="x2"), x, replace(x, name="x3"))


def _gather(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    sizes = zip(x.shape, y.shape, strict=True)
    axis = next((i for i, (a, b) in enumerate(sizes) if a != b), len(x.shape) - 1)
    count, size = y.shape[axis], x.shape[axis]
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    indices = tuple(i * size // count for i in range(count))
    return ops.Gather("op", replace(y, shape=shape), x, axis, indices)


def _grid_sample(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    grid = ops.Value("grid", (1, *key.out_size, 2))
    return ops.GridSample("op", y, x, grid, "bilinear", "zeros", False)


def _argmax(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    return ops.ArgMax("op", replace(y, shape=(1, 1, *x.shape[2:])), x, 1, True)


def _topk(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    return ops.TopK("op", replace(y, shape=(1, 1, *x.shape[2:])), x, 1, 1, "values")


def _depth_to_space(key: OpKey, x: ops.Value, y: ops.Value) -> ops.Op:
    return ops.DepthToSpace("op", y, x, key.out_size[0] // key.in_size[0])


_MAKERS: dict[str, Callable[[OpKey, ops.Value, ops.Value], ops.Op]] = {
    **{"conv2d": _conv, "depthwise_conv2d": _conv, "conv_transpose2d": _conv_transpose},
    **{"linear": _linear, "matmul": _matmul, "prelu": _prelu, "layer_norm": _layer_norm},
    **{"concat": _concat, "slice": _slice, "pad": _pad, "transpose": _transpose},
    **{"max_pool": _max_pool, "avg_pool": _avg_pool, "depth_to_space": _depth_to_space},
    **{"mean": _reduce, "sum": _reduce, "max": _reduce, "min": _reduce, "prod": _reduce},
    **dict.fromkeys(get_args(ops.ComparisonKind), _compare),
    **{"where": _where, "gather": _gather, "argmax": _argmax, "topk": _topk},
    "grid_sample": _grid_sample,
    "cumsum": lambda key, x, y: ops.CumSum("op", y, x, 1),
    "cast": lambda key, x, y: ops.Integers("op", replace(y, dtype="int64"), x),
    "resize": lambda key, x, y: ops.Resize("op", y, x, "bilinear"),
    "softmax": lambda key, x, y: ops.Softmax("op", y, x, 1),
}
_BINARY: dict[str, ops.BinaryKind] = {kind: kind for kind in get_args(ops.BinaryKind)}
_COMPARISONS: dict[str, ops.ComparisonKind] = {k: k for k in get_args(ops.ComparisonKind)}
_UNARY: dict[str, ops.UnaryKind] = {kind: kind for kind in get_args(ops.UnaryKind)}
_PARAMETERS = {"leaky_relu": (0.01,), "elu": (1.0,), "clip": (-1.0, 1.0)}


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
