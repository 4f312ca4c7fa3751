"""How each module of the canonical form becomes deployment operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import fx, nn

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.lower_recurrent import recurrent
from shrinkc.compiler.export.lowering import Lowering, NotLowerableError
from shrinkc.passes.recurrent import Recurrent


def pair(value: Any) -> ops.Pair:
    return (int(value), int(value)) if isinstance(value, (int, float)) else tuple(value)  # pyright: ignore


def _bias(s: Lowering, module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> ops.FloatArray:
    if module.bias is None:  # pyright: ignore[reportUnnecessaryComparison]
        outputs = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        return np.zeros(outputs, np.float32)
    return s.array(module.bias)


def conv(s: Lowering, node: fx.Node, m: nn.Conv2d) -> None:
    x = _input(s, node)
    (top, left) = pair(m.padding)
    pads = (top, left, top, left)
    before = s.made_by(x)
    if isinstance(before, ops.Pad) and _is_zero_border(before):
        pads = (
            *(top + before.before[2], left + before.before[3]),
            *(top + before.after[2], left + before.after[3]),
        )
        x = before.x
    s.add(
        node,
        ops.Conv(
            *(node.name, s.value(node), x, s.array(m.weight), _bias(s, m)),
            *(pair(m.stride), pads, pair(m.dilation), m.groups),
        ),
    )


def _is_zero_border(pad: ops.Pad) -> bool:
    inside = not any((*pad.before[:2], *pad.after[:2]))
    return pad.mode == "constant" and pad.value == 0 and len(pad.before) == 4 and inside


def conv_transpose(s: Lowering, node: fx.Node, m: nn.ConvTranspose2d) -> None:
    (top, left) = pair(m.padding)
    s.add(
        node,
        ops.ConvTranspose(
            *(node.name, s.value(node), _input(s, node), s.array(m.weight), _bias(s, m)),
            *(pair(m.stride), (top, left, top, left), pair(m.dilation), m.groups),
            pair(m.output_padding),
        ),
    )


def linear(s: Lowering, node: fx.Node, m: nn.Linear) -> None:
    s.add(
        node,
        ops.Linear(node.name, s.value(node), _input(s, node), s.array(m.weight), _bias(s, m)),
    )


def batch_norm(s: Lowering, node: fx.Node, m: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    if m.running_mean is None or m.running_var is None:
        raise NotLowerableError("batch norm without running statistics")
    variance = m.running_var.double() + m.eps
    scale = variance.rsqrt() if not m.affine else m.weight.detach().double() * variance.rsqrt()
    shift = -m.running_mean.double() * scale
    shift = shift + m.bias.detach().double() if m.affine else shift
    x = _input(s, node)
    arrays = (scale.float().cpu().numpy(), shift.float().cpu().numpy())
    s.add(node, ops.ChannelAffine(node.name, s.value(node), x, *arrays))


def layer_norm(s: Lowering, node: fx.Node, m: nn.LayerNorm) -> None:
    shape = tuple(m.normalized_shape)
    weight = s.array(m.weight) if m.elementwise_affine else np.ones(shape, np.float32)
    has_bias = m.elementwise_affine and m.bias is not None  # pyright: ignore
    bias = s.array(m.bias) if has_bias else np.zeros(shape, np.float32)
    s.add(node, ops.LayerNorm(node.name, s.value(node), _input(s, node), weight, bias, m.eps))


def group_norm(s: Lowering, node: fx.Node, m: nn.GroupNorm) -> None:
    """(N, C, …) → (N, G, rest), normalise, back, scale and shift."""
    x = _input(s, node)
    batch, rest = x.shape[0], math.prod(x.shape[1:]) // m.num_groups
    grouped, narrow = (batch, m.num_groups, rest), (batch, m.num_groups, 1)

    def part(suffix: str, shape: tuple[int, ...]) -> ops.Value:
        return replace(x, name=f"{node.name}_{suffix}", shape=shape)

    def scalar(number: float) -> ops.Const:
        return ops.Const(f"{node.name}_eps", np.asarray(number, np.float32))

    n = node.name
    flat = s.emit(ops.Reshape(n, part("grouped", grouped), x))
    mean = s.emit(ops.Reduce(n, part("mean", narrow), flat, "mean", (2,), True))
    centred = s.emit(ops.Binary(n, part("centred", grouped), flat, mean, "sub"))
    square = s.emit(ops.Binary(n, part("square", grouped), centred, centred, "mul"))
    variance = s.emit(ops.Reduce(n, part("variance", narrow), square, "mean", (2,), True))
    padded = s.emit(ops.Binary(n, part("padded", narrow), variance, scalar(m.eps), "add"))
    inverse = s.emit(ops.Unary(n, part("inverse", narrow), padded, "rsqrt"))
    normal = s.emit(ops.Binary(n, part("normal", grouped), centred, inverse, "mul"))
    if not m.affine:
        s.add(node, ops.Reshape(n, s.value(node), normal))
        return
    back = s.emit(ops.Reshape(n, part("back", x.shape), normal))
    affine = (s.array(m.weight), s.array(m.bias))
    s.add(node, ops.ChannelAffine(n, s.value(node), back, *affine))


# --- activations ---------------------------------------------------------------------------------


def _unary(kind: ops.UnaryKind, *fields: str) -> Callable[..., None]:
    def lowering(s: Lowering, node: fx.Node, m: nn.Module) -> None:
        parameters = tuple(float(getattr(m, f)) for f in fields)
        s.add(node, ops.Unary(node.name, s.value(node), _input(s, node), kind, parameters))

    return lowering


def gelu(s: Lowering, node: fx.Node, m: nn.GELU) -> None:
    _unary("gelu" if m.approximate == "none" else "gelu_tanh")(s, node, m)


ALL_BUT_LINEAR = 15  # from here on ln(1 + exp(x)) is x in float32


def softplus(s: Lowering, node: fx.Node, m: nn.Softplus) -> None:
    """ln(1 + exp(βx)) / β, and x where βx is above the threshold."""
    if m.beta == 1 and m.threshold >= ALL_BUT_LINEAR:
        _unary("softplus")(s, node, m)
        return
    n, x, value = node.name, _input(s, node), s.value(node)

    def part(suffix: str) -> ops.Value:
        return replace(x, name=f"{n}_{suffix}")

    def number(suffix: str, content: float) -> ops.Const:
        return ops.Const(f"{n}_{suffix}", np.asarray(content, np.float32))

    beta = number("beta", m.beta)
    scaled = s.emit(ops.Binary(n, part("scaled"), x, beta, "mul"))
    soft = s.emit(ops.Unary(n, part("soft"), scaled, "softplus"))
    if m.threshold >= ALL_BUT_LINEAR:
        s.add(node, ops.Binary(n, value, soft, beta, "div"))
        return
    curved = s.emit(ops.Binary(n, part("curved"), soft, beta, "div"))
    limit = number("threshold", m.threshold)
    above = s.emit(ops.Compare(n, part("above"), scaled, limit, "greater"))
    s.add(node, ops.Where(n, value, above, x, curved))


def prelu(s: Lowering, node: fx.Node, m: nn.PReLU) -> None:
    s.add(node, ops.PRelu(node.name, s.value(node), _input(s, node), s.array(m.weight)))


def softmax(s: Lowering, node: fx.Node, m: nn.Softmax | nn.LogSoftmax) -> None:
    x = _input(s, node)
    axis = (-1 if m.dim is None else m.dim) % len(x.shape)
    log = isinstance(m, nn.LogSoftmax)
    s.add(node, ops.Softmax(node.name, s.value(node), x, axis, log))


def alias(s: Lowering, node: fx.Node, m: nn.Module) -> None:
    s.alias(node, node.all_input_nodes[0])


# --- pooling -------------------------------------------------------------------------------------


def _ceil_extra(
    size: ops.Pair, out: ops.Pair, kernel: ops.Pair, stride: ops.Pair, pads: ops.Pair, d: ops.Pair
) -> ops.Pair:
    """What ceil mode reads beyond the padded bottom and right edge."""
    reach = [
        (o - 1) * st + di * (k - 1) + 1 for o, st, k, di in zip(out, stride, kernel, d, strict=True)
    ]
    return tuple(max(r - n - 2 * p, 0) for r, n, p in zip(reach, size, pads, strict=True))  # pyright: ignore


def max_pool(s: Lowering, node: fx.Node, m: nn.MaxPool2d) -> None:
    x, value = _input(s, node), s.value(node)
    kernel, stride, pads = pair(m.kernel_size), pair(m.stride or m.kernel_size), pair(m.padding)
    dilation = pair(m.dilation)
    extra = _ceil_extra(_map(x), _map(value), kernel, stride, pads, dilation)
    around = (pads[0], pads[1], pads[0] + extra[0], pads[1] + extra[1])
    s.add(node, ops.MaxPool(node.name, value, x, kernel, stride, around, dilation))


def avg_pool(s: Lowering, node: fx.Node, m: nn.AvgPool2d) -> None:
    x, value = _input(s, node), s.value(node)
    kernel, stride, pads = pair(m.kernel_size), pair(m.stride or m.kernel_size), pair(m.padding)
    extra = _ceil_extra(_map(x), _map(value), kernel, stride, pads, (1, 1))
    if m.divisor_override is not None:  # sums, over a number that is always the same
        around = (pads[0], pads[1], pads[0] + extra[0], pads[1] + extra[1])
        mean = replace(value, name=f"{node.name}_mean")
        mean = s.emit(ops.AvgPool(node.name, mean, x, kernel, stride, around))
        factor = np.asarray(kernel[0] * kernel[1] / m.divisor_override, np.float32)
        s.add(node, ops.Binary(node.name, value, mean, ops.Const(f"{node.name}_by", factor), "mul"))
        return
    counted = m.count_include_pad
    if (
        _map(value) == (1, 1)
        and not any(pads)
        and all(k >= n for k, n in zip(kernel, _map(x), strict=True))
    ):  # one window over everything; ceil mode lets it be larger than the map
        s.add(node, ops.Reduce(node.name, value, x, "mean", (2, 3), True))
        return
    if any(extra) and any(pads) and counted:
        # the padding counts, what ceil mode adds does not
        (h, w), (ph, pw) = _map(x), pads
        shape = (*x.shape[:2], h + 2 * ph, w + 2 * pw)
        outer = (0, 0, ph, pw)
        padded = replace(x, name=f"{node.name}_padded", shape=shape)
        x = s.emit(ops.Pad(node.name, padded, x, outer, outer))
        pads = (0, 0)
    counted = counted and not any(extra)
    around = (pads[0], pads[1], pads[0] + extra[0], pads[1] + extra[1])
    s.add(node, ops.AvgPool(node.name, value, x, kernel, stride, around, counted))


def adaptive_avg_pool(s: Lowering, node: fx.Node, m: nn.AdaptiveAvgPool2d) -> None:
    x, value = _input(s, node), s.value(node)
    size, out = _map(x), _map(value)
    if out == size:
        alias(s, node, m)
    elif out == (1, 1):
        s.add(node, ops.Reduce(node.name, value, x, "mean", (2, 3), True))
    elif all(n % o == 0 for n, o in zip(size, out, strict=True)):
        kernel = (size[0] // out[0], size[1] // out[1])
        s.add(node, ops.AvgPool(node.name, value, x, kernel, kernel))
    else:  # uneven windows: an averaging matrix for each direction
        across = ops.Const(f"{node.name}_columns", _averaging(size[1], out[1]).T.copy())
        shape = (*x.shape[:3], out[1])
        rows = s.emit(
            ops.MatMul(node.name, replace(x, name=f"{node.name}_rows", shape=shape), x, across)
        )
        down = ops.Const(f"{node.name}_down", _averaging(size[0], out[0]))
        s.add(node, ops.MatMul(node.name, value, down, rows))


def _averaging(size: int, out: int) -> ops.FloatArray:
    """(out, size): row i averages floor(i·size/out) … ceil((i+1)·size/out)."""
    matrix = np.zeros((out, size), np.float32)
    for i in range(out):
        start, stop = i * size // out, -(-(i + 1) * size // out)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


def adaptive_max_pool(s: Lowering, node: fx.Node, m: nn.AdaptiveMaxPool2d) -> None:
    x, value = _input(s, node), s.value(node)
    size, out = _map(x), _map(value)
    if out == (1, 1):
        s.add(node, ops.Reduce(node.name, value, x, "max", (2, 3), True))
    elif all(n % o == 0 for n, o in zip(size, out, strict=True)):
        kernel = (size[0] // out[0], size[1] // out[1])
        s.add(node, ops.MaxPool(node.name, value, x, kernel, kernel))
    else:  # uneven windows, a direction after the other
        s.set(node, _uneven_max(s, node, _uneven_max(s, node, x, 2, out[0]), 3, out[1]))


def _uneven_max(s: Lowering, node: fx.Node, x: ops.Value, axis: int, out: int) -> ops.Value:
    """Window i is floor(i·size/out) … ceil((i+1)·size/out): the maximum of what is first in every
    window, second, …, the last one again where a window is shorter."""
    size = x.shape[axis]
    windows = [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]
    shape = (*x.shape[:axis], out, *x.shape[axis + 1 :])
    last = axis == 3
    found: ops.Value | None = None
    most = max(stop - start for start, stop in windows)
    for n in range(most):
        indices = tuple(min(start + n, stop - 1) for start, stop in windows)
        name = f"{node.name}_{axis}_{n}"
        taken = s.emit(ops.Gather(node.name, replace(x, name=name, shape=shape), x, axis, indices))
        if found is None:
            found = taken
            continue
        value = replace(taken, name=f"{name}_max")
        if last and n == most - 1:
            value = s.value(node)
        found = s.emit(ops.Binary(node.name, value, found, taken, "maximum"))
    assert found is not None
    return found


# --- moving pixels -------------------------------------------------------------------------------


def upsample(s: Lowering, node: fx.Node, m: nn.Upsample) -> None:
    x = _input(s, node)
    if m.mode not in ("nearest", "bilinear") or len(x.shape) != 4:
        raise NotLowerableError(f"resizing by {m.mode}")
    corners = bool(m.align_corners)
    mode = "nearest" if m.mode == "nearest" else "bilinear"
    s.add(node, ops.Resize(node.name, s.value(node), x, mode, corners))


def pixel_shuffle(s: Lowering, node: fx.Node, m: nn.PixelShuffle) -> None:
    s.add(node, ops.DepthToSpace(node.name, s.value(node), _input(s, node), m.upscale_factor))


def pixel_unshuffle(s: Lowering, node: fx.Node, m: nn.PixelUnshuffle) -> None:
    x, b = _input(s, node), m.downscale_factor
    n, c, h, w = x.shape
    blocks = replace(x, name=f"{node.name}_blocks", shape=(n, c, h // b, b, w // b, b))
    moved = replace(x, name=f"{node.name}_moved", shape=(n, c, b, b, h // b, w // b))
    split = s.emit(ops.Reshape(node.name, blocks, x))
    order = s.emit(ops.Transpose(node.name, moved, split, (0, 1, 3, 5, 2, 4)))
    s.add(node, ops.Reshape(node.name, s.value(node), order))


def _input(s: Lowering, node: fx.Node) -> ops.Value:
    return s.tensor(node.all_input_nodes[0])


def _map(value: ops.Value) -> ops.Pair:
    if len(value.shape) != 4:
        raise NotLowerableError("pooling of something that is not (N, C, H, W)")
    return value.shape[2], value.shape[3]


MODULE_LOWERINGS: dict[type[nn.Module], Callable[..., None]] = {
    nn.Conv2d: conv,
    nn.ConvTranspose2d: conv_transpose,
    nn.Linear: linear,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    nn.LayerNorm: layer_norm,
    nn.GroupNorm: group_norm,
    nn.ReLU: _unary("relu"),
    nn.ReLU6: _unary("relu6"),
    nn.LeakyReLU: _unary("leaky_relu", "negative_slope"),
    nn.ELU: _unary("elu", "alpha"),
    nn.Sigmoid: _unary("sigmoid"),
    nn.Tanh: _unary("tanh"),
    nn.Hardtanh: _unary("clip", "min_val", "max_val"),
    nn.Hardsigmoid: _unary("hard_sigmoid"),
    nn.Hardswish: _unary("hard_swish"),
    nn.SiLU: _unary("silu"),
    nn.Mish: _unary("mish"),
    nn.GELU: gelu,
    nn.Softplus: softplus,
    nn.PReLU: prelu,
    nn.Softmax: softmax,
    nn.LogSoftmax: softmax,
    nn.Dropout: alias,
    nn.Identity: alias,
    nn.MaxPool2d: max_pool,
    nn.AvgPool2d: avg_pool,
    nn.AdaptiveAvgPool2d: adaptive_avg_pool,
    nn.AdaptiveMaxPool2d: adaptive_max_pool,
    nn.Upsample: upsample,
    nn.PixelShuffle: pixel_shuffle,
    nn.PixelUnshuffle: pixel_unshuffle,
    Recurrent: recurrent,
}
