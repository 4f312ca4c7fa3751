"""What a network's answers mean.

Passes, tables and writers know numbers; whether two answers are as good as equal, whether one is
right, and what is lost when it changes, only the task knows. It is handed to whatever judges a
network. To add one, write a frozen dataclass that is a `Task`, here or anywhere else. Where nobody
says what a network is for, `task_of` tells by its outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from shrinkc.errors import InputError

Answer = tuple[Tensor, ...]  # what a network returned for n samples: each of its outputs, (n, …)


class Task(ABC):
    """How answers are compared and scored.

    Scores are shares of one sample, 0 to 1, so that what is reported is their mean: as a
    percentage, and a drop of it in hundredths, which are the points of `unit`. What is told of
    single samples has the shape (n,) and the answer's device.

    An implementation is a frozen dataclass, its fields are its options: measurements that are kept
    from one run for the next are told apart by its repr.
    """

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
        """What a drop of the metric is counted in, a hundredth of it each."""
        return f"points of {self.metric}"

    @property
    def likeness(self) -> str:
        """What the mean of `agree` is called: "agreement with the original"."""
        return "agreement with the original"

    def scaled(self, reference: Answer, samples: int) -> Task:
        """The task for a network that answers `samples` images with `reference`: one that measures
        outputs by their spread takes it from there."""
        return self

    def judges(self, answer: Answer) -> bool:
        """Whether answers of these shapes are scored; of others no share that agrees or is right is
        said."""
        return True

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


def total(scores: Tensor, samples: int) -> float:
    """The sum of a task's scores. Raises InputError where there is not one for each sample."""
    if scores.shape != (samples,):
        raise InputError(
            f"a task gave scores of shape {tuple(scores.shape)} for {samples} samples; it must "
            "give one for each"
        )
    return float(scores.double().sum())
