"""Group Fisher's schedule (Liu et al., ICML 2021): during training, every d steps one channel goes.

The masks of `group_fisher` are modules of the network that is trained. Each step's gradients add
to the Fisher information; after `every` steps the channel with the least information for what it
takes is masked (one of each cell, where convolution groups must stay alike), and the sums start
anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, fx, nn

from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import Groups, Keep
from shrinkc.passes.base import copy_graph
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.criteria.base import most_important, widths
from shrinkc.passes.criteria.shared.channel_costs import macs_per_channel, memory_per_channel
from shrinkc.passes.criteria.shared.masked_reads import MaskedRead, masked_reads


class FisherMask(nn.Module):
    """Multiplies what one layer reads, and notes each image's gradient of the masks."""

    def __init__(self, read: MaskedRead, size: int, note: Callable[[str, Tensor], None]) -> None:
        super().__init__()
        self.read, self.note = read, note
        self.mask: Tensor
        self.register_buffer("mask", torch.ones(1, size))

    def forward(self, x: Tensor) -> Tensor:
        mask = self.mask.to(x.dtype)
        if not (self.training and torch.is_grad_enabled()):
            return x * self.read.factor(mask, x)
        each = mask.expand(x.shape[0], -1).clone().requires_grad_()
        y = x * self.read.factor(each, x)
        cast(Any, each).register_hook(self._note)
        return y

    def _note(self, gradient: Tensor) -> None:
        self.note(self.read.group, gradient.detach())


class FisherPruning:
    """The state of a pruning: `after_step` and the state of a training's hooks.

    keep      what is left
    until     asked before every removal: is it enough?
    cost      group → what one channel takes, now
    multiple  widths are multiples of it: as many channels go at once, in as many times the steps
    """

    def __init__(
        self,
        groups: Groups,
        every: int,
        cost: Callable[[Keep], Mapping[str, float]],
        until: Callable[[Keep], bool],
        multiple: int = 1,
    ) -> None:
        if every < 1:
            raise InputError(f"a channel every {every} steps: give 1 or more")
        reads = [one for some in masked_reads(groups).values() for one in some]
        normalised = {u.node for u in groups.uses if u.how == "left out"}
        whole = {g.name for g in groups.groups if any(r.node in normalised for r in g.read)}
        names = dict.fromkeys(r.group for r in reads if r.group not in whole)
        self.groups, self.every, self.cost, self.until = groups, every * multiple, cost, until
        self.multiple = multiple
        self.keep = {n: np.ones(groups[n].size, bool) for n in names}
        self.information = {n: torch.zeros(groups[n].size, dtype=torch.float64) for n in names}
        self.steps = 0
        self._pending: dict[str, Tensor] = {}

    def note(self, group: str, gradient: Tensor) -> None:
        """(n, size) of one layer; coupled layers add up before the square."""
        known = self._pending.get(group)
        self._pending[group] = gradient if known is None else known + gradient

    def after_step(self, model: nn.Module, _moment: object) -> None:
        for name, gradient in self._pending.items():
            self.information[name] += gradient.double().square().sum(0).cpu()
        self._pending.clear()
        self.steps += 1
        if self.steps % self.every == 0:
            if not self.until(self.keep):
                self._remove()
                self._mask(model)
            for total in self.information.values():
                total.zero_()

    def selection(self) -> Selection:
        return Selection({name: mask for name, mask in self.keep.items() if not mask.all()})

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "keep": {n: torch.tensor(mask.tolist()) for n, mask in self.keep.items()},
            "information": {n: total.clone() for n, total in self.information.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        self.steps = state["steps"]
        self.keep = {n: np.array(mask.tolist(), bool) for n, mask in state["keep"].items()}
        self.information = {n: total.clone() for n, total in state["information"].items()}

    def _remove(self) -> None:
        """The least important channel of all (of each cell); none where all groups are at their
        narrowest."""
        costs = self.cost(self.keep)
        found: list[_Candidate] = []
        for name, kept in self.keep.items():
            group = self.groups[name]
            narrower = [n for n in widths(group, self.multiple) if n < kept.sum()]
            if narrower:
                scores = self.information[name].numpy().copy()
                scores[~kept] = -1.0  # gone before
                mask = most_important(group, scores, narrower[-1])
                gone = kept & ~mask
                found.append(_Candidate(float(scores[gone].mean()) / costs[name], name, mask))
        if found:
            best = min(found, key=lambda candidate: candidate.score)
            self.keep[best.group] = best.keep

    def _mask(self, model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, FisherMask) and module.read.group in self.keep:
                mask = torch.tensor(self.keep[module.read.group].tolist())
                module.mask.copy_(mask.to(module.mask)[None])


@dataclass(frozen=True, eq=False)
class _Candidate:
    score: float
    group: str
    keep: Any


@dataclass(frozen=True)
class FisherSchedule:
    """A channel goes after every `every` steps: 25 in the paper's classification runs. `per`: what
    its information is divided by: memory or FLOPs of a channel, or what it takes of the budget."""

    every: int = 25
    per: Literal["memory", "flops", "budget"] = "memory"

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"`every` {self.every}: a channel every so many steps, 1 or more")

    def __str__(self) -> str:
        return f"a channel every {self.every} steps"

    def start(
        self,
        graph_module: fx.GraphModule,
        groups: Groups,
        cost: Callable[[Keep], Mapping[str, float]],
        until: Callable[[Keep], bool],
        multiple: int,
    ) -> tuple[fx.GraphModule, FisherPruning]:
        memory = memory_per_channel(graph_module, groups)  # the same at all widths

        def takes(keep: Keep) -> Mapping[str, float]:
            if self.per == "memory":
                return memory
            return cost(keep) if self.per == "budget" else macs_per_channel(*given, keep)

        given = graph_module, groups
        return fisher_network(*given, takes, until, self.every, multiple)

    def removals(self, steps: int, multiple: int) -> int:
        return steps // (self.every * multiple)

    def finish(self, graph_module: fx.GraphModule, trained: nn.Module) -> fx.GraphModule:
        return unmasked(graph_module, trained)


