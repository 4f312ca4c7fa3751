"""Modules of the closed set on channel identities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from shrinkc.passes.analysis.channels.channel_functions import Axes, Call
from shrinkc.passes.analysis.channels.channel_ids import FIXED, Ids, Value
from shrinkc.passes.ir import ELEMENTWISE_MODULES, input_of
from shrinkc.passes.recurrent import Recurrent

BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
Conv = nn.Conv2d | nn.ConvTranspose2d


def _conv(c: Call, conv: Conv, whole: bool) -> Axes:
    """Reads the axis in front of the spatial two, makes it anew."""
    x = c.computed(input_of(c.node))
    axis = len(x.shape) - 3
    rest = {a: ids for a, ids in x.axes.items() if a != axis}
    if conv.kernel_size != (1, 1) or conv.stride != (1, 1) or conv.padding != (0, 0):
        rest = _not_spatial(c, rest, axis)
    out = _layer(c, conv, x, axis, conv.out_channels)
    ins = x.axes.get(axis)
    if conv.groups > 1:
        _tie_groups(c, conv, ins, out, whole)
    if ins is not None and conv.groups == conv.in_channels and not (ins == FIXED).any():
        out = np.repeat(ins, conv.out_channels // conv.groups)  # each goes with what it reads
    return {**rest, axis: out}


def _linear(c: Call, linear: nn.Linear, whole: bool) -> Axes:
    x = c.computed(input_of(c.node))
    axis = len(x.shape) - 1
    out = _layer(c, linear, x, axis, linear.out_features)
    return {**x.axes, axis: out}


def _layer(c: Call, layer: Conv | nn.Linear, x: Value, axis: int, outputs: int) -> Ids:
    """The channels that a layer reads end, its filters make new ones."""
    path, book = cast(str, c.node.target), c.book
    transposed = isinstance(layer, nn.ConvTranspose2d)
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    ins = x.axes.get(axis)
    made = book.touches.get((id(layer.weight), int(transposed)))
    again = made is not None and (made.role, len(made.ids)) == ("out", outputs)
    out = made.ids if again and made is not None else book.make(outputs, path)
    rows, columns = ((ins, "in"), (out, "out")) if transposed else ((out, "out"), (ins, "in"))
    book.touch((path, "weight"), layer.weight, 0, rows[0], c.name, rows[1])
    if not _one_each(layer, transposed):  # otherwise there is one index, whatever the channel
        book.touch((path, "weight"), layer.weight, 1, columns[0], c.name, columns[1], groups)
    book.touch((path, "bias"), cast("Tensor | None", layer.bias), 0, out, c.name, "out")
    names = ("in_features", "out_features")
    if not isinstance(layer, nn.Linear):
        names = ("in_channels", "out_channels")
    book.size(path, names[1], out)
    book.use(c.name, c.name, axis, out, "made")
    if ins is not None:
        book.size(path, names[0], ins)
        book.use(c.name, input_of(c.node).name, axis, ins, "zero")
    return out


def _one_each(layer: Conv | nn.Linear, transposed: bool) -> bool:
    """Dimension 1 of the weight has one index for each convolution group, always."""
    if isinstance(layer, nn.Linear) or layer.groups == 1:
        return False
    return (layer.out_channels if transposed else layer.in_channels) == layer.groups


def _tie_groups(c: Call, conv: Conv, ins: Ids | None, out: Ids, whole: bool) -> None:
    """Convolution groups lose equally many channels, or go as a whole."""
    book, blocks = c.book, out.reshape(conv.groups, -1)
    path = cast(str, c.node.target)
    reads = None if ins is None else ins.reshape(conv.groups, -1)
    if reads is None:
        if blocks.shape[1] == 1:
            book.protect(out, c.name, "one filter for each channel that must stay")
        book.balance(blocks, c.name)
    elif whole or min(blocks.shape[1], reads.shape[1]) == 1:
        book.unify(reads, reads[:, :1], c.name)
        book.unify(blocks, reads[:, :1], c.name)
        book.size(path, "groups", reads[:, 0])
    else:
        book.balance(reads, c.name)
        book.balance(blocks, c.name)


def _not_spatial(c: Call, axes: Axes, channel_axis: int) -> dict[int, Ids]:
    """Channels on a spatial axis that is windowed have neighbours, and stay."""
    for axis, ids in axes.items():
        if axis > channel_axis:
            c.book.protect(ids, c.name, "used as positions")
    return {a: ids for a, ids in axes.items() if a <= channel_axis}


def _batch_norm(c: Call, norm: nn.BatchNorm1d | nn.BatchNorm2d, whole: bool) -> Axes:
    """Its statistics are taken over positions: those stay."""
    x = c.computed(input_of(c.node))
    _scale(c, norm, x.axes.get(1), BATCH_NORM, "num_features")
    return _not_spatial(c, x.axes, 1)


def _prelu(c: Call, prelu: nn.PReLU, whole: bool) -> Axes:
    x = c.computed(input_of(c.node))
    if prelu.num_parameters > 1:
        _scale(c, prelu, x.axes.get(1), ("weight",), "num_parameters")
    return x.axes


def _scale(
    c: Call, module: nn.Module, ids: Ids | None, parameters: tuple[str, ...], count: str
) -> None:
    """A number for each channel."""
    path = cast(str, c.node.target)
    for name in parameters:
        c.book.touch((path, name), getattr(module, name), 0, ids, c.name, "scale")
    c.book.same_size(path, ids, c.name)
    if ids is not None:
        c.book.size(path, count, ids)


def _layer_norm(c: Call, norm: nn.LayerNorm, whole: bool) -> Axes:
    """Mean and variance are those of the channels that stay."""
    x, path = c.computed(input_of(c.node)), cast(str, c.node.target)
    first = len(x.shape) - len(norm.normalized_shape)
    for dim in range(len(norm.normalized_shape)):
        ids = x.axes.get(first + dim)
        for name in ("weight", "bias"):
            c.book.touch((path, name), getattr(norm, name), dim, ids, c.name, "scale")
        c.book.same_size(path, ids, c.name, dim)
        if ids is not None:
            c.book.size(path, "normalized_shape", ids, dim)
            c.book.use(c.name, input_of(c.node).name, first + dim, ids, "left out")
    return x.axes


def _group_norm(c: Call, norm: nn.GroupNorm, whole: bool) -> Axes:
    """Mean and variance of a group are those of its channels that stay, at all positions."""
    x, path = c.computed(input_of(c.node)), cast(str, c.node.target)
    ids, axes = x.axes.get(1), _not_spatial(c, x.axes, 1)
    _scale(c, norm, ids, ("weight", "bias"), "num_channels")
    if ids is None:
        return axes
    c.book.use(c.name, input_of(c.node).name, 1, ids, "left out")
    if norm.num_groups == norm.num_channels:
        c.book.size(path, "num_groups", ids)
    elif norm.num_groups > 1:
        c.book.balance(ids.reshape(norm.num_groups, -1), c.name)
    return axes


def _recurrent(c: Call, layer: Recurrent, whole: bool) -> Axes:
    """The features that it reads end; its states stay, since each of them feeds every gate."""
    x, path = c.computed(input_of(c.node)), cast(str, c.node.target)
    for source in c.node.args:
        for axis, ids in c.computed(source).axes.items():
            if source is not input_of(c.node):
                c.book.protect(ids, c.name, "the first state of a recurrent layer")
            elif axis != FEATURES:
                c.book.protect(ids, c.name, "used as positions")
    ids = x.axes.get(FEATURES)
    c.book.touch((path, "weight_ih"), layer.weight_ih, 1, ids, c.name, "in")
    if ids is not None:
        c.book.size(path, "input_size", ids)
        c.book.use(c.name, input_of(c.node).name, FEATURES, ids, "zero")
    made = c.book.make(c.shape[FEATURES], path)
    c.book.protect(made, c.name, "the states of a recurrent layer")
    return {FEATURES: made}


FEATURES = 2  # of a sequence (N, L, features)


def _softmax(c: Call, softmax: nn.Softmax | nn.LogSoftmax, whole: bool) -> Axes:
    x = c.computed(input_of(c.node))
    dim = cast(int, softmax.dim) % len(x.shape)
    if dim in x.axes:
        c.book.protect(x.axes[dim], c.name, "a softmax over channels")
    return {a: ids for a, ids in x.axes.items() if a != dim}


def _spatial(c: Call, module: nn.Module, whole: bool) -> Axes:
    """Pooling, upsampling: the last two axes are positions."""
    x = c.computed(input_of(c.node))
    return _not_spatial(c, x.axes, len(x.shape) - 3)


def _pixel_shuffle(c: Call, module: nn.PixelShuffle, whole: bool) -> Axes:
    """Output channel i is made of channels i·r² … i·r² + r² − 1, which go together."""
    axes = _spatial(c, module, whole)
    axis = len(c.shape) - 3
    if axis not in axes:
        return axes
    runs = axes[axis].reshape(c.shape[axis], -1)
    c.book.unify(runs, runs[:, :1], c.name)
    return {**axes, axis: np.ascontiguousarray(runs[:, 0])}


def _pixel_unshuffle(c: Call, module: nn.PixelUnshuffle, whole: bool) -> Axes:
    axes = _spatial(c, module, whole)
    axis = len(c.shape) - 3
    if axis not in axes:
        return axes
    return {**axes, axis: np.repeat(axes[axis], module.downscale_factor**2)}


def _same(c: Call, module: nn.Module, whole: bool) -> Axes:
    return c.computed(input_of(c.node)).axes


def module_axes(c: Call, module: nn.Module, whole: bool) -> Axes:
    """Axis → identities of a `call_module` node's result. `whole`: convolution groups go as one."""
    return _RULES[type(module)](c, module, whole)


_RULES: dict[type[nn.Module], Callable[[Call, Any, bool], Axes]] = {
    **dict.fromkeys((*ELEMENTWISE_MODULES, nn.Dropout, nn.Identity), _same),
    **dict.fromkeys((nn.MaxPool2d, nn.AvgPool2d, nn.Upsample), _spatial),
    **dict.fromkeys((nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d), _spatial),
    nn.Conv2d: _conv,
    nn.ConvTranspose2d: _conv,
    nn.Linear: _linear,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.PReLU: _prelu,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Softmax: _softmax,
    nn.LogSoftmax: _softmax,
    nn.PixelShuffle: _pixel_shuffle,
    nn.PixelUnshuffle: _pixel_unshuffle,
    Recurrent: _recurrent,
}
