"""Numbers, maps, several heads: whatever is not one class for every image."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from shrinkc.compiler.tasks.classification import summed
from shrinkc.compiler.tasks.outputs import Output, output_of
from shrinkc.compiler.tasks.task import Answer, Task
from shrinkc.errors import InputError


@dataclass(frozen=True)
class Regression(Task):
    """Every output counts, by its squared error over its variance, the sum over all of them; those
    that hold class scores, one head of several, by the divergence of Kullback and Leibler.

    outputs  by a network's own answers (`scaled`); without them each batch is measured by its own
             variance
    scores   which of them hold class scores; (): none
    """

    outputs: tuple[Output, ...] = ()
    scores: tuple[bool, ...] = ()

    @property
    def name(self) -> str:
        return "regression"

    @property
    def metric(self) -> str:
        return "R²"

    @property
    def likeness(self) -> str:
        return "R² against the original"

    def scaled(self, reference: Answer, samples: int) -> Regression:
        return replace(self, outputs=tuple(output_of(one, samples) for one in reference))

    def judges(self, answer: Answer) -> bool:
        return False

    def agree(self, answer: Answer, reference: Answer) -> Tensor:
        """1 − error over variance, the mean over the outputs, at least 0: (n,)."""
        apart = summed(answer, reference, *self._kinds(reference, ()))
        return 1 - (apart / len(reference)).clamp(max=1)

    def correct(self, answer: Answer, labels: Tensor) -> Tensor:
        """Raises InputError: labels are classes."""
        raise InputError(
            "labels are classes, and the network's outputs are judged as numbers",
            "give `task` classification where the first output holds class scores",
        )

    def divergence(self, answer: Answer, reference: Answer) -> Tensor:
        """The sum over all outputs: (n,)."""
        return summed(answer, reference, *self._kinds(reference, self.scores))

    def _kinds(
        self, reference: Answer, scores: tuple[bool, ...]
    ) -> tuple[tuple[Output, ...], tuple[bool, ...]]:
        outputs = self.outputs or self.scaled(reference, len(reference[0])).outputs
        return outputs, scores or (False,) * len(reference)
