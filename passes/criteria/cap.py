"""CaP (Xie et al., Pruning with Compensation, 2021, arXiv 2108.13728).

Pruning compensation: what reads a pruned group gets the weights that, by least squares, best
reproduce its outputs from the channels that stay (`compensate` of `shrinkc.compiler.prune`).
Compensation-aware selection: the channel goes next whose removal loses least *after* compensation.
Structural search: widths follow from one threshold for all layers, found by bisection, and in one
round no layer loses more than a given share, after which everything is judged anew (the rounds
and the bounds are this module's reading of the search; `compensated_scores` of
`shrinkc.compiler.prune` judges the compensated network).

The selection is backward elimination, exact in each step (optimal brain surgeon): with
G = Σ xxᵀ of what a layer reads and B = G⁻¹Σ xyᵀ, removing the rows i costs
tr(B_iᵀ ((G⁻¹)_ii)⁻¹ B_i). Where several layers read a channel their costs, each relative to the
variance of what the layer computes, add up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import ChannelGroup, Groups
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.criteria.base import Scores, most_important, widths
from shrinkc.passes.criteria.shared.data import Batches
from shrinkc.passes.criteria.shared.readers import POSITIONS, ReaderSums, reader_sums
from shrinkc.passes.criteria.spec import CriterionSpec

_linalg: Any = torch.linalg  # its results have no types
RIDGE = 1e-5  # of the mean variance of what is read
_BISECTIONS = 60


@dataclass(frozen=True, eq=False)
class CaP:
    """Needs images, no labels. A channel's score is the relative error of its readers once it and
    all that go before it are gone and compensated. Groups that no convolution or linear layer reads
    are not judged."""

    batches: Batches
    positions: int = POSITIONS
    name: ClassVar[str] = "cap"

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Scores:
        found: dict[str, npt.NDArray[np.float64]] = {}
        for group, sums in reader_sums(graph_module, groups.groups, self.batches, self.positions):
            if sums:
                found[group.name] = elimination_scores(sums, group.size)
        return found


def elimination_scores(sums: Sequence[ReaderSums], size: int) -> npt.NDArray[np.float64]:
    """(size,) The relative error behind each channel's removal, summed over readers; the last
    channel's is that of having none."""
    states = [_Elimination(one, size) for one in sums]
    alive = torch.ones(size, dtype=torch.bool)
    scores, lost = np.zeros(size), 0.0
    for _ in range(size):
        costs = torch.stack([state.costs() for state in states]).sum(0)
        worst = int(torch.where(alive, costs, torch.inf).argmin())
        # a group's own channels cost the more the fewer are left; rounding must not turn that round
        lost += max(float(costs[worst]), 1e-15)
        scores[worst] = lost
        alive[worst] = False
        for state in states:
            state.remove(worst)
    return scores


class _Elimination:
    """One reader's least squares, from which channels are taken one after the other.

    rows  (channels with as many numbers, that many) → for channels with that many numbers in a row
    """

    def __init__(self, sums: ReaderSums, size: int) -> None:
        gram, weight = sums.covariance(), sums.block.weight()
        ridge = RIDGE * float(gram.diagonal().mean()) + 1e-30
        regular = gram + ridge * torch.eye(len(gram), dtype=torch.float64)
        energy = float((weight.T * (gram @ weight.T)).sum())
        self.scale = 1 / energy if energy > 0 else 0.0
        self.size = size
        self.inverse: Tensor = _linalg.inv(regular)
        self.solution = self.inverse @ (gram @ weight.T)
        self.rows: dict[int, Tensor] = {}
        by_channel: dict[int, list[int]] = {}
        for row, channel in enumerate(sums.channel.tolist()):
            if channel >= 0:
                by_channel.setdefault(channel, []).append(row)
        self.of_channel = {c: torch.tensor(rows) for c, rows in by_channel.items()}
        for many in sorted({len(rows) for rows in by_channel.values()}):
            self.rows[many] = torch.tensor([c for c, r in by_channel.items() if len(r) == many])

    def costs(self) -> Tensor:
        """(size,) What each channel's removal adds to the relative error."""
        found = torch.zeros(self.size, dtype=torch.float64)
        for channels in self.rows.values():
            rows = torch.stack([self.of_channel[int(c)] for c in channels])
            pivots = self.inverse[rows[:, :, None], rows[:, None, :]]
            part = self.solution[rows]
            found[channels] = (part * _linalg.solve(pivots, part)).sum((1, 2)) * self.scale
        return found

    def remove(self, channel: int) -> None:
        """The others are refitted."""
        rows = self.of_channel.get(channel)
        if rows is None:
            return
        pivot = self.inverse[rows][:, rows]
        between = self.inverse[:, rows].clone()
        self.solution -= between @ _linalg.solve(pivot, self.solution[rows])
        self.inverse -= between @ _linalg.solve(pivot, between.T.clone())
        self.solution[rows] = 0
        self.inverse[rows] = 0
        self.inverse[:, rows] = 0
        self.inverse[rows, rows] = 1


