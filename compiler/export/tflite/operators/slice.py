"""Slice, as boxes cut out of the tensor that a chain of slices starts from.

A slice of a slice reads the first tensor, so that the one between is not written unless it is
read as well. Steps are no STRIDED_SLICE, which XNNPACK leaves to a kernel that takes 15 times as
long as the rest (space-to-depth by slices, 56×56×96, x86: 6.5 ms against 0.4 ms): the dimension
is split in (size / step, step) and one index of the second is taken.
"""

from __future__ import annotations

from math import prod

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.emit import Emitter
from shrinkc.compiler.export.tflite.layout import Cut, Cuts, resized, stored
from shrinkc.compiler.export.tflite.writer import View, Writer

_MAX_RANK = 5  # of SLICE and PAD


def write_slice(w: Writer, op: ops.Slice) -> None:
    view = _sliceable(w, op)
    places = view.layout.dims[op.axis]
    if not places:
        w.define_view(op.output, view)
        return
    source, cuts = _source(w, view)
    inner = prod(view.layout.factors[place] for place in places[1:])
    count = op.output.shape[op.axis] // inner
    cuts = _recut(cuts, places[0], op.start // inner, count, op.step)
    key = (source, cuts)
    if key not in w.cut_out:
        w.cut_out[key] = _cut_out(w, source, cuts)
        w.cut_from[w.cut_out[key]] = key
    w.define_view(op.output, View(w.cut_out[key], resized(view.layout, places[0], count)))


def _sliceable(w: Writer, op: ops.Slice) -> View:
    """`op.x` so that the slice takes some indexes of one factor: as it is if the dimension is
    one factor, or begins with one and the slice keeps all of the others."""
    view = w.view(op.x)
    places = view.layout.dims[op.axis]
    inner = prod(view.layout.factors[place] for place in places[1:])
    if inner == 1 or (op.step == 1 and op.start % inner == 0 == op.stop % inner):
        return view
    order = w.order(op.x)
    return View(w.arrange(op.x, order), stored(op.x.shape, order))


def _source(w: Writer, view: View) -> tuple[int, Cuts]:
    """The tensor to cut from, and what of it `view` is: a cut for each factor, and some of one
    element between them."""
    known = w.cut_from.get(view.tensor)
    if known is not None:
        source, cuts = known
        if tuple(cut.count for cut in cuts if cut.count > 1) == view.layout.factors:
            return source, cuts
    return view.tensor, tuple(Cut(size, 0, size) for size in view.layout.factors)


def _recut(cuts: Cuts, place: int, start: int, count: int, step: int) -> Cuts:
    """`cuts` with the one of factor `place` cut again."""
    axis = [i for i, cut in enumerate(cuts) if cut.count > 1][place]
    return (*cuts[:axis], cuts[axis].cut(start, count, step), *cuts[axis + 1 :])


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
    if all(part.is_all for part in parts):
        return x
    parts = _with_ones(parts, w.emit.shape(x)) or _merged(parts)
    if len(parts) > _MAX_RANK:
        raise w.unsupported(f"cuts {len(parts)} separate dimensions, TFLite has {_MAX_RANK}")
    x = w.emit.reshape(x, tuple(part.size for part in parts))
    return w.emit.slice(x, tuple(part.start for part in parts), tuple(p.count for p in parts))


def _with_ones(parts: list[Cut], shape: tuple[int, ...]) -> list[Cut] | None:
    """The cuts of a tensor of `shape`, if its sizes beside 1 are those of `parts`."""
    sizes = [part.size for part in parts]
    if [size for size in shape if size > 1] != sizes or len(shape) > _MAX_RANK:
        return None
    remaining = iter(parts)
    return [next(remaining) if size > 1 else Cut(1, 0, 1) for size in shape]


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
