"""One class for every image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from shrinkc.compiler.tasks.task import Answer, Task, squared_error


@dataclass(frozen=True)
class Classification(Task):
    """The first output holds scores (n, classes), before a softmax; the class of the highest is the
    answer, the first of several equal ones. Scores with NaN among them are no answer: they neither
    agree with anything nor are they right."""

    @property
    def name(self) -> str:
        return "classification"

    @property
    def metric(self) -> str:
        return "top-1"

    def judges(self, answer: Answer) -> bool:
        return answer[0].ndim == 2 and answer[0].dtype != torch.bool

    def agree(self, answer: Answer, reference: Answer) -> Tensor:
        """1 for the same class, else 0: float64 (n,). Of integers, such as a class that the network
        has chosen itself, the share that is the same."""
        if not (self.judges(reference) or reference[0].is_floating_point()):
            return 1 - squared_error(answer[0], reference[0])
        best = _best(answer)
        return ((best == _best(reference)) & (best >= 0)).double()

    def correct(self, answer: Answer, labels: Tensor) -> Tensor:
        """1 for the label's class, else 0: float64 (n,). `labels`: int64 (n,)."""
        best = _best(answer)
        return ((best == labels) & (best >= 0)).double()

    def divergence(self, answer: Answer, reference: Answer) -> Tensor:
        """Kullback-Leibler divergence in nats, KL(softmax(reference) ‖ softmax(answer)): (n,). Of
        outputs that are no class scores, the squared error over the reference's variance."""
        if not _has_scores(answer):
            return squared_error(answer[0], reference[0])
        got, want = (_scores(one).log_softmax(1) for one in (answer, reference))
        return F.kl_div(got, want, log_target=True, reduction="none").sum(1)

    def expected_drop(self, answer: Answer, reference: Answer) -> Tensor:
        """By the reference's own confidence p: p(t) − p(s) where it answers t and the other s,
        float64 (n,). Unbiased where the reference is calibrated; counting disagreements would
        overstate the loss several times, since most images that change their class were unsure
        before."""
        if not (self.judges(reference) or reference[0].is_floating_point()):
            return super().expected_drop(answer, reference)
        sure = _scores(reference).double().softmax(1).nan_to_num(0)
        rows = torch.arange(len(sure), device=sure.device)
        old, new = _best(reference), _best(answer)
        return sure[rows, old] - torch.where(new >= 0, sure[rows, new], 0)

    def labels(self, answer: Answer) -> Tensor | None:
        return _best(answer) if _has_scores(answer) else None

    def classes(self, answer: Answer) -> int | None:
        return _scores(answer).shape[1]


CLASSIFICATION = Classification()  # what a network is for where nobody says otherwise


def _scores(answer: Answer) -> Tensor:
    """(n, classes); a pooled map (n, classes, 1, 1) counts as that."""
    return answer[0].flatten(1)


def _has_scores(answer: Answer) -> bool:
    """More than one for each sample, and no map of them; integers are answers, not scores."""
    shape = answer[0].shape
    return (
        answer[0].is_floating_point() and len(shape) > 1 and shape[1] > 1 and shape[2:].numel() == 1
    )


def _best(answer: Answer) -> Tensor:
    """(n,) int64: the class of the highest score, −1 where one is NaN."""
    scores = _scores(answer)
    return torch.where(scores.isnan().any(1), -1, scores.argmax(1))
