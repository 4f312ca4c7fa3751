"""Canonical graph → deployment program: one walk, one small method an operator.

Activations that runtimes fuse move into the operator in front of them; zero padding in front of a
convolution becomes its padding; batch norm that is left over becomes a per-channel affine. Numbers
become float32 here, once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.lower_modules import MODULE_LOWERINGS
from shrinkc.compiler.export.lowering import Lowering, NotLowerableError
from shrinkc.errors import UnsupportedOperatorError
from shrinkc.passes import ir
from shrinkc.passes.analysis.shapes import shapes
from shrinkc.passes.analysis.usage import attribute

FUSABLE = (ops.Conv, ops.ConvTranspose, ops.Linear, ops.ChannelAffine, ops.Binary)


def lower(graph_module: fx.GraphModule) -> ops.Program:
    """The deployment program of a canonical graph, at the captured batch size.

    Raises UnsupportedOperatorError for the first node that no operator covers.
    """
    lowering, problems = _walk(graph_module)
    if problems:
        raise problems[0]
    return lowering.program()


def unsupported(graph_module: fx.GraphModule) -> list[UnsupportedOperatorError]:
    """Every node that cannot be lowered, for reports; nodes behind one are judged too."""
    return _walk(graph_module)[1]


def _walk(graph_module: fx.GraphModule) -> tuple[Lowering, list[UnsupportedOperatorError]]:
    once = shapes(graph_module)
    dynamic = graph_module.meta.get("dynamic_batch", True)
    twice = shapes(graph_module, batch_factor=2) if dynamic else once
    state = Lowering(graph_module, once, twice)
    problems: list[UnsupportedOperatorError] = []
    for node in graph_module.graph.nodes:
        try:
            _lower_node(state, node)
        except NotLowerableError as error:
            name = _operator_name(graph_module, node)
            problems.append(
                UnsupportedOperatorError(node.name, name, "ONNX and TFLite", str(error))
            )
            if node.name in state.shapes:
                state.set(node, state.value(node))
    return state, problems


def _operator_name(graph_module: fx.GraphModule, node: fx.Node) -> str:
    module = ir.module_of(graph_module, node)
    return type(module).__name__ if module is not None else getattr(node.target, "__name__", "")


def _lower_node(s: Lowering, node: fx.Node) -> None:
    match node.op:
        case "placeholder":
            whole = ir.whole_input(node)
            dtype = "float32" if whole is None else cast(ops.DType, whole.dtype)
            value = replace(s.value(node), dtype=dtype)
            s.inputs.append(value)
            s.set(node, value)
        case "get_attr":
            s.set(node, ops.Const(node.name, s.array(attribute(s.graph_module, node))))
        case "call_module":
            module = cast(nn.Module, ir.module_of(s.graph_module, node))
            if not _fuse(s, node, module):
                _module(s, node, module)
        case "call_function":
            _FUNCTIONS[node.target](s, node, *node.args)
        case _:
            for result in cast("tuple[fx.Node, ...]", node.args[0]):
                s.outputs.append(s.result(result))


def _module(s: Lowering, node: fx.Node, module: nn.Module) -> None:
    lowering = MODULE_LOWERINGS.get(type(module))
    if lowering is None:
        raise NotLowerableError("no deployment operator")
    lowering(s, node, module)


def _fuse(s: Lowering, node: fx.Node, module: nn.Module) -> bool:
    """ReLU and ReLU6 behind an operator that nobody else reads run inside it, and behind one that
    limits as much already (a block that stood between is left out) not at all."""
    kind: ops.FusedActivation
    if isinstance(module, nn.ReLU):
        kind = "relu"
    elif isinstance(module, nn.ReLU6):
        kind = "relu6"
    else:
        return False
    source = ir.input_of(node)
    at = s.producer(source)
    if at is None:
        return False
    op = s.ops[at]
    if _limit_of(op) in (kind, "relu6"):
        s.alias(node, source)
        return True
    if (
        len(source.users) > 1
        or op.name != source.name
        or not isinstance(op, FUSABLE)
        or op.activation != "none"
    ):
        return False
    fused = replace(op, activation=kind, output=s.value(node))
    s.replace(at, fused)
    s.set(node, fused.output)
    return True


def _limit_of(op: ops.Op) -> str:
    """The activation that the operator ends with."""
    if isinstance(op, ops.Unary):
        return op.kind
    return op.activation if isinstance(op, FUSABLE) else "none"


# --- functions -----------------------------------------------------------------------------------


def _binary(kind: ops.BinaryKind) -> Callable[..., None]:
    def lowering(s: Lowering, node: fx.Node, a: Any, b: Any) -> None:
        s.add(
            node, ops.Binary(node.name, s.value(node), s.operand(node, a), s.operand(node, b), kind)
        )

    return lowering


def _pow(s: Lowering, node: fx.Node, x: Any, exponent: Any) -> None:
    if exponent == 2:
        _binary("mul")(s, node, x, x)
    elif exponent == 0.5:
        _unary("sqrt")(s, node, x)
    else:
        _binary("pow")(s, node, x, exponent)


def _compare(kind: ops.ComparisonKind) -> Callable[..., None]:
    def lowering(s: Lowering, node: fx.Node, a: Any, b: Any) -> None:
        operands = s.operand(node, a), s.operand(node, b)
        s.add(node, ops.Compare(node.name, s.value(node), *operands, kind))

    return lowering


def _where(s: Lowering, node: fx.Node, *operands: Any) -> None:
    condition, a, b = (s.operand(node, x) for x in operands)
    s.add(node, ops.Where(node.name, s.value(node), condition, a, b))


def _argmax(s: Lowering, node: fx.Node, x: fx.Node, dim: int, keep: bool) -> None:
    s.add(node, ops.ArgMax(node.name, s.value(node), s.tensor(x), dim, keep))


def _cumsum(s: Lowering, node: fx.Node, x: fx.Node, dim: int) -> None:
    s.add(node, ops.CumSum(node.name, s.value(node), s.tensor(x), dim))


def _topk(part: Any) -> Callable[..., None]:
    def lowering(s: Lowering, node: fx.Node, x: fx.Node, count: int, dim: int) -> None:
        s.add(node, ops.TopK(node.name, s.value(node), s.tensor(x), count, dim, part))

    return lowering


def _take(s: Lowering, node: fx.Node, x: fx.Node, dim: int, indices: tuple[int, ...]) -> None:
    s.add(node, ops.Gather(node.name, s.value(node), s.tensor(x), dim, tuple(indices)))


def _pick(s: Lowering, node: fx.Node, table: fx.Node, rows: fx.Node) -> None:
    operands = s.operand(node, table), s.operand(node, rows)
    s.add(node, ops.Pick(node.name, s.value(node), *operands))


def _grid_sample(s: Lowering, node: fx.Node, x: fx.Node, grid: fx.Node, *how: Any) -> None:
    operands = s.operand(node, x), s.operand(node, grid)
    s.add(node, ops.GridSample(node.name, s.value(node), *operands, *how))


def _dynamic_conv(s: Lowering, node: fx.Node, x: fx.Node, weight: fx.Node, *how: Any) -> None:
    operands = s.operand(node, x), s.operand(node, weight)
    stride, (top, left), dilation, groups = how
    pads = (top, left, top, left)
    s.add(
        node,
        ops.DynamicConv(node.name, s.value(node), *operands, stride, pads, dilation, groups),
    )


def _integers(s: Lowering, node: fx.Node, x: fx.Node, dtype: ops.DType) -> None:
    """What counts or compares, and is read by nobody else, has the type itself."""
    value = replace(s.value(node), dtype=dtype)
    source = s.operand(node, x)
    if isinstance(source, ops.Const):
        s.add(node, ops.Constant(node.name, value, source.array))
        return
    at = s.producer(x)
    made = None if at is None or len(x.users) > 1 else s.ops[at]
    native = ops.Compare if dtype == "bool" else (ops.ArgMax, ops.TopK)
    if at is not None and isinstance(made, native) and made.output == source:
        s.replace(at, replace(made, output=value))
        s.set(node, value)
    else:
        s.add(node, ops.Integers(node.name, value, source))


def _numbers(s: Lowering, node: fx.Node, x: fx.Node, *_: Any) -> None:
    s.add(node, ops.Integers(node.name, s.value(node), s.tensor(x)))


def _embedding(s: Lowering, node: fx.Node, weight: fx.Node, x: fx.Node) -> None:
    table = s.operand(node, weight)
    if not isinstance(table, ops.Const):
        raise NotLowerableError("its rows are computed from the input")
    s.add(node, ops.Embedding(node.name, s.value(node), s.tensor(x), table.array))


def _unary(kind: ops.UnaryKind) -> Callable[..., None]:
    def lowering(s: Lowering, node: fx.Node, x: fx.Node) -> None:
        s.add(node, ops.Unary(node.name, s.value(node), s.tensor(x), kind))

    return lowering


def _clamp(s: Lowering, node: fx.Node, x: fx.Node, low: float | None, high: float | None) -> None:
    limits = (-np.inf if low is None else float(low), np.inf if high is None else float(high))
    s.add(node, ops.Unary(node.name, s.value(node), s.tensor(x), "clip", limits))


def _matmul(s: Lowering, node: fx.Node, a: fx.Node, b: fx.Node) -> None:
    s.add(node, ops.MatMul(node.name, s.value(node), s.operand(node, a), s.operand(node, b)))


def _cat(s: Lowering, node: fx.Node, parts: tuple[fx.Node, ...], dim: int) -> None:
    operands = tuple(s.operand(node, part) for part in parts)
    s.add(node, ops.Concat(node.name, s.value(node), operands, dim))


def _reshape(s: Lowering, node: fx.Node, x: fx.Node, _: Any) -> None:
    s.add(node, ops.Reshape(node.name, s.value(node), s.tensor(x)))


def _permute(s: Lowering, node: fx.Node, x: fx.Node, dims: tuple[int, ...]) -> None:
    s.add(node, ops.Transpose(node.name, s.value(node), s.tensor(x), tuple(dims)))


def _slice(s: Lowering, node: fx.Node, x: fx.Node, *rest: int) -> None:
    s.add(node, ops.Slice(node.name, s.value(node), s.tensor(x), *rest))


def _reduce(kind: Any) -> Callable[..., None]:
    def lowering(s: Lowering, node: fx.Node, x: fx.Node, dims: Any, keep: bool) -> None:
        s.add(node, ops.Reduce(node.name, s.value(node), s.tensor(x), kind, tuple(dims), keep))

    return lowering


def _expand(s: Lowering, node: fx.Node, constant: fx.Node, like: fx.Node) -> None:
    operand = s.operand(node, constant)
    if not isinstance(operand, ops.Const):
        raise NotLowerableError("expands a computed tensor along the batch")
    s.add(node, ops.BatchExpand(node.name, s.value(node), operand, s.tensor(like)))


def _pad(
    s: Lowering, node: fx.Node, x: fx.Node, amounts: tuple[int, ...], mode: str, value: float | None
) -> None:
    source = s.tensor(x)
    rank = len(source.shape)
    before, after = [0] * rank, [0] * rank
    for i in range(len(amounts) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = amounts[2 * i], amounts[2 * i + 1]
    for axis, size in enumerate(source.shape):  # negative padding takes away
        start, stop = max(-before[axis], 0), size - max(-after[axis], 0)
        if (start, stop) != (0, size):
            shape = (*source.shape[:axis], stop - start, *source.shape[axis + 1 :])
            cut = replace(source, name=f"{node.name}_crop{axis}", shape=shape)
            s.emit(ops.Slice(node.name, cut, source, axis, start, stop))
            source = cut
    if mode not in ("constant", "reflect", "replicate"):
        raise NotLowerableError(f"padding mode {mode}")
    outer = [tuple(max(n, 0) for n in side) for side in (before, after)]
    s.add(
        node,
        ops.Pad(
            node.name, s.value(node), source, outer[0], outer[1], cast(Any, mode), value or 0.0
        ),
    )


_FUNCTIONS: dict[Any, Callable[..., None]] = {
    ir.add: _binary("add"),
    ir.sub: _binary("sub"),
    ir.mul: _binary("mul"),
    ir.div: _binary("div"),
    ir.pow_: _pow,
    torch.remainder: _binary("remainder"),
    torch.atan2: _binary("atan2"),
    **{f: _compare(cast(Any, kind)) for kind, f in ir.COMPARISONS.items()},
    ir.where: _where,
    torch.maximum: _binary("maximum"),
    torch.minimum: _binary("minimum"),
    torch.matmul: _matmul,
    torch.cat: _cat,
    torch.reshape: _reshape,
    torch.permute: _permute,
    ir.slice_dim: _slice,
    ir.take: _take,
    ir.pick: _pick,
    ir.grid_sample: _grid_sample,
    ir.dynamic_conv: _dynamic_conv,
    F.pad: _pad,
    ir.mean: _reduce("mean"),
    ir.sum_: _reduce("sum"),
    ir.amax: _reduce("max"),
    ir.amin: _reduce("min"),
    ir.prod: _reduce("prod"),
    ir.argmax: _argmax,
    ir.cumsum: _cumsum,
    ir.topk_values: _topk("values"),
    ir.topk_indices: _topk("indices"),
    ir.batch_expand: _expand,
    ir.clamp: _clamp,
    ir.integers: _integers,
    ir.numbers: _numbers,
    ir.embedding: _embedding,
    **{f: _unary(cast(Any, kind)) for kind, f in ir.UNARY.items()},
}
