"""A user's module before and after: what the functions of the API must not change."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def state_of(module: nn.Module) -> tuple[Any, ...]:
    """Weights, buffers, which tensors they are, flags and modes."""
    return (
        {name: x.clone() for name, x in module.state_dict().items()},
        [(name, id(x), x.requires_grad, x.grad is None) for name, x in module.named_parameters()],
        [(name, part.training) for name, part in module.named_modules()],
        [(x.dtype, x.device) for x in module.state_dict().values()],
    )


@contextmanager
def untouched(module: nn.Module) -> Generator[None]:
    """Fails where `module` is another afterwards, errors included."""
    weights, *rest = state_of(module)
    try:
        yield
    finally:
        after, *now = state_of(module)
        assert now == rest
        assert list(after) == list(weights)
        for name, x in weights.items():
            assert torch.equal(after[name], x), name


def small(channels: int = 32) -> nn.Sequential:
    """Two convolutions with batch norms, five classes; in train mode, as one is made."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()),
        *(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)),
    )
