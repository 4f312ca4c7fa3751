"""Least squares from sums: any number of images, the memory of one layer.

With rows x of d numbers and targets y, everything that ridge regression needs is in

    G = Σ [x 1]ᵀ[x 1],   C = Σ [x 1]ᵀ y,   S = Σ y²

W = argmin Σ‖y − Wx − b‖² + λ‖W − W₀‖², the bias not regularised, and the error of any (W, b) on
images that were held out, follow from them. Products are float32 batch by batch, around the first
batch's means, and sums float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_linalg: Any = torch.linalg  # its results have no types
LAZY = 64  # rows
LAMBDAS = tuple(10.0**e for e in (-7, -6, -5, -4, -3, -2.5, -2, -1.5, -1, -0.5, 0, 1))


class Normal:
    """The sums. `size` numbers in a row, `targets` in its target."""

    def __init__(self, size: int, targets: int) -> None:
        self.gram = torch.zeros(size + 1, size + 1, dtype=torch.float64)
        self.cross = torch.zeros(size + 1, targets, dtype=torch.float64)
        self.square = 0.0
        self.x0, self.y0 = torch.zeros(0), torch.zeros(0)

    @property
    def count(self) -> float:
        return float(self.gram[-1, -1])

    def centred_at(self, x0: Tensor, y0: Tensor) -> None:
        """Numbers to subtract from rows and targets, so that float32 products lose little."""
        self.x0, self.y0 = x0, y0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Rows (n, size) and targets (n, targets), float32."""
        if not len(self.x0):
            self.centred_at(x.mean(0), y.mean(0))
        x, y = x - self.x0, y - self.y0
        self.gram[:-1, :-1] += (x.T @ x).double()
        self.gram[:-1, -1] += x.sum(0).double()
        self.gram[-1, :-1] = self.gram[:-1, -1]
        self.gram[-1, -1] += len(x)
        self.cross[:-1] += (x.T @ y).double()
        self.cross[-1] += y.sum(0).double()
        self.square += float((y.double() ** 2).sum())

    def plus(self, other: Normal) -> Normal:
        """Sums of both; their means are the same."""
        total = Normal(len(self.gram) - 1, self.cross.shape[1])
        total.gram, total.cross = self.gram + other.gram, self.cross + other.cross
        total.square = self.square + other.square
        total.centred_at(self.x0, self.y0)
        return total

    def part(self, rows: Tensor) -> Normal:
        """The sums of some of the numbers of a row."""
        part = Normal(len(rows), self.cross.shape[1])
        index = torch.cat([rows, torch.tensor([len(self.gram) - 1])])
        part.gram, part.cross = self.gram[index][:, index], self.cross[index]
        part.square = self.square
        part.centred_at(self.x0[rows], self.y0)
        return part

    def centred(self) -> tuple[Tensor, Tensor]:
        """Covariances (size, size) and (size, targets), times the count."""
        total, mean = self.gram[:-1, -1], self.cross[-1] / self.count
        gram = self.gram[:-1, :-1] - torch.outer(total, total) / self.count
        return gram, self.cross[:-1] - torch.outer(total, mean)

    def error(self, solution: Solution) -> float:
        """Σ ‖y − Wx − b‖²."""
        shift = solution.bias + solution.weight @ self.x0.double() - self.y0.double()
        full = torch.cat([solution.weight.T, shift[None]])
        return self.square + float((full * (self.gram @ full - 2 * self.cross)).sum())

    def spread(self) -> float:
        """Σ ‖y − mean‖²."""
        return self.square - float((self.cross[-1] ** 2).sum()) / self.count


@dataclass(frozen=True, eq=False)
class Solution:
    """weight (targets, size), bias (targets,), float64."""

    weight: Tensor
    bias: Tensor


def solve(normal: Normal, ridge: float, prior: Tensor | None = None) -> Solution:
    """`ridge` relative to the mean variance of the rows; `prior` (targets, size) or zero."""
    gram, cross = normal.centred()
    start = torch.zeros_like(cross) if prior is None else prior.T
    strength = ridge * float(gram.diagonal().mean()) + 1e-12
    regular = gram + strength * torch.eye(len(gram), dtype=torch.float64)
    step: Tensor = _linalg.solve(regular, cross - gram @ start)
    weight = (start + step).T
    means = normal.gram[:-1, -1] / normal.count + normal.x0.double()
    bias = normal.cross[-1] / normal.count + normal.y0.double() - weight @ means
    return Solution(weight, bias)


@dataclass(frozen=True)
class Ridge:
    """The strength, as `solve` takes it, and which prior it draws to."""

    strength: float
    prior: int


def best(fit: Normal, held: Normal, priors: Sequence[Tensor | None]) -> tuple[Solution, float]:
    """With the ridge and prior of the least error on the held-out rows; as `ridged`."""
    return ridged(fit, held, priors, ridge(fit, held, priors))


