"""GridSample, which TFLite lacks: rows of pixels gathered at the places around each point, weighed
and added up. Inputs and outputs are NHWC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.emit import Emitter, Operator
from shrinkc.compiler.export.tflite.layout import NHWC, logical
from shrinkc.compiler.export.tflite.operators.lookup.pick import gather_rows
from shrinkc.compiler.export.tflite.writer import Writer

_CUBIC = -0.75  # PyTorch's and ONNX's


def write_grid_sample(w: Writer, op: ops.GridSample) -> None:
    e, (batch, channels, height, width) = w.emit, op.a.shape
    pixels = e.reshape(w.arrange(op.a, NHWC), (batch, height * width, channels))
    grid = w.arrange(op.b, logical(4))
    count = op.b.shape[1] * op.b.shape[2]
    points = e.reshape(grid, (batch, count, 2))
    across, down = (
        _taps(
            _Axis(e, size, op),
            e.reshape(e.slice(points, (0, 0, i), (batch, count, 1)), (batch, count)),
        )
        for i, size in enumerate((width, height))
    )
    parts: list[int] = []
    for row, row_weight in down:
        start = e.mul(row, e.scalar(width))
        for column, column_weight in across:
            place = e.cast(e.add(start, column), "int32")
            found = gather_rows(e, pixels, place)
            weights = [x for x in (row_weight, column_weight) if x is not None]
            if weights:
                weight = weights[0] if len(weights) == 1 else e.mul(weights[0], weights[1])
                found = e.mul(found, e.reshape(weight, (batch, count, 1)))
            parts.append(found)
    total = parts[0]
    for part in parts[1:]:
        total = e.add(total, part)
    shape = tuple(op.output.shape[d] for d in NHWC)
    w.define(op.output, e.reshape(total, shape), NHWC)


Tap = tuple[int, int | None]  # where along the axis (whole, within it), and how much it counts


@dataclass(frozen=True)
class _Axis:
    e: Emitter
    size: int
    op: ops.GridSample

    def number(self, value: float) -> int:
        return self.e.scalar(value)

    def sub(self, a: int, b: int) -> int:
        return self.e.binary(Operator.SUB, a, b)

    def limited(self, x: int) -> int:
        """Within the image."""
        above = self.e.binary(Operator.MAXIMUM, x, self.number(0.0))
        return self.e.binary(Operator.MINIMUM, above, self.number(self.size - 1))

    def pixel(self, x: int) -> int:
        """−1 … 1 in pixels."""
        shifted = self.e.add(x, self.number(1.0))
        if self.op.align_corners:
            return self.e.mul(self.e.mul(shifted, self.number(0.5)), self.number(self.size - 1))
        scaled = self.sub(self.e.mul(shifted, self.number(self.size)), self.number(1.0))
        return self.e.mul(scaled, self.number(0.5))

    def padded(self, x: int) -> int:
        """Where a place beyond the image reads."""
        match self.op.padding:
            case "border":
                return self.limited(x)
            case "reflection":
                return self.limited(self.reflected(x))
            case _:
                return x

    def reflected(self, x: int) -> int:
        """At the outermost pixels' centres or edges, as often as it takes."""
        low, span = (0.0, self.size - 1) if self.op.align_corners else (-0.5, self.size)
        if span == 0:
            return self.e.mul(x, self.number(0.0))
        e = self.e
        inside = e.unary(Operator.ABS, self.sub(x, self.number(low)))
        flips = e.unary(Operator.FLOOR, e.mul(inside, self.number(1 / span)))
        rest = self.sub(inside, e.mul(flips, self.number(span)))
        pairs = e.unary(Operator.FLOOR, e.mul(flips, self.number(0.5)))
        odd = self.sub(flips, e.mul(pairs, self.number(2.0)))
        back = self.sub(self.number(span), e.mul(rest, self.number(2.0)))
        return e.add(e.add(rest, e.mul(odd, back)), self.number(low))

    def tap(self, place: int, weight: int | None) -> Tap:
        """`place` is whole. Beyond the image zeros count, unless padding moves it inside."""
        if self.op.padding != "zeros":
            return self.limited(place), weight
        limited = self.limited(place)
        there = self.e.cast(self.e.compare(Operator.EQUAL, place, limited), "float32")
        return limited, there if weight is None else self.e.mul(weight, there)


def _nearest(a: _Axis, x: int) -> list[Tap]:
    """Halves to the even pixel."""
    return [a.tap(a.e.unary(Operator.ROUND, a.padded(x)), None)]


def _linear(a: _Axis, x: int) -> list[Tap]:
    x = a.padded(x)
    first = a.e.unary(Operator.FLOOR, x)
    far = a.sub(x, first)
    near = a.sub(a.number(1.0), far)
    return [a.tap(first, near), a.tap(a.e.add(first, a.number(1.0)), far)]


def _cubic(a: _Axis, x: int) -> list[Tap]:
    """Keys' kernel over four pixels, each padded by itself."""
    e = a.e
    first = e.unary(Operator.FLOOR, x)
    t = a.sub(x, first)
    other = a.sub(a.number(1.0), t)
    far = (_CUBIC, -5 * _CUBIC, 8 * _CUBIC, -4 * _CUBIC)  # of t + 1
    near = (_CUBIC + 2, -(_CUBIC + 3), 0.0, 1.0)
    weights = [
        _polynomial(e, e.add(t, a.number(1.0)), far),
        _polynomial(e, t, near),
        _polynomial(e, other, near),
        _polynomial(e, e.add(other, a.number(1.0)), far),
    ]
    places = [e.add(first, a.number(float(i))) for i in range(-1, 3)]
    return [a.tap(a.padded(place), weight) for place, weight in zip(places, weights, strict=True)]


def _polynomial(e: Emitter, x: int, coefficients: tuple[float, ...]) -> int:
    first, *rest = coefficients
    total = e.mul(x, e.scalar(first))
    for coefficient in rest[:-1]:
        total = e.mul(e.add(total, e.scalar(coefficient)), x)
    return e.add(total, e.scalar(rest[-1]))


_MODES: dict[str, Callable[[_Axis, int], list[Tap]]] = {
    "nearest": _nearest,
    "bilinear": _linear,
    "bicubic": _cubic,
}


def _taps(axis: _Axis, x: int) -> list[Tap]:
    return _MODES[axis.op.mode](axis, axis.pixel(x))
