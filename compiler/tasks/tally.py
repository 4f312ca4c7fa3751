"""A changed network's answers beside the original's, over any number of images.

Few images say little, so whatever is counted has an interval of 95% confidence. That of a drop of
the task's metric is where the drop on all images of the kind lies: half an image more is counted in
each of the four cells right or wrong, before and after (Agresti and Min, 2005), so that no change
on few images is no proof; that of a metric of all images together is the jackknife's, over groups
of images. That of an output's error is where the error on as many other images lies, which are as
chancy as these: by the jackknife over images, in logarithms, with Student's t of as many degrees of
freedom as there are images that carry the error: where it comes from few, one more of their kind
changes much.
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
from shrinkc.compiler.tasks.own_metric import bytes_of
from shrinkc.compiler.tasks.task import Answer, Evidence, Task
from shrinkc.errors import InputError

SURE = 1.96  # standard errors to either side: 95 of 100
ROUNDING = 1e-9  # error over variance that float32 may cause
WORST = 1e9  # stands for what is not finite
MOST_ROWS = 1000  # images that tell how an output's error varies over images
GROUPS = 20  # of images, each left out in turn
MOST_HELD = 1 << 30  # bytes of evidence

Score = Callable[[list[Any]], float]


def _of_clips(answer: Answer, count: int) -> bool:
    """Whether one answer is for several samples, say the frames of a clip."""
    sizes = [len(one) if one.ndim else 0 for one in answer]
    return all(0 < size < count and count % size == 0 for size in sizes)


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
    agreement  share of the answers, 0 to 1, or the task's metric with the original's answers as
               labels; None where they are not scored
    score, original_score  the task's metric; None without labels
    drop       of the metric: counted where there are labels, otherwise expected
    details, original_details  other metrics, by name; empty without labels
    """

    images: int
    errors: tuple[ErrorEstimate, ...]
    agreement: float | None = None
    score: float | None = None
    original_score: float | None = None
    drop: Estimate | None = None
    details: dict[str, float] = field(default_factory=dict[str, float])
    original_details: dict[str, float] = field(default_factory=dict[str, float])

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
            moments = self.output.moments(want)
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
        shares = shares.nan_to_num(WORST, WORST).clamp(max=WORST)
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
        self.images = 0
        self._right, self._original = list[Any](), list[Any]()  # evidence, beside labels
        self._alike, self._whole = list[Any](), list[Any]()  # and beside the original's answers
        self._expected = list[Tensor]()
        self._errors = list[_Errors]()
        self._held = 0

    def add(self, answer: Answer, reference: Answer, labels: Tensor | None, count: int) -> None:
        """For `count` images. Raises InputError where the task does not tell of each."""
        task = self.task
        self.images += count
        if not self._errors:
            known = getattr(task, "outputs", ()) or tuple(
                output_of(one, count) for one in reference
            )
            self._errors = [_Errors(output) for output in known]
        for errors, got, want in zip(self._errors, answer, reference, strict=True):
            errors.add(got, want)
        if task.judges(answer) and (labels is not None or not _of_clips(answer, count)):
            self._alike += _each(task.alike(answer, reference), count)
            if task.pooled and task.expects:
                self._whole += _each(task.alike(reference, reference), count)
            elif task.expects:
                self._expected.append(task.expected_drop(answer, reference).double())
        if labels is not None and task.counts(answer, labels):
            self._right += _each(task.evidence(answer, labels), count)
            self._original += _each(task.evidence(reference, labels), count)
            self._hold(bytes_of(self._right[-count:]) + bytes_of(self._original[-count:]))

    def _hold(self, added: int) -> None:
        self._held += added
        if self._held > MOST_HELD:
            raise InputError(
                f"{self.task.metric} is told of all images at once, and what it needs of "
                f"{self.images} of them takes more than {MOST_HELD >> 30} GiB; give fewer images"
            )

    def judgement(self) -> Judgement:
        """Of what was counted so far."""
        task = self.task
        errors = tuple(one.estimate() for one in self._errors)
        agreement = task.likeness_of(self._alike) if self._alike else None
        if len(self._right) == self.images > 0:
            return Judgement(
                *(self.images, errors, agreement),
                *(task.score(self._right), task.score(self._original)),
                drop=self._drop(self._original, self._right, task.score),
                details=dict(task.details(self._right)),
                original_details=dict(task.details(self._original)),
            )
        drop = None
        if self._whole:
            drop = self._drop(self._whole, self._alike, task.likeness_of)
        elif self._expected:
            lost = torch.cat(self._expected)
            drop = Estimate(float(lost.mean()), *interval(lost))
        return Judgement(self.images, errors, agreement, drop=drop)

    def _drop(self, before: list[Any], after: list[Any], score: Score) -> Estimate:
        if not self.task.pooled:
            lost = torch.stack(before).double() - torch.stack(after).double()
            return Estimate(float(lost.mean()), *interval(lost))
        ends = pooled_interval(before, after, score)
        return Estimate(score(before) - score(after), *(ends or (None, None)))


def _each(evidence: Evidence, count: int) -> Evidence:
    """Raises InputError where there is not one for each sample."""
    if len(evidence) != count:
        shape = tuple(evidence.shape) if isinstance(evidence, Tensor) else (len(evidence),)
        raise InputError(
            f"a task gave scores of shape {shape} for {count} samples; it must give one for each"
        )
    return list(evidence)


def interval(lost: Tensor) -> tuple[float, float]:
    """Of the mean of what single images lose, −1 to 1 each."""
    count = len(lost) + 2
    mean = float(lost.sum()) / count
    spread = (float(lost.square().sum()) + 1) / count - mean**2
    width = SURE * (spread / count) ** 0.5
    return max(-1.0, mean - width), min(1.0, mean + width)


def pooled_interval(
    before: list[Any], after: list[Any], score: Score
) -> tuple[float, float] | None:
    """Of what is lost of a score of all images together: by the jackknife over groups of them, with
    Student's t (Efron and Tibshirani, 1993, chapter 11), and as much more as one image of all is,
    so that no change on few images is no proof. None where a group left out leaves nothing to
    score."""
    count = len(before)
    groups = min(GROUPS, count)
    if groups < 2:
        return None
    lost: list[float] = []
    try:
        for group in range(groups):
            kept = [i for i in range(count) if i % groups != group]
            lost.append(score([before[i] for i in kept]) - score([after[i] for i in kept]))
        value = score(before) - score(after)
    except InputError:
        return None
    found = np.array(lost)
    variance = (groups - 1) * float(found.var()) + (1 / (count + 2)) ** 2
    width = _student(groups - 1) * variance**0.5
    return value - width, value + width


def _student(freedom: float) -> float:
    """The 97.5% quantile of Student's t distribution."""
    special: Any = import_module("scipy.special")  # takes longer to import than the whole package
    return float(special.stdtrit(freedom, 0.975))
