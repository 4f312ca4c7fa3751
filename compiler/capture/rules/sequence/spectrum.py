"""Short-time Fourier transforms as the convolutions they are; complex numbers as two real ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from shrinkc.compiler.capture.builder import Constant
from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.rules import shape
from shrinkc.compiler.capture.rules.conv import conv2d
from shrinkc.passes import ir


@dataclass(frozen=True, eq=False)
class Complex:
    """A tensor of complex numbers in the model."""

    real: fx.Node
    imag: fx.Node


def kernels(window: Tensor, bins: int, *, normalised: bool = False) -> Tensor:
    """(2 · bins, n) in float64 for a window of n: those of the real parts, w cos(2πkt/n), then of
    the imaginary ones, −w sin(2πkt/n), for frequency k and time t."""
    count = len(window)
    window = window.double() / (math.sqrt(count) if normalised else 1.0)
    turns = torch.outer(torch.arange(bins), torch.arange(count)) % count  # whole turns cost digits
    angles = turns.double() * (2 * math.pi / count)
    return torch.cat((angles.cos() * window, -angles.sin() * window))


_FIRST = ("hop_length", "win_length", "window")
_LAST = ("normalized", "onesided", "return_complex", "align_to_window")


def stft(c: Context, x: Any, n_fft: int, *rest: Any, **named: Any) -> Any:
    """A strided convolution of the padded signal with windowed cosines and sines. ATen's transform
    is of a signal that is padded already."""
    names = (*_FIRST, *(() if c.aten else ("center", "pad_mode")), *_LAST)
    given = {**dict(zip(names, rest, strict=False)), **named}
    if given.get("align_to_window"):
        raise c.unsupported("a transform aligned to its window")
    x, window = c.tensor(x), c.parameter(given.get("window"), "window")
    hop, length = given.get("hop_length") or n_fft // 4, given.get("win_length") or n_fft
    center, pad_mode = given.get("center", not c.aten), given.get("pad_mode", "reflect")
    normalised, onesided = bool(given.get("normalized")), given.get("onesided")
    whole = torch.ones(length) if window is None else window.tensor.detach()
    before = (n_fft - length) // 2
    whole = F.pad(whole, (before, n_fft - length - before))
    bins = n_fft if onesided is False else n_fft // 2 + 1
    wave = c.b.reshape(x, [(*((1,) if len(s) == 1 else s[:1]), 1, 1, s[-1]) for s in c.b.shapes(x)])
    if center:
        value = 0.0 if pad_mode == "constant" else None
        around = (n_fft // 2, n_fft // 2, 0, 0)
        wave = c.b.call(F.pad, wave, around, pad_mode, value)
    weight = kernels(whole, bins, normalised=normalised).to(torch.get_default_dtype())
    fixed = nn.Parameter(weight[:, None, None], requires_grad=False)
    both = conv2d(c, wave, Constant(fixed), None, (1, hop))
    parts = [c.b.slice(both, 1, at, at + bins) for at in (0, bins)]
    single = c.b.rank(x) == 1
    sizes = [(*(() if single else s[:1]), bins, s[3]) for s in c.b.shapes(parts[0])]
    found = Complex(*(c.b.reshape(part, sizes) for part in parts))
    return found if given.get("return_complex") else view_as_real(c, found)


def view_as_real(c: Context, x: Complex) -> fx.Node:
    raised = [c.b.reshape(p, [(*s, 1) for s in c.b.shapes(p)]) for p in (x.real, x.imag)]
    return c.b.call(torch.cat, tuple(raised), c.b.rank(x.real))


def magnitude(c: Context, x: Complex) -> fx.Node:
    """√(re² + im²)"""
    squares = (c.b.call(ir.mul, part, part) for part in (x.real, x.imag))
    return c.b.call(torch.sqrt, c.b.call(ir.add, *squares))


def _each(rule: Callable[..., Any]) -> Callable[..., Any]:
    """What moves numbers about moves both."""

    def both(c: Context, x: Complex, *args: Any, **kwargs: Any) -> Complex:
        return Complex(rule(c, x.real, *args, **kwargs), rule(c, x.imag, *args, **kwargs))

    return both


def _real(c: Context, x: Complex) -> fx.Node:
    return x.real


def _imag(c: Context, x: Complex) -> fx.Node:
    return x.imag


_MOVES = (
    *("reshape", "view", "squeeze", "unsqueeze", "flatten", "contiguous", "clone"),
    *("permute", "transpose", "getitem", "slice", "select", "narrow", "mT"),
)
# What reads complex numbers; everything else is refused.
COMPLEX_RULES: dict[str, Callable[..., Any]] = {
    **{name: _each(shape.RULES[name]) for name in _MOVES if name in shape.RULES},
    "abs": magnitude,
    "real": _real,
    "imag": _imag,
    "view_as_real": view_as_real,
}
RULES: dict[str, Callable[..., Any]] = {"stft": stft}
