"""A network whose convolutions have weights that are made for its widths.

For every convolution that makes or reads channels that may go, two linear layers look at the shares
c ∈ (0, 1]ᵏ that those groups have of their widths:

    W(c) = reshape(A₂·relu(A₁c + b₁) + b₂),   32 numbers between them

and the first rows and columns of W, in the order of the criterion's scores, are the narrower
convolution's weights. All other parameters are shared by all widths.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from shrinkc.compiler.width.search.slimmable import slimmable
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import Keep, channel_groups

HIDDEN = 32  # as published
Convolution = nn.Conv2d | nn.ConvTranspose2d


class Maker(nn.Module):
    """Of one convolution's weights. It starts as those that were trained, whatever the widths."""

    def __init__(self, weight: Tensor, groups: tuple[str, ...]) -> None:
        super().__init__()
        self.groups, self.shape = groups, weight.shape
        self.hidden = nn.Linear(len(groups), HIDDEN, dtype=weight.dtype)
        self.out = nn.Linear(HIDDEN, weight.numel(), dtype=weight.dtype)
        with torch.no_grad():
            self.out.weight.zero_()
            self.out.bias.copy_(weight.flatten())

    def forward(self, shares: Mapping[str, float]) -> Tensor:
        at = torch.tensor([shares[name] for name in self.groups]).to(self.out.bias)
        return self.out(self.hidden(at).relu()).reshape(self.shape)


class PruningNet(nn.Module):
    """A copy of the graph that runs, and is trained, at the widths it was set to last.

    Raises InputError where no convolution makes or reads groups of these `names`.
    """

    def __init__(self, graph: fx.GraphModule, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.gates = slimmable(graph, names)
        self.makers = nn.ModuleList()
        self.paths: list[tuple[str, ...]] = []  # of the layers that have a maker's weights
        for paths, groups in _convolutions(graph, names):
            self.makers.append(Maker(graph.get_parameter(f"{paths[0]}.weight"), groups))
            self.paths.append(tuple(f"{path}.weight" for path in paths))
            for path in paths:
                _vacate(self.network.get_submodule(path))
        self.names = names
        self.set({})

    def set(self, keep: Keep) -> None:
        """What stays of each group; groups that are not named stay whole."""
        self.shares = self._shares(keep)
        self.gates.set({name: torch.tensor(mask).float() for name, mask in keep.items()})

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return functional_call(self.network, self._weights(self.shares), inputs)

    @torch.no_grad()
    def state(self, keep: Keep) -> dict[str, Tensor]:
        """Of the whole network, with the weights that are made for what stays."""
        return {**self.network.state_dict(), **self._weights(self._shares(keep))}

    def _shares(self, keep: Keep) -> dict[str, float]:
        return {n: float(keep[n].mean()) if n in keep else 1.0 for n in self.names}

    def _weights(self, shares: Mapping[str, float]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for paths, maker in zip(self.paths, self.makers, strict=True):
            weight: Tensor = maker(shares)
            found.update((path, weight) for path in paths)
        return found


def _convolutions(
    graph: fx.GraphModule, names: tuple[str, ...]
) -> list[tuple[list[str], tuple[str, ...]]]:
    """(layers that have one tensor for weights, groups that they make or read)."""
    layers: dict[int, list[str]] = {}
    groups: dict[int, dict[str, None]] = {}
    for group in channel_groups(graph).groups:
        for part in group.slices if group.name in names else ():
            layer = graph.get_submodule(part.layer)
            if part.parameter != "weight" or not isinstance(layer, Convolution):
                continue
            paths = layers.setdefault(id(layer.weight), [])
            if part.layer not in paths:
                paths.append(part.layer)
            groups.setdefault(id(layer.weight), {})[group.name] = None
    if not layers:
        raise InputError(
            "`method` meta makes the weights of convolutions, and no convolution makes or reads "
            "channels that can go",
            "take another `method`",
        )
    return [(paths, tuple(groups[key])) for key, paths in layers.items()]


def _vacate(layer: nn.Module) -> None:
    """Its weights are made now: nothing to train, nothing to keep."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    del layer.weight
    layer.register_buffer("weight", torch.empty_like(weight), persistent=False)
