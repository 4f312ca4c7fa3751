"""SSL, structured sparsity learning (Wen et al., NeurIPS 2016): a group lasso in training.

    penalty = Σ over structures ‖w_structure‖₂

filter   the filters that make a channel, of all layers that make it together
channel  the weights that read a channel, of all layers that read it together
shape    the weights at one input channel and kernel position, of all filters of a convolution
depth    a layer's weights, of convolutions with a shortcut around them: what they make goes, at
         most through a norm, into a sum with a value from before them

After training, structures near zero go: channels by `SSL.scores` and `above`; residual branches
whose last layer `zero_layers` names (`DropSpan` leaves the shortcut alone); `zero_shapes` tells
which filter shapes are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor, fx, nn

from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import ChannelGroup, Groups, ParameterSlice
from shrinkc.passes.channels.channel_cuts import indices
from shrinkc.passes.criteria.base import Scores
from shrinkc.passes.criteria.spec import CriterionSpec
from shrinkc.passes.ir import add, module_of

Kind = Literal["filter", "channel", "shape", "depth"]
_ROLES: dict[str, str] = {"out": "filter", "in": "channel"}


@dataclass(frozen=True)
class SSL:
    """The norm of a channel's filters and of what reads it: of the structures in `kinds`."""

    kinds: tuple[Literal["filter", "channel"], ...] = ("filter", "channel")
    name: ClassVar[str] = "ssl"

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Scores:
        found: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
        for group in groups.groups:
            parts = [p for kind in self.kinds for p in structure(group, kind)]
            with torch.no_grad():
                squares = channel_squares(graph_module, group, parts).double()
            found[group.name] = squares.sqrt().cpu().numpy()
        return found


def ssl_penalty(
    graph_module: fx.GraphModule,
    groups: Groups,
    strength: float = 1e-4,
    kinds: tuple[Kind, ...] = ("filter", "channel"),
) -> Callable[[nn.Module, object], Tensor]:
    """strength · Σ ‖w_structure‖₂, for a training's `penalty`. Raises InputError where there is no
    structure of a kind."""
    terms: list[Callable[[nn.Module], Tensor]] = []
    for kind in kinds:
        found = _terms(graph_module, groups, kind)
        if not found:
            raise InputError(f"SSL finds nothing of kind '{kind}' in this network")
        terms += found

    def penalty(model: nn.Module, _moment: object) -> Tensor:
        return strength * torch.stack([term(model) for term in terms]).sum()

    return penalty


def zero_layers(graph_module: fx.GraphModule, threshold: float) -> tuple[str, ...]:
    """Nodes of last layers of branches that depth sparsity has removed: their root mean square
    weight is up to `threshold`."""
    found: list[str] = []
    for node, path in _shortcut_layers(graph_module):
        weight = graph_module.get_parameter(f"{path}.weight").detach()
        if float(weight.double().square().mean().sqrt()) <= threshold:
            found.append(node)
    return tuple(found)


def zero_shapes(graph_module: fx.GraphModule, threshold: float) -> dict[str, Tensor]:
    """Layer → (in / groups, kh, kw), True where the weights of all its filters are zero: root mean
    square up to `threshold`."""
    weights = {p: graph_module.get_parameter(f"{p}.weight") for p in _convs(graph_module)}
    return {p: w.detach().double().square().mean(0).sqrt() <= threshold for p, w in weights.items()}


def _terms(
    graph_module: fx.GraphModule, groups: Groups, kind: Kind
) -> list[Callable[[nn.Module], Tensor]]:
    match kind:
        case "filter" | "channel":
            parts = [(group, structure(group, kind)) for group in groups.groups]
            return [_channel_term(group, some) for group, some in parts if some]
        case "shape":
            return [_weight_term(f"{path}.weight", True) for path in _convs(graph_module)]
        case "depth":
            layers = _shortcut_layers(graph_module)
            return [_weight_term(f"{path}.weight", False) for _, path in layers]


def _channel_term(
    group: ChannelGroup, parts: Sequence[ParameterSlice]
) -> Callable[[nn.Module], Tensor]:
    return lambda model: _root(channel_squares(model, group, parts)).sum()


def _weight_term(path: str, shape: bool) -> Callable[[nn.Module], Tensor]:
    def term(model: nn.Module) -> Tensor:
        square = model.get_parameter(path).square()
        return _root(square.sum(0) if shape else square.sum()).sum()

    return term


def _root(square: Tensor) -> Tensor:
    """√, with gradient 0 instead of infinity at 0."""
    return torch.where(square > 0, square, 1).sqrt() * (square > 0)


def structure(group: ChannelGroup, kind: Literal["filter", "channel"]) -> list[ParameterSlice]:
    """The weights that make the group's channels, or those that read them; biases left out."""
    return [
        part
        for part in group.slices
        if part.parameter == "weight" and _ROLES.get(part.role) == kind
    ]


def channel_squares(
    model: nn.Module, group: ChannelGroup, parts: Sequence[ParameterSlice]
) -> Tensor:
    """(size,) sums of squares of the group's channels, differentiable."""
    first = model.get_parameter(parts[0].path) if parts else torch.empty(0)
    total = torch.zeros(group.size, dtype=first.dtype, device=first.device)
    for part in parts:
        square = model.get_parameter(part.path).square()
        if part.groups > 1:
            square = square.reshape(part.groups, -1, *square.shape[1:]).movedim(2, 1).flatten(0, 1)
        else:
            square = square.movedim(part.dim, 0)
        own = square.reshape(len(square), -1).sum(1)
        positions, channels = (indices(a).to(first.device) for a in (part.positions, part.channels))
        total = total.index_add(0, channels, own.index_select(0, positions))
    return total


def _convs(graph_module: fx.GraphModule) -> list[str]:
    called = [
        n for n in graph_module.graph.nodes if isinstance(module_of(graph_module, n), nn.Conv2d)
    ]
    return list(dict.fromkeys(cast(str, node.target) for node in called))


def _shortcut_layers(graph_module: fx.GraphModule) -> list[tuple[str, str]]:
    """(node, path) of convolutions that end in a sum with a value from before them."""
    return [
        (node.name, cast(str, node.target))
        for node in graph_module.graph.nodes
        if isinstance(module_of(graph_module, node), nn.Conv2d)
        and any(_around(reader, node) for reader in _chain(graph_module, node))
    ]


def _chain(graph_module: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """The only readers behind a layer, one after the other, through norms to the first sum."""
    chain: list[fx.Node] = []
    while len(node.users) == 1:
        node = next(iter(node.users))
        chain.append(node)
        if not isinstance(module_of(graph_module, node), nn.BatchNorm2d):
            break
    return chain


def _around(node: fx.Node, layer: fx.Node) -> bool:
    """A sum of what comes from `layer` and of a value from before it."""
    target: Any = node.target
    if target is not add or len(node.all_input_nodes) != 2:
        return False
    order = {n: i for i, n in enumerate(node.graph.nodes)}
    return any(order[source] < order[layer] for source in node.all_input_nodes)


STRUCTURED_SPARSITY = CriterionSpec(
    "ssl",
    SSL,
    lambda given: SSL(),
    penalty=ssl_penalty,
    depth=partial(ssl_penalty, kinds=("filter", "channel", "depth")),
    strength=lambda graph, groups: 1e-4,
)
