"""What pruning costs, measured: how far the outputs move when one channel group alone is pruned.

Scores say which channel of a group matters least; how much a group may lose is measured: the
divergence of the outputs from the original's on images that no fit saw, at a few widths (Li et
al., 2017, have the sensitivity of layers for that), between them interpolated. Where the network
will be compensated, the group's readers are compensated before it is judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from shrinkc.compiler.recover.compensate import compensate
from shrinkc.compiler.recover.divergence import apart
from shrinkc.compiler.support.journal import Journal, digest_of
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Answer, Task
from shrinkc.compiler.width.allocation import Space
from shrinkc.passes.base import copy_graph
from shrinkc.passes.channels.mask_channels import mask_channels
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.base import most_important
from shrinkc.passes.criteria.shared.data import Batch

SHARES = (7 / 8, 3 / 4, 1 / 2, 1 / 4)  # of a group, where it is judged
HELD_OUT = 4  # every fourth batch judges
FITTED = 3  # batches, at most, that a reader of one group is compensated on
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MeasuredDamage:
    """Judges groups on `batches`, more than one of them. `compensates`: readers are fitted first.

    task    what answers mean, and how far they are apart
    folder  keeps what was measured, by the network, `seen` (what the scores and images are) and
            the settings; None: nothing is kept
    """

    batches: Sequence[Batch]
    compensates: bool
    seen: str = ""
    folder: Path | None = None
    progress: Progress = field(default_factory=Silent)
    task: Task = CLASSIFICATION

    def losses(self, graph: fx.GraphModule, space: Space) -> dict[str, Floats]:
        """Group → loss at each of its candidate widths, rising as they fall."""
        held = [b for i, b in enumerate(self.batches) if i % HELD_OUT == HELD_OUT - 1]
        fit = [b for i, b in enumerate(self.batches) if i % HELD_OUT != HELD_OUT - 1][:FITTED]
        held = held or list(self.batches[-1:])
        teacher = copy_graph(graph).eval()
        wanted = [_answer(teacher, inputs) for inputs, _ in held]
        seen = f"bears {self.task!r} {self.seen} {self.compensates}"
        journal = Journal(self.folder, digest_of(graph, seen), count=1)
        points = {name: _points(widths) for name, widths in space.candidates.items()}
        total = sum(map(len, points.values()))
        found: dict[str, Floats] = {}
        with self.progress.task("Measuring what each group loses", total) as done:
            for name, widths in points.items():
                measured = {space.candidates[name][-1]: 0.0}
                for width in widths:
                    label = f"{name} {width}"
                    if label not in journal.entries:
                        changed = self._alone(graph, space, name, width, fit)
                        journal.put(label, [self._divergence(changed, held, wanted)])
                    measured[width] = journal.entries[label][0]
                    done()
                found[name] = _between(space.candidates[name], measured)
        return found

    def _alone(
        self, graph: fx.GraphModule, space: Space, name: str, width: int, fit: Sequence[Batch]
    ) -> fx.GraphModule:
        mask = most_important(space.groups[name], space.scores[name], width)
        slicing = SliceChannels(Selection({name: mask}))
        if self.compensates:
            slicing = SliceChannels(compensate(graph, slicing, fit).selection)
        return mask_channels(graph, slicing).eval()

    def _divergence(
        self, graph: fx.GraphModule, held: Sequence[Batch], wanted: Sequence[Answer]
    ) -> float:
        total = count = 0.0
        for (inputs, _), want in zip(held, wanted, strict=True):
            total += apart(self.task, _answer(graph, inputs), want, len(inputs[0]))
            count += len(inputs[0])
        return total / count


def _points(candidates: Sequence[int]) -> list[int]:
    """The candidates nearest to `SHARES` of the widest, and the smallest."""
    whole = candidates[-1]
    near = [min(candidates, key=lambda n, s=share: abs(n - s * whole)) for share in SHARES]
    return sorted({*near, candidates[0]} - {whole}, reverse=True)


def _between(candidates: Sequence[int], measured: Mapping[int, float]) -> Floats:
    """Interpolated; what a narrower group loses is at least what a wider one does."""
    widths = sorted(measured, reverse=True)
    rising = np.maximum.accumulate([max(measured[width], 0.0) for width in widths])
    return np.interp(candidates, widths[::-1], rising[::-1])


@torch.no_grad()
def _answer(graph: fx.GraphModule, inputs: tuple[Tensor, ...]) -> Answer:
    return graph(*inputs)
