"""A changed network's answers beside the original's, over any number of images.

Few images say little, so whatever is counted has an interval of 95% confidence. That of a drop of
the task's metric is where the drop on all images of the kind lies: half an image more is counted in
each of the four cells right or wrong, before and after (Agresti and Min, 2005), so that no change
on few images is no proof. That of an output's error is where the error on as many other images
lies, which are as chancy as these: by the jackknife over images, in logarithms, with Student's t of
as many degrees of freedom as there are images that carry the error: where it comes from few, one
more of their kind changes much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shrinkc.compiler.tasks.outputs import Output, least_variance, output_of
from shrinkc.compiler.tasks.task import Answer, Task, total

SURE = 1.96  # standard errors to either side: 95 of 100
ROUNDING = 1e-9  # error over variance that float32 may cause
WORST = 1e9  # stands for what is not finite
MOST_ROWS = 1000  # images that tell how an output's error varies over images


@dataclass(frozen=True)
class Estimate:
    """`value` with its 95% interval from `low` to `high`; both None where one image alone tells
    nothing of others."""

    value: float
    low: float | None
    high: float | None

    @property
    def ends(self) -> tuple[float, float] | None:
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class ErrorEstimate(Estimate):
    """Of one output: its mean squared error over the variance of all its numbers. `worst`: that of
    the column that suffers most over the column's own variance, which larger columns may hide."""

    worst: Estimate


@dataclass(frozen=True)
class Judgement:
    """What was found on `images` images.

    errors     of each output
    agreement  share of the answers, 0 to 1; None where they are not scored
    score, original_score  share that is right, by the task's metric; None without labels, too
    drop       of the metric: counted where there are labels, otherwise expected
    """

    images: int
    errors: tuple[ErrorEstimate, ...]
    agreement: float | None = None
    score: float | None = None
    original_score: float | None = None
    drop: Estimate | None = None

    @property
    def labelled(self) -> bool:
        return self.score is not None


@dataclass
class _Errors:
    """Of one output: for every image the mean squared error, the mean and the mean square of its
    columns. All of them count; of many, every so manyth tells how they vary."""

    output: Output
    seen: int = 0
    sums: Tensor | None = None  # (3, columns)
    rows: list[Tensor] = field(default_factory=list[Tensor])  # (images, 3, columns)
    step: int = 1

    def add(self, got: Tensor, want: Tensor) -> None:
        errors = self.output.errors(got, want).double()
        moments = torch.zeros_like(errors), torch.zeros_like(errors)
        if want.is_floating_point():
            columns = self.output.columns(want.double())
            moments = columns.mean(2), columns.square().mean(2)
        rows = torch.stack((errors, *moments), 1).detach().cpu()
        self.sums = rows.sum(0) if self.sums is None else self.sums + rows.sum(0)
        self.rows.append(rows[-self.seen % self.step :: self.step])
        self.seen += len(rows)
        while sum(map(len, self.rows)) > MOST_ROWS:
            self.rows, self.step = [torch.cat(self.rows)[::2]], 2 * self.step

    def estimate(self) -> ErrorEstimate:
        whole, worst = self._estimate(self._whole), self._estimate(self._worst)
        return ErrorEstimate(whole.value, whole.low, whole.high, worst)

    def _estimate(self, ratio: Callable[[Tensor], Tensor]) -> Estimate:
        assert self.sums is not None
        seen, rows = self.seen, torch.cat(self.rows)
        value = float(ratio(self.sums / seen))
        if not value < WORST:
            return Estimate(WORST, WORST, WORST)
        count = len(rows)
        if count < 2:
            return Estimate(value, None, None)
        without = (rows.sum(0) - rows) / (count - 1)  # each image left out in turn
        logs = ratio(without).clamp(min=ROUNDING**2).log()
        of_rows = float(((logs - logs.mean()).square().sum() * (count - 1) / count).sqrt())
        spread = of_rows * (2 * count / seen) ** 0.5  # here and on as many others
        shares = (rows[:, 0] / self.output.measures(rows[:, 0])).mean(1)
        carrying = float(shares.sum() ** 2 / shares.square().sum().clamp(min=1e-300)) * seen / count
        width = _student(max(carrying - 1, 1.0)) * spread
        high = min(value * float(np.exp(min(width, 50.0))), WORST)
        low = value * float(np.exp(-width))
        return Estimate(value, low if low > ROUNDING else 0.0, max(high, ROUNDING))

    def _whole(self, sums: Tensor) -> Tensor:
        """Of means over images (…, 3, columns): error over the variance of all numbers."""
        return self._over_variance(sums.mean(-1, keepdim=True))[..., 0]

    def _worst(self, sums: Tensor) -> Tensor:
        """The largest of a column over its own variance."""
        return self._over_variance(sums).amax(-1)

    def _over_variance(self, sums: Tensor) -> Tensor:
        errors, means, squares = sums.unbind(-2)
        measure = self.output.measures(errors)
        if self._moves(sums):
            measure = least_variance(squares - means.square(), squares)
        return (errors / measure).nan_to_num(WORST, WORST)

    def _moves(self, sums: Tensor) -> bool:
        """Whether variances are those of the images at hand."""
        return self.output.batched and bool(sums[..., 2, :].any())


class Tally:
    """Counts answers batch by batch, by `task`."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.classes: int | None = None  # that labels may name, where they are classes
        self.images = 0
        self._same = self._right = self._original = 0.0
        self._lost, self._expected = list[Tensor](), list[Tensor]()
        self._errors = list[_Errors]()

    def add(self, answer: Answer, reference: Answer, labels: Tensor | None, count: int) -> None:
        """For `count` images. Raises InputError where the task does not tell of each."""
        self.images += count
        if not self._errors:
            known = getattr(self.task, "outputs", ()) or tuple(
                output_of(one, count) for one in reference
            )
            self._errors = [_Errors(output) for output in known]
        for errors, got, want in zip(self._errors, answer, reference, strict=True):
            errors.add(got, want)
        if not self.task.judges(answer):
            return
        self._same += total(self.task.agree(answer, reference), count)
        self._expected.append(self.task.expected_drop(answer, reference).double())
        if labels is not None:
            right = self.task.correct(reference, labels), self.task.correct(answer, labels)
            self._original += total(right[0], count)
            self._right += total(right[1], count)
            self._lost.append(right[0].double() - right[1].double())
            self.classes = self.task.classes(answer)

    def judgement(self) -> Judgement:
        """Of what was counted so far."""
        errors = tuple(one.estimate() for one in self._errors)
        if not self._expected:
            return Judgement(self.images, errors)
        labelled = len(self._lost) == len(self._expected)
        lost = torch.cat(self._lost if labelled else self._expected)
        return Judgement(
            self.images,
            errors,
            self._same / self.images,
            self._right / self.images if labelled else None,
            self._original / self.images if labelled else None,
            Estimate(float(lost.mean()), *interval(lost)),
        )


def interval(lost: Tensor) -> tuple[float, float]:
    """Of the mean of what single images lose, −1 to 1 each."""
    count = len(lost) + 2
    mean = float(lost.sum()) / count
    spread = (float(lost.square().sum()) + 1) / count - mean**2
    width = SURE * (spread / count) ** 0.5
    return max(-1.0, mean - width), min(1.0, mean + width)


def _student(freedom: float) -> float:
    """The 97.5% quantile of Student's t distribution."""
    special: Any = import_module("scipy.special")  # takes longer to import than the whole package
    return float(special.stdtrit(freedom, 0.975))
