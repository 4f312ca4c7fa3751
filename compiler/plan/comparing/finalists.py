"""The last candidates for one plan, one of each way, and which of them is nearest to the original.

What single choices cost alone, added up, says which set of one way is best. It says less of which
way is: sums grow faster than what is lost, and not equally in depth, width and precision. So the
best set of every way that comes near is fitted quickly, by least squares on a few images, and
judged on images that no fit saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from shrinkc.compiler.plan.comparing.true_loss import QuickFits
from shrinkc.compiler.plan.int8_variants import PrecisionVariant
from shrinkc.compiler.plan.judging import Judge
from shrinkc.compiler.plan.slicings import Slicing
from shrinkc.compiler.support.progress import Progress

MOST, NEAR = 4, 3  # candidates that are fitted; times the least damage that they have at most


@dataclass(frozen=True, eq=False)
class Candidate:
    """Choices by their numbers in one slicing, in one precision. `damage`: of each alone, summed
    up."""

    variant: PrecisionVariant
    slicing: Slicing
    chosen: Sequence[int]
    damage: float


Ranked = tuple[float, Candidate]  # with what it loses by a quick fit


def finalists(found: Sequence[Candidate]) -> list[Candidate]:
    """Those that come near the least damage, the least first."""
    ordered = sorted(found, key=lambda one: one.damage)
    return [one for one in ordered if one.damage <= NEAR * ordered[0].damage][:MOST]


def ranked(
    found: Sequence[Candidate],
    starts: dict[str, fx.GraphModule],
    judge: Judge,
    progress: Progress,
) -> list[Ranked]:
    """The least first, int8 by what it loses alone. `starts`: precision → the network that choices
    are made in."""
    rows: list[Ranked] = []
    with progress.task("Comparing candidates", len(found)) as done:
        for one in found:
            quick = QuickFits(one.slicing, starts[one.variant.precision], judge)
            rows.append((quick.held_out_loss(one.chosen) + one.variant.damage, one))
            done()
    return sorted(rows, key=lambda row: row[0])
