"""What moves numbers about: reshape, permute, slice, concatenate, pad, broadcast."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from shrinkc.compiler.capture.builder import Constant, Expanded
from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.observe import BatchInt
from shrinkc.compiler.capture.rules.lookup.gather import by_tensors
from shrinkc.passes import ir


def same(c: Context, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Copies, dropout in eval mode."""
    return x


def reshape(c: Context, x: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """view, flatten, squeeze, …: the observed shape says it all."""
    return c.reshape_out(c.tensor(x))


def permute(c: Context, x: Any, *dims: Any) -> fx.Node:
    x = c.tensor(x)
    rank = c.b.rank(x)
    return c.b.permute(x, [d % rank for d in _sequence(dims)])


def _sequence(args: tuple[Any, ...]) -> Sequence[Any]:
    """`f(x, 1, 2)` and `f(x, (1, 2))` alike."""
    first = args[0]
    return cast("Sequence[Any]", first if isinstance(first, (tuple, list)) else args)


def transpose(c: Context, x: Any, a: int, b: int) -> fx.Node:
    x = c.tensor(x)
    order = list(range(c.b.rank(x)))
    a, b = a % len(order), b % len(order)
    order[a], order[b] = order[b], order[a]
    return c.b.permute(x, order)


def t(c: Context, x: Any) -> fx.Node:
    return transpose(c, x, -2, -1)


def movedim(c: Context, x: Any, source: Any, destination: Any) -> fx.Node:
    x = c.tensor(x)
    rank = c.b.rank(x)
    sources = [d % rank for d in ([source] if isinstance(source, int) else source)]
    targets = [d % rank for d in ([destination] if isinstance(destination, int) else destination)]
    order = [d for d in range(rank) if d not in sources]
    for target, origin in sorted(zip(targets, sources, strict=True)):
        order.insert(target, origin)
    return c.b.permute(x, order)


def _take(c: Context, x: fx.Node, dim: int, index: slice) -> fx.Node:
    """`x[index]` along one dimension; anything that spans the whole batch leaves it alone."""
    sizes = [shape[dim] for shape in c.b.shapes(x)]
    bounds: list[tuple[int, int, int]] = []
    for i, size in enumerate(sizes):
        parts = [
            v.values[i] if isinstance(v, BatchInt) else v
            for v in (index.start, index.stop, index.step)
        ]
        bounds.append(slice(*parts).indices(size))
    if all(b == (0, size, 1) for b, size in zip(bounds, sizes, strict=True)):
        return x
    if len(set(bounds)) > 1 or len(set(sizes)) > 1:
        raise c.unsupported("takes a part of the batch")
    start, stop, step = bounds[0]
    if step < 1 or stop <= start:
        raise c.unsupported("an empty or reversed slice")
    return c.b.slice(x, dim, start, stop, step)


def getitem(c: Context, x: Any, index: Any) -> Any:
    if isinstance(x, (list, tuple)):
        return cast("Sequence[Any]", x)[index]
    x = c.tensor(x)
    items: list[Any] = [*cast("tuple[Any, ...]", index)] if isinstance(index, tuple) else [index]
    named = sum(1 for item in items if item is not None and item is not Ellipsis)
    if Ellipsis in items:
        at = items.index(Ellipsis)
        items[at : at + 1] = [slice(None)] * (c.b.rank(x) - named)
    dim, chosen = 0, dict[int, Any]()  # dimension → the tensor that indexes it
    for item in items:
        if item is None:
            continue
        if isinstance(item, int):
            size = c.b.shape(x)[dim]
            x = _take(c, x, dim, slice(item % size, item % size + 1, 1))
        elif isinstance(item, slice):
            x = _take(c, x, dim, cast("slice[Any, Any, Any]", item))
        else:
            for index in _indices(c, item):
                chosen[dim] = index
                dim += 1
            continue
        dim += 1
    return c.reshape_out(_chosen(c, x, chosen))


def _indices(c: Context, item: Any) -> Sequence[Tensor | fx.Node]:
    """What an index of several places says: one tensor, or one for each dimension of a mask."""
    if isinstance(item, (list, tuple)):
        item = Constant(torch.tensor(item))
    if isinstance(item, Constant):
        known = item.tensor
        return known.nonzero(as_tuple=True) if known.dtype == torch.bool else (known.long(),)
    if isinstance(item, Expanded):
        item = c.tensor(item)
    if not isinstance(item, fx.Node):
        raise c.unsupported(f"indexing with {type(item).__name__}")
    if c.truth_read:
        raise c.unsupported(
            "its shape follows the numbers; leave selecting to whoever reads the files"
        )
    return (item,)


def _chosen(c: Context, x: fx.Node, chosen: dict[int, Any]) -> fx.Node:
    if not chosen:
        return x
    (dim, index), *more = chosen.items()
    if more or not isinstance(index, Tensor) or index.ndim != 1:
        return by_tensors(c, x, chosen)
    return index_select(c, x, dim, Constant(index))


def index_(c: Context, x: Any, indices: Sequence[Any]) -> fx.Node:
    """`aten.index`: None where nothing is chosen."""
    return getitem(c, x, tuple(slice(None) if i is None else i for i in indices))


def select(c: Context, x: Any, dim: int, index: int) -> fx.Node:
    x = c.tensor(x)
    dim, size = dim % c.b.rank(x), c.b.shape(x)[dim]
    return c.reshape_out(_take(c, x, dim, slice(index % size, index % size + 1, 1)))


def slice_(
    c: Context, x: Any, dim: int = 0, start: Any = None, stop: Any = None, step: int = 1
) -> fx.Node:
    x = c.tensor(x)
    return _take(c, x, dim % c.b.rank(x), slice(start, stop, step))


def narrow(c: Context, x: Any, dim: int, start: int, length: int) -> fx.Node:
    return slice_(c, x, dim, start, start + length)


def _pieces(c: Context, x: fx.Node, dim: int) -> list[fx.Node]:
    """Slices whose sizes are those that the raw node's results had."""
    parts: list[fx.Node] = []
    at = 0
    for out in c.out:
        size = out.shapes[0][dim]
        parts.append(_take(c, x, dim, slice(at, at + size, 1)))
        at += size
    return parts


def split(c: Context, x: Any, *sizes: Any, dim: int = 0, **kwargs: Any) -> list[fx.Node]:
    """split, chunk, tensor_split, split_with_sizes: (x, sizes or count, dim)."""
    x = c.tensor(x)
    dim = int(sizes[1]) if len(sizes) > 1 else dim
    return _pieces(c, x, dim % c.b.rank(x))


def _split_along(dim: int) -> Callable[..., Any]:
    """hsplit, vsplit, dsplit; of one dimension there is only that"""

    def rule(c: Context, x: Any, *sizes: Any) -> list[fx.Node]:
        x = c.tensor(x)
        return _pieces(c, x, dim if c.b.rank(x) > 1 else 0)

    return rule


def broadcast_tensors(c: Context, *tensors: Any) -> list[Any]:
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        tensors = tuple(cast("tuple[Any, ...]", tensors[0]))
    results: list[Any] = []
    for x, out in zip(tensors, c.out, strict=True):
        node = c.tensor(x)
        lead = len(out.shapes[0]) - c.b.rank(node)
        node = c.b.reshape(node, [(*(1,) * lead, *s) for s in c.b.shapes(node)])
        results.append(node if c.b.shapes(node) == out.shapes else Expanded(node, out.shapes))
    return results


def unfold_dim(c: Context, x: Any, dim: int, size: int, step: int) -> fx.Node:
    """`Tensor.unfold`: windows along `dim`, their elements in a new last dimension."""
    x = c.tensor(x)
    dim = dim % c.b.rank(x)
    starts = range(0, c.b.shape(x)[dim] - size + 1, step)
    windows = [_take(c, x, dim, slice(at, at + size, 1)) for at in starts]
    raised = [c.b.reshape(w, [(*s[:dim], 1, *s[dim:]) for s in c.b.shapes(w)]) for w in windows]
    together = c.b.call(torch.cat, tuple(raised), dim)
    rest = [d for d in range(c.b.rank(together)) if d != dim + 1]
    return c.b.permute(together, [*rest, dim + 1])


def slice_scatter(
    c: Context,
    x: Any,
    source: Any,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> fx.Node:
    """`x` with `source` written over one slice: what stays in front, the new, what stays behind."""
    x, dim = c.tensor(x), dim % len(c.out_shapes[0])
    sizes = [shape[dim] for shape in c.out_shapes]
    if all(slice(start, end, step).indices(size) == (0, size, 1) for size in sizes):
        return c.tensor(source)
    if len(set(sizes)) > 1:
        raise c.unsupported("writes into a part of the batch")
    size = sizes[0]
    places = range(*slice(start, end, step).indices(size))
    if step != 1 and len(places) > MAX_SLICES:
        raise c.unsupported("writes into many places with gaps")
    new, parts, done = c.tensor(source), list[fx.Node](), 0
    written = [places] if step == 1 else [range(p, p + 1) for p in places]
    for count, run in enumerate(written):
        if run.start > done:
            parts.append(c.b.slice(x, dim, done, run.start))
        parts.append(new if step == 1 else c.b.slice(new, dim, count, count + 1))
        done = run.stop
    if done < size:
        parts.append(c.b.slice(x, dim, done, size))
    return cat(c, parts, dim)


def select_scatter(c: Context, x: Any, source: Any, dim: int, index: int) -> fx.Node:
    """`x` with `source` written over the slice at `index`."""
    x, source = c.tensor(x), c.tensor(source)
    dim = dim % c.b.rank(x)
    at = index % c.b.shape(x)[dim]
    raised = c.b.reshape(source, [(*s[:dim], 1, *s[dim:]) for s in c.b.shapes(source)])
    return slice_scatter(c, x, raised, dim, at, at + 1)


def copy(c: Context, x: Any, source: Any, *args: Any) -> Any:
    """`x` overwritten whole."""
    return expand(c, source)


def fill(c: Context, x: Any, value: Any) -> Any:
    value = torch.tensor(float(value)) if isinstance(value, (int, float)) else value
    return expand(c, Constant(value) if isinstance(value, Tensor) else value)


def zero(c: Context, x: Any) -> Any:
    return fill(c, x, 0.0)


def unbind(c: Context, x: Any, dim: int = 0) -> list[fx.Node]:
    x = c.tensor(x)
    dim = dim % c.b.rank(x)
    parts = [_take(c, x, dim, slice(i, i + 1, 1)) for i in range(c.b.shape(x)[dim])]
    return [c.b.reshape(p, o.shapes) for p, o in zip(parts, c.out, strict=True)]


def cat(c: Context, tensors: Any, dim: int = 0, axis: int | None = None) -> fx.Node:
    nodes = [c.tensor(x) for x in tensors]
    batches = max(c.b.shapes(n) for n in nodes)
    dim = (dim if axis is None else axis) % c.b.rank(nodes[0])
    if any(len({s[dim] for s in c.b.shapes(n)}) > 1 for n in nodes):
        raise c.unsupported("concatenates along the batch")
    if dim == 0:  # the batch is elsewhere
        return c.b.call(torch.cat, tuple(nodes), dim)
    full = next(n for n in nodes if c.b.shapes(n)[-1][0] == batches[-1][0])
    nodes = [_with_batch(c, n, full) for n in nodes]
    return nodes[0] if len(nodes) == 1 else c.b.call(torch.cat, tuple(nodes), dim)


def _with_batch(c: Context, x: fx.Node, like: fx.Node) -> fx.Node:
    if c.b.shapes(x)[-1][0] == c.b.shapes(like)[-1][0] or c.b.shapes(x)[-1][0] != 1:
        return x
    return c.b.call(ir.batch_expand, x, like)


def stack(c: Context, tensors: Any, dim: int = 0) -> fx.Node:
    nodes = [c.tensor(x) for x in tensors]
    dim = dim % (c.b.rank(nodes[0]) + 1)
    raised = [c.b.reshape(n, [(*s[:dim], 1, *s[dim:]) for s in c.b.shapes(n)]) for n in nodes]
    return c.b.call(torch.cat, tuple(raised), dim)


def expand(c: Context, x: Any, *sizes: Any, **kwargs: Any) -> Any:
    if isinstance(x, Expanded):
        x = x.node
    if isinstance(x, Constant):
        return _expand_constant(c, x)
    x = c.tensor(x)
    rank = len(c.out_shapes[0])
    lead = (1,) * (rank - c.b.rank(x))
    x = c.b.reshape(x, [(*lead, *s) for s in c.b.shapes(x)])
    return x if c.b.shapes(x) == c.out_shapes else Expanded(x, c.out_shapes)


def _expand_constant(c: Context, x: Constant) -> Constant | Expanded:
    """A constant stays one as long as the batch is not in it."""
    fixed = [1 if len(set(column)) > 1 else column[0] for column in zip(*c.out_shapes, strict=True)]
    tensor = x.tensor.expand(fixed)
    plain = Constant(tensor, x.path if tensor.shape == x.tensor.shape else None)
    return plain


def repeat(c: Context, x: Any, *counts: Any) -> fx.Node:
    """repeat, tile: copies side by side."""
    x = c.tensor(x)
    times = _sequence(counts)
    lead = (1,) * (len(times) - c.b.rank(x))
    x = c.b.reshape(x, [(*lead, *s) for s in c.b.shapes(x)])
    for dim, count in enumerate(times):
        if isinstance(count, BatchInt) and c.b.shape(x)[dim] == 1:
            continue  # a constant of batch 1; arithmetic and cat broadcast it
        n = c.b.fixed(count, "a repeat count")
        if n > 1:
            x = c.b.call(torch.cat, (x,) * n, dim)
    return x


def repeat_interleave(c: Context, x: Any, repeats: Any, dim: int = 0, **kwargs: Any) -> fx.Node:
    """Every slice `repeats` times in a row: a dimension of copies behind `dim`."""
    x = c.tensor(x)
    count, dim = c.b.fixed(repeats, "a repeat count"), dim % c.b.rank(x)
    raised = c.b.reshape(x, [(*s[: dim + 1], 1, *s[dim + 1 :]) for s in c.b.shapes(x)])
    copies = c.b.call(torch.cat, (raised,) * count, dim + 1) if count > 1 else raised
    return c.reshape_out(copies)


def index_select(c: Context, x: Any, dim: int, index: Any) -> fx.Node:
    """By a known index: a few slices; of a map's channels a 1×1 convolution with one 1 in each
    row, which may be pruned."""
    x = c.tensor(x)
    chosen = c.parameter(index, "index")
    if chosen is None:
        raise c.unsupported("an index is needed")
    dim = dim % c.b.rank(x)
    order = [int(i) % c.b.shape(x)[dim] for i in chosen.tensor.reshape(-1)]
    runs = _runs(order)
    if len({shape[dim] for shape in c.b.shapes(x)}) > 1:
        raise c.unsupported("takes a part of the batch")
    if len(runs) > MAX_SLICES and (c.b.rank(x) != 4 or dim != 1):
        return c.b.call(ir.take, x, dim, tuple(order))
    if len(runs) <= MAX_SLICES:
        parts = tuple(c.b.slice(x, dim, start, stop) for start, stop in runs)
        return parts[0] if len(parts) == 1 else c.b.call(torch.cat, parts, dim)
    pick = nn.Conv2d(c.b.shape(x)[1], len(order), 1, bias=False)
    pick.weight = nn.Parameter(torch.eye(c.b.shape(x)[1])[order][:, :, None, None])
    return c.b.new_module(c.hint, pick, x)


MAX_SLICES = 8


def _runs(order: list[int]) -> list[tuple[int, int]]:
    """[2, 3, 4, 0] → [(2, 5), (0, 1)]"""
    runs: list[tuple[int, int]] = []
    for i in order:
        if runs and runs[-1][1] == i:
            runs[-1] = (runs[-1][0], i + 1)
        else:
            runs.append((i, i + 1))
    return runs


def roll(c: Context, x: Any, shifts: Any, dims: Any = None) -> fx.Node:
    x = c.tensor(x)
    if dims is None or dims == ():  # of everything, in a row
        flat = c.b.reshape(x, [(math.prod(s),) for s in c.b.shapes(x)])
        if len(set(c.b.shapes(flat))) > 1:
            raise c.unsupported("rolls over the batch")
        shift = int(_sequence((shifts,))[0])
        return c.b.reshape(roll(c, flat, shift, 0), c.b.shapes(x))
    shifts, dims = (_sequence((v,)) for v in (shifts, dims))
    for shift, dim in zip(shifts, dims, strict=True):
        dim = int(dim) % c.b.rank(x)
        size = c.b.shape(x)[dim]
        cut = -shift % size
        if cut:
            tail, head = c.b.slice(x, dim, cut, size), c.b.slice(x, dim, 0, cut)
            x = c.b.call(torch.cat, (tail, head), dim)
    return x


def flip(c: Context, x: Any, *dims: Any) -> fx.Node:
    x = c.tensor(x)
    for dim in _sequence(dims):
        dim = int(dim) % c.b.rank(x)
        sizes = {shape[dim] for shape in c.b.shapes(x)}
        if len(sizes) > 1:
            raise c.unsupported("reverses the batch")
        x = c.b.call(ir.take, x, dim, tuple(range(sizes.pop()))[::-1])
    return x


def fliplr(c: Context, x: Any) -> fx.Node:
    return flip(c, x, 1)


def pad(
    c: Context, x: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> fx.Node:
    x = c.tensor(x)
    amounts = tuple(c.b.fixed(p, "padding") for p in pad)
    if not any(amounts):
        return x
    if mode == "circular":
        return _circular(c, x, amounts)
    fill = (value or 0.0) if mode == "constant" else None
    return c.b.call(F.pad, x, amounts, mode, fill)


def _circular(c: Context, x: fx.Node, amounts: tuple[int, ...]) -> fx.Node:
    """The far end in front, the near one behind, one dimension after the other."""
    rank = c.b.rank(x)
    for i in range(len(amounts) // 2):
        (before, after), dim = amounts[2 * i : 2 * i + 2], rank - 1 - i
        if min(before, after) < 0:
            raise c.unsupported("circular padding that crops")
        size = c.b.shape(x)[dim]
        parts = [
            *([c.b.slice(x, dim, size - before, size)] if before else []),
            x,
            *([c.b.slice(x, dim, 0, after)] if after else []),
        ]
        x = parts[0] if len(parts) == 1 else c.b.call(torch.cat, tuple(parts), dim)
    return x


def constant_pad(c: Context, x: Any, amounts: Sequence[int], value: float = 0.0) -> fx.Node:
    return pad(c, x, amounts, "constant", value)


def channel_shuffle(c: Context, x: Any, groups: int) -> fx.Node:
    x = c.tensor(x)
    shapes = c.b.shapes(x)
    split_shapes = [(s[0], groups, s[1] // groups, *s[2:]) for s in shapes]
    grouped = c.b.reshape(x, split_shapes)
    rest = range(3, c.b.rank(grouped))
    return c.b.reshape(c.b.permute(grouped, (0, 2, 1, *rest)), shapes)


def _pad_mode(mode: str) -> Callable[..., Any]:
    def rule(c: Context, x: Any, padding: Sequence[int]) -> fx.Node:
        return pad(c, x, padding, mode)

    return rule


_SAME = (
    "contiguous clone detach alias dropout feature_dropout dropout1d dropout2d dropout3d "
    "alpha_dropout feature_alpha_dropout lift_fresh_copy requires_grad_ positive"
)
_RESHAPE = "view reshape flatten squeeze unsqueeze unflatten view_as reshape_as _unsafe_view ravel"
RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_SAME.split(), same),
    **dict.fromkeys(_RESHAPE.split(), reshape),
    "permute": permute,
    "transpose": transpose,
    "swapaxes": transpose,
    "swapdims": transpose,
    "t": t,
    "adjoint": t,
    "mT": t,
    "numpy_T": t,
    "movedim": movedim,
    "moveaxis": movedim,
    "getitem": getitem,
    "select": select,
    "slice": slice_,
    "narrow": narrow,
    "split": split,
    "chunk": split,
    "tensor_split": split,
    "split_with_sizes": split,
    "unsafe_chunk": split,
    "unsafe_split": split,
    "unbind": unbind,
    "hsplit": _split_along(1),
    "vsplit": _split_along(0),
    "dsplit": _split_along(2),
    "broadcast_tensors": broadcast_tensors,
    "cat": cat,
    "concat": cat,
    "concatenate": cat,
    "stack": stack,
    "expand": expand,
    "expand_as": expand,
    "broadcast_to": expand,
    "repeat": repeat,
    "tile": repeat,
    "roll": roll,
    "repeat_interleave": repeat_interleave,
    "index_select": index_select,
    "slice_scatter": slice_scatter,
    "select_scatter": select_scatter,
    "copy": copy,
    "fill": fill,
    "zero": zero,
    "data": same,
    "index": index_,
    "flip": flip,
    "fliplr": fliplr,
    "pad": pad,
    "constant_pad_nd": constant_pad,
    **dict.fromkeys((f"reflection_pad{n}d" for n in (1, 2, 3)), _pad_mode("reflect")),
    **dict.fromkeys((f"replication_pad{n}d" for n in (1, 2, 3)), _pad_mode("replicate")),
    "_pad_circular": _pad_mode("circular"),
    "channel_shuffle": channel_shuffle,
}
