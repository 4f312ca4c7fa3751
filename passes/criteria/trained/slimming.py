"""Network Slimming (Liu et al., Learning Efficient Convolutional Networks, ICCV 2017).

Training adds λ Σ|γ| over the scales of batch norms, which drives those of unneeded channels to
zero; then the channels with the smallest |γ| of the whole network go, by one threshold.

As the authors prune networks with shortcuts, channels go inside blocks alone. The streams between
them stay: their |γ| measure one summand each, and pruned by them streams empty first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, fx, nn

from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import ChannelGroup, Groups, ParameterSlice
from shrinkc.passes.criteria.base import Scores
from shrinkc.passes.criteria.shared.streams import is_stream
from shrinkc.passes.criteria.spec import CriterionSpec


@dataclass(frozen=True)
class NetworkSlimming:
    """|γ|; the mean where several batch norms scale the same channel.

    Groups that no batch norm scales, and streams unless `streams`, are not judged. Raises
    InputError where that is all of them.
    """

    streams: bool = False
    name: ClassVar[str] = "network-slimming"

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Scores:
        judged = [g for g in groups.groups if self.streams or not is_stream(graph_module, g)]
        scaled = {g.name: scales(graph_module, g) for g in judged}
        _check(scaled)
        found: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
        for group in judged:
            total, count = np.zeros(group.size), np.zeros(group.size)
            for part in scaled[group.name]:
                gamma = graph_module.get_parameter(part.path).detach().double().abs().cpu().numpy()
                np.add.at(total, part.channels, gamma[part.positions])
                np.add.at(count, part.channels, 1)
            if count.all():
                found[group.name] = total / count
        return found


def slimming_penalty(
    graph_module: fx.GraphModule, groups: Groups, strength: float = 1e-4
) -> Callable[[nn.Module, object], Tensor]:
    """strength · Σ|γ| over the batch norms whose channels can go, for a training's `penalty`.

    Raises InputError where there is no such batch norm.
    """
    scaled = {g.name: scales(graph_module, g) for g in groups.groups}
    _check(scaled)
    paths = list(dict.fromkeys(part.path for parts in scaled.values() for part in parts))

    def penalty(model: nn.Module, _moment: object) -> Tensor:
        return strength * torch.stack([model.get_parameter(p).abs().sum() for p in paths]).sum()

    return penalty


def authors_strength(graph_module: fx.GraphModule, groups: Groups) -> float:
    """1e-5 for networks with shortcuts (ResNet, DenseNet), 1e-4 for others (VGG)."""
    shortcuts = any(is_stream(graph_module, group) for group in groups.groups)
    return 1e-5 if shortcuts else 1e-4


def scales(graph_module: fx.GraphModule, group: ChannelGroup) -> list[ParameterSlice]:
    """Where batch norms scale channels of the group."""
    return [
        part
        for part in group.slices
        if (part.role, part.parameter) == ("scale", "weight")
        and isinstance(graph_module.get_submodule(part.layer), nn.BatchNorm1d | nn.BatchNorm2d)
    ]


def _check(scaled: dict[str, Sequence[ParameterSlice]] | dict[str, list[ParameterSlice]]) -> None:
    if not any(scaled.values()):
        raise InputError(
            "Network Slimming needs batch norms with scales behind the layers to prune, and there "
            "are none; prune before they are folded, or choose another criterion"
        )


SLIMMING = CriterionSpec(
    "slimming",
    NetworkSlimming,
    lambda given: NetworkSlimming(),
    normalise="none",
    allocation="global",
    penalty=slimming_penalty,
    strength=authors_strength,
)
