"""Which normalisation along dimensions a region is, however it is written.

Made of sums, products, powers and exponentials, such a region is analytic in its input: one that
agrees with the operator on random tensors agrees everywhere. A maximum along a dimension counts as
a number that cancels. What clamps or switches is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, fx, nn

from shrinkc.passes import ir
from shrinkc.passes.analysis.shapes import Shape
from shrinkc.passes.recognise.region import Numbers, Region

TOLERANCE = 1e-10
REDUCTIONS = (ir.mean, ir.sum_, ir.amax)
_ANALYTIC = (*ir.ARITHMETIC, torch.sqrt, torch.rsqrt, torch.exp, torch.log, ir.neg, torch.reshape)
_LARGEST_EPS = 0.1
# Of the inputs that are compared, and their shift; the least, beside which any eps is large, last.
_SCALES = ((1.0, 0.3), (0.05, 0.0), (6.0, -2.0), (1e-9, 0.0))


@dataclass(frozen=True, eq=False)
class Norm:
    """A module, and the dimension that has to be the last for it; None: it runs as things are."""

    module: nn.Module
    moved: int | None = None

    def orders(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The permutations in front and behind."""
        there = (*(d for d in range(rank) if d != self.moved), cast(int, self.moved))
        return there, tuple(there.index(d) for d in range(rank))

    def __call__(self, x: Tensor) -> Tensor:
        if self.moved is None:
            return self.module(x)
        there, back = self.orders(x.ndim)
        return self.module(x.permute(there)).permute(back)


def normalisation(
    graph_module: fx.GraphModule, region: Region, numbers: Numbers, shape: Shape
) -> Norm | None:
    """The operator that the region is of its source, which has this shape, or None."""
    reductions = [node for node in region.nodes if node.target in REDUCTIONS]
    dims = {cast("tuple[int, ...]", node.args[1]) for node in reductions}
    known = all(node.target in (*_ANALYTIC, *REDUCTIONS) for node in region.nodes)
    if not known or len(dims) != 1:
        return None
    over = dims.pop()
    if 0 in over:  # the batch
        return None
    candidates = list(_candidates(region, numbers, over, shape))
    size = _enough(region, over, shape)
    for scale, shift in _SCALES:
        if candidates:
            x = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            x = x * scale + shift
            got = region.run(graph_module, x, numbers)[region.sink]
            candidates = [c for c in candidates if _agree(got, c(x))]
    return candidates[0] if candidates else None


def _enough(region: Region, over: tuple[int, ...], shape: Shape) -> Shape:
    """The shape that is compared: other dimensions than the reduced ones are so many repetitions
    (reshapes name them, though)."""
    if any(node.target is torch.reshape for node in region.nodes):
        return shape
    return tuple(n if dim in over else min(n, 2) for dim, n in enumerate(shape))


def _agree(got: Tensor, want: Tensor) -> bool:
    return got.shape == want.shape and bool(
        ((got - want).abs() <= TOLERANCE * want.abs().max()).all()
    )


def _candidates(
    region: Region, numbers: Numbers, over: tuple[int, ...], shape: Shape
) -> Iterator[Norm]:
    rank = len(shape)
    if len(over) == 1:
        yield Norm(nn.Softmax(over[0]))
    last = over == tuple(range(rank - len(over), rank))
    if not last and len(over) > 1:
        return
    for eps in _small_numbers(region, numbers):
        norm = nn.LayerNorm([shape[d] for d in over], eps, elementwise_affine=False)
        yield Norm(norm, None if last else next(iter(over)))


def _small_numbers(region: Region, numbers: Numbers) -> Iterator[float]:
    """What may be the eps of a norm."""
    found = {0.0}
    for node in region.nodes:
        for operand in node.args:
            number = numbers(operand) if ir.is_node(operand) else operand
            if isinstance(number, float) and 0 < number <= _LARGEST_EPS:
                found.add(number)
    yield from sorted(found)
