"""A vector for every image, of which the direction counts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch.nn.functional as F
from torch import Tensor

from shrinkc.compiler.tasks.outputs import Output, check_weights, outputs_of, summed
from shrinkc.compiler.tasks.task import Answer, LabelKind, Task
from shrinkc.errors import InputError


@dataclass(frozen=True)
class Embedding(Task):
    """The first output is a vector for each image, (n, dimensions) or (n, dimensions, 1, 1); two
    are as alike as the cosine of the angle between them, at least 0. Labels are vectors, too:
    those of another network, say.

    outputs  by a network's own answers (`scaled`)
    weights  of every output in the divergence; without them all weigh the same
    """

    outputs: tuple[Output, ...] = ()
    weights: tuple[float, ...] = ()
    why: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        check_weights(self.weights)

    @property
    def name(self) -> str:
        return "embedding"

    @property
    def metric(self) -> str:
        return "cosine similarity"

    @property
    def likeness(self) -> str:
        return "cosine similarity to the original"

    @property
    def reads(self) -> LabelKind:
        return "numbers"

    def scaled(self, reference: Answer, samples: int) -> Embedding:
        if not _is_vector(reference[0]):
            shape = "×".join(map(str, reference[0].shape))
            raise InputError(
                f"`task` embedding: the first output is {shape}; a vector for each image is "
                "needed, n×dimensions"
            )
        return replace(self, outputs=outputs_of(reference, samples, self.weights))

    def judges(self, answer: Answer) -> bool:
        return _is_vector(answer[0])

    def counts(self, answer: Answer, labels: Tensor) -> bool:
        same = labels[0].numel() == answer[0][0].numel()
        return self.judges(answer) and labels.is_floating_point() and same

    def check_labels(self, answer: Answer, labels: Tensor, parameter: str) -> None:
        wanted, found = answer[0][0].numel(), labels[0].numel()
        if wanted != found:
            raise InputError(
                f"`{parameter}` has labels of {found} numbers, the network's vectors have {wanted}"
            )

    def agree(self, answer: Answer, reference: Answer) -> Tensor:
        """The cosine, at least 0; 0 where a vector holds NaN: (n,)."""
        return _cosine(answer[0], reference[0]).clamp(0, 1).nan_to_num(0)

    def correct(self, answer: Answer, labels: Tensor) -> Tensor:
        return self.agree(answer, (labels.to(answer[0].device),))

    def divergence(self, answer: Answer, reference: Answer) -> Tensor:
        """1 − cosine, and of further outputs the squared error over their variance: (n,)."""
        outputs = self.outputs or outputs_of(reference, len(reference[0]), self.weights)
        return summed(answer, reference, outputs, {0: _angle}, self.weights)


def _is_vector(output: Tensor) -> bool:
    shape = output.shape
    several = len(shape) > 1 and shape[1] > 1 and shape[2:].numel() == 1
    return output.is_floating_point() and several


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    return F.cosine_similarity(one.flatten(1).double(), other.flatten(1).double())


def _angle(got: Tensor, want: Tensor) -> Tensor:
    """Exactly 0 for equal vectors: half the squared distance of unit vectors."""
    units = (F.normalize(x.flatten(1)) for x in (got, want))
    first, second = units
    return (first - second).square().sum(1) / 2
