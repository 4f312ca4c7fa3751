"""Optimisers, with weight decay and learning rates per kind of parameter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from shrinkc.errors import TrainingError


@dataclass(frozen=True)
class Group:
    """Parameters with settings of their own: names that match a shell pattern (`*.mask`)."""

    names: str
    lr_factor: float = 1.0
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent with momentum; lr is that of the schedule's peak.

    decay_all  weight decay on vectors too (batch norm, biases); they are left out by default
    groups     parameters with settings of their own; the first that matches counts
    """

    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decay_all: bool = False
    groups: tuple[Group, ...] = ()


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); fields as in `Sgd`."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2
    decay_all: bool = False
    groups: tuple[Group, ...] = ()


Optimiser = Sgd | AdamW


def build(optimiser: Optimiser, model: nn.Module) -> torch.optim.Optimizer:
    """The torch optimiser of the model's trainable parameters.

    Raises TrainingError: nothing to train, a group that matches no parameter, a number that cannot
    be.
    """
    groups = list(_groups(optimiser, model))
    try:
        if isinstance(optimiser, AdamW):
            return torch.optim.AdamW(groups, lr=optimiser.lr, betas=optimiser.betas)
        nesterov = optimiser.nesterov and optimiser.momentum > 0
        return torch.optim.SGD(
            groups, lr=optimiser.lr, momentum=optimiser.momentum, nesterov=nesterov
        )
    except ValueError as error:
        raise TrainingError(f"{optimiser}: {error}") from error


def set_lr(torch_optimiser: torch.optim.Optimizer, lr: float) -> None:
    for group in torch_optimiser.param_groups:
        group["lr"] = lr * group["lr_factor"]


def _groups(optimiser: Optimiser, model: nn.Module) -> Iterator[dict[str, Any]]:
    left = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not left:
        raise TrainingError("no parameter of the network is trainable (requires_grad)")
    for own in optimiser.groups:
        names = [name for name in left if fnmatchcase(name, own.names)]
        if not names:
            raise TrainingError(f"no trainable parameter is named like '{own.names}'")
        yield _group([left.pop(name) for name in names], own.lr_factor, own.weight_decay)
    decay = [p for p in left.values() if p.ndim > 1 or optimiser.decay_all]
    plain = [p for p in left.values() if not (p.ndim > 1 or optimiser.decay_all)]
    for parameters, weight_decay in ((decay, optimiser.weight_decay), (plain, 0.0)):
        if parameters:
            yield _group(parameters, 1.0, weight_decay)


def _group(parameters: list[nn.Parameter], lr_factor: float, weight_decay: float) -> dict[str, Any]:
    return {"params": parameters, "lr_factor": lr_factor, "weight_decay": weight_decay}
