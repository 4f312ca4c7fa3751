"""How far a changed network's answers are from the original's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Damage:
    """Of one choice: `loss` of the outputs, `agreement` of the largest one with the original's,
    `error` of the fit on held-out images, of the target's variance (NaN where nothing is
    fitted)."""

    loss: float
    agreement: float
    error: float


def loss(got: Tensor, want: Tensor) -> Tensor:
    """KL divergence of class scores (n, classes); relative squared error of anything else."""
    if got.ndim == 2 and got.shape[1] > 1:
        return torch.nn.functional.kl_div(
            got.log_softmax(1), want.log_softmax(1), log_target=True, reduction="batchmean"
        )
    return ((got - want) ** 2).mean() / want.var().clamp(min=1e-12)
