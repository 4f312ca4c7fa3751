"""What training minimises: labels, a teacher's outputs, a teacher's features, and their sum.

    loss = labels.weight · CE(s, y) + weight · T² · KL(softmax(t/T) ‖ softmax(s/T))
           + Σ_f f.weight · mean((S_f − T_f)²) + penalty

with the student's outputs s, the teacher's t (Hinton et al. 2015) and the outputs S_f, T_f of named
layers (Romero et al. 2015, without a regressor: shapes must agree).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shrinkc.errors import TrainingError


@dataclass(frozen=True)
class Labels:
    """Cross-entropy with the labels, smoothed (Szegedy et al. 2016)."""

    weight: float = 1.0
    smoothing: float = 0.0


@dataclass(frozen=True)
class Feature:
    """Match the output of one layer: its name in the student and in the teacher (default: same)."""

    layer: str
    teacher_layer: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Distillation:
    """Learn from `teacher`, a copy of which is made when training starts.

    With `weight` 0 the teacher's outputs do not count, only `features`.
    """

    teacher: nn.Module
    weight: float = 0.7
    temperature: float = 4.0
    features: tuple[Feature, ...] = ()

    def __post_init__(self) -> None:
        if self.weight < 0 or self.temperature <= 0:
            raise TrainingError(
                f"distillation of weight {self.weight}, temperature {self.temperature}: give a "
                "weight from 0 on and a temperature above 0"
            )


def answer_of(outputs: object) -> tuple[Tensor, ...]:
    """All outputs of a network. Raises TrainingError for what are no tensors."""
    found: tuple[object, ...] = (outputs,)
    if isinstance(outputs, tuple | list):
        found = tuple(cast("Sequence[object]", outputs))
    if not all(isinstance(one, Tensor) for one in found):
        raise TrainingError("the network returns what are no tensors")
    return cast("tuple[Tensor, ...]", found)


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(t/T) ‖ softmax(s/T)), mean over the batch; logits (batch, classes)."""
    s, t = F.log_softmax(student / temperature, 1), F.log_softmax(teacher / temperature, 1)
    return F.kl_div(s, t, reduction="batchmean", log_target=True) * temperature**2


def logits(outputs: object) -> Tensor:
    """The one output of a network, be it alone or in a tuple. Raises TrainingError for others."""
    if isinstance(outputs, (tuple, list)):
        several = cast(Sequence[object], outputs)
        if len(several) == 1:
            return logits(several[0])
    if isinstance(outputs, Tensor) and outputs.ndim == 2:
        return outputs
    what = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else "several tensors"
    raise TrainingError(f"the network returns {what}; training needs one of (batch, classes)")


@contextmanager
def tapped(model: nn.Module, layers: Sequence[str]) -> Generator[dict[str, Tensor]]:
    """The latest outputs of named layers, while the context lasts.

    Raises TrainingError for a name that the model does not have.
    """
    seen: dict[str, Tensor] = {}
    modules = dict(cast(Iterator[tuple[str, nn.Module]], model.named_modules()))
    handles: list[Any] = []
    try:
        for layer in dict.fromkeys(layers):
            if layer not in modules:
                raise TrainingError(f"the network has no layer '{layer}' to take features from")

            def keep(_module: nn.Module, _inputs: Any, output: Any, layer: str = layer) -> None:
                seen[layer] = output

            handles.append(modules[layer].register_forward_hook(keep))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True, eq=False)
class Objective:
    """The loss without the penalty; holds the tapped features of student and teacher."""

    labels: Labels | None
    distillation: Distillation | None
    student_features: Mapping[str, Tensor]
    teacher_features: Mapping[str, Tensor]

    def __call__(self, outputs: Tensor, labels: Tensor | None, teacher: Tensor | None) -> Tensor:
        loss = outputs.new_zeros(())
        if self.labels is not None:
            assert labels is not None  # checked before the first step
            smoothing = self.labels.smoothing
            entropy = F.cross_entropy(outputs, labels, label_smoothing=smoothing)
            loss = loss + self.labels.weight * entropy
        if self.distillation is not None:
            assert teacher is not None
            if self.distillation.weight:
                kd = kd_loss(outputs, teacher, self.distillation.temperature)
                loss = loss + self.distillation.weight * kd
            for feature in self.distillation.features:
                loss = loss + feature.weight * self._difference(feature)
        return loss

    def _difference(self, feature: Feature) -> Tensor:
        student = self.student_features[feature.layer]
        teacher = self.teacher_features[feature.teacher_layer or feature.layer]
        if student.shape != teacher.shape:
            raise TrainingError(
                f"layer '{feature.layer}' gives {tuple(student.shape)}, the teacher's "
                f"'{feature.teacher_layer or feature.layer}' {tuple(teacher.shape)}; "
                "features must have equal shapes"
            )
        return F.mse_loss(student.to(torch.float32), teacher.to(torch.float32))
