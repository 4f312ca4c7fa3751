"""Compensation: what reads a pruned group gets the weights that miss least, by least squares.

    W = argmin Σ‖y − W x_kept − b‖² + λ‖W − W₀‖²

over unlabelled pictures, layer after layer in execution order: x is what the layer reads in the
pruned network, with the layers before it compensated already, y what it computes in the original
one (He et al., Channel Pruning, ICCV 2017; Xie et al., CaP, 2021). λ is chosen on a quarter of the
pictures that is held out.

Residual branches (He et al., section 3.3): the last layer of a branch also makes up for what the
shortcut has lost, y = y₁ + y₂ − y₁′ with y₁, y₁′ the shortcut of the original and of the pruned
network.

A layer without a bias is fitted with one where a batch norm follows, whose mean takes it. Nothing
is sliced: the weights keep their shapes, zero where nothing is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn

from ...passes.analysis.channel_groups import Groups, channel_groups
from ...passes.analysis.usage import Usage, usage
from ...passes.base import Skip, copy_graph
from ...passes.channel_cuts import Cut, indices, parameter_cuts
from ...passes.criteria.base import Selection
from ...passes.criteria.data import Batches, each_batch
from ...passes.criteria.readers import (
    POSITIONS,
    Block,
    Layer,
    Positions,
    blocks,
    rows_made,
    rows_read,
)
from ...passes.ir import add, module_of
from ...passes.mask_channels import mask_channels
from ...passes.new_weights import set_weights
from ...passes.slice_channels import SliceChannels, usable
from ..pipeline import node_values
from ..progress import Progress, Silent
from ..shrink.normal import Normal, Solution, best, solve
from ..shrink.rows import HELD_OUT


@dataclass(frozen=True)
class Fit:
    """Of one layer: Σ‖y − Wx − b‖² over Σ‖y − mean‖², with the weights it had and with the new."""

    layer: str
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class Compensation:
    """`selection` has the new weights; `skipped` are layers that read pruned channels and stay as
    they are."""

    selection: Selection
    fits: tuple[Fit, ...]
    skipped: tuple[Skip, ...]


@dataclass(frozen=True)
class LeastSquares:
    """How layers are fitted.

    ridge         λ, relative to the mean variance of what is read; None: the best of a dozen on
                  held-out pictures
    multi_branch  the last layer of a residual branch makes up for its shortcut
    positions     of each picture, at most
    """

    ridge: float | None = None
    multi_branch: bool = True
    positions: int = POSITIONS


def compensate(
    graph_module: fx.GraphModule,
    slicing: SliceChannels,
    batches: Batches,
    options: LeastSquares | None = None,
    progress: Progress | None = None,
) -> Compensation:
    """New weights for the readers of what `slicing` removes; weights that it sets come before.

    Memory: the sums of one layer, (inputs · kernel)² numbers, one batch's activations and the
    network twice. Time: for each layer, both networks up to that layer on all pictures. The graph
    is left as it is. Raises InputError where there are no pictures.
    """
    options, progress = options or LeastSquares(), progress or Silent()
    groups = channel_groups(graph_module, slicing.whole_conv_groups, slicing.outputs)
    keep, unusable = usable(groups, slicing.selection.keep)
    teacher = copy_graph(graph_module).eval()
    student = mask_channels(graph_module, slicing).eval()
    tasks, skipped = _tasks(student, groups, parameter_cuts(graph_module, groups, keep), teacher)
    weights = dict(slicing.selection.weights)
    fits: list[Fit] = []
    with progress.task("Compensating layers", len(tasks)) as done:
        for task in tasks:
            fit, new = _fit(task, student, teacher, batches, options)
            set_weights(student, new)
            weights.update(new)
            fits.append(fit)
            done()
    return Compensation(
        Selection(slicing.selection.keep, weights), tuple(fits), (*unusable, *skipped)
    )


# --- what is to be fitted ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Task:
    """One layer. `kept`: its blocks as far as they stay; `norm`: the batch norm that alone reads
    it; `shortcut`: the value that is added to what it computes."""

    node: fx.Node
    layer: Layer
    kept: tuple[Block, ...]
    norm: str | None
    shortcut: str | None

    @property
    def path(self) -> str:
        return cast(str, self.node.target)


def _tasks(
    student: fx.GraphModule, groups: Groups, cuts: Any, teacher: fx.GraphModule
) -> tuple[list[_Task], list[Skip]]:
    """In execution order; nodes are the original network's, layers the student's."""
    known = usage(teacher)
    tasks: list[_Task] = []
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
        kept = tuple(_kept(b, cut) for b in blocks(teacher, node))
        kept = tuple(b for b in kept if len(b.inputs) and len(b.outputs))
        norm = _norm(teacher, node, known)
        shortcut = _shortcut(teacher, node, norm is not None)
        layer = cast(Layer, module_of(student, node))
        tasks.append(_Task(node, layer, kept, None if norm is None else str(norm.target), shortcut))
    return tasks, skipped


def _reads_less(module: nn.Module | None, cut: Cut) -> bool:
    dim = 0 if isinstance(module, nn.ConvTranspose2d) else 1
    return dim in cut.kept


def _why_not(module: nn.Module | None, known: Usage) -> str | None:
    if not isinstance(module, nn.Conv2d | nn.Linear):
        return f"least squares is not done for {type(module).__name__}"
    reason = known.why_shared(module)
    return None if reason is None else f"least squares is not done: {reason}"


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


# --- one layer -----------------------------------------------------------------------------------


def _fit(
    task: _Task,
    student: fx.GraphModule,
    teacher: fx.GraphModule,
    batches: Batches,
    options: LeastSquares,
) -> tuple[Fit, dict[str, Tensor]]:
    free = cast(Any, task.layer.bias) is not None or task.norm is not None
    sums = _sums(task, student, teacher, batches, options)
    weight = task.layer.weight.detach().double().clone()
    shift = torch.zeros(len(weight), dtype=torch.float64)
    before = after = spread = 0.0
    for block, (fit, held) in zip(task.kept, sums, strict=True):
        if not free:
            fit, held = _through_zero(fit), _through_zero(held)
        both, prior = fit.plus(held), block.weight()
        if options.ridge is not None or not (held.count and fit.count):
            found = solve(both, options.ridge or 0.0, prior)
        else:
            found, _ = best(fit, held, (prior, None))
        rows = indices(block.outputs)
        bias = cast("Tensor | None", task.layer.bias)
        old = shift if bias is None else bias.detach().double()
        before += both.error(Solution(prior, old[rows]))
        after += both.error(found)
        spread += both.spread()
        weight[rows] = _spread_out(task, block, found.weight)
        shift[rows] = found.bias
    scale = 1 / max(spread, 1e-300)
    new = _parameters(task, student, weight, shift)
    return Fit(task.path, before * scale, after * scale), new


def _spread_out(task: _Task, block: Block, fitted: Tensor) -> Tensor:
    """(outputs, inputs of the layer, kernel …), zero for what is not read."""
    shape = task.layer.weight.shape
    whole = torch.zeros(len(fitted), *shape[1:], dtype=torch.float64)
    fitted = fitted.reshape(len(fitted), len(block.inputs), *shape[2:])
    whole[:, indices(block.inputs % shape[1])] = fitted
    return whole


def _parameters(
    task: _Task, student: fx.GraphModule, weight: Tensor, shift: Tensor
) -> dict[str, Tensor]:
    """Path → value: the weight, and the bias where there is a place for it."""
    own, path = task.layer, task.path
    new = {f"{path}.weight": weight.to(own.weight)}
    fitted = torch.zeros(len(weight), dtype=torch.bool)
    for block in task.kept:
        fitted[indices(block.outputs)] = True
    if cast(Any, own.bias) is not None:
        assert own.bias is not None
        new[f"{path}.bias"] = torch.where(fitted, shift.to(own.bias), own.bias.detach())
    elif task.norm is not None:
        mean = student.get_buffer(f"{task.norm}.running_mean")
        new[f"{task.norm}.running_mean"] = mean - shift.to(mean)
    return new


def _through_zero(normal: Normal) -> Normal:
    """Sums whose solution has no bias: their means count as zero. Rows were not centred."""
    size, targets = len(normal.gram) - 1, normal.cross.shape[1]
    raw = Normal(size, targets)
    raw.gram, raw.cross, raw.square = normal.gram.clone(), normal.cross.clone(), normal.square
    raw.gram[-1, :-1] = raw.gram[:-1, -1] = 0
    raw.cross[-1] = 0
    raw.centred_at(normal.x0, normal.y0)
    return raw


def _sums(
    task: _Task,
    student: fx.GraphModule,
    teacher: fx.GraphModule,
    batches: Batches,
    options: LeastSquares,
) -> list[tuple[Normal, Normal]]:
    """(to fit, held out) of each block, in one pass."""
    shortcut = task.shortcut if options.multi_branch else None
    read = [task.kept[0].source] if task.kept else []
    extra = [] if shortcut is None else [shortcut]
    sums = [
        (
            Normal(len(b.inputs) * b.kernel, len(b.outputs)),
            Normal(len(b.inputs) * b.kernel, len(b.outputs)),
        )
        for b in task.kept
    ]
    centred = cast(Any, task.layer.bias) is not None or task.norm is not None
    picture = 0
    for number, (inputs, _) in enumerate(each_batch(teacher, batches)):
        with torch.no_grad():
            mine = _values(student, inputs, [*read, *extra])
            theirs = _values(teacher, inputs, [task.node.name, *extra])
        target = theirs[task.node.name]
        if shortcut is not None:
            target = target + _lost(task, student, theirs[shortcut], mine[shortcut], target)
        positions = Positions(options.positions, number)
        held = torch.arange(picture, picture + len(target)) % HELD_OUT == HELD_OUT - 1
        picture += len(target)
        for block, (fit, other) in zip(task.kept, sums, strict=True):
            x = rows_read(block, mine[read[0]], positions).cpu()
            y = rows_made(block, target, positions).cpu()
            if not len(fit.x0):
                means = (x.mean(0), y.mean(0))
                start = (
                    means if centred else (torch.zeros_like(means[0]), torch.zeros_like(means[1]))
                )
                fit.centred_at(*start)
                other.centred_at(*start)
            pick = held.repeat_interleave(len(x) // len(target))
            fit.add(x[~pick], y[~pick])
            other.add(x[pick], y[pick])
    return sums


def _values(
    graph: fx.GraphModule, inputs: tuple[Tensor, ...], names: Sequence[str]
) -> dict[str, Tensor]:
    wanted, found = set(names), dict[str, Tensor]()
    for name, value in node_values(graph, inputs, wanted):
        found[name] = value
        if len(found) == len(wanted):
            break
    return found


def _lost(
    task: _Task, student: fx.GraphModule, original: Tensor, pruned: Tensor, like: Tensor
) -> Tensor:
    """What the shortcut has lost, as the layer must compute it for its norm to make it up."""
    lost = original - pruned
    if lost.shape != like.shape:
        return torch.zeros_like(like)
    if task.norm is None:
        return lost
    norm = student.get_submodule(task.norm)
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if cast(Any, norm.weight) is not None:
        scale = scale * norm.weight.detach()
    usable_scale = scale.abs() > 1e-3 * scale.abs().max()
    factor = torch.where(usable_scale, 1 / torch.where(usable_scale, scale, 1), 0)
    return lost * factor.reshape(-1, *(1,) * (like.ndim - 2))
