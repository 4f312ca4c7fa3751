"""What chooses among numbers: slices, indices, orders, running sums, masks."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from shrinkc.compiler.load.onnx.build import FollowsBatch, Value
from shrinkc.compiler.load.onnx.context import DTYPES, Context, Rule


def slice_(c: Context) -> Value:
    """Bounds are attributes before opset 10."""
    x = c.x()
    if c.opset < 10:
        every = c.build.count
        starts, ends = (((c.ints(n) or ()),) * every for n in ("starts", "ends"))
        axes = c.ints("axes", tuple(range(len(starts[0])))) or ()
        steps = (1,) * len(axes)
    else:
        starts, ends = c.numbers(1), c.numbers(2)
        axes = c.fixed(3) if c.has(3) else tuple(range(len(starts[0])))
        steps = c.fixed(4) if c.has(4) else (1,) * len(axes)
    for at, (axis, step) in enumerate(zip(axes, steps, strict=True)):
        x = _cut(
            c,
            x,
            c.normal(axis, x.rank),
            [(s[at], e[at]) for s, e in zip(starts, ends, strict=True)],
            step,
        )
    return x


def _cut(c: Context, x: Value, axis: int, bounds: list[tuple[int, int]], step: int) -> Value:
    sizes = [shape[axis] for shape in x.shapes]
    taken = [
        range(n)[_python(start, end, step, n)]
        for (start, end), n in zip(bounds, sizes, strict=True)
    ]
    if x.known:
        parts = zip(x.tensors, taken, strict=True)
        return Value(
            tuple(t.index_select(axis, torch.tensor(list(r), dtype=torch.int64)) for t, r in parts)
        )
    if all(one == range(n) for one, n in zip(taken, sizes, strict=True)):
        return x
    if len(set(taken)) > 1:
        raise FollowsBatch("a slice follows the batch size")
    chosen = taken[0]
    if not chosen:
        raise c.unsupported("an empty slice")
    if step < 0:
        return c.call(torch.index_select, x, axis, c.constant(list(chosen)))
    return c.call(_sliced, x, axis, chosen.start, chosen[-1] + 1, step)


def _sliced(x: Any, axis: int, start: int, stop: int, step: int) -> Any:
    return x[(slice(None),) * axis + (slice(start, stop, step),)]


def _python(start: int, end: int, step: int, size: int) -> slice:
    """ONNX clamps bounds of −size − 1 and below to before the first, Python does as well, but an
    end of −1 counts from the end in both."""
    if step < 0 and end < -size:
        return slice(start, None, step)
    return slice(start, end, step)


def gather(c: Context) -> Value:
    x, index = c.x(), c.x(1)
    axis = c.axis(0)
    if not index.known:
        if axis == 0 and x.known and x.rank == 2:
            return c.call(F.embedding, index, x)
        raise c.unsupported("its indices are computed from the network's input")
    if x.known:
        tensors = zip(x.tensors, index.tensors, strict=True)
        return Value(tuple(_gathered(t, i, axis) for t, i in tensors))
    if not index.same():
        raise FollowsBatch("an index follows the batch size")
    chosen = index.tensors[0]
    size = x.shape[axis]
    chosen = torch.where(chosen < 0, chosen + size, chosen)
    if chosen.numel() and (int(chosen.min()) < 0 or int(chosen.max()) >= size):
        raise c.unsupported(f"an index beyond {size}")
    if chosen.ndim == 0:
        return c.call(torch.select, x, axis, int(chosen))
    taken = c.call(torch.index_select, x, axis, c.constant(chosen.reshape(-1)))
    if chosen.ndim == 1:
        return taken
    shapes = [(*s[:axis], *chosen.shape, *s[axis + 1 :]) for s in x.shapes]
    return c.reshape(taken, shapes)


def _gathered(tensor: Tensor, index: Tensor, axis: int) -> Tensor:
    index = torch.where(index < 0, index + tensor.shape[axis], index).long()
    taken = tensor.index_select(axis, index.reshape(-1))
    return taken.reshape((*tensor.shape[:axis], *index.shape, *tensor.shape[axis + 1 :]))


def gather_elements(c: Context) -> Value:
    x, index = c.x(), c.x(1)
    axis = c.axis(0)
    if index.known:
        size = x.shape[axis]
        index = c.call(torch.remainder, index, size)
    return c.call(torch.gather, x, axis, index)


def gather_nd(c: Context) -> Value:
    """Of numbers that are known, or rows along the first dimensions."""
    x, index = c.x(), c.x(1)
    if not (x.known and index.known) or c.int("batch_dims"):
        raise c.unsupported("of what is computed from the network's input")
    tensors = zip(x.tensors, index.tensors, strict=True)
    return Value(tuple(t[tuple(i.long().unbind(-1))] for t, i in tensors))


def scatter_nd(c: Context) -> Value:
    """Into known places: what stays and what is written, joined by a known mask. Places that make
    up a block along one dimension are a concatenation."""
    x, places, new = c.x(), c.tensor(1).long(), c.x(2)
    if c.text("reduction", "none") != "none":
        raise c.unsupported(f"reduction {c.text('reduction')}")
    if x.known and new.known:
        tensors = zip(x.tensors, new.tensors, strict=True)
        return Value(tuple(_written(t, places, n) for t, n in tensors))
    if len(set(x.shapes)) > 1:
        raise FollowsBatch("places follow the batch size")
    numbers = torch.arange(_count(x.shape)).reshape(x.shape)
    written = numbers[tuple(places.unbind(-1))].reshape(-1)
    source = torch.full((_count(x.shape),), -1)
    source[written] = torch.arange(len(written))
    mask = (source >= 0).reshape(x.shape)
    flat = c.reshape(new, [(len(written),)] * len(new.tensors))
    spread = c.call(torch.index_select, flat, 0, c.constant(source.clamp(min=0)))
    full = c.reshape(spread, [x.shape] * len(new.tensors))
    return c.call(torch.where, c.constant(mask), full, x)


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _written(tensor: Tensor, places: Tensor, new: Tensor) -> Tensor:
    made = tensor.clone()
    made[tuple(places.unbind(-1))] = new
    return made


def top_k(c: Context) -> list[Value]:
    """The count is an attribute before opset 10."""
    count = c.fixed(1)[0] if c.has(1) else c.int("k")
    largest, ordered = bool(c.int("largest", 1)), bool(c.int("sorted", 1))
    return c.call(torch.topk, c.x(), count, c.axis(-1), largest, ordered)


def _extreme(function: Any) -> Rule:
    def rule(c: Context) -> Value:
        if c.int("select_last_index"):
            raise c.unsupported("the last of several")
        return c.call(function, c.x(), c.axis(0), bool(c.int("keepdims", 1)))

    return rule


def cum_sum(c: Context) -> Value:
    x = c.x()
    axis = c.normal(c.fixed(1)[0], x.rank)
    if c.int("reverse"):
        x = c.call(torch.flip, x, (axis,))
    y = c.call(torch.cumsum, x, axis)
    if c.int("exclusive"):
        y = c.call(torch.sub, y, x)
    return c.call(torch.flip, y, (axis,)) if c.int("reverse") else y


def trilu(c: Context) -> Value:
    diagonal = c.fixed(1)[0] if c.has(1) else 0
    return c.call(torch.triu if c.int("upper", 1) else torch.tril, c.x(), diagonal)


def one_hot(c: Context) -> Value:
    index, depth, values = c.x(), c.fixed(1)[0], c.tensor(2)
    axis = c.axis(-1, index.rank + 1)
    rest = index.rank - axis
    classes = c.constant(torch.arange(depth).reshape(depth, *(1,) * rest))
    raised = c.reshape(index, [(*s[:axis], 1, *s[axis:]) for s in index.shapes])
    positive = c.call(
        torch.where, c.call(torch.lt, raised, 0), c.call(torch.add, raised, depth), raised
    )
    hot = c.call(torch.eq, positive, classes)
    return c.call(torch.where, hot, c.constant(values[1]), c.constant(values[0]))


def eye_like(c: Context) -> Value:
    dtype, k = DTYPES.get(c.int("dtype"), c.x().dtype), c.int("k")
    made = [torch.diag(torch.ones(max(s)), k)[: s[0], : s[1]].to(dtype) for s in c.x().shapes]
    return Value(tuple(made))


def non_zero(c: Context) -> Value:
    """Of what no input decides."""
    if not c.x().known:
        raise c.unsupported("how many there are depends on the data; cut it off")
    return Value(tuple(torch.nonzero(t).T.contiguous() for t in c.x().tensors))


def grid_sample(c: Context) -> Value:
    """Modes are named otherwise since opset 20."""
    names = {"linear": "bilinear", "cubic": "bicubic"}
    mode = c.text("mode", "bilinear")
    if c.x().rank != 4:
        raise c.unsupported(f"of {c.x().rank} dimensions")
    rest = (names.get(mode, mode), c.text("padding_mode", "zeros"), bool(c.int("align_corners")))
    return c.call(F.grid_sample, c.x(), c.x(1), *rest)


RULES: dict[str, Rule] = {
    "Slice": slice_,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "ScatterND": scatter_nd,
    "TopK": top_k,
    "ArgMax": _extreme(torch.argmax),
    "ArgMin": _extreme(torch.argmin),
    "CumSum": cum_sum,
    "Trilu": trilu,
    "OneHot": one_hot,
    "EyeLike": eye_like,
    "NonZero": non_zero,
    "GridSample": grid_sample,
}
