"""Parts of a report that not every compilation has: what was planned, judged, measured besides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shrinkc.compiler.quantise.noise import LayerNoise
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.passes.base import Skip

Choice = Literal["merge", "drop", "narrow", "slice", "exact", "keep"]


@dataclass(frozen=True)
class ChoiceRow:
    """One choice of a plan, for what lies between two nodes.

    source, sink     names of nodes, the first outside, as spans have them; both a channel group's
    channels_before  of the layer or its group, where widths are chosen
    precision        that the choice runs in, and that its saving was priced in
    saving_ms        by the target's table; negative where it costs
    loss             what the choice alone adds to the loss
    agreement        share of the images on which it alone agrees with the original, 0 to 1
    """

    source: str
    sink: str
    kind: Choice
    channels_before: int | None
    channels_after: int | None
    precision: str
    saving_ms: float
    loss: float | None
    agreement: float | None


@dataclass(frozen=True)
class PlanSection:
    """What was decided, how, and what was considered and refused."""

    method: str
    choices: tuple[ChoiceRow, ...]
    refused: tuple[Skip, ...] = ()


@dataclass(frozen=True)
class FrontierPoint:
    """One network that was within reach. `speedup` is over the fp32 original by the table; times
    in ms; `top1` and `agreement` are shares of the evaluation images, 0 to 1; `chosen`: it is the
    one that was written."""

    speedup: float
    predicted_ms: float | None
    measured_ms: float | None
    top1: float | None
    agreement: float | None
    precision: str
    chosen: bool


@dataclass(frozen=True)
class TableSection:
    """Where predictions come from. `kind`: measured or fitted. `error_percent`: the table's mean
    absolute error over networks that it was not made from, in the report's precision."""

    device: str
    runtime: str
    kind: str
    source: str
    error_percent: float | None


@dataclass(frozen=True)
class Judged:
    """A changed network beside the one it was made from, both in PyTorch and fp32: shares of the
    images, by the task's score. `original_top1` and `changed_top1` are means of the task's
    `metric`, whichever it is; None without labels."""

    images: int
    agreement: float
    original_top1: float | None
    changed_top1: float | None
    metric: str = CLASSIFICATION.metric

    @property
    def lost(self) -> float:
        """Of the metric, −1 to 1; without labels of the agreement."""
        if self.original_top1 is None or self.changed_top1 is None:
            return 1 - self.agreement
        return self.original_top1 - self.changed_top1

    def __str__(self) -> str:
        scores = ""
        if self.original_top1 is not None and self.changed_top1 is not None:
            before, after = self.original_top1, self.changed_top1
            scores = f"; {self.metric} {before:.2%} before, {after:.2%} after"
        return (
            f"on {counted(self.images, 'other image')} it agrees with the original on "
            f"{self.agreement:.1%}{scores} (PyTorch, fp32)"
        )


@dataclass(frozen=True)
class Sections:
    """What the caller of a compilation knows and the compilation does not.

    command    as it was typed, quoted for a shell
    changed    what was done to the network before: "shrunk", "pruned"; None: nothing
    judged     the changed network; None where nothing was changed, or no images were left
    """

    command: str | None = None
    changed: str | None = None
    judged: Judged | None = None
    plan: PlanSection | None = None
    frontier: tuple[FrontierPoint, ...] = ()
    noise: tuple[LayerNoise, ...] = ()
