"""Products of vectors and matrices in their many forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import fx

from shrinkc.compiler.capture.builder import Constant
from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.rules.arithmetic import scaled
from shrinkc.compiler.capture.rules.composed.einsum import contract
from shrinkc.passes import ir

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def outer(c: Context, a: Any, b: Any) -> fx.Node:
    return contract(c, ["i", "j"], "ij", [c.tensor(a), c.tensor(b)])


def inner(c: Context, a: Any, b: Any) -> fx.Node:
    """Over the last dimension of both."""
    a, b = c.tensor(a), c.tensor(b)
    if 0 in (c.b.rank(a), c.b.rank(b)):
        return c.b.call(ir.mul, a, b)
    left, right = LETTERS[: c.b.rank(a) - 1], LETTERS[::-1][: c.b.rank(b) - 1]
    return contract(c, [f"{left}m", f"{right}m"], left + right, [a, b])


def tensordot(c: Context, a: Any, b: Any, dims: Any = 2, *args: Any, **kwargs: Any) -> fx.Node:
    """Over pairs of dimensions, or the last of `a` and as many first of `b`."""
    a, b = c.tensor(a), c.tensor(b)
    if args:  # ATen has the two lists one after the other
        dims = (dims, *args)
    if isinstance(dims, int):
        dims = (range(c.b.rank(a) - dims, c.b.rank(a)), range(dims))
    pairs = cast("Sequence[Any]", dims)
    one, two = ([pair] if isinstance(pair, int) else list(pair) for pair in pairs)
    left, right = list(LETTERS[: c.b.rank(a)]), list(LETTERS[::-1][: c.b.rank(b)])
    for mine, other in zip(one, two, strict=True):
        right[other] = left[mine]
    kept = [i for i in left if i not in right] + [i for i in right if i not in left]
    return contract(c, ["".join(left), "".join(right)], "".join(kept), [a, b])


def addr(c: Context, x: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> fx.Node:
    product = scaled(c, outer(c, a, b), alpha)
    return product if beta == 0 else c.b.call(ir.add, product, scaled(c, x, beta))


def kron(c: Context, a: Any, b: Any) -> fx.Node:
    """Every element of `a` times all of `b`."""
    a, b = c.tensor(a), c.tensor(b)
    rank = max(c.b.rank(a), c.b.rank(b))

    def apart(x: fx.Node, behind: bool) -> fx.Node:
        padded = [(*(1,) * (rank - len(s)), *s) for s in c.b.shapes(x)]
        pairs = [[(1, n) if behind else (n, 1) for n in s] for s in padded]
        return c.b.reshape(x, [tuple(n for pair in s for n in pair) for s in pairs])

    return c.reshape_out(c.b.call(ir.mul, apart(a, False), apart(b, True)))


def cross(c: Context, a: Any, b: Any, dim: int | None = None) -> fx.Node:
    """a₂b₃ − a₃b₂, a₃b₁ − a₁b₃, a₁b₂ − a₂b₁"""
    a, b = c.tensor(a), c.tensor(b)
    shape = c.out_shapes[0]
    dim = shape.index(3) if dim is None else dim % len(shape)

    def turned(x: fx.Node, order: tuple[int, ...]) -> fx.Node:
        return c.b.call(ir.take, x, dim, order)

    one = c.b.call(ir.mul, turned(a, (1, 2, 0)), turned(b, (2, 0, 1)))
    return c.b.call(ir.sub, one, c.b.call(ir.mul, turned(a, (2, 0, 1)), turned(b, (1, 2, 0))))


def linalg_cross(c: Context, a: Any, b: Any, dim: int = -1) -> fx.Node:
    return cross(c, a, b, dim)


def bilinear(c: Context, a: Any, b: Any, weight: Any, bias: Any = None) -> fx.Node:
    """aᵀ W b for each output"""
    a, b, w = c.tensor(a), c.tensor(b), c.tensor(weight)
    lead = LETTERS[: c.b.rank(a) - 1]
    product = contract(c, [f"{lead}x", f"{lead}y", "zxy"], f"{lead}z", [a, b, w])
    return product if bias is None else c.b.call(ir.add, product, c.tensor(bias))


def triangle(lower: bool) -> Callable[..., Any]:
    """tril, triu: 0 on the other side of a diagonal"""

    def rule(c: Context, x: Any, diagonal: int = 0) -> fx.Node:
        x = c.tensor(x)
        ones = torch.ones(c.b.shape(x)[-2:])
        kept = ones.tril(diagonal) if lower else ones.triu(diagonal)
        mask = c.tensor(Constant(kept))
        return c.b.call(ir.where, mask, x, 0.0)

    return rule


def diagonal(c: Context, x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> fx.Node:
    """Both dimensions as one, of which some are taken; they come last."""
    x = c.tensor(x)
    rank = c.b.rank(x)
    dim1, dim2 = dim1 % rank, dim2 % rank
    kept = [d for d in range(rank) if d not in (dim1, dim2)]
    last = c.b.permute(x, (*kept, dim1, dim2))
    flat = c.b.reshape(last, [(*s[:-2], s[-2] * s[-1]) for s in c.b.shapes(last)])
    rows, columns = c.b.shape(last)[-2:]
    places = torch.arange(rows * columns).reshape(rows, columns).diagonal(offset)
    if len({s[-2:] for s in c.b.shapes(last)}) > 1:
        raise c.unsupported("takes a diagonal of the batch")
    return c.b.call(ir.take, flat, rank - 2, tuple(int(i) for i in places))


def diag_embed(c: Context, x: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> fx.Node:
    if (offset, dim1, dim2) != (0, -2, -1):
        raise c.unsupported("a matrix with numbers beside its main diagonal")
    x = c.tensor(x)
    wide = c.b.reshape(x, [(*s, 1) for s in c.b.shapes(x)])
    return c.b.call(ir.mul, wide, c.tensor(Constant(torch.eye(c.b.shape(x)[-1]))))


RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("outer", "ger"), outer),
    "inner": inner,
    "tensordot": tensordot,
    "addr": addr,
    "kron": kron,
    "cross": cross,
    "linalg_cross": linalg_cross,
    "bilinear": bilinear,
    "tril": triangle(lower=True),
    "triu": triangle(lower=False),
    **dict.fromkeys(("diagonal", "linalg_diagonal"), diagonal),
    "diag_embed": diag_embed,
}
