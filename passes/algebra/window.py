"""Geometry of linear window maps: what a chain of convolutions becomes, without any weights.

A window map is  y[o, i, j] = Σ_{c,u,v} K[o, c, u, v] · x[c, i·s + u·d − p, j·s' + v·d' − p'],
where x is zero outside its borders. Convolution, average pooling, batch norm, zero padding, scaling
and identity are all of this form, and it is closed under composition and addition:

* composition  stride s = s₁·s₂, padding p = p₁ + p₂·s₁, kernel span (k₁−1)·d₁ + (k₂−1)·d₂·s₁
  (without dilation k = k₁ + (k₂−1)·s₁), groups gcd(g₁, g₂);
* addition     kernels aligned by the input positions that their taps read; equal strides only.

Composition treats the value between the two maps as if it went on beyond its borders. A second map
that pads with zeros sees zeros there instead; `reads_beyond_padding` tells whether it matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import gcd, prod

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial dimension of a window map. `pad` zeros precede the input; negative: cropped."""

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    pad: int = 0

    @property
    def last(self) -> int:
        """Input position of the last tap of the first output."""
        return (self.kernel - 1) * self.dilation - self.pad

    @property
    def extent(self) -> int:
        """Input positions from the first tap to the last, both included."""
        return (self.kernel - 1) * self.dilation + 1

    def pad_after(self, size: int, out: int) -> int:
        """Zeros needed after `size` inputs for `out` outputs; negative: inputs nobody reads."""
        return (out - 1) * self.stride + self.last - size + 1

    def out_size(self, size: int, after: int) -> int:
        """Outputs of `size` inputs with `after` zeros behind them."""
        return (size + self.pad + after - self.extent) // self.stride + 1


@dataclass(frozen=True, slots=True)
class Window:
    """A window map's channels, groups and (vertical, horizontal) axes."""

    in_channels: int
    out_channels: int
    groups: int = 1
    axes: tuple[Axis, Axis] = (Axis(), Axis())

    @property
    def kernel(self) -> Pair:
        return self.axes[0].kernel, self.axes[1].kernel

    @property
    def stride(self) -> Pair:
        return self.axes[0].stride, self.axes[1].stride

    @property
    def dilation(self) -> Pair:
        return self.axes[0].dilation, self.axes[1].dilation

    @property
    def pad(self) -> Pair:
        return self.axes[0].pad, self.axes[1].pad

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(out, in / groups, kh, kw)"""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @property
    def weight_elements(self) -> int:
        return prod(self.weight_shape)


def pointwise(channels: int) -> Window:
    """A map of every channel alone, position by position: identity, scaling, batch norm."""
    return Window(channels, channels, groups=channels)


# --- composition and addition --------------------------------------------------------------------


def compose(first: Window, second: Window) -> Window:
    """The window of `second(first(x))`."""
    return Window(
        first.in_channels,
        second.out_channels,
        gcd(first.groups, second.groups),
        (
            compose_axes(first.axes[0], second.axes[0]),
            compose_axes(first.axes[1], second.axes[1]),
        ),
    )


def compose_axes(first: Axis, second: Axis) -> Axis:
    step = second.dilation * first.stride
    span = first.extent - 1 + (second.kernel - 1) * step
    dilation = _lattice(first, 0) if second.kernel == 1 else gcd(_lattice(first, 0), step)
    dilation = dilation or 1
    return Axis(
        kernel=span // dilation + 1,
        stride=first.stride * second.stride,
        dilation=dilation,
        pad=first.pad + second.pad * first.stride,
    )


def add(a: Window, b: Window) -> Window:
    """The window of `a(x) + b(x)`. Raises ValueError when the strides differ."""
    if a.stride != b.stride:
        raise ValueError(f"strides {a.stride} and {b.stride} differ")
    return Window(
        a.in_channels,
        a.out_channels,
        gcd(a.groups, b.groups),
        (add_axes(a.axes[0], b.axes[0]), add_axes(a.axes[1], b.axes[1])),
    )


def add_axes(a: Axis, b: Axis) -> Axis:
    pad, last = max(a.pad, b.pad), max(a.last, b.last)
    dilation = gcd(_lattice(a, 0), _lattice(b, 0), abs(a.pad - b.pad)) or 1
    return Axis((pad + last) // dilation + 1, a.stride, dilation, pad)


def taps(inner: Axis, outer: Axis) -> slice:
    """Where the taps of `inner` lie among those of `outer`, which covers them."""
    start = (outer.pad - inner.pad) // outer.dilation
    step = max(inner.dilation // outer.dilation, 1)
    return slice(start, start + (inner.kernel - 1) * step + 1, step)


def _lattice(axis: Axis, single: int) -> int:
    """The distance between taps; `single` where there is only one."""
    return axis.dilation if axis.kernel > 1 else single


# --- borders -------------------------------------------------------------------------------------


def reads_padding(window: Window, size: Pair, out: Pair) -> bool:
    """Some output reads a position outside the input."""
    return any(
        axis.pad > 0 or axis.pad_after(n, m) > 0
        for axis, n, m in zip(window.axes, size, out, strict=True)
    )


def reads_beyond_padding(
    first: Window, size: Pair, middle: Pair, second: Window, out: Pair
) -> bool:
    """The composition is wrong at a border.

    `first` maps `size` to `middle`, `second` maps `middle` to `out`. Where `second` reads a
    position outside `middle` it must find zero; composed, it finds the value that `first` would
    have there, which is zero only if that window holds no real input.
    """
    axes = zip(first.axes, size, middle, second.axes, out, strict=True)
    return any(_axis_reads_beyond(*axis) for axis in axes)


@lru_cache(maxsize=4096)
def _axis_reads_beyond(first: Axis, size: int, middle: int, second: Axis, out: int) -> bool:
    return any(
        0 <= position * first.stride + tap * first.dilation - first.pad < size
        for position in _outside(second, middle, out)
        for tap in range(first.kernel)
    )


def _outside(axis: Axis, size: int, out: int) -> Iterator[int]:
    """The positions outside [0, size) that the outputs of `axis` read."""
    after = max(axis.pad_after(size, out), 0)
    for position in (*range(-axis.pad, 0), *range(size, size + after)):
        offsets = (position + axis.pad - tap * axis.dilation for tap in range(axis.kernel))
        if any(o % axis.stride == 0 and 0 <= o // axis.stride < out for o in offsets):
            yield position


# --- as one convolution --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Padding:
    """How one convolution pads: by itself (height, width), or by an `F.pad` in front of it with
    `explicit` = (left, right, top, bottom)."""

    own: Pair
    explicit: tuple[int, int, int, int] | None = None


def padding_of(window: Window, size: Pair, out: Pair) -> Padding:
    """The padding with which one convolution maps `size` to `out`.

    Raises ValueError when no convolution does: the map crops its input.
    """
    if any(p < 0 for p in window.pad):
        raise ValueError("the merged convolution would have to crop its input")
    axes = tuple(zip(window.axes, size, out, strict=True))
    if all(axis.out_size(n, axis.pad) == m for axis, n, m in axes):
        return Padding(window.pad)
    bottom, right = (max(axis.pad_after(n, m), 0) for axis, n, m in axes)
    if any(a.out_size(n, e) != m for (a, n, m), e in zip(axes, (bottom, right), strict=True)):
        raise ValueError("the merged convolution would have to crop its result")
    top, left = window.pad
    return Padding((0, 0), (left, right, top, bottom))
