"""Activations that go little by little: y = (1 − s)·act(x) + s·x, s from 0 to 1 during a training.

DepthShrinker's code has it as the decay of slopes (Fu et al., 2022): of a ReLU6, s is the slope on
both sides of its range. In the end nothing is left of the activation, and merging is exact.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.train.settings.config import Hooks, Moment
from shrinkc.passes.base import copy_graph
from shrinkc.passes.ir import module_of


class Annealed(nn.Module):
    """An activation of which the share `gone` is the identity, `start` of it from the start."""

    def __init__(self, activation: nn.Module, start: float = 0.0) -> None:
        super().__init__()
        self.activation, self.start = activation, start
        self.gone: Tensor
        self.register_buffer("gone", torch.tensor(start))

    def forward(self, x: Tensor) -> Tensor:
        return (1 - self.gone) * self.activation(x) + self.gone * x


def rewired(
    graph: fx.GraphModule,
    names: Sequence[str],
    prefix: str,
    wrap: Callable[[str, nn.Module], nn.Module],
) -> fx.GraphModule:
    """A copy in which these activations are wrapped, as `prefix`_NAME."""
    found, wanted = copy_graph(graph), set(names)
    for node in list(found.graph.nodes):
        if node.name in wanted:
            activation = module_of(found, node)
            assert activation is not None
            path = f"{prefix}_{node.name}"
            found.add_submodule(path, wrap(node.name, activation))
            node.target = path
    found.recompile()
    return found


def annealed(
    prepared: fx.GraphModule,
    whole: fx.GraphModule,
    removed: Sequence[str],
    starts: Mapping[str, float] = MappingProxyType({}),
) -> fx.GraphModule:
    """A copy of a network without activations in which those that alone read their value are back,
    to be annealed. `whole`: the network that has them; `starts`: how much of them is gone."""
    found = copy_graph(prepared)
    nodes = {node.name: node for node in found.graph.nodes}
    wanted = set(removed)
    for node in whole.graph.nodes:
        source = node.all_input_nodes[0] if node.name in wanted else None
        if source is None or source.name not in nodes or len(source.users) > 1:
            continue
        value, activation = nodes[source.name], module_of(whole, node)
        assert activation is not None
        path = f"annealed_{node.name}"
        start = starts.get(node.name, 0.0)
        found.add_submodule(path, Annealed(copy.deepcopy(activation), start))
        users = list(value.users)
        with found.graph.inserting_after(value):
            made = found.graph.call_module(path, (value,))
        for user in users:
            user.replace_input_with(value, made)
    found.recompile()
    return found


def annealing(share: float) -> Hooks:
    """Over this share of a training's steps."""

    def after_step(model: nn.Module, moment: Moment) -> None:
        done = min(1.0, (moment.step + 1) / max(1.0, share * moment.steps))
        for module in model.modules():
            if isinstance(module, Annealed):
                module.gone.fill_(module.start + (1 - module.start) * done)

    return Hooks(after_step=after_step)


def take_weights(graph: fx.GraphModule, trained: nn.Module) -> None:
    """Those that the network has of another that has more."""
    state: dict[str, Any] = trained.state_dict()
    own = cast("dict[str, Tensor]", graph.state_dict())
    graph.load_state_dict({name: state[name] for name in own})
