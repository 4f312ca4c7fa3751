"""Exponential moving average of weights and running statistics (Polyak and Juditsky 1992)."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from shrinkc.errors import TrainingError


@dataclass(frozen=True)
class Ema:
    """average ← decay · average + (1 − decay) · weights, after every step.

    Early on the decay is (1 + n)/(10 + n) after n steps: short trainings forget their start, too.
    """

    decay: float = 0.999

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise TrainingError(f"an average of decay {self.decay}; give 0 to below 1")


class Average:
    """The averaged copy of a model; `model` can be evaluated at any time."""

    def __init__(self, model: nn.Module, ema: Ema) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self._ema = ema
        self._floats: list[tuple[list[Tensor], list[Tensor]]] = []
        self._others: list[tuple[Tensor, Tensor]] = []
        kinds: dict[object, tuple[list[Tensor], list[Tensor]]] = {}
        for average, current in zip(_tensors(self.model), _tensors(model), strict=True):
            if average.is_floating_point():
                lists = kinds.setdefault((average.dtype, average.device), ([], []))
                lists[0].append(average)
                lists[1].append(current)
            else:
                self._others.append((average, current))
        self._floats = list(kinds.values())

    def update(self, step: int) -> None:
        """After training step `step`, counted from 0."""
        decay = min(self._ema.decay, (1 + step) / (10 + step))
        for averages, current in self._floats:
            get_ema_multi_avg_fn(decay)(averages, current, step)
        for average, current in self._others:
            average.copy_(current)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]
