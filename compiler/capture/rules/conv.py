"""Convolutions, linear layers, windows: functional calls and ATen operators as modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from shrinkc.compiler.capture.builder import Constant, Expanded
from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.lift import lift, pair, raise_to_map
from shrinkc.compiler.capture.rules.matrix import matmul
from shrinkc.compiler.capture.rules.shape import flip, unfold_dim
from shrinkc.passes import ir


def conv2d(
    c: Context,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> fx.Node:
    if isinstance(weight, (fx.Node, Expanded)) or isinstance(bias, fx.Node):
        return _dynamic_conv(c, x, c.tensor(weight), bias, (stride, padding, dilation, groups))
    weight, bias = c.weight(weight), c.parameter(bias, "bias")
    x = c.tensor(x)
    out, per_group, kh, kw = weight.tensor.shape
    dilation, stride = pair(dilation), pair(stride)
    x, padding = explicit_padding(c, x, padding, (kh, kw), dilation)
    config = ("conv2d", stride, padding, dilation, groups)

    def make() -> nn.Module:
        return nn.Conv2d(
            *(per_group * groups, out, (kh, kw), stride, padding, dilation, groups),
            bias=bias is not None,
        )

    return lift(c, x, make, {"weight": weight, "bias": bias}, config)


def _dynamic_conv(
    c: Context, x: Any, weight: fx.Node, bias: Any, how: tuple[Any, Any, Any, Any]
) -> fx.Node:
    """Filters that are computed from the input, say one for each sample of a batch of 1."""
    x, (stride, padding, dilation, groups) = c.tensor(x), how
    (_, _, kh, kw), gaps = c.b.shape(weight), pair(dilation)
    count = c.b.fixed(groups, "the number of convolution groups")
    if len(set(c.b.shapes(weight))) > 1:
        raise c.unsupported("as many filters as the batch says")
    x, around = explicit_padding(c, x, padding, (kh, kw), gaps)
    y = c.b.call(ir.dynamic_conv, x, weight, pair(stride), around, gaps, count)
    if bias is None:
        return y
    b = c.tensor(bias)
    return c.b.call(ir.add, y, c.b.reshape(b, [(*s, 1, 1) for s in c.b.shapes(b)]))


def explicit_padding(
    c: Context, x: fx.Node, padding: Any, kernel: tuple[int, int], dilation: tuple[int, int]
) -> tuple[fx.Node, tuple[int, int]]:
    """'same' and 'valid' as integers; what is odd of 'same' goes to the bottom right."""
    if not isinstance(padding, str):
        return x, pair(padding)
    if padding == "valid":
        return x, (0, 0)
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if all(n % 2 == 0 for n in total):
        return x, (total[0] // 2, total[1] // 2)
    (top, left) = (n // 2 for n in total)
    amounts = (left, total[1] - left, top, total[0] - top)
    return c.b.call(F.pad, x, amounts, "constant", 0.0), (0, 0)


def _raised(c: Context, weight: Any) -> Any:
    """Filters over a line as filters over a map of height 1."""
    if isinstance(weight, fx.Node):
        return raise_to_map(c, weight)
    known = c.weight(weight)
    return Constant(known.tensor.unsqueeze(2), known.path)


def conv1d(
    c: Context,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> fx.Node:
    """A convolution over a map of height 1."""
    raised = _raised(c, weight)
    flat = raise_to_map(c, c.tensor(x))
    one = [pair(v)[1] for v in (stride, dilation)]
    across = padding if isinstance(padding, str) else (0, pair(padding)[1])
    y = conv2d(c, flat, raised, bias, (1, one[0]), across, (1, one[1]), groups)
    return c.reshape_out(y)


def unfold(
    c: Context, x: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> fx.Node:
    """`F.unfold`: a depthwise convolution that copies each window position to a channel."""
    if c.node.op == "call_method" or c.node.target is torch.ops.aten.unfold.default:
        return unfold_dim(c, x, kernel_size, dilation, padding)  # another function: `Tensor.unfold`
    x, (kh, kw) = c.tensor(x), pair(kernel_size)
    channels = c.b.shape(x)[1]
    rest = (pair(stride), pair(padding), pair(dilation), channels)
    copy = nn.Conv2d(channels, channels * kh * kw, (kh, kw), *rest, bias=False)
    one_hot = torch.eye(kh * kw).reshape(kh * kw, 1, kh, kw)
    copy.weight = nn.Parameter(one_hot.repeat(channels, 1, 1, 1))
    return c.reshape_out(c.b.new_module(c.hint, copy, x))


def fold(
    c: Context,
    x: Any,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> fx.Node:
    """`F.fold`: windows that tile the map go back to their places, others are summed up by a
    depthwise transposed convolution with one 1 in each kernel."""
    x, kernel = c.tensor(x), pair(kernel_size)
    (kh, kw), size = kernel, pair(output_size)
    steps, margins, gaps = pair(stride), pair(padding), pair(dilation)
    dims = list(zip(size, kernel, steps, margins, gaps, strict=True))
    reach = [n + 2 * p - d * (k - 1) - 1 for n, k, _, p, d in dims]
    tiles = [r // s + 1 for r, s in zip(reach, steps, strict=True)]
    if steps != kernel or margins != (0, 0) or gaps != (1, 1):
        channels = c.b.shape(x)[1] // (kh * kw)
        extra = tuple(r % s for r, s in zip(reach, steps, strict=True))
        one_hot = torch.eye(kh * kw).reshape(kh * kw, 1, kh, kw).repeat(channels, 1, 1, 1)
        windows = c.b.reshape(x, [(*s[:2], *tiles) for s in c.b.shapes(x)])
        return conv_transpose2d(
            *(c, windows, Constant(one_hot), None, steps, margins, extra, channels, gaps)
        )
    split = [(s[0], s[1] // (kh * kw), kh, kw, *tiles) for s in c.b.shapes(x)]
    return c.reshape_out(c.b.permute(c.b.reshape(x, split), (0, 1, 4, 2, 5, 3)))


def conv_transpose2d(
    c: Context,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    *by_place: Any,
    groups: int = 1,
    dilation: Any = 1,
) -> fx.Node:
    # torch takes the last two by place, too, as nn.ConvTranspose2d passes them.
    groups, dilation = (*by_place, *(groups, dilation)[len(by_place) :])
    if isinstance(weight, fx.Node):
        spread = _spread(c, c.tensor(x), weight, (stride, padding, output_padding, dilation))
        filters = _turned(c, weight, groups)
        return _dynamic_conv(c, spread, filters, bias, (1, 0, dilation, groups))
    weight, bias = c.weight(weight), c.parameter(bias, "bias")
    inputs, per_group, kh, kw = weight.tensor.shape
    stride, padding, extra, dilation = map(pair, (stride, padding, output_padding, dilation))
    config = ("conv_transpose2d", stride, padding, extra, dilation, groups)

    def make() -> nn.Module:
        return nn.ConvTranspose2d(
            *(inputs, per_group * groups, (kh, kw), stride, padding, extra, groups),
            bias=bias is not None,
            dilation=dilation,
        )

    return lift(c, c.tensor(x), make, {"weight": weight, "bias": bias}, config)


def _spread(c: Context, x: fx.Node, weight: fx.Node, how: tuple[Any, ...]) -> fx.Node:
    """What a convolution reads that is a transposed one: x with zeros between its pixels and around
    them. Rows of zeros are behind each row where they are columns of it, `stride` times as wide."""
    (sh, sw), padding, extra, dilation = map(pair, how)
    for step, wide in ((sh, True), (sw, False)):
        if step == 1:
            continue
        shapes = c.b.shapes(x)
        flat = x if wide else c.b.reshape(x, [(n, ch, h * w, 1) for n, ch, h, w in shapes])
        zeros = (step - 1) * c.b.shape(flat)[3]
        flat = c.b.call(F.pad, flat, (0, zeros), "constant", 0.0)
        scale = (step, 1) if wide else (1, step)
        sizes = [(n, ch, h * scale[0], w * scale[1]) for n, ch, h, w in shapes]
        x = c.b.reshape(flat, sizes)
    amounts: list[int] = []
    kernel = c.b.shape(weight)[2:]
    for dim, step in ((1, sw), (0, sh)):
        reach = dilation[dim] * (kernel[dim] - 1) - padding[dim]
        behind = reach + extra[dim] - (step - 1)
        size = c.b.shape(x)[2 + dim]
        if min(reach, behind) < 0:
            x = c.b.slice(x, 2 + dim, max(0, -reach), size + min(0, behind))
        amounts += [max(0, reach), max(0, behind)]
    return c.b.call(F.pad, x, tuple(amounts), "constant", 0.0) if any(amounts) else x


def _turned(c: Context, weight: fx.Node, groups: int) -> fx.Node:
    """(in, out / groups, kh, kw) of a transposed convolution as (out, in / groups, kh, kw)."""
    inputs, per_group, kh, kw = c.b.shape(weight)
    turned = flip(c, weight, 2, 3)
    shapes = (
        (groups, inputs // groups, per_group, kh * kw),
        (per_group * groups, inputs // groups, kh, kw),
    )
    one, other = ([shape] * len(c.b.shapes(weight)) for shape in shapes)
    return c.b.reshape(c.b.permute(c.b.reshape(turned, one), (0, 2, 1, 3)), other)


def conv_transpose1d(
    c: Context,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    *by_place: Any,
    groups: int = 1,
    dilation: Any = 1,
) -> fx.Node:
    """Over a map of height 1."""
    groups, dilation = (*by_place, *(groups, dilation)[len(by_place) :])
    raised = _raised(c, weight)
    (_, s), (_, p), (_, extra), (_, d) = map(pair, (stride, padding, output_padding, dilation))
    sizes = ((1, s), (0, p), (0, extra))
    flat = raise_to_map(c, c.tensor(x))
    y = conv_transpose2d(c, flat, raised, bias, *sizes, groups=groups, dilation=(1, d))
    return c.reshape_out(y)


def linear(c: Context, x: Any, weight: Any, bias: Any = None) -> fx.Node:
    if isinstance(weight, fx.Node):
        product = c.b.call(torch.matmul, c.tensor(x), c.b.permute(weight, (1, 0)))
        return product if bias is None else c.b.call(ir.add, product, c.tensor(bias))
    weight, bias = c.weight(weight), c.parameter(bias, "bias")
    if weight.tensor.ndim == 1:
        product = matmul(c, x, weight)
        return product if bias is None else c.b.call(ir.add, product, c.operand(bias))
    out, inputs = weight.tensor.shape

    def make() -> nn.Module:
        return nn.Linear(inputs, out, bias=bias is not None)

    return lift(c, c.tensor(x), make, {"weight": weight, "bias": bias}, ("linear",))


RULES: dict[str, Callable[..., Any]] = {
    "conv2d": conv2d,
    "conv1d": conv1d,
    "unfold": unfold,
    "im2col": unfold,
    "fold": fold,
    "col2im": fold,
    "conv_transpose1d": conv_transpose1d,
    "conv_transpose2d": conv_transpose2d,
    "linear": linear,
}
