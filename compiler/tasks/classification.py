"""One class for every image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from shrinkc.compiler.tasks.outputs import (
    Output,
    check_weights,
    outputs_of,
    sum_to_one,
    summed,
)
from shrinkc.compiler.tasks.task import Answer, LabelKind, Task
from shrinkc.errors import InputError

LEAST = 1e-7  # of a probability, where its logarithm is taken


@dataclass(frozen=True)
class Classification(Task):
    """The first output holds scores (n, classes), before a softmax or behind it; the class of the
    highest is the answer, the first of several equal ones. Scores with NaN among them are no
    answer: they neither agree with anything nor are they right.

    outputs  all of them, by a network's own answers (`scaled`); without them each batch is measured
             by its own variance
    weights  of every output in the divergence; without them all weigh the same
    """

    outputs: tuple[Output, ...] = ()
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_weights(self.weights)

    @property
    def name(self) -> str:
        return "classification"

    @property
    def metric(self) -> str:
        return "top-1"

    def scaled(self, reference: Answer, samples: int) -> Classification:
        return replace(self, outputs=outputs_of(reference, samples, self.weights))

    @property
    def reads(self) -> LabelKind:
        return "classes"

    def check_labels(self, answer: Answer, labels: Tensor, parameter: str) -> None:
        if labels.is_floating_point() or labels.ndim != 1:
            raise InputError(
                f"`{parameter}` has labels of {_form(labels)}; give one class index, from 0, for "
                "each image"
            )
        classes = self.classes(answer)
        if self.judges(answer) and classes is not None and int(labels.max()) >= classes:
            raise InputError(
                f"`{parameter}` has the label {int(labels.max())}; the network tells {classes} "
                f"classes apart, 0 to {classes - 1}"
            )

    def judges(self, answer: Answer) -> bool:
        return has_scores(answer[0])

    def agree(self, answer: Answer, reference: Answer) -> Tensor:
        """1 for the same class, else 0: float64 (n,). Of integers, such as a class that the network
        has chosen itself, the share that is the same."""
        if not reference[0].is_floating_point():
            same = answer[0] == reference[0]
            return same.double().reshape(len(same), -1).mean(1)
        best = _best(answer)
        return ((best == _best(reference)) & (best >= 0)).double()

    def correct(self, answer: Answer, labels: Tensor) -> Tensor:
        """1 for the label's class, else 0: float64 (n,). `labels`: int64 (n,)."""
        best = _best(answer)
        return ((best == labels) & (best >= 0)).double()

    def divergence(self, answer: Answer, reference: Answer) -> Tensor:
        """Kullback-Leibler divergence in nats, KL(softmax(reference) ‖ softmax(answer)), and of
        further outputs the squared error over their variance: (n,)."""
        outputs = self.outputs or self.scaled(reference, len(reference[0])).outputs
        own = {0: divergence_of_scores} if has_scores(reference[0]) else {}
        return summed(answer, reference, outputs, own, self.weights)

    def expected_drop(self, answer: Answer, reference: Answer) -> Tensor:
        """By the reference's own confidence p: p(t) − p(s) where it answers t and the other s,
        float64 (n,). Unbiased where the reference is calibrated; counting disagreements would
        overstate the loss several times, since most images that change their class were unsure
        before."""
        if not reference[0].is_floating_point():
            return super().expected_drop(answer, reference)
        scores = reference[0].flatten(1)
        sure = _logits(scores, scores).double().softmax(1).nan_to_num(0)
        rows = torch.arange(len(sure), device=sure.device)
        old, new = _best(reference), _best(answer)
        return sure[rows, old] - torch.where(new >= 0, sure[rows, new], 0)

    def labels(self, answer: Answer) -> Tensor | None:
        return _best(answer) if has_scores(answer[0]) else None

    def classes(self, answer: Answer) -> int | None:
        return answer[0].flatten(1).shape[1]


CLASSIFICATION = Classification()


def has_scores(output: Tensor) -> bool:
    """More than one number for each sample, and no map of them; a pooled map (n, classes, 1, 1)
    counts as that."""
    shape = output.shape
    numbers = output.is_floating_point() and len(shape) > 1
    return numbers and shape[1] > 1 and shape[2:].numel() == 1


def divergence_of_scores(got: Tensor, want: Tensor) -> Tensor:
    """KL(softmax(want) ‖ softmax(got)): (n,)."""
    got, want = got.flatten(1), want.flatten(1)
    log_p, log_q = (_logits(x, want).log_softmax(1) for x in (want, got))
    return F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1)


def _form(labels: Tensor) -> str:
    """'float32, shape 3×4'"""
    shape = "×".join(map(str, labels.shape)) or "a single number"
    return f"{str(labels.dtype).removeprefix('torch.')}, shape {shape}"


def _logits(scores: Tensor, like: Tensor) -> Tensor:
    """Before a softmax: the logarithm, where `like` holds probabilities."""
    return scores.clamp(min=LEAST).log() if sum_to_one(like) else scores


def _best(answer: Answer) -> Tensor:
    """(n,) int64: the class of the highest score, −1 where one is NaN."""
    scores = answer[0].flatten(1)
    return torch.where(scores.isnan().any(1), -1, scores.argmax(1))
