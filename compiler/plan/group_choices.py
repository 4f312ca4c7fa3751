"""Widths of channel groups that no span hides, as choices of a plan: residual streams, what several
layers read, a classifier's last features.

Which channels go is told by backward elimination: each time that which the layers that read the
group miss least, once all others are scaled anew (He et al., 2017, ask the same of the LASSO; of
MobileNetV2's groups either order does the same damage, and the LASSO's took 30 s). What reads the
others is compensated; what each width does to the outputs is measured, as for spans.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.depth.choices import FEW, WORTH
from shrinkc.compiler.depth.importance import MEASURED, PARTS, parts
from shrinkc.compiler.pipeline.slicing import run_slicing
from shrinkc.compiler.recover.compensate import compensate
from shrinkc.compiler.recover.divergence import Damage, agreeing, apart
from shrinkc.compiler.recover.from_sums import compensated
from shrinkc.compiler.recover.layer_problems import Sample
from shrinkc.compiler.recover.least_squares import elimination_order
from shrinkc.compiler.support.jobs import Job, Parallel, finished, workers
from shrinkc.compiler.support.journal import Journal, digest_of
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Answer, Task
from shrinkc.compiler.width.allocation import candidate_widths
from shrinkc.compiler.width.price import Price, layers_of
from shrinkc.compiler.width.prune import channel_multiple
from shrinkc.compiler.width.skeleton import Skeleton
from shrinkc.passes.analysis.channels.channel_groups import ChannelGroup, channel_groups
from shrinkc.passes.base import PassResult, copy_graph
from shrinkc.passes.channels.mask_channels import mask_channels
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.base import most_important
from shrinkc.passes.criteria.channel_pruning import contributions
from shrinkc.passes.criteria.shared.data import Batch
from shrinkc.passes.criteria.shared.readers import ReaderSums, reader_sums

WIDTHS, NARROWEST = 6, 1 / 2  # of a group, all of it included; a share of it
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class GroupChoice:
    """The channels of `keep` (size,) stay. `saving_ms`: with all else as it is."""

    group: ChannelGroup
    keep: Mask
    saving_ms: float

    @property
    def channels(self) -> int:
        return int(self.keep.sum())

    @property
    def label(self) -> str:
        return f"slice to {self.channels}: '{self.group.name}'"


def group_choices(
    graph: fx.GraphModule, table: CostTable, precision: str, hidden: Collection[str]
) -> list[GroupChoice]:
    """Widths that save notably more than every wider one, of groups that are not made by layers of
    the names `hidden`; which channels stay means nothing yet. Raises TableError where the table
    lacks the precision."""
    groups, multiple = channel_groups(graph), channel_multiple(table)
    widths: dict[str, tuple[int, ...]] = {}
    for group in groups.groups:
        step = multiple if group.size >= FEW else 1
        found = candidate_widths(group, NARROWEST * group.size, WIDTHS, step)
        if len(found) > 1 and not any(value.node in hidden for value in group.made):
            widths[group.name] = found
    if not widths:
        return []
    narrowest = {name: found[0] for name, found in widths.items()}
    price = layers_of(Skeleton(graph, groups), groups, narrowest).price("ms", table, precision)
    return [choice for name, found in widths.items() for choice in _of(groups[name], found, price)]


def _of(group: ChannelGroup, widths: Sequence[int], price: Price) -> Iterator[GroupChoice]:
    falling = widths[-2::-1]
    cost = sum(term.at(dict.fromkeys(price.sizes, 0)) for term in price.touching[group.name])
    saved, equal = 0.0, np.zeros(group.size)
    for width, change in zip(falling, price.changes({}, group.name, falling), strict=True):
        if -change >= saved + WORTH * cost:
            saved = -change
            yield GroupChoice(group, most_important(group, equal, width), saved)


def measure_groups(
    graph: fx.GraphModule,
    wanted: Sequence[GroupChoice],
    sample: Sample,
    cache: Path | None,
    progress: Progress,
    *,
    task: Task = CLASSIFICATION,
    parallel: Parallel = 1,
) -> dict[str, tuple[GroupChoice, Damage]]:
    """Label → the choice with the channels that should stay, and what it alone does, its readers
    compensated. Kept in `cache`; of groups that no layer reads there is nothing. The same in
    whatever number of processes. Raises as `run_jobs`."""
    if not wanted:
        return {}
    sample = sample.at_most(MEASURED)
    fitting, judging = sample.split()
    seen = f"groups by elimination {task!r} {sample.images.digest} {sample.size} {sample.indices}"
    journal = Journal(cache, digest_of(graph, seen))
    groups = list({choice.group.name: choice.group for choice in wanted}.values())
    missing = [g for g in groups if not _known(journal, g, wanted)]
    asked = [(group, _of_group(group, wanted)) for group in missing]
    labels = {choice.label for _, few in asked for choice in few}
    with (
        progress.task("Measuring what channel groups cost", len(labels)) as done,
        closing(_measured(graph, asked, fitting, judging, task, parallel)) as results,
    ):
        for label, numbers in results:
            journal.put(label, numbers)
            if label in labels:
                done()
    found: dict[str, tuple[GroupChoice, Damage]] = {}
    for group in groups:
        scores = _scores(journal, group)
        for choice in _of_group(group, wanted) if len(scores) else []:
            keep = most_important(group, scores, choice.channels)
            loss, agreement = journal.entries[choice.label]
            damage = Damage(loss, agreement, float("nan"))
            found[choice.label] = replace(choice, keep=keep), damage
    return found


Measured = tuple[str, list[float]]  # a label, and what the journal has of it
Wanted = tuple[ChannelGroup, list[GroupChoice]]


def _measured(
    graph: fx.GraphModule,
    asked: Sequence[Wanted],
    fitting: Sample,
    judging: Sample,
    task: Task,
    parallel: Parallel,
) -> Generator[Measured]:
    if parallel == 1 or not asked:
        yield from _damages(graph, asked, fitting, judging, task)
        return
    bounds = parts([len(few) for _, few in asked], PARTS * workers(parallel))
    jobs = [Job(f"channel groups {i + 1} to {j}", _part, (i, j)) for i, j in bounds]
    shared = graph, asked, fitting.alone(), judging.alone(), task
    with closing(finished(jobs, len(jobs), parallel, shared=shared)) as results:
        for _, found in results:
            yield from found


def _part(
    graph: fx.GraphModule,
    asked: Sequence[Wanted],
    fitting: Sample,
    judging: Sample,
    task: Task,
    start: int,
    end: int,
) -> list[Measured]:
    return list(_damages(graph, asked[start:end], fitting, judging, task))


def _damages(
    graph: fx.GraphModule, asked: Sequence[Wanted], fitting: Sample, judging: Sample, task: Task
) -> Iterator[Measured]:
    """Of each group its channels' scores, and what each of its choices does."""
    choices = {group.name: few for group, few in asked}
    answers = _answers(graph, judging) if asked else []
    groups = [group for group, _ in asked]
    for group, sums in reader_sums(graph, groups, _batches(fitting)):
        scores = _scores_from(sums, group.size) if sums else []
        yield _scored(group), scores
        for choice in choices[group.name] if sums else []:
            keep = most_important(group, np.array(scores), choice.channels)
            weights = compensated(graph, sums, keep)
            slicing = SliceChannels(Selection({group.name: keep}, weights))
            yield choice.label, _judge(mask_channels(graph, slicing), answers, task)


