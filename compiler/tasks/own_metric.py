"""A metric of the user's own: network outputs and labels → a number, higher is better."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import isfinite
from numbers import Real
from typing import Any, cast

import torch
from torch import Tensor

from shrinkc.compiler.tasks.detection.boxes import as_dicts
from shrinkc.compiler.tasks.task import Answer, Evidence, LabelKind, Style, Task
from shrinkc.errors import InputError

Metric = Callable[[Any, Any], Any]  # (outputs, labels) of all images → a number
SHUFFLES = 8
FEWEST = 4  # images, before a shuffle tells anything


@dataclass(frozen=True)
class OwnMetric(Task):
    """`base`, but for the metric: that is what `function` says of all images at once, so that it
    may be any function of them and not only a mean.

    function  called with the outputs, a tensor (n, …) or a tuple of them in the network's order,
              and the labels (n, …), of boxes a list of dictionaries; returns a finite number,
              higher is better
    called    its name in reports
    base      how answers are compared without labels; None: told by the outputs
    """

    function: Metric = field(repr=False)
    called: str
    base: Task | None = None

    @property
    def task(self) -> Task:
        assert self.base is not None  # filled in once the outputs are known
        return self.base

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def metric(self) -> str:
        return self.called

    @property
    def style(self) -> Style:
        return "number"

    @property
    def likeness(self) -> str:
        return self.task.likeness

    @property
    def reads(self) -> LabelKind | None:
        return None

    @property
    def classifies(self) -> bool:
        return self.task.classifies

    @property
    def pooled(self) -> bool:
        return True

    @property
    def expects(self) -> bool:
        return False

    @property
    def weights(self) -> tuple[float, ...]:
        return getattr(self.task, "weights", ())

    @property
    def notes(self) -> tuple[str, ...]:
        return self.task.notes

    def of_inputs(self, shapes: tuple[tuple[int, ...], ...]) -> OwnMetric:
        return replace(self, base=self.task.of_inputs(shapes))

    def scaled(self, reference: Answer, samples: int) -> OwnMetric:
        return replace(self, base=self.task.scaled(reference, samples))

    def judges(self, answer: Answer) -> bool:
        return self.task.judges(answer)

    def counts(self, answer: Answer, labels: Tensor) -> bool:
        return True

    def check_labels(self, answer: Answer, labels: Tensor, parameter: str) -> None:
        """Raises InputError where the function fails, and where it tells less of the network's
        answers than of the same ones shuffled over the images."""
        evidence = [*self.evidence(answer, labels)]
        found, count = self.score(evidence), len(evidence)
        generator = torch.Generator().manual_seed(0)
        shuffled: list[float] = []
        for _ in range(SHUFFLES if count >= FEWEST else 0):
            order = [int(place) for place in torch.randperm(count, generator=generator)]
            mixed = [(evidence[i][0], one[1]) for i, one in zip(order, evidence, strict=True)]
            shuffled.append(self.score(mixed))
        if shuffled and found < min(shuffled):
            raise InputError(
                f"`metric` {self.called} is {found:.4g} for the network's own answers and "
                f"{sum(shuffled) / len(shuffled):.4g} where they are shuffled over the images",
                "higher must be better: return the negative of an error",
            )

    def agree(self, answer: Answer, reference: Answer) -> Tensor:
        return self.task.agree(answer, reference)

    def correct(self, answer: Answer, labels: Tensor) -> Tensor:
        """The function of each image alone: (n,)."""
        found = [self.score([one]) for one in self.evidence(answer, labels)]
        return torch.tensor(found, dtype=torch.float64, device=answer[0].device)

    def divergence(self, answer: Answer, reference: Answer) -> Tensor:
        return self.task.divergence(answer, reference)

    def labels(self, answer: Answer) -> Tensor | None:
        return self.task.labels(answer)

    def classes(self, answer: Answer) -> int | None:
        return self.task.classes(answer)

    def alike(self, answer: Answer, reference: Answer) -> Evidence:
        return self.task.alike(answer, reference)

    def likeness_of(self, evidence: Evidence) -> float:
        return self.task.likeness_of(evidence)

    def evidence(self, answer: Answer, labels: Tensor) -> Evidence:
        """The outputs for each image, and its labels."""
        outputs = [one.detach().cpu() for one in answer]
        if any(one.ndim == 0 or len(one) != len(labels) for one in outputs):
            raise InputError(
                "`metric` is told of outputs for single images, and one output is for a whole batch"
            )
        rows = zip(*outputs, strict=True)
        return [(row, label.cpu()) for row, label in zip(rows, labels, strict=True)]

    def score(self, evidence: Evidence) -> float:
        """Raises InputError where the function fails or returns no finite number."""
        rows, labels = zip(*cast("list[tuple[Answer, Tensor]]", list(evidence)), strict=True)
        wanted: Any = as_dicts(labels) if self.task.reads == "boxes" else torch.stack(labels)
        outputs = tuple(torch.stack(one) for one in zip(*rows, strict=True))
        try:
            with torch.no_grad():
                found = self.function(outputs[0] if len(outputs) == 1 else outputs, wanted)
        except Exception as error:  # the user's own code may raise anything
            said = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            raise InputError(f"`metric` {self.called} fails: {said}") from error
        number: Any = found.item() if isinstance(found, Tensor) and found.numel() == 1 else found
        number = (
            number.item() if hasattr(number, "item") and not isinstance(number, Tensor) else number
        )
        if isinstance(number, bool) or not isinstance(number, Real) or not isfinite(number):
            told = number if isinstance(number, Real) else f"a {type(cast(object, found)).__name__}"
            raise InputError(
                f"`metric` {self.called} returned {told} for {len(rows)} images; it must return a "
                "finite number"
            )
        return float(number)


def bytes_of(evidence: Evidence) -> int:
    """What tensors in it hold."""

    def tensors(one: Any) -> Iterator[Tensor]:
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, tuple):
            for inner in cast("tuple[Any, ...]", one):
                yield from tensors(inner)

    return sum(x.numel() * x.element_size() for one in evidence for x in tensors(one))
