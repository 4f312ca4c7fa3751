"""Parts of a report that not every compilation has: what was planned, judged, measured besides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shrinkc.compiler.quantise.noise import LayerNoise
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.tally import ErrorEstimate, Estimate, Judgement
from shrinkc.compiler.tasks.task import Style, Task
from shrinkc.compiler.tasks.wording import (
    drop_words,
    error_words,
    likeness_words,
    score_words,
)
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
    agreement        share of the images on which it alone agrees with the original, 0 to 1; None
                     where answers are not scored
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
class ResolutionRow:
    """Images are made smaller: `size` (height, width) instead of `size_before`. The numbers are
    those of a choice."""

    size: tuple[int, int]
    size_before: tuple[int, int]
    precision: str
    saving_ms: float
    loss: float | None
    agreement: float | None


@dataclass(frozen=True)
class PlanSection:
    """What was decided, how, and what was considered and refused. `promise`: what it was judged to
    cost, of the file in the plan's precision, on images that it was not fitted to."""

    method: str
    choices: tuple[ChoiceRow, ...]
    refused: tuple[Skip, ...] = ()
    promise: Judged | None = None
    resolution: ResolutionRow | None = None


@dataclass(frozen=True)
class FrontierPoint:
    """One network that was within reach. `speedup` is over the fp32 original by the table; times
    in ms; `top1` and `agreement` are shares of the evaluation images, 0 to 1, `error` is the
    largest of any output's over its variance; `chosen`: it is the one that was written."""

    speedup: float
    predicted_ms: float | None
    measured_ms: float | None
    top1: float | None
    agreement: float | None
    precision: str
    chosen: bool
    error: float | None = None


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
    """A changed network beside the one it was made from, on `images` that it was not fitted to.

    agreement, original_top1, changed_top1
           by the task's scores, `top1` being the task's `metric`, whichever it is; None where
           answers are not scored, or without labels
    drop   of the metric: what is lost, with its interval of 95% confidence
    errors of every output: squared error over variance, with its interval
    style  how the metric's scores are written; `likeness`: what `agreement` is
    """

    images: int
    agreement: float | None
    original_top1: float | None
    changed_top1: float | None
    metric: str = CLASSIFICATION.metric
    drop: Estimate | None = None
    errors: tuple[ErrorEstimate, ...] = ()
    style: Style = "percent"
    likeness: str = CLASSIFICATION.likeness

    @classmethod
    def of(cls, found: Judgement, task: Task) -> Judged:
        return cls(
            *(found.images, found.agreement, found.original_score, found.score),
            *(task.metric, found.drop, found.errors, task.style, task.likeness),
        )

    @property
    def lost(self) -> float:
        """Of the metric; without labels of the agreement; where answers are not scored, the largest
        error of any output over its variance."""
        if self.original_top1 is not None and self.changed_top1 is not None:
            return self.original_top1 - self.changed_top1
        if self.agreement is None:
            return max((error.value for error in self.errors), default=0.0)
        return 1 - self.agreement

    def __str__(self) -> str:
        others = f"on {counted(self.images, 'other image')}"
        scores = ""
        if self.original_top1 is not None and self.changed_top1 is not None:
            before, after = (
                score_words(one, self.style) for one in (self.original_top1, self.changed_top1)
            )
            scores = f"; {self.metric} {before} before, {after} after"
        if self.drop is not None:
            how = "counted" if scores else "expected, without labels"
            lost = drop_words(self.metric, self.drop.value, self.drop.ends, how, self.style)
            scores += f"; {lost}"
        alike = f": {error_words(self.errors)}"
        if self.agreement is not None:
            alike = f" {likeness_words(self.likeness, self.agreement, 'the original')}"
        return f"{others}{alike}{scores} (PyTorch, fp32)"


@dataclass(frozen=True)
class Sections:
    """What the caller of a compilation knows and the compilation does not.

    command    as it was typed, quoted for a shell
    changed    what was done to the network before: "shrunk", "pruned"; None: nothing
    judged     the changed network; None where nothing was changed, or no images were left
    notes      more of them
    """

    command: str | None = None
    changed: str | None = None
    judged: Judged | None = None
    plan: PlanSection | None = None
    frontier: tuple[FrontierPoint, ...] = ()
    noise: tuple[LayerNoise, ...] = ()
    notes: tuple[str, ...] = ()
