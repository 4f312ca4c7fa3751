"""Einstein summation: any number of operands, one pair after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import fx

from shrinkc.compiler.capture.context import Context
from shrinkc.passes import ir

Sizes = dict[str, int]
SPARE = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def einsum(c: Context, equation: Any, *operands: Any) -> fx.Node:
    """Indices of one operand are summed up in it, a repeated one is its diagonal; what two
    operands share and nobody else wants is a matrix product, all else a product with broadcasting.
    """
    if not isinstance(equation, str):
        raise c.unsupported("einsum with lists of numbers; give a string of letters")
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = tuple(cast("tuple[Any, ...]", operands[0]))
    nodes = [c.tensor(x) for x in operands]
    inputs, output = spelled_out(equation, [c.b.rank(x) for x in nodes])
    return contract(c, inputs, output, nodes)


def spelled_out(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Every operand's indices and the result's, a letter a dimension: "...ij,jk" for ranks 3, 2
    is (["Zij", "jk"], "Zik")."""
    written = equation.replace(" ", "")
    left, arrow, output = written.partition("->")
    parts = left.split(",")
    if not arrow:  # what occurs once, in the order of the alphabet
        plain = left.replace(".", "").replace(",", "")
        once = sorted(i for i in set(plain) if plain.count(i) == 1)
        output = ("..." if "..." in left else "") + "".join(once)
    dotted = [rank - len(p.replace("...", "")) for p, rank in zip(parts, ranks, strict=True)]
    dots = "".join(letter for letter in SPARE if letter not in written)[: max(dotted)]
    inputs = [p.replace("...", dots[len(dots) - n :]) for p, n in zip(parts, dotted, strict=True)]
    return inputs, output.replace("...", dots)


def contract(c: Context, inputs: list[str], output: str, nodes: list[fx.Node]) -> fx.Node:
    """The sum over every index that is not in `output`."""
    pairs = [
        _alone(c, x, indices, _wanted(inputs, i, output))
        for i, (x, indices) in enumerate(zip(nodes, inputs, strict=True))
    ]
    x, indices = pairs[0]
    for i, (other, more) in enumerate(pairs[1:], 1):
        later = set(output).union(*(p[1] for p in pairs[i + 1 :]))
        x, indices = _pair(c, (x, indices), (other, more), later)
        x, indices = _alone(c, x, indices, later)
    return c.b.permute(x, [indices.index(i) for i in output])


def _wanted(inputs: list[str], own: int, output: str) -> set[str]:
    return set(output).union(*(p for i, p in enumerate(inputs) if i != own))


def _alone(c: Context, x: fx.Node, indices: str, wanted: set[str]) -> tuple[fx.Node, str]:
    """Without what repeats and what nobody else wants."""
    for index in sorted(set(indices)):
        while indices.count(index) > 1:
            x, indices = _diagonal(c, x, indices, index)
    gone = tuple(i for i, index in enumerate(indices) if index not in wanted)
    if gone:
        x = c.b.call(ir.sum_, x, gone, False)
    return x, "".join(index for index in indices if index in wanted)


def _diagonal(c: Context, x: fx.Node, indices: str, index: str) -> tuple[fx.Node, str]:
    one = indices.index(index)
    two = indices.index(index, one + 1)
    kept = [d for d in range(len(indices)) if d not in (one, two)]
    last = c.b.permute(x, (*kept, one, two))
    size = c.b.shape(last)[-1]
    if len({s[-1] for s in c.b.shapes(last)}) > 1:
        raise c.unsupported("takes a diagonal of the batch")
    flat = c.b.reshape(last, [(*s[:-2], size * size) for s in c.b.shapes(last)])
    places = tuple(range(0, size * size, size + 1))
    return c.b.call(ir.take, flat, len(kept), places), "".join(indices[d] for d in kept) + index


def _pair(
    c: Context, left: tuple[fx.Node, str], right: tuple[fx.Node, str], later: set[str]
) -> tuple[fx.Node, str]:
    """The product of two, summed over what both have and nobody wants later."""
    (a, mine), (b, yours) = left, right
    shapes = [*zip(c.b.shapes(a), c.b.shapes(b), strict=True)]
    sizes = [_sizes(c, (mine, yours), pair) for pair in shapes]
    summed = [
        i for i in mine if i in yours and i not in later and _both_have(i, mine, yours, shapes[0])
    ]
    if not summed:
        return _broadcast(c, left, right)
    batch = [i for i in mine if i in yours and i not in summed]
    rows = [i for i in mine if i not in yours]
    columns = [i for i in yours if i not in mine]
    product = c.b.call(
        torch.matmul,
        _matrices(c, a, mine, (batch, rows, summed)),
        _matrices(c, b, yours, (batch, summed, columns)),
    )
    order = [*batch, *rows, *columns]
    return c.b.reshape(product, [tuple(s[i] for i in order) for s in sizes]), "".join(order)


def _both_have(index: str, mine: str, yours: str, shapes: tuple[Any, Any]) -> bool:
    """Neither broadcasts it."""
    return shapes[0][mine.index(index)] == shapes[1][yours.index(index)]


def _sizes(c: Context, indices: tuple[str, str], shapes: tuple[Any, Any]) -> Sizes:
    found: Sizes = {}
    for letters, shape in zip(indices, shapes, strict=True):
        for index, size in zip(letters, shape, strict=True):
            found[index] = max(found.get(index, 1), size)
    return found


def _matrices(c: Context, x: fx.Node, indices: str, groups: tuple[list[str], ...]) -> fx.Node:
    """(batch, rows, columns); beyond two batch dimensions all but the first are one."""
    moved = c.b.permute(x, [indices.index(i) for group in groups for i in group])
    batch, *rest = groups
    lead = [[i] for i in batch] if len(batch) < 3 else [batch[:1], batch[1:]]
    sizes = [dict(zip(indices, s, strict=True)) for s in c.b.shapes(x)]
    shapes = [tuple(math.prod(s[i] for i in group) for group in (*lead, *rest)) for s in sizes]
    return c.b.reshape(moved, shapes)


def _broadcast(
    c: Context, left: tuple[fx.Node, str], right: tuple[fx.Node, str]
) -> tuple[fx.Node, str]:
    (a, mine), (b, yours) = left, right
    order = mine + "".join(i for i in yours if i not in mine)

    def spread(x: fx.Node, indices: str) -> fx.Node:
        moved = c.b.permute(x, [indices.index(i) for i in order if i in indices])
        sizes = [dict(zip(indices, s, strict=True)) for s in c.b.shapes(x)]
        return c.b.reshape(moved, [tuple(s.get(i, 1) for i in order) for s in sizes])

    return c.b.call(ir.mul, spread(a, mine), spread(b, yours)), order


RULES: dict[str, Callable[..., Any]] = {"einsum": einsum}
