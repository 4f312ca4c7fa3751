"""One layer's least squares: its sums over the images, and the parameters that they give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.recover.layer_problems import HELD_OUT
from shrinkc.compiler.recover.least_squares import Normal, Solution, best, solve
from shrinkc.compiler.recover.resumed import Resumed
from shrinkc.passes.channels.channel_cuts import indices
from shrinkc.passes.criteria.shared.data import Batches, each_batch
from shrinkc.passes.criteria.shared.readers import (
    POSITIONS,
    Block,
    Layer,
    Positions,
    rows_made,
    rows_read,
)


@dataclass(frozen=True)
class Fit:
    """Of one layer: Σ‖y − Wx − b‖² over Σ‖y − mean‖², with the weights it had and with the new."""

    layer: str
    before: float
    after: float


@dataclass(frozen=True)
class LeastSquares:
    """How layers are fitted.

    ridge         λ, relative to the mean variance of what is read; None: the best of a dozen on
                  held-out images
    multi_branch  the last layer of a residual branch makes up for its shortcut
    positions     of each image, at most
    """

    ridge: float | None = None
    multi_branch: bool = True
    positions: int = POSITIONS


@dataclass(frozen=True, eq=False)
class Task:
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

    @property
    def shifts(self) -> bool:
        """There is a place for a bias."""
        return cast(Any, self.layer.bias) is not None or self.norm is not None

    def sums(self) -> list[tuple[Normal, Normal]]:
        """Empty, (to fit, held out) of each block."""
        sizes = [(len(b.inputs) * b.kernel, len(b.outputs)) for b in self.kept]
        return [(Normal(*size), Normal(*size)) for size in sizes]


@dataclass(frozen=True, eq=False)
class Pair:
    """Both networks and what they have computed; layers are fitted in execution order."""

    student: fx.GraphModule
    teacher: fx.GraphModule
    pruned: Resumed
    original: Resumed

    @staticmethod
    def of(student: fx.GraphModule, teacher: fx.GraphModule) -> Pair:
        return Pair(student, teacher, Resumed(student), Resumed(teacher))


def fit_layer(
    task: Task, pair: Pair, batches: Batches, options: LeastSquares
) -> tuple[Fit, dict[str, Tensor]]:
    sums = _sums(task, pair, batches, options)
    weight = task.layer.weight.detach().double().clone()
    shift = torch.zeros(len(weight), dtype=torch.float64)
    before = after = spread = 0.0
    for block, (fit, held) in zip(task.kept, sums, strict=True):
        if not task.shifts:
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
        weight[rows] = spread_out(block, found.weight)
        shift[rows] = found.bias
    scale = 1 / max(spread, 1e-300)
    new = _parameters(task, pair.student, weight, shift)
    return Fit(task.path, before * scale, after * scale), new


def spread_out(block: Block, fitted: Tensor) -> Tensor:
    """(outputs, inputs of the layer, kernel …), zero for what is not read."""
    shape = block.layer.weight.shape
    whole = torch.zeros(len(fitted), *shape[1:], dtype=torch.float64)
    fitted = fitted.reshape(len(fitted), len(block.inputs), *shape[2:])
    whole[:, indices(block.inputs % shape[1])] = fitted
    return whole


def _parameters(
    task: Task, student: fx.GraphModule, weight: Tensor, shift: Tensor
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
    task: Task, pair: Pair, batches: Batches, options: LeastSquares
) -> list[tuple[Normal, Normal]]:
    """(to fit, held out) of each block, in one pass."""
    shortcut = task.shortcut if options.multi_branch else None
    read, own = task.kept[0].source, task.node.name
    extra = [] if shortcut is None else [shortcut]
    sums, image = task.sums(), 0
    for network in (pair.pruned, pair.original):
        network.settle(own)
    for number, (inputs, _) in enumerate(each_batch(pair.teacher, batches)):
        mine = pair.pruned.values(number, inputs, [read, *extra])
        theirs = pair.original.values(number, inputs, [own, *extra])
        target = theirs[own]
        if shortcut is not None:
            target = target + _lost(task, pair.student, theirs[shortcut], mine[shortcut], target)
        positions = Positions(options.positions, number)
        held = torch.arange(image, image + len(target)) % HELD_OUT == HELD_OUT - 1
        image += len(target)
        for block, both in zip(task.kept, sums, strict=True):
            x = rows_read(block, mine[read], positions).cpu()
            y = rows_made(block, target, positions).cpu()
            _add(both, x, y, held.repeat_interleave(len(x) // len(target)), task.shifts)
    return sums


def _add(sums: tuple[Normal, Normal], x: Tensor, y: Tensor, held: Tensor, centred: bool) -> None:
    if not len(sums[0].x0):
        means = x.mean(0) * centred, y.mean(0) * centred
        for one in sums:
            one.centred_at(*means)
    for one, pick in zip(sums, (~held, held), strict=True):
        one.add(x[pick], y[pick])


def _lost(
    task: Task, student: fx.GraphModule, original: Tensor, pruned: Tensor, like: Tensor
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