def _scores_from(sums: Sequence[ReaderSums], size: int) -> list[float]:
    """(size,) When each channel goes, from the sums of the layers that read the group."""
    gram = torch.tensor(contributions(sums, size))
    scores = [float(size)] * size  # of the last one
    for place, channel in enumerate(elimination_order(gram, gram.sum(1, keepdim=True), 1, 1)):
        scores[channel] = float(place)
    return scores


def _of_group(group: ChannelGroup, wanted: Sequence[GroupChoice]) -> list[GroupChoice]:
    return [choice for choice in wanted if choice.group.name == group.name]


def _scored(group: ChannelGroup) -> str:
    """The label of its channels' scores: the more, the more important."""
    return f"scores: {group.name}"


def _scores(journal: Journal, group: ChannelGroup) -> npt.NDArray[np.float64]:
    """None where no layer reads the group."""
    return np.array(journal.entries[_scored(group)])


def _known(journal: Journal, group: ChannelGroup, wanted: Sequence[GroupChoice]) -> bool:
    scores = journal.entries.get(_scored(group))
    if scores is None:
        return False
    return not scores or all(c.label in journal.entries for c in _of_group(group, wanted))


@torch.no_grad()
def _answers(graph: fx.GraphModule, sample: Sample) -> list[tuple[tuple[Tensor, ...], Answer]]:
    """To each batch of inputs."""
    return [(x, graph(*x)) for x, _ in sample.batches()]


@torch.no_grad()
def _judge(
    changed: fx.GraphModule, answers: Sequence[tuple[tuple[Tensor, ...], Answer]], task: Task
) -> list[float]:
    """Divergence of the answers, and their agreement."""
    lost = same = count = 0.0
    for x, want in answers:
        got: Answer = changed(*x)
        lost += apart(task, got, want, len(x[0]))
        same += agreeing(task, got, want, len(x[0]))
        count += len(x[0])
    return [lost / count, same / count]


def _batches(sample: Sample) -> list[Batch]:
    return [(x, None) for x, _ in sample.batches()]


def sliced(graph: fx.GraphModule, chosen: Sequence[GroupChoice]) -> fx.GraphModule:
    """Its shape, with numbers of no meaning in what reads the groups."""
    if not chosen:
        return graph
    keep = {choice.group.name: choice.keep for choice in chosen}
    return SliceChannels(Selection(keep))(graph).graph_module


def sliced_and_fitted(
    graph: fx.GraphModule, chosen: Sequence[GroupChoice], sample: Sample, progress: Progress
) -> PassResult:
    """The network with these widths, what reads them compensated on `MEASURED` images at most;
    verified: sliced equals masked."""
    if not chosen:
        return PassResult(copy_graph(graph), ())
    selection = Selection({choice.group.name: choice.keep for choice in chosen})
    batches = _batches(sample.at_most(MEASURED))
    fitted = compensate(graph, SliceChannels(selection), batches, progress=progress).selection
    narrower, done = run_slicing(graph, SliceChannels(fitted))
    return PassResult(narrower, done.changes, done.skipped)
