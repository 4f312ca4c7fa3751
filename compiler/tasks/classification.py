"""One class for every image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from shrinkc.compiler.tasks.outputs import Output, output_of, sum_to_one
from shrinkc.compiler.tasks.task import Answer, Task

LEAST = 1e-7  # of a probability, where its logarithm is taken


@dataclass(frozen=True)
class Classification(Task):
    """The first output holds scores (n, classes), before a softmax or behind it; the class of the
    highest is the answer, the first of several equal ones. Scores with NaN among them are no
    answer: they neither agree with anything nor are they right.

    outputs  all of them, by a network's own answers (`scaled`); without them each batch is measured
             by its own variance
    """

    outputs: tuple[Output, ...] = ()

    @property
    def name(self) -> str:
        return "classification"

    @property
    def metric(self) -> str:
        return "top-1"

    def scaled(self, reference: Answer, samples: int) -> Classification:
        return replace(self, outputs=tuple(output_of(one, samples) for one in reference))

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
        kinds = (has_scores(reference[0]), *(False for _ in reference[1:]))
        return summed(answer, reference, outputs, kinds)

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


def summed(
    answer: Answer, reference: Answer, outputs: tuple[Output, ...], scores: tuple[bool, ...]
) -> Tensor:
    """What `answer` is from `reference` over all outputs, each by its own kind: (n,). An output
    without a batch counts for every sample."""
    parts = [
        _divergence(got, want) if score else output.divergence(got, want)
        for got, want, output, score in zip(answer, reference, outputs, scores, strict=True)
    ]
    count = max(len(part) for part in parts)
    found = parts[0].expand(count)
    for part in parts[1:]:
        found = found + part
    return found


def _divergence(got: Tensor, want: Tensor) -> Tensor:
    """KL(softmax(want) ‖ softmax(got)): (n,)."""
    got, want = got.flatten(1), want.flatten(1)
    log_p, log_q = (_logits(x, want).log_softmax(1) for x in (want, got))
    return F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1)


def _logits(scores: Tensor, like: Tensor) -> Tensor:
    """Before a softmax: the logarithm, where `like` holds probabilities."""
    return scores.clamp(min=LEAST).log() if sum_to_one(like) else scores


def _best(answer: Answer) -> Tensor:
    """(n,) int64: the class of the highest score, −1 where one is NaN."""
    scores = answer[0].flatten(1)
    return torch.where(scores.isnan().any(1), -1, scores.argmax(1))
