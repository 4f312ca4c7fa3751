"""How the numbers of one output are compared: squared error over variance, column by column.

A column is what has a meaning and a unit of its own: a number of a row, a channel of a map. Each is
measured by its own variance over images and places: 0 for equal numbers, 1 for the column's mean in
place of every number (1 − R²). What choices do to an output is weighed by the mean over columns, so
that a large one does not hide a small one. A column that hardly moves is measured by a hundredth of
its size. Integers are compared as one-hot vectors are, where the same formula gives twice the share
that differs over Gini's impurity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from shrinkc.errors import InputError

Divergence = Callable[[Tensor, Tensor], Tensor]  # of an output from the reference's: (n,)

SIZE, RESOLUTION = 1e-2, 1e-9  # least standard deviation: of a column's size, of the output's
SUMS_TO_ONE = 1e-3


@dataclass(frozen=True)
class Output:
    """One output of a network.

    axis       that columns lie along; None: all numbers mean the same
    variances  of each column
    batched    whether the first dimension is that of the images; otherwise the output is one answer
               to a whole batch
    """

    axis: int | None
    variances: tuple[float, ...]
    batched: bool = True

    def columns(self, x: Tensor) -> Tensor:
        """(n, columns, places); n is 1 where the output is not `batched`."""
        x = x if self.batched else x[None]
        axis = None if self.axis is None else self.axis + (not self.batched)
        x = x.unsqueeze(1) if axis is None else x.movedim(axis, 1)
        return x.reshape(*x.shape[:2], -1)

    def errors(self, got: Tensor, want: Tensor) -> Tensor:
        """Mean squared error of each column: (n, columns). Infinity equals itself, and where the
        reference has no answer any will do."""
        if not want.is_floating_point():
            return 2 * self.columns((got != want).to(torch.float32)).mean(2)
        squares = ((got - want) ** 2).nan_to_num(math.inf)
        squares = squares.masked_fill((got == want) | want.isnan(), 0.0)
        return self.columns(squares).mean(2)

    def moments(self, want: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and mean square of each column's finite numbers: (n, columns) in float64."""
        columns = self.columns(_finite(want))
        means, squares = (x.nanmean(2).nan_to_num(0.0) for x in (columns, columns.square()))
        return means, squares

    def divergence(self, got: Tensor, want: Tensor) -> Tensor:
        """Error over variance: (n,)."""
        errors = self.errors(got, want)
        return (errors / self.measures(errors)).mean(1)

    def measures(self, errors: Tensor) -> Tensor:
        """The variances for errors (…, columns): of an output whose columns are as many as a batch
        has images, in batches of another size, their mean."""
        known = errors.new_tensor(self.variances)
        return known if len(known) == errors.shape[-1] else known.mean()


def output_of(reference: Tensor, samples: int) -> Output:
    """By a network's answer to `samples` images."""
    batched = reference.ndim > 0 and len(reference) == samples
    if not reference.is_floating_point():
        counts = np.unique(reference.numpy(force=True), return_counts=True)[1]
        alike = float(np.square(counts / reference.numel()).sum())
        return Output(None, (1 - alike or 1.0,), batched)
    found = Output(_axis(reference), (), batched)
    variances = least_variance(*_spread(found.columns(_finite(reference)), (0, 2)))
    return replace(found, variances=tuple(float(f"{float(v):.6g}") for v in variances))


def _finite(x: Tensor) -> Tensor:
    """In float64; NaN for infinity."""
    wide = x.double()
    return wide.masked_fill(wide.isinf(), math.nan)


def _spread(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Variance and mean square over `dims`, of what is no NaN; 0 where there is nothing else."""
    centred = x - x.nanmean(dims, keepdim=True)
    variance, squares = (one.square().nanmean(dims).nan_to_num(0.0) for one in (centred, x))
    return variance, squares


def least_variance(variances: Tensor, squares: Tensor) -> Tensor:
    """Of columns (…, columns) whose mean squares are `squares`: what they are measured by."""
    whole = squares.mean(-1, keepdim=True)
    least = torch.maximum(SIZE**2 * squares, RESOLUTION**2 * whole)
    return torch.maximum(variances, least).clamp(min=1e-30)


def _axis(x: Tensor) -> int | None:
    """Dimension 1, unless numbers differ more in mean and spread along another: where columns have
    half the variance, the geometric mean. What sums to one along dimension 1 is of one kind."""
    several = [axis for axis in range(1, x.ndim) if x.shape[axis] > 1]
    if not several or (1 in several and sum_to_one(x)):
        return None

    def spread(axis: int) -> float:
        columns = _finite(x).movedim(axis, 0).flatten(1)
        found = least_variance(*_spread(columns, (1,)))
        return float(found.log().mean()) - (math.log(2) if axis == several[0] else 0.0)

    return min(several, key=spread)


def sum_to_one(x: Tensor) -> bool:
    """Whether numbers along dimension 1 are probabilities."""
    off = (x.double().sum(1) - 1).abs().max()
    return bool((x >= 0).all()) and float(off) < SUMS_TO_ONE


def outputs_of(
    reference: Sequence[Tensor], samples: int, weights: Sequence[float]
) -> tuple[Output, ...]:
    """Of all outputs. Raises InputError for `weights` that are not one for each."""
    if weights and len(weights) != len(reference):
        raise InputError(
            f"`output_weights` has {len(weights)} numbers for {len(reference)} outputs; give one "
            "for each, in the network's order"
        )
    return tuple(output_of(one, samples) for one in reference)


def check_weights(weights: Sequence[float]) -> None:
    """Raise InputError unless they are finite, none below 0, and not all 0."""
    if weights and not (all(0 <= w < math.inf for w in weights) and any(weights)):
        raise InputError(
            f"`output_weights` {','.join(f'{w:g}' for w in weights)}: give finite numbers from 0 "
            "on, one of them above 0"
        )


def summed(
    answer: Sequence[Tensor],
    reference: Sequence[Tensor],
    outputs: Sequence[Output],
    own: Mapping[int, Divergence] | None = None,
    weights: Sequence[float] = (),
) -> Tensor:
    """What `answer` is from `reference` over all outputs: (n,). Those in `own`, by their places,
    diverge in a way of their own, the others by error over variance. An output without a batch
    counts for every sample."""
    own = own or {}
    parts = [
        own.get(place, output.divergence)(got, want)
        for place, (got, want, output) in enumerate(zip(answer, reference, outputs, strict=True))
    ]
    if weights:
        parts = [weight * part for weight, part in zip(weights, parts, strict=True)]
    count = max(len(part) for part in parts)
    found = parts[0].expand(count)
    for part in parts[1:]:
        found = found + part
    return found
