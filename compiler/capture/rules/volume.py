"""Three dimensions, said with two: frames of a volume are images, or rows of one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from shrinkc.compiler.capture.builder import Constant
from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.rules.conv import conv2d, conv_transpose2d
from shrinkc.compiler.capture.rules.pool import avg_pool2d, max_pool2d

Triple = tuple[int, int, int]


def triple(value: Any) -> Triple:
    """An int or a sequence of one or three as (depth, height, width)."""
    items = (int(value),) if isinstance(value, int) else tuple(int(v) for v in value)
    first, *rest = items * 3 if len(items) == 1 else items
    return first, rest[0], rest[1]


def conv3d(
    c: Context,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> fx.Node:
    """A 2-D convolution: along the depth alone over a map of (depth, height · width), else over
    frames whose channels are those of all frames that the kernel meets."""
    weight, x = c.weight(weight), c.tensor(x)
    if c.b.rank(x) != 5:
        raise c.unsupported("a 3-D convolution of something that is not (N, C, D, H, W)")
    kernel, s, d = triple(weight.tensor.shape[2:]), triple(stride), triple(dilation)
    before, after = _padding(kernel, d, padding)
    if kernel[1:] == (1, 1) and s[1:] == (1, 1) and not any((*before[1:], *after[1:])):
        flat = _pad(c, _rows(c, x), (0, 0, before[0], after[0]))
        along = Constant(weight.tensor.squeeze(4), weight.path)
        return c.reshape_out(conv2d(c, flat, along, bias, (s[0], 1), 0, (d[0], 1), groups))
    if before[1:] != after[1:]:
        x = _pad(c, x, (before[2], after[2], before[1], after[1]))
        before = (before[0], 0, 0)
    frames = _pad(c, _rows(c, x), (0, 0, before[0], after[0]))
    depth, size = c.out_shapes[0][2], c.b.shape(x)[3:]
    last = (depth - 1) * s[0] + 1
    met = [c.b.slice(frames, 2, at, at + last, s[0]) for at in range(0, kernel[0] * d[0], d[0])]
    raised = [c.b.reshape(f, [(*n[:2], 1, *n[2:]) for n in c.b.shapes(f)]) for f in met]
    together = raised[0] if len(raised) == 1 else c.b.call(torch.cat, tuple(raised), 2)
    images = c.b.reshape(
        c.b.permute(together, (0, 3, 1, 2, 4)),
        [(n[0] * depth, n[1] * kernel[0], *size) for n in c.b.shapes(together)],
    )
    shape = (weight.tensor.shape[0], -1, *kernel[1:])
    flat_weight = Constant(weight.tensor.reshape(shape), weight.path)
    y = conv2d(c, images, flat_weight, bias, s[1:], before[1:], d[1:], groups)
    apart = c.b.reshape(y, [(n[0], n[2], n[1], *n[3:]) for n in c.out_shapes])
    return c.b.permute(apart, (0, 2, 1, 3, 4))


def _padding(kernel: Triple, dilation: Triple, padding: Any) -> tuple[Triple, Triple]:
    """(in front, behind); what is odd of 'same' goes behind."""
    if not isinstance(padding, str):
        return triple(padding), triple(padding)
    total = [d * (k - 1) * (padding == "same") for k, d in zip(kernel, dilation, strict=True)]
    return triple([n // 2 for n in total]), triple([n - n // 2 for n in total])


def _pad(c: Context, x: fx.Node, amounts: tuple[int, ...]) -> fx.Node:
    return c.b.call(F.pad, x, amounts, "constant", 0.0) if any(amounts) else x


def _rows(c: Context, x: fx.Node) -> fx.Node:
    """(N, C, D, H, W) → (N, C, D, H·W)"""
    return c.b.reshape(x, [(*n[:3], math.prod(n[3:])) for n in c.b.shapes(x)])


def _frames(c: Context, x: fx.Node) -> fx.Node:
    """(N, C, D, H, W) → (N, C·D, H, W)"""
    return c.b.reshape(x, [(n[0], n[1] * n[2], *n[3:]) for n in c.b.shapes(x)])


def conv_transpose3d(
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
    """Two dimensions at a time: every frame by itself, with the kernel's planes as channels (o, k);
    then plane k of output o is added up at depth d · stride + k · dilation, by one transposed
    convolution for each output channel over a map of (depth, height · width)."""
    groups, dilation = (*by_place, *(groups, dilation)[len(by_place) :])
    weight, x = c.weight(weight), c.tensor(x)
    if c.b.rank(x) != 5:
        raise c.unsupported("a 3-D transposed convolution of something that is not (N, C, D, H, W)")
    (inputs, per_group, planes, *kernel), outputs = weight.tensor.shape, c.out_shapes[0][1]
    s, p, e, d = map(triple, (stride, padding, output_padding, dilation))
    depth = c.b.shape(x)[2]
    images = c.b.reshape(
        c.b.permute(x, (0, 2, 1, 3, 4)), [(n[0] * n[2], n[1], *n[3:]) for n in c.b.shapes(x)]
    )
    flat = Constant(weight.tensor.reshape(inputs, per_group * planes, *kernel), weight.path)
    rest = (s[1:], p[1:], e[1:])
    y = conv_transpose2d(c, images, flat, None, *rest, groups=groups, dilation=d[1:])
    size = c.b.shape(y)[2:]
    shapes = [(n[0], depth, outputs * planes, math.prod(size)) for n in c.out_shapes]
    rows = c.b.permute(c.b.reshape(y, shapes), (0, 2, 1, 3))
    one_hot = torch.eye(planes).reshape(planes, 1, planes, 1).repeat(outputs, 1, 1, 1)
    along = ((s[0], 1), (p[0], 0), (e[0], 0))
    known = Constant(one_hot)
    z = conv_transpose2d(c, rows, known, bias, *along, groups=outputs, dilation=(d[0], 1))
    return c.reshape_out(z)


def _pool(
    c: Context, x: Any, over: Callable[[fx.Node, Callable[[Sequence[int]], Any]], fx.Node]
) -> fx.Node:
    """`over` the image in each frame, then over the frames. It is given a function that takes of
    (depth, height, width) what counts there, and 1 of the other."""
    x = c.tensor(x)
    if c.b.rank(x) == 4:  # (N, C, H, W) over its channels, too: for PyTorch one (C, D, H, W)
        x = c.b.reshape(x, [(n[0], 1, *n[1:]) for n in c.b.shapes(x)])
    if c.b.rank(x) != 5:
        raise c.unsupported("3-D pooling of something that is not (N, C, D, H, W)")
    images = over(_frames(c, x), lambda v: (v[1], v[2]))
    channels, depth = c.b.shape(x)[1:3]
    rows = [(n[0], channels, depth, math.prod(n[2:])) for n in c.b.shapes(images)]
    return c.reshape_out(over(c.b.reshape(images, rows), lambda v: (v[0], v[3])))


def max_pool3d(
    c: Context,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> fx.Node:
    c.refuse_indices(return_indices)
    kernel = (*triple(kernel_size), 1)
    step, around = (*triple(stride or kernel_size), 1), (*triple(padding), 0)
    gap = (*triple(dilation), 1)
    return _pool(
        *(c, x),
        lambda y, of: max_pool2d(c, y, of(kernel), of(step), of(around), of(gap), ceil_mode),
    )


def avg_pool3d(
    c: Context,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> fx.Node:
    if divisor_override is not None:
        raise c.unsupported("average pooling with divisor_override")
    kernel = (*triple(kernel_size), 1)
    step, around = (*triple(stride or kernel_size), 1), (*triple(padding), 0)
    rest = (ceil_mode, count_include_pad)
    return _pool(*(c, x), lambda y, of: avg_pool2d(c, y, of(kernel), of(step), of(around), *rest))


def _adaptive(kind: Callable[[tuple[int, int]], nn.Module]) -> Callable[..., Any]:
    def rule(c: Context, x: Any, output_size: Any, return_indices: bool = False) -> fx.Node:
        c.refuse_indices(return_indices)
        depth, height, width = c.out_shapes[0][-3:]
        size = (depth, height, width, height * width)
        return _pool(c, x, lambda y, of: c.activation(kind(of(size)), y))

    return rule


RULES: dict[str, Callable[..., Any]] = {
    "conv3d": conv3d,
    "conv_transpose3d": conv_transpose3d,
    "max_pool3d": max_pool3d,
    "avg_pool3d": avg_pool3d,
    "adaptive_avg_pool3d": _adaptive(nn.AdaptiveAvgPool2d),
    "adaptive_max_pool3d": _adaptive(nn.AdaptiveMaxPool2d),
}
