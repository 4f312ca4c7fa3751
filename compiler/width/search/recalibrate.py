"""Batch norms that fit what a changed network computes now.

    mean, var  ←  of all images together, layer after layer, with the layers before as they are now

A network whose channels went, or that takes other weights than it was trained with, has statistics
of another one in its batch norms. A pass in training mode with cumulative averages puts them right:
published with slimmable networks (Yu and Huang, 2019), and done by MetaPruning and DMCP before a
network is judged. No gradient, no labels.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def norms(graph: nn.Module) -> list[Norm]:
    """Those that keep statistics."""
    found = [m for m in graph.modules() if isinstance(m, Norm)]
    return [m for m in found if cast(Any, m.running_mean) is not None]


def recalibrate(graph: fx.GraphModule, inputs: Sequence[tuple[Tensor, ...]]) -> None:
    """In place; everything else stays in the mode it is in. Batches count the same, whatever their
    size: give equal ones. Without batch norms nothing happens."""
    found = norms(graph)
    if not found:
        return
    with _counting(found), torch.no_grad():
        for batch in inputs:
            graph(*batch)


@contextmanager
def _counting(found: list[Norm]) -> Generator[None]:
    """Statistics of what passes, from nothing: the mean over batches."""
    before = [(norm, norm.momentum, norm.training) for norm in found]
    for norm in found:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True
    try:
        yield
    finally:
        for norm, momentum, training in before:
            norm.momentum, norm.training = momentum, training
