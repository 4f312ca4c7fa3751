"""What a network's answers mean.

Passes, tables and writers know numbers; whether two answers are as good as equal, whether one is
right, and what is lost when it changes, only the task knows. It is handed to whatever judges a
network. To add one, write a frozen dataclass that is a `Task`, here or anywhere else; one whose
metric is no mean over samples is a `PooledTask`. Where nobody says what a network is for, `task_of`
tells by its outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from shrinkc.errors import InputError

Answer = tuple[Tensor, ...]  # what a network returned for n samples: each of its outputs, (n, …)
Evidence = Sequence[Any] | Tensor  # what each of n samples adds to a score
Style = Literal["percent", "number", "dB"]  # how a score is written: 71.2%, 0.412, 31.4 dB
LabelKind = Literal["classes", "masks", "boxes", "numbers"]


class Task(ABC):
    """How answers are compared and scored.

    Scores of `correct` and `agree` are shares of one sample, 0 to 1, so that what is reported is
    their mean, and a drop of it in `points`. What is told of single samples has the shape (n,) and
    the answer's device.

    An implementation is a frozen dataclass, its fields are its options: measurements that are kept
    from one run for the next are told apart by its repr.
    """

    why: str = ""  # it was taken for the network's task, where nobody said so

    @property
    @abstractmethod
    def name(self) -> str:
        """What reports call the task: "classification"."""

    @property
    @abstractmethod
    def metric(self) -> str:
        """What the mean of `correct` is called, in a sentence: "top-1"."""

    @property
    def unit(self) -> str:
        """What a drop of the metric is counted in, of which 1 has `points`."""
        return f"points of {self.metric}"

    @property
    def points(self) -> float:
        """How many points lie between a score of 0 and one of 1."""
        return 1.0 if self.style == "dB" else 100.0

    @property
    def style(self) -> Style:
        """How a score is written."""
        return "percent"

    @property
    def likeness(self) -> str:
        """What the mean of `agree` is called: "agreement with the original"."""
        return "agreement with the original"

    @property
    def reads(self) -> LabelKind | None:
        """The kind of labels that the task is scored by; None: whatever there is."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how outputs are read."""
        if not self.why:
            return ()
        return (f"the network is taken for {self.name}: {self.why}; `task` says otherwise",)

    def of_inputs(self, shapes: tuple[tuple[int, ...], ...]) -> Task:
        """The task for a network that reads inputs of these `shapes`, (N, …) each."""
        return self

    @property
    def classifies(self) -> bool:
        """Whether answers may be class scores, which cross-entropy trains."""
        return self.reads in (None, "classes")

    def scaled(self, reference: Answer, samples: int) -> Task:
        """The task for a network that answers `samples` images with `reference`: one that measures
        outputs by their spread takes it from there. Raises InputError for outputs that cannot be
        such a network's."""
        return self

    def judges(self, answer: Answer) -> bool:
        """Whether answers of these shapes are scored; of others no share that agrees or is right is
        said."""
        return True

    def counts(self, answer: Answer, labels: Tensor) -> bool:
        """Whether such labels tell how right such answers are."""
        return self.judges(answer)

    def check_labels(self, answer: Answer, labels: Tensor, parameter: str) -> None:
        """Raise InputError that names `parameter` for labels that cannot be those of a network that
        answers so. Both are of the same samples."""
        return None

    @abstractmethod
    def agree(self, answer: Answer, reference: Answer) -> Tensor:
        """How far each answer says the same as the reference, 0 to 1: (n,)."""

    @abstractmethod
    def correct(self, answer: Answer, labels: Tensor) -> Tensor:
        """How far each answer is right, 0 to 1: (n,). `labels`: (n, …), as the images come with
        them; class folders give int64 (n,)."""

    @abstractmethod
    def divergence(self, answer: Answer, reference: Answer) -> Tensor:
        """How far each answer is from the reference: (n,), 0 where they are equal, over all
        outputs.

        Differentiable in `answer`, since distillation descends on its mean; what choices do to a
        network is weighed by it, too, and added up.
        """

    def expected_drop(self, answer: Answer, reference: Answer) -> Tensor:
        """What is likely lost of `correct`, judged without labels, −1 to 1: (n,). A task that knows
        no better takes for lost what no longer agrees."""
        return 1 - self.agree(answer, reference).double()

    def labels(self, answer: Answer) -> Tensor | None:
        """The class that each sample gets: int64 (n,), −1 for none. None where answers are no
        classes."""
        return None

    def classes(self, answer: Answer) -> int | None:
        """How many classes labels may name. None where labels are no classes."""
        return None

    # --- over many samples ---

    @property
    def expects(self) -> bool:
        """Whether what is likely lost of the metric is told without labels."""
        return True

    @property
    def pooled(self) -> bool:
        """Whether the metric is another function of all samples than the mean of `correct`."""
        return False

    def evidence(self, answer: Answer, labels: Tensor) -> Evidence:
        """What each sample adds to `score`."""
        return self.correct(answer, labels).double().cpu()

    def score(self, evidence: Evidence) -> float:
        """The metric over all samples."""
        return float(torch.stack([torch.as_tensor(one) for one in evidence]).double().mean())

    def details(self, evidence: Evidence) -> Mapping[str, float]:
        """Other metrics of the same samples, by name."""
        return {}

    def alike(self, answer: Answer, reference: Answer) -> Evidence:
        """What each sample adds to `likeness_of`."""
        return self.agree(answer, reference).double().cpu()

    def likeness_of(self, evidence: Evidence) -> float:
        """The agreement over all samples."""
        return Task.score(self, evidence)


class PooledTask(Task):
    """A task whose metric is a function of all samples together, such as mean average precision.

    Agreement is the same metric with the reference's answers as `truth`, and what is lost of it is
    what is expected to be lost of the metric. That of single samples is only told where one is
    needed, to compare what choices do.
    """

    @property
    def pooled(self) -> bool:
        return True

    @abstractmethod
    def truth(self, reference: Answer) -> Tensor:
        """The reference's answers as labels: (n, …)."""

    @abstractmethod
    def evidence(self, answer: Answer, labels: Tensor) -> Evidence: ...

    @abstractmethod
    def score(self, evidence: Evidence) -> float: ...

    def alike(self, answer: Answer, reference: Answer) -> Evidence:
        return self.evidence(answer, self.truth(reference))

    def likeness_of(self, evidence: Evidence) -> float:
        return self.score(evidence)

    @property
    def likeness(self) -> str:
        return f"{self.metric} against the original"

    def agree(self, answer: Answer, reference: Answer) -> Tensor:
        return self._single(self.alike(answer, reference), answer)

    def correct(self, answer: Answer, labels: Tensor) -> Tensor:
        return self._single(self.evidence(answer, labels), answer)

    def _single(self, evidence: Evidence, answer: Answer) -> Tensor:
        found = [self.score([one]) for one in evidence]
        return torch.tensor(found, dtype=torch.float64, device=answer[0].device)


def total(scores: Tensor, samples: int) -> float:
    """The sum of a task's scores. Raises InputError where there is not one for each sample."""
    if scores.shape != (samples,):
        raise InputError(
            f"a task gave scores of shape {tuple(scores.shape)} for {samples} samples; it must "
            "give one for each"
        )
    return float(scores.double().sum())
