"""Group sparse learning (Fang et al., DepGraph, CVPR 2023; `group_sl` in the authors' code).

A channel k of a group has one norm over all that goes with it: the filters that make it, the norms
that scale it, the weights that read it, of all layers,

    I_k = √ Σ_w ‖w[k]‖²,    penalty = strength/2 · Σ_k γ_k I_k²,

    γ_k = 2^(α (I_max − I_k) / (I_max − I_min)),    α = 4,

so that the gradient at a weight is strength · γ_k · w: γ is taken anew in every step and is no part
of the derivative. It grows as a channel falls behind, from 1 for the group's largest to 16 for its
smallest. The penalty takes the place of weight decay.

Then the channels go whose I_k², over the largest of their group, is smallest in the whole network.
Biases count nowhere, as in the authors' code, whose γ is by I as well (the paper writes I for the
sum of squares). Filters of depthwise convolutions count here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, fx, nn

from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import ChannelGroup, Groups, ParameterSlice
from shrinkc.passes.criteria.base import Scores
from shrinkc.passes.criteria.spec import CriterionSpec
from shrinkc.passes.criteria.trained.ssl import channel_squares

ALPHA = 4.0  # γ is from 1 to 2^ALPHA
STRENGTH = 5e-4  # of the authors' code
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True)
class GroupNorm:
    """The squared norm of all weights that go with a channel, over the largest of its group."""

    name: ClassVar[str] = "group-sl"

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Scores:
        found: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
        for group in groups.groups:
            with torch.no_grad():
                parts = coupled(graph_module, group)
                squares = channel_squares(graph_module, group, parts).double().cpu().numpy()
            largest = squares.max()
            found[group.name] = squares / largest if largest else squares
        return found


def group_penalty(
    graph_module: fx.GraphModule, groups: Groups, strength: float = STRENGTH
) -> Callable[[nn.Module, object], Tensor]:
    """strength/2 · Σ γ_k I_k² over all groups, for a training's `penalty`. Raises InputError where
    there is no group."""
    parts = [(group, coupled(graph_module, group)) for group in groups.groups]
    parts = [(group, some) for group, some in parts if some]
    if not parts:
        raise InputError("group-sl finds no channels that can go in this network")

    def penalty(model: nn.Module, _moment: object) -> Tensor:
        squares = [channel_squares(model, group, some) for group, some in parts]
        terms = [(growth(square.detach().sqrt()) * square).sum() for square in squares]
        return strength / 2 * torch.stack(terms).sum()

    return penalty


def growth(norms: Tensor) -> Tensor:
    """γ of channels with these norms; 1 where all are equal, so that none has fallen behind."""
    largest = norms.max()
    behind, span = largest - norms, largest - norms.min()
    return torch.exp2(ALPHA * torch.where(span > 0, behind / span.clamp(min=1e-30), 0.0))


def coupled(graph_module: fx.GraphModule, group: ChannelGroup) -> list[ParameterSlice]:
    """All weights that go with the group's channels."""
    return [
        part
        for part in group.slices
        if part.parameter.startswith("weight")
        and (
            part.role in ("out", "in") or isinstance(graph_module.get_submodule(part.layer), _NORMS)
        )
    ]


GROUP_SL = CriterionSpec(
    "group-sl",
    GroupNorm,
    lambda given: GroupNorm(),
    normalise="none",
    allocation="global",
    penalty=group_penalty,
    strength=lambda graph, groups: STRENGTH,
    decays=False,
)
