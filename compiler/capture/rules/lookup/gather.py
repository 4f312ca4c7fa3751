"""Reading at places that numbers say: gather, indexing with tensors, scatter, one-hot.

Known places are `take`; computed ones `pick` rows of a table (B, L, …), everything else being
moved in front or behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from shrinkc.compiler.capture.builder import Constant, Expanded, Shape
from shrinkc.compiler.capture.context import Context
from shrinkc.passes import ir

MOST_WRITES = 16  # places that one scatter writes, each a comparison with all of them
_COUNTING = (ir.argmax, ir.topk_indices)  # whose results are never negative


def gather(c: Context, x: Any, dim: int, index: Any, **kwargs: Any) -> fx.Node:
    """y[i, j, …] = x[i, index[i, j, …], …] for `dim` 1. Dimensions along which the index only
    repeats lie behind, whole."""
    x, dim = c.tensor(x), dim % len(c.out_shapes[0])
    for other, size in enumerate(c.out_shapes[0]):
        if other != dim and c.b.shape(x)[other] > size:
            x = c.b.slice(x, other, 0, size)
    if isinstance(index, Expanded):
        return _gathered(c, x, dim, index.node, index.shapes)
    if isinstance(index, (Constant, Tensor)):
        return _known(c, x, dim, index.tensor if isinstance(index, Constant) else index)
    return _gathered(c, x, dim, index, c.b.shapes(index))


def take_along_dim(c: Context, x: Any, index: Any, dim: int | None = None) -> fx.Node:
    """`gather` whose other dimensions broadcast."""
    x = c.tensor(x)
    if dim is None:
        x = c.b.reshape(x, [(math.prod(s),) for s in c.b.shapes(x)])
        dim = 0
    if isinstance(index, (Constant, Tensor)):
        return gather(c, x, dim, index)
    node = index.node if isinstance(index, Expanded) else index
    dim = dim % c.b.rank(x)
    if any(c.b.shape(x)[d] < n for d, n in enumerate(c.out_shapes[0]) if d != dim):
        raise c.unsupported("an index wider than what it is taken from")
    return _gathered(c, x, dim, node, c.out_shapes)


def _gathered(
    c: Context, x: fx.Node, dim: int, index: fx.Node, shapes: tuple[Shape, ...]
) -> fx.Node:
    """`shapes`: of the index, broadcast."""
    if len({s[dim] for s in c.b.shapes(x)}) > 1:
        raise c.unsupported("takes a part of the batch")
    rank, narrow = c.b.rank(x), c.b.shapes(index)
    behind = [d for d in range(rank) if d != dim and all(s[d] == 1 for s in narrow)]
    lead = [d for d in range(rank) if d not in (*behind, dim)]
    order = [*lead, dim, *behind]
    moved, places = c.b.permute(x, order), c.b.permute(index, order)
    table = [
        (_size(s, lead), s[dim], *((_size(s, behind),) if behind else ())) for s in c.b.shapes(x)
    ]
    rows = [(_size(s, lead), s[dim]) for s in narrow]
    found = c.b.call(ir.pick, c.b.reshape(moved, table), c.b.reshape(places, rows))
    results = [
        tuple(n[dim] if d == dim else s[d] for d in order)
        for s, n in zip(c.b.shapes(x), shapes, strict=True)
    ]
    return c.b.permute(c.b.reshape(found, results), [order.index(d) for d in range(rank)])


def _size(shape: Shape, dims: Sequence[int]) -> int:
    return math.prod(shape[d] for d in dims)


def _known(c: Context, x: fx.Node, dim: int, index: Tensor) -> fx.Node:
    """Numbered over all dimensions behind the first."""
    first = index.movedim(dim, 0).reshape(index.shape[dim], -1)
    if bool((first == first[:, :1]).all()):
        return c.b.call(ir.take, x, dim, tuple(int(i) for i in first[:, 0]))
    if dim == 0 or index.shape[0] != 1 or any(len({*s}) > 1 for s in _columns(c, x)[1:]):
        raise c.unsupported("an index that says another place for every sample")
    shape = c.b.shape(x)[1:]
    numbers = torch.arange(math.prod(shape)).reshape(1, *shape).gather(dim, index)
    flat = c.b.reshape(x, [(s[0], math.prod(s[1:])) for s in c.b.shapes(x)])
    return c.reshape_out(c.b.call(ir.take, flat, 1, tuple(int(i) for i in numbers.reshape(-1))))


def _columns(c: Context, x: fx.Node) -> list[tuple[int, ...]]:
    return list(zip(*c.b.shapes(x), strict=True))


def by_tensors(c: Context, x: fx.Node, found: dict[int, Any]) -> fx.Node:
    """`x[…, i, :, j]`: the dimensions of `found` become those of their indices, broadcast. They
    stand where the first was if they are neighbours, else in front."""
    dims, rank = sorted(found), c.b.rank(x)
    rest = [d for d in range(rank) if d not in dims]
    moved, sizes = c.b.permute(x, (*dims, *rest)), c.b.shape(x)
    flat = c.b.reshape(moved, [(_size(s, dims), _size(s, rest)) for s in c.b.shapes(x)])
    strides = [_size(sizes, dims[i + 1 :]) for i in range(len(dims))]
    known = [found[d] for d in dims]
    if all(isinstance(index, Tensor) for index in known):
        numbers = sum(
            (i % n) * stride
            for i, n, stride in zip(known, (sizes[d] for d in dims), strides, strict=True)
        )
        places = torch.as_tensor(numbers)
        rows = c.b.call(ir.take, flat, 0, tuple(int(i) for i in places.reshape(-1)))
        shapes = [tuple(places.shape)] * len(c.b.batches)
    else:
        index = _numbered(c, known, [sizes[d] for d in dims], strides)
        shapes = c.b.shapes(index)
        table = c.b.reshape(flat, [(1, *s) for s in c.b.shapes(flat)])
        rows = c.b.call(ir.pick, table, c.b.reshape(index, [(1, math.prod(s)) for s in shapes]))
    left = [tuple(s[d] for d in rest) for s in c.b.shapes(x)]
    apart = c.b.reshape(rows, [(*s, *r) for s, r in zip(shapes, left, strict=True)])
    many = len(shapes[0])
    adjacent = dims == list(range(dims[0], dims[-1] + 1))
    at = dims[0] if adjacent else 0
    order = [*range(many, many + at), *range(many), *range(many + at, many + len(rest))]
    return c.b.permute(apart, order)


def _numbered(c: Context, indices: list[Any], sizes: list[int], strides: list[int]) -> fx.Node:
    """Several indices as one: Σ indexᵢ · strideᵢ"""
    total: fx.Node | None = None
    for index, size, stride in zip(indices, sizes, strides, strict=True):
        if isinstance(index, Tensor):
            part = c.tensor(Constant(index % size * stride))
        else:
            part = _from_zero(c, c.tensor(index), size)
            part = part if stride == 1 else c.b.call(ir.mul, part, stride)
        total = part if total is None else c.b.call(ir.add, total, part)
    assert total is not None
    return total


def _from_zero(c: Context, index: fx.Node, size: int) -> fx.Node:
    """Negative ones count from the end."""
    if index.target in _COUNTING:
        return index
    negative = c.b.call(ir.greater, 0, index)
    return c.b.call(ir.add, index, c.b.call(ir.mul, negative, size))


def take(c: Context, x: Any, index: Any) -> fx.Node:
    """Of everything in a row."""
    x = c.tensor(x)
    flat = c.b.reshape(x, [(math.prod(s),) for s in c.b.shapes(x)])
    if len(set(c.b.shapes(flat))) > 1:
        raise c.unsupported("takes a part of the batch")
    return by_tensors(c, flat, {0: index.tensor if isinstance(index, Constant) else index})


def one_hot(c: Context, index: Any, num_classes: int = -1) -> fx.Node:
    if num_classes < 0:
        raise c.unsupported("as many classes as the numbers say; give `num_classes`")
    index = c.tensor(index)
    wide = c.b.reshape(index, [(*s, 1) for s in c.b.shapes(index)])
    return c.b.call(ir.equal, wide, c.tensor(Constant(torch.arange(num_classes))))


# --- writing -------------------------------------------------------------------------------------


def _scatter(join: Callable[[Context, fx.Node, fx.Node, Any], fx.Node]) -> Callable[..., Any]:
    """Few places of each line: compared with the numbers of all of them."""

    def rule(c: Context, x: Any, dim: int, index: Any, src: Any = None, **kwargs: Any) -> fx.Node:
        src = kwargs.pop("value", src)
        if kwargs.get("reduce") is not None:
            raise c.unsupported("a scatter that reduces")
        x, places = c.tensor(x), c.tensor(index)
        dim = dim % c.b.rank(x)
        shape, count = c.b.shape(x), c.b.shape(places)[dim]
        others = zip(c.b.shapes(x), c.b.shapes(places), strict=True)
        if count > MOST_WRITES or any(
            a[d] not in (1, b[d]) for a, b in others for d in range(len(a)) if d != dim
        ):
            raise c.unsupported(f"writes into more than {MOST_WRITES} places of a line")
        line = torch.arange(shape[dim]).reshape([-1 if d == dim else 1 for d in range(len(shape))])
        numbers = c.tensor(Constant(line))
        for i in range(count):
            there = c.b.call(ir.equal, numbers, c.b.slice(places, dim, i, i + 1))
            value = c.operand(src)
            if isinstance(value, fx.Node):
                value = c.b.slice(value, dim, i, i + 1)
            x = join(c, x, there, value)
        return x

    return rule


def _written(c: Context, x: fx.Node, there: fx.Node, value: Any) -> fx.Node:
    return c.b.call(ir.where, there, value, x)


def _added(c: Context, x: fx.Node, there: fx.Node, value: Any) -> fx.Node:
    return c.b.call(ir.add, x, c.b.call(ir.mul, there, value))


def _order_of(c: Context, index: Any, size: int) -> list[int]:
    known = c.parameter(index, "index")
    if known is None:
        raise c.unsupported("an index is needed")
    order = [int(i) % size for i in known.tensor.reshape(-1)]
    if len(set(order)) < len(order):
        raise c.unsupported("writes into one place twice")
    return order


def index_fill(c: Context, x: Any, dim: int, index: Any, value: Any) -> fx.Node:
    x = c.tensor(x)
    dim = dim % c.b.rank(x)
    size = c.b.shape(x)[dim]
    mask = torch.zeros(size)
    mask[_order_of(c, index, size)] = 1
    line = mask.reshape([-1 if d == dim else 1 for d in range(c.b.rank(x))])
    return c.b.call(ir.where, c.tensor(Constant(line)), c.operand(value), x)


def index_copy(c: Context, x: Any, dim: int, index: Any, source: Any) -> fx.Node:
    """Old and new side by side, each place from where it is now."""
    x, source = c.tensor(x), c.tensor(source)
    dim = dim % c.b.rank(x)
    size = c.b.shape(x)[dim]
    places = list(range(size))
    for i, at in enumerate(_order_of(c, index, size)):
        places[at] = size + i
    if c.b.shapes(source)[-1][0] < c.b.shapes(x)[-1][0]:
        source = c.b.call(ir.batch_expand, source, x)
    both = c.b.call(torch.cat, (x, source), dim)
    return c.b.call(ir.take, both, dim, tuple(places))


def index_add(c: Context, x: Any, dim: int, index: Any, source: Any, alpha: float = 1) -> fx.Node:
    x, source = c.tensor(x), c.tensor(source)
    dim = dim % c.b.rank(x)
    size = c.b.shape(x)[dim]
    order = _order_of(c, index, size)
    found = c.b.call(ir.take, x, dim, tuple(order))
    more = source if alpha == 1 else c.b.call(ir.mul, source, alpha)
    return index_copy(c, x, dim, index, c.b.call(ir.add, found, more))


def index_put(
    c: Context, x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False
) -> fx.Node:
    """`x[:, index] = values`"""
    found = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    if len(found) != 1 or not isinstance(found[0][1], Constant) or found[0][1].tensor.ndim != 1:
        raise c.unsupported("writes at computed places, or at places of several dimensions")
    (dim, index), x = found[0], c.tensor(x)
    chosen = index.tensor
    places = chosen.nonzero()[:, 0] if chosen.dtype == torch.bool else chosen
    shape = [len(places) if d == dim else n for d, n in enumerate(c.b.shape(x))]
    value = c.operand(values)
    if not isinstance(value, fx.Node):
        value = c.tensor(Constant(torch.tensor(float(value))))
    if any(len({*sizes}) > 1 for sizes in _columns(c, x)):
        shape[0] = 1
    lead = [(*(1,) * (len(shape) - len(s)), *s) for s in c.b.shapes(value)]
    wide = c.b.call(ir.mul, c.b.reshape(value, lead), c.tensor(Constant(torch.ones(shape))))
    write = index_add if accumulate else index_copy
    return write(c, x, dim, Constant(places), wide)


RULES: dict[str, Callable[..., Any]] = {
    "gather": gather,
    "take_along_dim": take_along_dim,
    "take": take,
    "one_hot": one_hot,
    "scatter": _scatter(_written),
    "scatter_add": _scatter(_added),
    "index_fill": index_fill,
    "index_copy": index_copy,
    "index_add": index_add,
    "index_put": index_put,
}
