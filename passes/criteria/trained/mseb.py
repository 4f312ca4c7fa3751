"""UCP's modified squeeze-and-excitation blocks (Chang et al., Uniform Channel Pruning, 2020, arXiv
2010.01251).

Behind every convolution, its batch norm and its activation stands a block that looks at the means
of all channels and scales each of them by an excitation e ∈ (0, 1)ᶜ:

    e = σ(W₂·relu(W₁·mean(x))),   W₁ (c / 16, c), no biases; of 16 channels or fewer (1, c), biases

The network is trained with its blocks. A channel's score is its mean excitation over the training
set; a stage whose shortcuts couple its convolutions has one score a channel, the mean over them.
Then the blocks are gone: what is pruned is the network without them.

In the paper, channels go that score less than 0.999 times their layer's mean. Here, too, one
threshold holds for all layers, in parts of their means, but it follows from the goal. What is left
is trained from scratch in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, fx, nn

from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import Groups
from shrinkc.passes.base import copy_graph
from shrinkc.passes.criteria.base import Scores
from shrinkc.passes.criteria.shared.data import Observed, each_batch, evaluating
from shrinkc.passes.criteria.spec import CriterionSpec, Given, Teaching
from shrinkc.passes.ir import ELEMENTWISE_MODULES, module_of, mul

REDUCTION = 16
_torch: Any = torch  # some of its functions have no types


class Excitation(nn.Module):
    """(n, c, h, w) → (n, c, 1, 1)"""

    def __init__(self, channels: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        small = channels <= REDUCTION
        hidden = 1 if small else channels // REDUCTION
        self.down = nn.Linear(channels, hidden, bias=small, dtype=dtype)
        self.up = nn.Linear(hidden, channels, bias=small, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x.mean((2, 3))).relu()).sigmoid()[:, :, None, None]


@dataclass(frozen=True, eq=False)
class MSEB:
    """The mean excitation, trained anew whenever channels are scored. Groups that no convolution
    with a batch norm makes are not judged. Raises InputError where that is all of them."""

    teaching: Teaching
    seed: int = 0
    name: ClassVar[str] = "mseb"

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Scores:
        excited, blocks = with_excitations(graph_module, self.seed)
        if not any(made.node in blocks for group in groups.groups for made in group.made):
            raise InputError(
                "mseb needs batch norms behind the convolutions to prune, and there are none; "
                "prune before they are folded, or choose another criterion"
            )
        self.teaching.fit(excited)
        means = mean_excitations(excited, set(blocks.values()), self.teaching)
        found: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
        for group in groups.groups:
            total, count = np.zeros(group.size), np.zeros(group.size)
            for made in group.made:
                if made.node in blocks:
                    values = means[blocks[made.node]]
                    np.add.at(total, made.channels, values[made.positions])
                    np.add.at(count, made.channels, 1)
            if count.all():
                found[group.name] = total / count
        return found


def with_excitations(
    graph_module: fx.GraphModule, seed: int
) -> tuple[fx.GraphModule, dict[str, str]]:
    """A copy with blocks, and node of a convolution → node of its excitation."""
    excited, blocks = copy_graph(graph_module), dict[str, str]()
    with _torch.random.fork_rng(devices=[]):
        _torch.manual_seed(seed)
        for node in list(excited.graph.nodes):
            layer, end = module_of(excited, node), _end(excited, node)
            if end is not None and isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                block = Excitation(layer.out_channels, layer.weight.dtype).to(layer.weight.device)
                blocks[node.name] = _insert(excited, end, f"excitation_{len(blocks)}", block)
    excited.recompile()
    return excited, blocks


def mean_excitations(
    excited: fx.GraphModule, nodes: set[str], teaching: Teaching
) -> Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Over all images that are trained on."""
    total, count = dict[str, Tensor](), 0

    def seen(node: fx.Node, value: Tensor) -> None:
        if node.name in nodes:
            total[node.name] = total.get(node.name, 0) + value.double().sum((0, 2, 3)).cpu()

    with torch.no_grad(), evaluating(excited):
        for inputs, _ in each_batch(excited, teaching.batches):
            count += len(inputs[0])
            Observed(excited, seen).run(*inputs)
    return {name: (one / count).numpy() for name, one in total.items()}


def _end(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Of a layer with a batch norm that alone reads it: that, or the activation behind it."""
    norm = _only_reader(node)
    if norm is None or not isinstance(module_of(graph_module, norm), nn.BatchNorm2d):
        return None
    behind = _only_reader(norm)
    activations = (*ELEMENTWISE_MODULES, nn.PReLU)
    activated = behind is not None and isinstance(module_of(graph_module, behind), activations)
    return behind if activated else norm


def _only_reader(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].op != "output" else None


def _insert(excited: fx.GraphModule, end: fx.Node, path: str, block: Excitation) -> str:
    """All that read `end` read it scaled; the node of the excitation."""
    excited.add_submodule(path, block)
    readers = list(end.users)
    with end.graph.inserting_after(end):
        excitation = end.graph.call_module(path, (end,))
    with end.graph.inserting_after(excitation):
        scaled = end.graph.call_function(cast(Any, mul), (end, excitation))
    for reader in readers:
        reader.replace_input_with(end, scaled)
    return excitation.name


def _built(given: Given) -> MSEB:
    if given.teaching is None:
        raise InputError("`criterion` mseb scores by a training of its own", "give `train`")
    return MSEB(given.teaching, given.seed)


MSEB_SPEC = CriterionSpec("mseb", MSEB, _built, normalise="mean", allocation="global", learns=True)
