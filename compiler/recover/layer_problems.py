"""Images through two graphs: what a layer reads in one, and should answer as in the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from shrinkc.compiler.images.augment import Size
from shrinkc.compiler.images.decoded import Images, Samples
from shrinkc.compiler.pipeline.run import node_values
from shrinkc.compiler.recover.least_squares import Normal
from shrinkc.compiler.recover.resumed import Resumed
from shrinkc.errors import InputError
from shrinkc.passes.algebra.window import Padding, Pair, Window

BATCH = 10  # images: the values between two layers at 112×112 are its memory
HELD_OUT = 4  # every fourth image chooses the regularisation
ROWS, ROWS_PER_NUMBER = 20_000, 15  # positions that a fit looks at, at most


@dataclass(frozen=True)
class Sample:
    """The images that closed-form fits look at, centre crops of the network's `size`, or its other
    inputs.
    Of evenly spread ones those whose numbers are in `part`, `batch` at a time."""

    images: Samples
    size: Size | None
    limit: int = 1000
    part: tuple[int, ...] | None = None
    batch: int = BATCH

    @classmethod
    def of(cls, images: Samples, graph: fx.GraphModule, limit: int = 1000) -> Sample:
        """For a network. Raises InputError as `batch_for`."""
        size = size_of(graph) if isinstance(images, Images) else None
        return cls(images, size, limit, batch=batch_for(graph, BATCH))

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def indices(self) -> tuple[int, ...]:
        """Their places among all images."""
        count = min(len(self.images), self.limit)
        step = len(self.images) / count
        part = range(count) if self.part is None else self.part
        return tuple(int(i * step) for i in part)

    def at_most(self, count: int) -> Sample:
        """Evenly spread ones of these."""
        numbers = tuple(range(len(self))) if self.part is None else self.part
        step = max(1.0, len(numbers) / count)
        some = (numbers[int(i * step)] for i in range(min(count, len(numbers))))
        return replace(self, part=tuple(some))

    def alone(self) -> Sample:
        """The same, with a copy of its own images alone: to be sent to another process."""
        images = self.images.part(torch.tensor(self.indices))
        return replace(self, images=images, limit=len(images), part=None)

    def split(self, every: int = HELD_OUT) -> tuple[Sample, Sample]:
        """Those that fit and those that judge, of so many one, evenly spread; one alone does
        both."""
        numbers = tuple(range(len(self))) if self.part is None else self.part
        held = numbers[every - 1 :: every] or numbers
        rest = tuple(sorted(set(numbers) - set(held))) or numbers
        return replace(self, part=rest), replace(self, part=held)

    def batches(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """(inputs, their numbers)."""
        rows = torch.tensor(self.indices)
        for few in cast("tuple[Tensor, ...]", cast(Any, rows).split(self.batch)):
            yield self.images.taken(few, self.size), few


def shuffled(count: int, batch: int, seed: int) -> Iterator[Tensor]:
    """`batch` of `count` rows at a time, without end; each once before any again, but for those
    that do not fill a batch."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator)
        for start in range(0, count - batch + 1, batch):
            yield order[start : start + batch]


def needed(node: fx.Node, known: Collection[str]) -> set[fx.Node]:
    """What has to be computed for a node's value once those of the names in `known` are there."""
    found, waiting = set[fx.Node](), [node]
    while waiting:
        node = waiting.pop()
        if node.name not in known and node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


@dataclass(frozen=True, eq=False)
class Problem:
    """A linear map to be fitted: a window over the value of `reads`, answering with `target`.

    target gives (n, out, h, w) from the student's and the teacher's values of `student` and
    `teacher` nodes.
    """

    reads: str
    window: Window
    padding: Padding
    student: tuple[str, ...]
    teacher: tuple[str, ...]
    target: Callable[[dict[str, Tensor], dict[str, Tensor]], Tensor]

    @property
    def numbers(self) -> int:
        """In a row."""
        kh, kw = self.window.kernel
        return self.window.in_channels * kh * kw

    def rows(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], share: float, seed: int
    ) -> tuple[Tensor, Tensor]:
        """(rows, numbers), (rows, out): a random share of the positions of every image."""
        y = self.target(student, teacher)
        x = _padded(student[self.reads], self.padding)
        generator = torch.Generator().manual_seed(seed)
        height, width = y.shape[2:]
        count = max(1, round(share * height * width))
        at = torch.randperm(height * width, generator=generator)[:count]
        i, j = at // width, at % width
        picked = _patches(x, i, j, self.window)
        return picked, y[:, :, i, j].permute(0, 2, 1).reshape(-1, y.shape[1])