def structural_search(
    groups: Groups,
    judge: Callable[[Selection], Scores],
    cost: Callable[[Mapping[str, int]], float],
    budget: float,
    step: float = 0.1,
    multiple: int = 1,
    *,
    floor: float = 0.0,
) -> Selection:
    """Widths whose cost is within the budget, by one threshold on the scores of all groups.

    judge   scores of the network that a selection leaves (compensated, if wanted), for channels of
            the whole network; what is gone already is not asked about
    cost    of widths by group: MACs, parameters, milliseconds
    step    the largest share of a group's channels that goes in one round
    floor   share of a group's channels that always stays

    Each round bisects the threshold: the lowest whose widths meet the budget or, where the step
    does not let it be met, the step's own limit. Raises InputError for a step outside of (0, 1], or
    when the budget cannot be met, with the closest cost.
    """
    if not 0 < step <= 1:
        raise InputError(f"a step of {step:g}: give a share above 0, up to 1")
    keep = {g.name: np.ones(g.size, bool) for g in groups.groups}
    allowed = {
        g.name: [n for n in widths(g, multiple) if n >= floor * g.size] for g in groups.groups
    }
    while (now := cost(_counts(keep))) > budget:
        scores = judge(_selection(keep))
        narrower = _round(groups, keep, scores, cost, budget, step, allowed)
        if _counts(narrower) == _counts(keep):
            raise InputError(f"a budget of {budget:.4g} cannot be met; the closest is {now:.4g}")
        keep = narrower
    return _selection(keep)


Masks = dict[str, npt.NDArray[np.bool_]]


def _round(
    groups: Groups,
    keep: Masks,
    scores: Scores,
    cost: Callable[[Mapping[str, int]], float],
    budget: float,
    step: float,
    allowed: Mapping[str, Sequence[int]],
) -> Masks:
    judged = [g for g in groups.groups if g.name in scores]
    low = 0.0
    high = max((float(scores[g.name].max()) for g in judged), default=0.0) * 2 + 1

    def at(threshold: float) -> Masks:
        found = {
            g.name: _above(g, keep[g.name], scores[g.name], threshold, step, allowed[g.name])
            for g in judged
        }
        return {**keep, **found}

    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if cost(_counts(at(middle))) > budget:
            low = middle
        else:
            high = middle
    return at(high)


def _above(
    group: ChannelGroup,
    keep: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.float64],
    threshold: float,
    step: float,
    possible: Sequence[int],
) -> npt.NDArray[np.bool_]:
    """What is above the threshold, at a width that the group can have and the step allows; at least
    one width narrower is always allowed."""
    now = int(keep.sum())
    wanted = max(int((scores[keep] > threshold).sum()), 1)
    possible = [n for n in possible if n < now]
    limit = min(now - step * group.size, possible[-1]) if possible else now
    allowed = [n for n in possible if n >= max(wanted, limit)]
    if not allowed:
        return keep
    return most_important(group, np.where(keep, scores, -np.inf), allowed[0])


def _counts(keep: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in keep.items()}


def _selection(keep: Masks) -> Selection:
    return Selection({name: mask for name, mask in keep.items() if not mask.all()})


CAP = CriterionSpec(
    "cap",
    CaP,
    lambda given: CaP(given.batches),
    "images",
    normalise="cumulative",
    compensates=True,
)
