"""Convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import nn

from shrinkc.compiler.load.onnx.build import Value
from shrinkc.compiler.load.onnx.context import Context, Rule

_CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
Pads = tuple[tuple[int, ...], tuple[int, ...]]  # before, after; one number for each dimension


def pads_of(c: Context, size: Sequence[int], kernel: Sequence[int]) -> Pads:
    """What `auto_pad` or `pads` put in front of and behind an image of this size."""
    rank, auto = len(kernel), c.text("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        strides, dilations = c.ints("strides", (1,) * rank), c.ints("dilations", (1,) * rank)
        axes = zip(size, kernel, strides or (), dilations or (), strict=True)
        total = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in axes]
        less, more = tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)
        return (less, more) if auto == "SAME_UPPER" else (more, less)
    pads = c.ints("pads", (0,) * 2 * rank) or ()
    if auto == "VALID":
        pads = (0,) * 2 * rank
    return tuple(pads[:rank]), tuple(pads[rank:])


def padded(c: Context, x: Value, pads: Pads, value: float = 0.0) -> Value:
    """With so much around it."""
    amounts = [n for pair in zip(*(side[::-1] for side in pads), strict=True) for n in pair]
    return c.call(F.pad, x, amounts, "constant", value) if any(amounts) else x


def conv(c: Context) -> Value:
    x, weight, bias = c.x(), c.weight(1), c.maybe_weight(2)
    out, per_group, *kernel = weight.shape
    rank, groups = len(kernel), c.int("group", 1)
    if rank not in _CONV:
        raise c.unsupported(f"a convolution over {rank} dimensions")
    before, after = pads_of(c, x.shape[2:], kernel)
    if before != after:
        x, before = padded(c, x, (before, after)), (0,) * rank
    module = _CONV[rank](
        *(per_group * groups, out, tuple(kernel), c.ints("strides", (1,) * rank), before),
        *(c.ints("dilations", (1,) * rank), groups, bias is not None),
        device="meta",
    )
    return c.layer(module, {"weight": weight, "bias": bias}, x)


def conv_transpose(c: Context) -> Value:
    x, weight, bias = c.x(), c.weight(1), c.maybe_weight(2)
    inner, per_group, *kernel = weight.shape
    rank, groups = len(kernel), c.int("group", 1)
    if rank not in _TRANSPOSED:
        raise c.unsupported(f"a convolution over {rank} dimensions")
    ones = (1,) * rank
    strides, dilations = c.ints("strides", ones) or (), c.ints("dilations", ones) or ()
    more = c.ints("output_padding", (0,) * rank) or ()
    before, after = _transposed_pads(c, x.shape[2:], (kernel, strides, dilations, more))
    # what is cut off behind less than in front is output that torch adds
    extra = [m + b - a for m, b, a in zip(more, before, after, strict=True)]
    limits = zip(extra, strides, dilations, strict=True)
    if any(not 0 <= e < max(s, d) for e, s, d in limits):
        cut_before, cut_after, before, extra = before, after, (0,) * rank, list(more)
    else:
        cut_before = cut_after = (0,) * rank
    module = _TRANSPOSED[rank](
        *(inner, per_group * groups, tuple(kernel), strides, before, tuple(extra)),
        *(groups, bias is not None, dilations),
        device="meta",
    )
    y = c.layer(module, {"weight": weight, "bias": bias}, x)
    return padded(c, y, (tuple(-n for n in cut_before), tuple(-n for n in cut_after)))


def _transposed_pads(c: Context, size: Sequence[int], windows: Sequence[Sequence[int]]) -> Pads:
    """`windows`: kernel, strides, dilations, output padding."""
    wanted, auto = c.ints("output_shape"), c.text("auto_pad", "NOTSET")
    rank = len(size)
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(n * s for n, s in zip(size, windows[1], strict=True))
    if wanted is None:
        pads = (c.ints("pads") if auto == "NOTSET" else None) or (0,) * 2 * rank
        return tuple(pads[:rank]), tuple(pads[rank:])
    axes = zip(size, wanted[-rank:], *windows, strict=True)
    total = [s * (n - 1) + m + (k - 1) * d + 1 - w for n, w, k, s, d, m in axes]
    if min(total) < 0:
        raise c.unsupported("an output_shape that is larger than its input gives")
    less, more = tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)
    return (less, more) if auto == "SAME_UPPER" else (more, less)


RULES: dict[str, Rule] = {"Conv": conv, "ConvTranspose": conv_transpose}
