"""A task from outside of the package: one number an image, right within a tolerance."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from shrinkc.compiler.tasks.task import Answer, Task


@dataclass(frozen=True)
class Within(Task):
    """The last output is (n, 1); labels are what it should be."""

    tolerance: float

    @property
    def name(self) -> str:
        return "regression"

    @property
    def metric(self) -> str:
        return f"share within {self.tolerance:g}"

    def agree(self, answer: Answer, reference: Answer) -> Tensor:
        return (answer[-1] - reference[-1]).abs()[:, 0] <= self.tolerance

    def correct(self, answer: Answer, labels: Tensor) -> Tensor:
        return (answer[-1][:, 0] - labels).abs() <= self.tolerance

    def divergence(self, answer: Answer, reference: Answer) -> Tensor:
        return ((answer[-1] - reference[-1]) / self.tolerance)[:, 0] ** 2
