"""How the modules of families list their networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from benchmarks.shared.deployed import Builder

Factory = TypeVar("Factory", bound=Callable[[], nn.Module])
Given = tuple[int, ...] | Callable[[], Tensor]  # a shape of normal numbers, or what makes the input


def ids(count: int, *shape: int) -> Callable[[], Tensor]:
    """Whole numbers below `count`."""
    return lambda: torch.randint(0, count, shape)


def mask(*shape: int) -> Callable[[], Tensor]:
    """Every third is true."""
    return lambda: (torch.arange(shape[-1]) % 3 == 2).expand(shape).contiguous()


def listed(networks: dict[str, Builder], *inputs: Given) -> Callable[[Factory], Factory]:
    """Decorates a class or function whose docstring names the architecture and its source."""

    def enter(factory: Factory) -> Factory:
        assert factory.__doc__, f"{factory.__name__} does not say what it is"
        assert factory.__name__ not in networks, f"{factory.__name__} is there already"
        networks[factory.__name__] = lambda: built(factory, inputs or ((1, 3, 64, 64),))
        return factory

    return enter


def built(
    factory: Callable[[], nn.Module], inputs: tuple[Given, ...]
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Of seed 0, with batch norms that have seen something."""
    torch.manual_seed(0)
    model = factory().eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model, tuple(one() if callable(one) else torch.randn(one) for one in inputs)
