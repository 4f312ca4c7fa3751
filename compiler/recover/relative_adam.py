"""Training in units of each filter's size, so that one learning rate suits all of them.

Batch norms are folded, so filters differ by orders of magnitude: a rate that moves the large ones
destroys the small ones. Adam on w over its root mean square moves each by the same share (LAMB,
You et al., 2020, does so layer by layer).
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.func import functional_call

from shrinkc.compiler.train.onednn import safe_gradients
from shrinkc.passes.base import copy_graph

SMALLEST = 1e-6  # what a filter of zeros counts as, so that it can grow
LAST_RATE = 0.02  # of the learning rate, at the end
DECAY = (0.9, 0.99)  # of Adam's averages: runs are short


class Relative:
    """A copy of a graph, to be trained for a while.

    learning_rate  share of a filter's size that a step moves it by
    warm_up        steps until the rate is reached; from there it falls as a cosine
    """

    def __init__(self, graph: fx.GraphModule, learning_rate: float, warm_up: int) -> None:
        self.graph, self.learning_rate, self.warm_up = copy_graph(graph), learning_rate, warm_up
        parameters = {name: p.detach() for name, p in self.graph.named_parameters()}
        self._sizes = {name: _size(p) for name, p in parameters.items()}
        self._shares = {n: (p / self._sizes[n]).requires_grad_() for n, p in parameters.items()}
        self._optimiser = torch.optim.Adam(self._shares.values(), learning_rate, betas=DECAY)
        self._steps = 0

    def __call__(self, *x: Tensor) -> Any:
        return cast(Any, functional_call)(self.graph, self._weights(), x)

    def weights(self) -> dict[str, Tensor]:
        """Of all parameters, as they are now, by name."""
        return {name: weight.detach() for name, weight in self._weights().items()}

    def _weights(self) -> dict[str, Tensor]:
        return {name: share * self._sizes[name] for name, share in self._shares.items()}

    def step(self, loss: Tensor, past: float) -> None:
        """Against the loss's gradient. `past`: the share of the training that is over, 0 to 1."""
        self._steps += 1
        cosine = LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * past)) / 2
        for group in self._optimiser.param_groups:
            group["lr"] = self.learning_rate * cosine * min(1.0, self._steps / self.warm_up)
        self._optimiser.zero_grad()
        with safe_gradients(self.graph):
            cast(Any, loss).backward()
        cast(Any, self._optimiser).step()


def _size(parameter: Tensor) -> Tensor:
    """Root mean square of each filter's weights; the mean of a layer's biases."""
    if parameter.ndim > 1:
        dims = tuple(range(1, parameter.ndim))
        return parameter.square().mean(dim=dims, keepdim=True).sqrt().clamp(min=SMALLEST)
    return parameter.abs().mean().clamp(min=1e-3)