def fisher_network(
    graph_module: fx.GraphModule,
    groups: Groups,
    cost: Callable[[Keep], Mapping[str, float]],
    until: Callable[[Keep], bool],
    every: int = 25,
    multiple: int = 1,
) -> tuple[fx.GraphModule, FisherPruning]:
    """A copy to be trained, with masks, and what its training calls after every step.

    Groups that a norm over channels reads stay whole. `cost` and `until` are asked with what is
    left; `every` is 25 in the paper's classification runs. `unmasked` gives the weights back.
    """
    pruning = FisherPruning(groups, every, cost, until, multiple)
    network = copy_graph(graph_module)
    nodes = {node.name: node for node in network.graph.nodes}
    for number, ((reader, source), reads) in enumerate(masked_reads(groups).items()):
        for place, one in enumerate(r for r in reads if r.group in pruning.keep):
            path = f"fisher_mask_{number}_{place}"
            network.add_submodule(path, FisherMask(one, groups[one.group].size, pruning.note))
            _insert(network, nodes[reader], nodes[source], path)
    network.recompile()
    return network, pruning


def _insert(network: fx.GraphModule, reader: fx.Node, source: fx.Node, path: str) -> None:
    """Between the source (or the masks that already stand there) and this reader alone."""
    read = next(n for n in reader.all_input_nodes if cast(Any, n.meta).get("masks", n) is source)
    with network.graph.inserting_before(reader):
        masked = network.graph.call_module(path, (read,))
    masked.meta["masks"] = source
    reader.replace_input_with(read, masked)


def unmasked(graph_module: fx.GraphModule, trained: nn.Module) -> fx.GraphModule:
    """A copy of the network that was given, with the weights of the one that was trained."""
    copy = copy_graph(graph_module)
    state = cast("dict[str, Tensor]", trained.state_dict())
    copy.load_state_dict({name: state[name] for name in cast(Any, copy.state_dict())})
    return copy
