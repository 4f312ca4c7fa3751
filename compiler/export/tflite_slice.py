"""Slice, as boxes cut out of the tensor that a chain of slices starts from.

A slice of a slice reads the first tensor, so that the one between is not written unless it is
read as well. Steps are no STRIDED_SLICE, which XNNPACK leaves to a kernel that takes 15 times as
long as the rest (space-to-depth by four slices, 56×56×96: 6.5 ms against 0.4 ms): the dimension
is split in (size / step, step) and one index of the second is taken.
"""

from __future__ import annotations

from math import prod

from . import ops
from .tflite_emit import Emitter
from .tflite_layout import Cut, Cuts, Order
from .tflite_writer import View, Writer

_MAX_RANK = 5  # of SLICE and PAD


def write_slice(w: Writer, op: ops.Slice) -> None:
    order = w.order(op.x)
    source, cuts = _source(w, op.x, order)
    axis = order.index(op.axis)
    count = op.output.shape[op.axis]
    cuts = (*cuts[:axis], cuts[axis].cut(op.start, count, op.step), *cuts[axis + 1 :])
    key = (source, cuts)
    if key not in w.cut_out:
        w.cut_out[key] = _cut_out(w, source, cuts)
        w.cut_from[w.cut_out[key]] = key
    w.define(op.output, w.cut_out[key], order)


def _source(w: Writer, x: ops.Value, order: Order) -> tuple[int, Cuts]:
    """The tensor to cut from, and what of it `x` is (its dimensions in `order`)."""
    view: View = w.view(x)
    shape = tuple(x.shape[d] for d in order)
    known = w.cut_from.get(view.tensor)
    if known is not None and view.layout.is_stored_in(order):
        source, cuts = known
        if tuple(cut.count for cut in cuts) == shape:
            return source, cuts
    return w.arrange(x, order), tuple(Cut(size, 0, size) for size in shape)


def _cut_out(w: Writer, x: int, cuts: Cuts) -> int:
    """The elements, row-major; the tensor may have fewer dimensions than there are cuts."""
    parts: list[Cut] = []
    for axis, cut in enumerate(cuts):
        if cut.step == 1:
            parts.append(cut)
            continue
        inner = prod(other.size for other in cuts[axis + 1 :])
        outer = prod(other.size for other in parts)
        x, size = _filled_up(w.emit, x, (outer, cut.size, inner), cut.step)
        start, index = divmod(cut.start, cut.step)
        parts += [Cut(size // cut.step, start, cut.count), Cut(cut.step, index, 1)]
    if len(parts) > len(cuts) or len(parts) > _MAX_RANK:
        parts = _merged(parts)
    if all(part.is_all for part in parts):
        return x
    if len(parts) > _MAX_RANK:
        raise w.unsupported(f"cuts {len(parts)} separate dimensions, TFLite has {_MAX_RANK}")
    x = w.emit.reshape(x, tuple(part.size for part in parts))
    return w.emit.slice(x, tuple(part.start for part in parts), tuple(p.count for p in parts))


def _filled_up(e: Emitter, x: int, shape: tuple[int, int, int], step: int) -> tuple[int, int]:
    """`x`, seen as `shape`, with zeros up to a middle size that `step` divides; that size."""
    missing = -shape[1] % step
    if missing:
        x = e.pad(e.reshape(x, shape), (0, 0, 0), (0, missing, 0))
    return x, shape[1] + missing


def _merged(parts: list[Cut]) -> list[Cut]:
    """As few dimensions as say the same: one of which all is taken joins the one before it."""
    merged = [Cut(1, 0, 1)]
    for part in parts:
        before = merged[-1]
        if before.size == 1:
            merged[-1] = part
        elif part.is_all:
            size = part.size
            merged[-1] = Cut(before.size * size, before.start * size, before.count * size)
        else:
            merged.append(part)
    return merged
