"""Modules as linear window maps."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, cast

import torch
from torch import fx, nn

from shrinkc.passes.algebra.channel_affine import batch_norm_affine
from shrinkc.passes.algebra.window import Axis, Window, pointwise, reads_padding
from shrinkc.passes.analysis.linear.linear_op import (
    ConstantPart,
    Layout,
    LinearContext,
    LinearOp,
    Numbers,
    bias_numbers,
    pair,
    pointwise_numbers,
)
from shrinkc.passes.analysis.op_spec import OpSpec, conv_spec, linear_spec
from shrinkc.passes.rewrite import float64


def _conv(c: LinearContext, node: fx.Node, module: nn.Conv2d, layout: Layout) -> LinearOp | str:
    if layout != "conv2d":
        return "a convolution between linear layers"
    kernel, stride, pad, dilation = map(
        pair, (module.kernel_size, module.stride, module.padding, module.dilation)
    )
    rows, columns = (Axis(*axis) for axis in zip(kernel, stride, dilation, pad, strict=True))
    window = Window(module.in_channels, module.out_channels, module.groups, (rows, columns))
    x = node.all_input_nodes[0]

    def numbers() -> Numbers:
        return Numbers((float64(module.weight),), bias_numbers(module.bias, module.out_channels))

    constant = ConstantPart.ZERO if module.bias is None else ConstantPart.UNIFORM
    spec = conv_spec(window, c.size(x, layout), c.size(node, layout))
    return LinearOp((x,), window, constant, numbers, spec)


def _linear(c: LinearContext, node: fx.Node, module: nn.Linear, layout: Layout) -> LinearOp | str:
    if layout != "linear":
        return "a linear layer between convolutions"
    window = Window(module.in_features, module.out_features)

    def numbers() -> Numbers:
        weight = float64(module.weight)[:, :, None, None]
        return Numbers((weight,), bias_numbers(module.bias, module.out_features))

    constant = ConstantPart.ZERO if cast(Any, module.bias) is None else ConstantPart.UNIFORM
    rows = c.rows(node)
    return LinearOp(
        (node.all_input_nodes[0],), window, constant, numbers, linear_spec(window, rows)
    )


def _batch_norm(
    c: LinearContext, node: fx.Node, module: nn.BatchNorm1d | nn.BatchNorm2d, layout: Layout
) -> LinearOp | str:
    if layout == "linear" and len(c.shapes[node.name]) != 2:
        return "batch norm normalises dimension 1, not the features"
    try:
        scale, shift = batch_norm_affine(module)
    except ValueError as error:
        return str(error)
    channels = module.num_features
    return LinearOp(
        (node.all_input_nodes[0],),
        pointwise(channels),
        ConstantPart.UNIFORM,
        lambda: pointwise_numbers(channels, scale, shift),
        c.elementwise("mul", node, layout),
    )


def _avg_pool(
    c: LinearContext, node: fx.Node, module: nn.AvgPool2d, layout: Layout
) -> LinearOp | str:
    if layout != "conv2d":
        return "pooling between linear layers"
    x = node.all_input_nodes[0]
    kernel = pair(module.kernel_size)
    stride = pair(cast(Any, module.stride) or module.kernel_size)
    rows, columns = (
        Axis(*a) for a in zip(kernel, stride, (1, 1), pair(module.padding), strict=True)
    )
    channels = c.shapes[x.name][1]
    window = Window(channels, channels, channels, (rows, columns))
    size, out = c.size(x, layout), c.size(node, layout)
    if any(a.out_size(n, a.pad) != m for a, n, m in zip(window.axes, size, out, strict=True)):
        return "average pooling whose last windows are smaller (ceil_mode)"
    if not module.count_include_pad and reads_padding(window, size, out):
        return "average pooling that does not count its padding"
    divisor = module.divisor_override or prod(kernel)

    def numbers() -> Numbers:
        weight = torch.full(window.weight_shape, 1 / divisor, dtype=torch.float64)
        return Numbers((weight,), bias_numbers(None, channels))

    spec = OpSpec(*("avg_pool", channels, channels, kernel, stride), in_size=size, out_size=out)
    return LinearOp((x,), window, ConstantPart.ZERO, numbers, spec)


def _same(c: LinearContext, node: fx.Node, module: nn.Module, layout: Layout) -> LinearOp | str:
    return c.identity(node, layout)


def _transposed(c: LinearContext, node: fx.Node, module: nn.Module, layout: Layout) -> str:
    return "a transposed convolution is not a window map"


MODULES: dict[type[nn.Module], Callable[..., LinearOp | str]] = {
    nn.Conv2d: _conv,
    nn.ConvTranspose2d: _transposed,
    nn.Linear: _linear,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.AvgPool2d: _avg_pool,
    nn.Identity: _same,
    nn.Dropout: _same,
}
