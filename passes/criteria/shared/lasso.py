"""The LASSO's whole path, exactly: where each coefficient enters (LARS, Efron et al., 2004)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Numbers = npt.NDArray[np.float64]
_MOST_KNOTS = 8  # for each coefficient; correlated ones may leave and come back
_linalg: Any = torch.linalg  # its results have no types


@dataclass(frozen=True, eq=False)
class Path:
    """Knots of β(λ) = argmin ½βᵀAβ − bᵀβ + λ‖β‖₁, linear between them.

    penalties  (knots,) descending, to 0
    values     (knots, n)
    """

    penalties: Numbers
    values: Numbers

    def entries(self) -> Numbers:
        """(n,) The penalty below which each coefficient is nonzero for good; 0: never."""
        nonzero = self.values != 0
        # the last knot at which it is zero, before it stays nonzero
        last = np.array([max(np.flatnonzero(~column), default=-1) for column in nonzero.T])
        never = last == len(self.penalties) - 1
        return np.where(never, 0.0, self.penalties[np.minimum(last, len(self.penalties) - 1)])


def lasso_path(gram: Numbers, cross: Numbers) -> Path:
    """The path for a symmetric positive semidefinite A (n, n) and b (n,).

    Coefficients whose column depends on the active ones stay out.
    """
    scale = max(float(np.diag(gram).mean()), 1e-300)
    beta, active, solver = np.zeros(len(cross)), list[int](), _Active(gram)
    barred = np.diag(gram) <= 1e-12 * scale
    residual = cross.copy()
    free = ~barred
    penalty = float(np.abs(residual[free]).max()) if free.any() else 0.0
    knots, values = [penalty], [beta.copy()]
    joining: int | None = int(np.argmax(np.where(free, np.abs(residual), -1))) if penalty else None
    left: int | None = None  # it lies on one bound, and must not come back at once
    for _ in range(_MOST_KNOTS * len(cross)):
        if joining is not None:
            if solver.joined(joining, 1e-12 * scale):
                active.append(joining)
            else:
                barred[joining] = True
        if not active or penalty <= 0:
            break
        signs = np.sign(residual[active])
        direction = solver.solved(signs)
        slope = gram @ _spread(direction, active, len(cross))
        out = np.stack([~barred, ~barred])
        out[:, active] = False
        if left is not None:
            out[int(residual[left] < 0), left] = False
        step, joining, leaving = _next((penalty, residual, slope), out, beta[active], direction)
        beta[active] += step * direction
        residual = cross - gram @ beta
        penalty = max(penalty - step, 0.0)
        left = None
        if leaving is not None:
            solver.left(leaving)
            left = active.pop(leaving)
            beta[left] = 0.0
        knots.append(penalty)
        values.append(beta.copy())
    return Path(np.array(knots), np.array(values))


def _next(
    state: tuple[float, Numbers, Numbers],
    out: npt.NDArray[np.bool_],
    values: Numbers,
    direction: npt.NDArray[np.floating[Any]],
) -> tuple[float, int | None, int | None]:
    """(how far the penalty falls, who joins, whose place in `active` is given up).

    out  (2, n) who may join at the upper and at the lower bound
    """
    penalty, residual, slope = state
    step, joining, leaving = penalty, None, None
    with np.errstate(divide="ignore", invalid="ignore"):
        for sign, may in ((1.0, out[0]), (-1.0, out[1])):
            # residual − step·slope meets ±(penalty − step)
            at = (penalty - sign * residual) / (1 - sign * slope)
            at = np.where(may & np.isfinite(at) & (at > 1e-12 * penalty), at, np.inf)
            if at.min(initial=np.inf) < step:
                step, joining = float(at.min()), int(at.argmin())
        zero = np.where(values * direction < 0, -values / direction, np.inf)
    if zero.min(initial=np.inf) < step:
        return float(zero.min()), None, int(zero.argmin())
    return step, joining, leaving


def _spread(numbers: Numbers, places: list[int], size: int) -> Numbers:
    """0 elsewhere."""
    whole = np.zeros(size)
    whole[places] = numbers
    return whole


class _Active:
    """Solves for the active coefficients by Cholesky's factor, which grows by a row with each: a
    step costs the square of their number. It is made anew where one leaves."""

    def __init__(self, gram: Numbers) -> None:
        self._gram = torch.tensor(gram)
        self._factor = torch.zeros_like(self._gram)
        self._active: list[int] = []

    def joined(self, new: int, least: float) -> bool:
        """Take in a coefficient; not if beside the active ones nothing is left of its column."""
        size = len(self._active)
        row = self._below(self._gram[self._active, new])
        left = float(self._gram[new, new] - row @ row)
        if self._active and left <= least:
            return False
        self._factor[size, :size], self._factor[size, size] = row, left**0.5
        self._active.append(new)
        return True

    def left(self, place: int) -> None:
        """The coefficient at this place is no longer active."""
        del self._active[place]
        size, rest = len(self._active), torch.tensor(self._active)
        if size > place:
            own = self._gram[rest[:, None], rest]
            self._factor[:size, :size] = _linalg.cholesky(own)

    def solved(self, right: Numbers) -> Numbers:
        """Of the active ones' equations."""
        return self._above(self._below(torch.tensor(right))).numpy()

    def _below(self, right: Tensor) -> Tensor:
        size = len(right)
        own = self._factor[:size, :size]
        return _linalg.solve_triangular(own, right[:, None], upper=False)[:, 0]

    def _above(self, right: Tensor) -> Tensor:
        size = len(right)
        own = self._factor[:size, :size].T
        return _linalg.solve_triangular(own, right[:, None], upper=True)[:, 0]
