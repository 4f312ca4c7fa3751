"""Functions of the closed set as linear window maps."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from shrinkc.passes.algebra.window import Axis, Window, pointwise
from shrinkc.passes.analysis.linear.linear_op import (
    ConstantPart,
    Layout,
    LinearContext,
    LinearOp,
    Numbers,
    bias_numbers,
    pointwise_numbers,
)
from shrinkc.passes.analysis.op_spec import OpSpec
from shrinkc.passes.analysis.shapes import Shape
from shrinkc.passes.analysis.usage import attribute
from shrinkc.passes.ir import module_of, slice_dim
from shrinkc.passes.rewrite import float64


def _pad(c: LinearContext, node: fx.Node, layout: Layout) -> LinearOp | str:
    x, amounts, mode, value = cast("tuple[fx.Node, tuple[int, ...], str, float | None]", node.args)
    if layout != "conv2d" or any(amounts[4:]):
        return "it pads channels"
    if mode != "constant" or value:
        return f"it pads with {value if mode == 'constant' else mode}, not with zeros"
    left, _, top, _ = (*amounts, 0, 0)[:4]
    channels = c.shapes[x.name][1]
    window = Window(channels, channels, channels, (Axis(pad=top), Axis(pad=left)))
    spec = None if _fused_pad(c, node) else c.elementwise("pad", node, layout)
    return LinearOp((x,), window, ConstantPart.ZERO, lambda: pointwise_numbers(channels), spec)


def _fused_pad(c: LinearContext, node: fx.Node) -> bool:
    """Runtimes pad inside the convolution that follows."""
    users = [module_of(c.graph_module, user) for user in node.users]
    return len(users) == 1 and isinstance(users[0], nn.Conv2d)


def _slice(c: LinearContext, node: fx.Node, layout: Layout) -> LinearOp | str:
    x, dim, start, _, step = cast("tuple[fx.Node, int, int, int, int]", node.args)
    if layout != "conv2d" or dim < 2:
        return "it takes a part of its channels"
    axes = [Axis(), Axis()]
    axes[dim - 2] = Axis(stride=step, pad=-start)
    channels = c.shapes[x.name][1]
    window = Window(channels, channels, channels, (axes[0], axes[1]))
    spec = c.elementwise("slice", node, layout)
    return LinearOp((x,), window, ConstantPart.ZERO, lambda: pointwise_numbers(channels), spec)


def _arithmetic(c: LinearContext, node: fx.Node, layout: Layout) -> LinearOp | str:
    name = _NAMES[cast(Any, node.target)]
    operands = node.args if len(node.args) == 2 else (*node.args, 1.0)
    computed = [isinstance(x, fx.Node) and x.op != "get_attr" for x in operands]
    if all(computed):
        return _sum(c, node, name, layout)
    if not any(computed):
        return "it is a constant"
    at = computed.index(True)
    x = cast(fx.Node, operands[at])
    if c.shapes[x.name] != c.shapes[node.name]:
        return "it broadcasts its input"
    constant = _align(_tensor(c, operands[1 - at]), c.shapes[node.name], layout)
    affine = constant if isinstance(constant, str) else _affine(name, at, constant)
    if isinstance(affine, str):
        return affine
    return _affine_op(c, node, x, affine, c.elementwise(name, node, layout), layout)


def _sum(c: LinearContext, node: fx.Node, name: str, layout: Layout) -> LinearOp | str:
    if name not in ("add", "sub"):
        return f"it is a {'product' if name == 'mul' else 'quotient'} of two computed values"
    a, b = cast("tuple[fx.Node, fx.Node]", node.args)
    if not c.shapes[a.name] == c.shapes[b.name] == c.shapes[node.name]:
        return "it broadcasts one of its inputs"
    channels = c.channels(node, layout)

    def numbers() -> Numbers:
        one = torch.ones(channels, 1, 1, 1, dtype=torch.float64)
        return Numbers((one, one if name == "add" else -one), bias_numbers(None, channels))

    spec = c.elementwise(name, node, layout)
    return LinearOp((a, b), pointwise(channels), ConstantPart.ZERO, numbers, spec)


def _affine(name: str, at: int, k: Tensor) -> tuple[Tensor, Tensor | None] | str:
    """(scale, shift) of x + k, k + x, x − k, k − x, x·k, k·x, x/k, −x; x is operand `at`."""
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    match name, at:
        case "add", _:
            return one, k
        case "sub", 0:
            return one, -k
        case "sub", _:
            return -one, k
        case "mul", _:
            return k, None
        case "div", 0:
            return 1 / k, None
        case "neg", _:
            return -one, None
        case _:
            return "it divides by its input"


def _affine_op(
    c: LinearContext,
    node: fx.Node,
    x: fx.Node,
    affine: tuple[Tensor, Tensor | None],
    spec: OpSpec,
    layout: Layout,
) -> LinearOp | str:
    scale, shift = affine
    if scale.shape[1:] != (1, 1):
        return "its factor differs from position to position"
    channels = c.channels(node, layout)
    kind = ConstantPart.ZERO
    if shift is not None:
        kind = ConstantPart.UNIFORM if shift.shape[1:] == (1, 1) else ConstantPart.MAP
        shift = shift.expand(channels, *shift.shape[1:])
    scale = scale.reshape(-1).expand(channels)
    return LinearOp(
        (x,), pointwise(channels), kind, lambda: pointwise_numbers(channels, scale, shift), spec
    )


def _tensor(c: LinearContext, constant: object) -> Tensor:
    if isinstance(constant, fx.Node):
        return float64(attribute(c.graph_module, constant))
    return torch.tensor(constant, dtype=torch.float64)


def _align(constant: Tensor, shape: Shape, layout: Layout) -> Tensor | str:
    """A constant operand as (C or 1, h or 1, w or 1) of a value of this shape."""
    full = constant.reshape((1,) * (len(shape) - constant.ndim) + tuple(constant.shape))
    if layout == "conv2d":
        if full.shape[0] != 1:
            return "its constant depends on the position in the batch"
        uneven = tuple(full.shape[2:]) not in ((1, 1), shape[2:])
        return full[0].expand(-1, *shape[2:]) if uneven else full[0]
    if any(n != 1 for n in full.shape[:-1]):
        return "its constant differs from position to position"
    return full.reshape(-1, 1, 1)


_op: Any = operator
_NAMES: dict[Callable[..., Any], str] = {
    _op.add: "add",
    _op.sub: "sub",
    _op.mul: "mul",
    _op.truediv: "div",
    _op.neg: "neg",
}
AFFINE = frozenset(_NAMES)  # linear in one operand when the others are constants
FUNCTIONS: dict[Callable[..., Any], Callable[..., LinearOp | str]] = {
    F.pad: _pad,
    slice_dim: _slice,
    **dict.fromkeys(_NAMES, _arithmetic),
}