def ridge(fit: Normal, held: Normal, priors: Sequence[Tensor | None]) -> Ridge:
    """That of the least error on the held-out rows."""
    gram, cross = fit.centred()
    found: tuple[Tensor, Tensor] = _linalg.eigh(gram)
    values, vectors = found[0].clamp(min=0), found[1]
    scale = float(values.mean()) + 1e-12
    means = fit.gram[:-1, -1] / fit.count + fit.x0.double()
    target = fit.cross[-1] / fit.count + fit.y0.double()
    tried: list[tuple[float, float, int]] = []
    for i, prior in enumerate(priors):
        start = torch.zeros_like(cross) if prior is None else prior.T
        rest = vectors.T @ (cross - gram @ start)
        for strength in LAMBDAS:
            weight = (start + vectors @ (rest / (values + strength * scale)[:, None])).T
            solution = Solution(weight, target - weight @ means)
            tried.append((held.error(solution), strength, i))
    _, strength, i = min(tried, key=lambda t: t[0])
    return Ridge(strength, i)


def ridged(
    fit: Normal, held: Normal, priors: Sequence[Tensor | None], how: Ridge
) -> tuple[Solution, float]:
    """Solved on all rows; and the error on the held-out rows of what the others say, relative to
    the variance of the held-out targets."""
    prior = priors[how.prior]
    error = held.error(solve(fit, how.strength, prior)) / max(held.spread(), 1e-30)
    return solve(fit.plus(held), how.strength, prior), error


def elimination_order(gram: Tensor, cross: Tensor, group: int, fewest: int) -> list[int]:
    """Channels in the order in which least squares misses them least, the first to go first.

    gram   (n, n) G, inner products of what is read; float64
    cross  (n, outputs) C, those with the targets

    Rows hold `group` neighbouring numbers a channel (the positions of a kernel). Each step takes
    the channel whose removal raises the error least after all others are refitted:
    tr(Bᵢᵀ (G⁻¹)ᵢᵢ⁻¹ Bᵢ) with B = G⁻¹C (optimal brain surgeon, exact for least squares). Stops
    when `fewest` channels are left.
    """
    size, channels = len(gram), len(gram) // group
    ridge = 1e-5 * float(gram.diagonal().mean()) + 1e-12
    left = _Left(_linalg.inv(gram + ridge * torch.eye(size, dtype=torch.float64)), group)
    solution = left.inverse @ cross
    alive = torch.ones(channels, dtype=torch.bool)
    order: list[int] = []
    for _ in range(channels - fewest):
        part = solution.reshape(channels, group, -1)
        cost = (part * _divided(part, left.blocks)).sum((1, 2))
        worst = int(torch.where(alive, cost, torch.inf).argmin())
        rows, block = slice(worst * group, (worst + 1) * group), left.blocks[worst].clone()
        taken = left.without(worst)
        solution.addmm_(taken.T, _divided(solution[rows], block), alpha=-1)
        solution[rows] = 0
        alive[worst] = False
        order.append(worst)
    return order


def _divided(rows: Tensor, blocks: Tensor) -> Tensor:
    """blocks⁻¹ rows, block by block."""
    return rows / blocks if blocks.shape[-1] == 1 else _linalg.solve(blocks, rows)


class _Left:
    """G⁻¹ of the channels that are left. Those of a channel that is gone are 0, its block is 1.

    Taking a channel out is a product of its rows, as tall as G is wide. These are kept and
    subtracted `LAZY` at once, as one matrix product; only the blocks on the diagonal are always up
    to date.
    """

    def __init__(self, inverse: Tensor, group: int) -> None:
        self.inverse, self.group = inverse, group
        channels, index = len(inverse) // group, torch.arange(len(inverse) // group)
        blocks = inverse.reshape(channels, group, channels, group)[index, :, index]
        self.blocks = blocks + 1e-15 * torch.eye(group, dtype=torch.float64)
        self._rows: list[Tensor] = []
        self._pivots: list[Tensor] = []
        self._gone = torch.zeros(len(inverse), dtype=torch.bool)

    def without(self, channel: int) -> Tensor:
        """Takes a channel out; its rows (group, size) as they were."""
        rows = slice(channel * self.group, (channel + 1) * self.group)
        now = self.inverse[rows].clone()
        if self._rows:
            now.addmm_(torch.cat(self._rows)[:, rows].T, torch.cat(self._pivots), alpha=-1)
        now[:, self._gone] = 0
        pivot = _divided(now, self.blocks[channel])
        each = (x.reshape(self.group, -1, self.group) for x in (now, pivot))
        self.blocks -= torch.einsum("gcr,gcs->crs", *each)
        self._gone[rows] = True
        self.blocks[channel] = torch.eye(self.group, dtype=torch.float64)
        self._rows.append(now)
        self._pivots.append(pivot)
        if len(self._rows) * self.group >= LAZY:
            self.inverse.addmm_(torch.cat(self._rows).T, torch.cat(self._pivots), alpha=-1)
            self._rows, self._pivots = [], []
        return now