Sums = tuple[Normal, Normal]  # (to fit, held out)


def sums_of(problem: Problem) -> Sums:
    """Empty."""
    numbers, targets = problem.numbers, problem.window.out_channels
    return Normal(numbers, targets), Normal(numbers, targets)


def accumulate(
    problems: Sequence[Problem], student: Resumed, teacher: Resumed, sample: Sample
) -> list[Sums]:
    """The sums of every problem, in one pass over the images. Where the student is the teacher, a
    problem's values are forgotten as soon as they are added up."""
    sums = [sums_of(problem) for problem in problems]
    reads = {name for p in problems for name in (p.reads, *p.student)}
    answers = {name for p in problems for name in p.teacher}
    for number, (x, rows) in enumerate(sample.batches()):
        if student is teacher:
            ready = _as_computed(problems, teacher.graph_module, x)
        else:
            both = student.values(number, x, reads), teacher.values(number, x, answers)
            ready = ((i, *both) for i in range(len(problems)))
        for i, mine, theirs in ready:
            share = _share(problems[i], theirs, len(sample))
            a, b = problems[i].rows(mine, theirs, share, number)
            held = torch.arange(len(rows)) % HELD_OUT == number % HELD_OUT
            pick = held.repeat_interleave(len(a) // len(rows))
            fit, other = sums[i]
            if not len(fit.x0):
                fit.centred_at(a.mean(0), b.mean(0))
                other.centred_at(fit.x0, fit.y0)
            fit.add(a[~pick], b[~pick])
            other.add(a[pick], b[pick])
    return sums


def _as_computed(
    problems: Sequence[Problem], graph: fx.GraphModule, x: tuple[Tensor, ...]
) -> Iterator[tuple[int, dict[str, Tensor], dict[str, Tensor]]]:
    """The numbers of the problems as soon as all that they are about is there, and the values."""
    left = {i: {p.reads, *p.student, *p.teacher} for i, p in enumerate(problems)}
    found: dict[str, Tensor] = {}
    for name, value in node_values(graph, x, set[str]().union(*left.values())):
        found[name] = value
        for i in [i for i, names in left.items() if names <= found.keys()]:
            del left[i]
            yield i, found, found
        if not left:
            return
        wanted = set[str]().union(*left.values())
        found = {name: value for name, value in found.items() if name in wanted}


def _share(problem: Problem, teacher: dict[str, Tensor], images: int) -> float:
    """Neighbouring positions say the same: as many as a stable fit needs."""
    height, width = teacher[problem.teacher[0]].shape[2:]
    wanted = max(ROWS, ROWS_PER_NUMBER * problem.numbers)
    return min(1.0, wanted / (images * height * width))


def _padded(x: Tensor, padding: Padding) -> Tensor:
    height, width = padding.own
    around = padding.explicit or (width, width, height, height)
    return F.pad(x, around) if any(around) else x


def _patches(x: Tensor, i: Tensor, j: Tensor, window: Window) -> Tensor:
    """What the outputs at rows `i`, columns `j` read: (n · positions, in · kh · kw)."""
    (rows, columns), (kh, kw) = window.axes, window.kernel
    down = (i * rows.stride)[:, None] + torch.arange(kh) * rows.dilation
    right = (j * columns.stride)[:, None] + torch.arange(kw) * columns.dilation
    picked = x[:, :, down[:, :, None], right[:, None, :]]  # n, in, positions, kh, kw
    return picked.permute(0, 2, 1, 3, 4).reshape(-1, x.shape[1] * kh * kw)


def batch_for(graph: fx.GraphModule, most: int) -> int:
    """How many samples a network takes at a time: `most`, or one where it takes no other number.
    Raises InputError for one that takes several only."""
    if graph.meta.get("dynamic_batch", True):
        return most
    only = next(iter(graph.meta["input_shapes"].values()))[0]
    if only != 1:
        raise InputError(
            f"the network takes batches of {only} only, and fits give it single images",
            "give `inputs` of one sample",
        )
    return 1


def size_of(graph: fx.GraphModule) -> Pair:
    """(height, width) of the images that the network reads."""
    shape = next(iter(graph.meta["input_shapes"].values()))
    return shape[2], shape[3]
