"""Numbers, maps, several heads: whatever is not one class for every image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from shrinkc.compiler.tasks.classification import divergence_of_scores, has_scores
from shrinkc.compiler.tasks.outputs import (
    Divergence,
    Output,
    check_weights,
    least_variance,
    outputs_of,
    summed,
)
from shrinkc.compiler.tasks.task import Answer, Evidence, LabelKind, PooledTask, Task
from shrinkc.errors import InputError


@dataclass(frozen=True)
class Regression(PooledTask):
    """Every output counts, by its squared error over its variance, the sum over all of them; those
    that hold class scores, one head of several, by the divergence of Kullback and Leibler.

    Labels are numbers of the first output's shape, and right is told by R²: 1 − squared error over
    variance, the mean over the output's columns; the mean absolute error is told beside.

    outputs  by a network's own answers (`scaled`); without them each batch is measured by its own
             variance
    scores   which of them hold class scores; (): none
    weights  of every output in the divergence; without them all weigh the same
    """

    outputs: tuple[Output, ...] = ()
    scores: tuple[bool, ...] = ()
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_weights(self.weights)

    @property
    def name(self) -> str:
        return "regression"

    @property
    def metric(self) -> str:
        return "R²"

    @property
    def reads(self) -> LabelKind:
        return "numbers"

    def scaled(self, reference: Answer, samples: int) -> Regression:
        return replace(self, outputs=outputs_of(reference, samples, self.weights))

    def judges(self, answer: Answer) -> bool:
        return False

    def counts(self, answer: Answer, labels: Tensor) -> bool:
        return labels.is_floating_point() and labels[0].numel() == answer[0][0].numel()

    def check_labels(self, answer: Answer, labels: Tensor, parameter: str) -> None:
        wanted, found = answer[0].shape[1:], labels.shape[1:]
        if wanted.numel() != found.numel():
            said = (
                f"`{parameter}` has labels of shape {_shape(found)}; the network's first output is "
                f"{_shape(wanted)} for an image, and its labels must be as many numbers"
            )
            if has_scores(answer[0]) and found.numel() == 1:
                raise InputError(said, "give `task` classification if they are its classes")
            raise InputError(said)

    def agree(self, answer: Answer, reference: Answer) -> Tensor:
        """1 − error over variance, the mean over the outputs, at least 0: (n,)."""
        apart = summed(answer, reference, self._outputs(reference))
        return 1 - (apart / len(reference)).clamp(max=1)

    def alike(self, answer: Answer, reference: Answer) -> Evidence:
        """Of all outputs; labels are of the first."""
        return Task.alike(self, answer, reference)

    def likeness_of(self, evidence: Evidence) -> float:
        return Task.likeness_of(self, evidence)

    def correct(self, answer: Answer, labels: Tensor) -> Tensor:
        """1 − the error of the first output over its variance, at least 0: (n,)."""
        want = labels.reshape(answer[0].shape).to(answer[0])
        return 1 - self._outputs(answer)[0].divergence(answer[0], want).clamp(max=1)

    def divergence(self, answer: Answer, reference: Answer) -> Tensor:
        """The sum over all outputs: (n,)."""
        own: dict[int, Divergence] = {
            place: divergence_of_scores for place, score in enumerate(self.scores) if score
        }
        return summed(answer, reference, self._outputs(reference), own, self.weights)

    def truth(self, reference: Answer) -> Tensor:
        return reference[0]

    def evidence(self, answer: Answer, labels: Tensor) -> Evidence:
        """Of each column: squared error, label, its square, absolute error: (4, columns) each."""
        output = self._outputs(answer)[0]
        want = output.columns(labels.reshape(answer[0].shape).double())
        off = output.columns(answer[0].double()) - want
        parts = (off.square(), want, want.square(), off.abs())
        return torch.stack([part.mean(2) for part in parts], 1).cpu()

    def score(self, evidence: Evidence) -> float:
        errors, means, squares, _ = torch.stack([*evidence]).mean(0)
        variances = least_variance(squares - means.square(), squares)
        return float((1 - errors / variances).mean())

    def details(self, evidence: Evidence) -> Mapping[str, float]:
        return {"mean absolute error": float(torch.stack([*evidence])[:, 3].mean())}

    def _outputs(self, reference: Answer) -> tuple[Output, ...]:
        return self.outputs or self.scaled(reference, len(reference[0])).outputs


def _shape(shape: torch.Size) -> str:
    return "×".join(map(str, shape)) or "a single number"
