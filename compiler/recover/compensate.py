"""Compensation: what reads a pruned group gets the weights that miss least, by least squares.

    W = argmin Σ‖y − W x_kept − b‖² + λ‖W − W₀‖²

over unlabelled images, layer after layer in execution order: x is what the layer reads in the
pruned network, with the layers before it compensated already, y what it computes in the original
one (He et al., Channel Pruning, ICCV 2017; Xie et al., CaP, 2021). λ is chosen on a quarter of the
images that is held out.

Residual branches (He et al., section 3.3): the last layer of a branch also makes up for what the
shortcut has lost, y = y₁ + y₂ − y₁′ with y₁, y₁′ the shortcut of the original and of the pruned
network.

A layer without a bias is fitted with one where a batch norm follows, whose mean takes it. Nothing
is sliced: the weights keep their shapes, zero where nothing is read.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from torch import fx, nn

from shrinkc.compiler.recover.fit_layer import Fit, LeastSquares, Pair, Task, fit_layer
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.passes.analysis.channels.channel_groups import Groups, channel_groups
from shrinkc.passes.analysis.usage import Usage, usage
from shrinkc.passes.base import Skip, copy_graph
from shrinkc.passes.channels.channel_cuts import Cut, Cuts, parameter_cuts
from shrinkc.passes.channels.mask_channels import mask_channels
from shrinkc.passes.channels.new_weights import set_weights
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels, usable
from shrinkc.passes.criteria.shared.data import Batches
from shrinkc.passes.criteria.shared.readers import Block, Layer, blocks
from shrinkc.passes.ir import add, module_of


@dataclass(frozen=True, eq=False)
class Compensation:
    """`selection` has the new weights; `skipped` are layers that read pruned channels and stay as
    they are."""

    selection: Selection
    fits: tuple[Fit, ...]
    skipped: tuple[Skip, ...]


def compensate(
    graph_module: fx.GraphModule,
    slicing: SliceChannels,
    batches: Batches,
    options: LeastSquares | None = None,
    progress: Progress | None = None,
    layers: Collection[str] | None = None,
) -> Compensation:
    """New weights for the readers of what `slicing` removes; weights that it sets come before.

    `layers`: paths of those to fit, others stay as they are; None: all readers.

    Memory: the sums of one layer, (inputs · kernel)² numbers, one batch's activations, the network
    twice, and what both have computed up to the layer (`resumed.MEMORY` each). The graph is left
    as it is. Raises InputError where there are no images.
    """
    options, progress = options or LeastSquares(), progress or Silent()
    groups = channel_groups(graph_module, slicing.whole_conv_groups, slicing.outputs)
    keep, unusable = usable(groups, slicing.selection.keep)
    teacher = copy_graph(graph_module).eval()
    student = mask_channels(graph_module, slicing).eval()
    tasks, skipped = _tasks(student, groups, parameter_cuts(graph_module, groups, keep), teacher)
    tasks = [task for task in tasks if layers is None or task.path in layers]
    weights = dict(slicing.selection.weights)
    fits: list[Fit] = []
    pair = Pair.of(student, teacher)
    with progress.task("Compensating layers", len(tasks)) as done:
        for task in tasks:
            fit, new = fit_layer(task, pair, batches, options)
            set_weights(student, new)
            weights.update(new)
            fits.append(fit)
            done()
    return Compensation(
        Selection(slicing.selection.keep, weights), tuple(fits), (*unusable, *skipped)
    )


def _tasks(
    student: fx.GraphModule, groups: Groups, cuts: Cuts, teacher: fx.GraphModule
) -> tuple[list[Task], list[Skip]]:
    """In execution order; nodes are the original network's, layers the student's."""
    known = usage(teacher)
    tasks: list[Task] = []
    skipped: list[Skip] = []
    for node in teacher.graph.nodes:
        module = module_of(teacher, node)
        cut = cuts.get(f"{node.target}.weight") if module is not None else None
        if cut is None or not _reads_less(module, cut):
            continue
        reason = _why_not(module, known)
        if reason:
            skipped.append(Skip(node.name, reason))
            continue
        kept = _blocks_left(teacher, node, cut)
        if not kept:
            continue
        norm = _norm(teacher, node, known)
        shortcut = _shortcut(teacher, node, norm is not None)
        layer = cast(Layer, module_of(student, node))
        tasks.append(Task(node, layer, kept, None if norm is None else str(norm.target), shortcut))
    return tasks, skipped


def _reads_less(module: nn.Module | None, cut: Cut) -> bool:
    dim = 0 if isinstance(module, nn.ConvTranspose2d) else 1
    return dim in cut.kept


def _why_not(module: nn.Module | None, known: Usage) -> str | None:
    if not isinstance(module, nn.Conv2d | nn.Linear):
        return f"least squares is not done for {type(module).__name__}"
    reason = known.why_shared(module)
    return None if reason is None else f"least squares is not done: {reason}"


def _blocks_left(graph: fx.GraphModule, node: fx.Node, cut: Cut) -> tuple[Block, ...]:
    """The blocks that stay, as far as they do; none where each reads all that it read."""
    pairs = [(block, _kept(block, cut)) for block in blocks(graph, node)]
    pairs = [(block, kept) for block, kept in pairs if len(kept.inputs) and len(kept.outputs)]
    less = any(len(kept.inputs) < len(block.inputs) for block, kept in pairs)
    return tuple(kept for _, kept in pairs) if less else ()


def _kept(block: Block, cut: Cut) -> Block:
    inputs = block.inputs[np.isin(block.inputs, cut.kept[1])]
    outputs = block.outputs
    if 0 in cut.kept:
        outputs = outputs[np.isin(outputs, cut.kept[0])]
    return Block(block.node, block.source, block.layer, inputs, outputs)


def _norm(graph: fx.GraphModule, node: fx.Node, known: Usage) -> fx.Node | None:
    """The batch norm that alone reads a layer, and reads nothing else."""
    if len(node.users) != 1:
        return None
    reader = next(iter(node.users))
    module = module_of(graph, reader)
    if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) or known.calls(module) > 1:
        return None
    return None if cast(Any, module.running_mean) is None else reader


def _shortcut(graph: fx.GraphModule, node: fx.Node, normed: bool) -> str | None:
    """The other summand of a sum that the layer, or its norm, ends in; computed before it."""
    last = next(iter(node.users)) if normed else node
    if len(last.users) != 1:
        return None
    total = next(iter(last.users))
    others = [n for n in total.all_input_nodes if n is not last]
    if cast(Any, total.target) is not add or len(others) != 1:
        return None
    order = {n: i for i, n in enumerate(graph.graph.nodes)}
    return others[0].name if order[others[0]] < order[node] else None
