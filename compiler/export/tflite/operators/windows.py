"""How a sliding window's padding is said in TFLite: SAME, VALID, or an explicit PAD in front."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ai_edge_litert import schema_py_generated as schema

from shrinkc.compiler.export.ops import Pads, Pair
from shrinkc.compiler.export.tflite.emit import Emitter

Padding = Literal["same", "valid"]
_PADDINGS: dict[Padding, int] = {"same": schema.Padding.SAME, "valid": schema.Padding.VALID}
_NO_PADS = (0, 0, 0, 0)


@dataclass(frozen=True)
class Window:
    """A window over (height, width): `in_size` → `out_size` with `pads` in front and behind.

    What is padded behind but never read is already dropped from `needed`: a stride of 2 over an
    even size with padding 1 reads only the padding in front.
    """

    in_size: Pair
    out_size: Pair
    kernel: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pads: Pads = _NO_PADS

    @property
    def needed(self) -> Pads:
        """The padding that windows read: top, left, bottom, right."""
        (top, bottom), (left, right) = (self._needed(axis) for axis in (0, 1))
        return top, left, bottom, right

    @property
    def padding(self) -> Padding | None:
        """TFLite's padding that is exactly this one; None: there is none."""
        if self.needed == _NO_PADS:
            return "valid"
        same = all(self._needed(axis) == self._same(axis) for axis in (0, 1))
        return "same" if same else None

    def padded(self) -> Window:
        """The same window over an input that has the padding around it."""
        top, left, bottom, right = self.needed
        height, width = self.in_size
        in_size = (height + top + bottom, width + left + right)
        return Window(in_size, self.out_size, self.kernel, self.stride, self.dilation)

    def _reach(self, axis: int) -> int:
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1

    def _needed(self, axis: int) -> Pair:
        before = self.pads[axis]
        end = (self.out_size[axis] - 1) * self.stride[axis] + self._reach(axis)
        return before, max(end - self.in_size[axis] - before, 0)

    def _same(self, axis: int) -> Pair | None:
        """TensorFlow's SAME: ⌈in/stride⌉ outputs, the odd element of padding behind."""
        size, stride = self.in_size[axis], self.stride[axis]
        outputs = -(-size // stride)
        if outputs != self.out_size[axis]:
            return None
        total = max((outputs - 1) * stride + self._reach(axis) - size, 0)
        return total // 2, total - total // 2


def pair(sizes: tuple[int, ...]) -> Pair:
    """(height, width) of a shape that ends in them."""
    height, width = sizes[-2:]
    return height, width


def pad_window(e: Emitter, x: int, window: Window, value: float = 0.0) -> tuple[int, Window]:
    """`x` (NHWC) with an explicit PAD where TFLite's own paddings do not fit."""
    if window.padding is not None:
        return x, window
    top, left, bottom, right = window.needed
    return e.pad(x, (0, top, left, 0), (0, bottom, right, 0), value), window.padded()


def window_options(options: type[Any], stride: Pair, padding: Padding | None) -> Any:
    """An options object of the class with stride and padding set."""
    result = options()
    result.strideH, result.strideW = stride
    result.padding = _PADDINGS[padding or "valid"]
    return result
