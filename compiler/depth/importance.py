"""How much every choice alone hurts: fitted in the original network, judged on its outputs.

The damage of a choice is the task's divergence of the answers from the original's, averaged over
images that no fit saw. It is measured once and kept in a file; a run that was interrupted goes on
where it stopped.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import accumulate as accumulated
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from shrinkc.compiler.depth.choices import (
    Choice,
    Fitted,
    consumer_problem,
    dense_problem,
    fit_dense,
    fit_narrow,
    fitted_drop,
    merged_kernel,
    narrow_ridge,
    order_of,
    weight_of,
)
from shrinkc.compiler.recover.divergence import Damage, agreeing, apart
from shrinkc.compiler.recover.layer_problems import Problem, Sample, Sums, accumulate, needed
from shrinkc.compiler.recover.resumed import Resumed
from shrinkc.compiler.support.jobs import Job, Parallel, finished, workers
from shrinkc.compiler.support.journal import Journal, digest_of
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Answer, Task

MEASURED = 160  # images; three of four fit, the others judge
CHUNK = 256 << 20  # bytes of sums at a time
PARTS = 3  # for every worker: none waits long for the last, and each runs the network to its part


def problems_of(graph: fx.GraphModule, wanted: Sequence[Choice]) -> list[Problem]:
    """What has to be summed up for the choices of one span."""
    span, kinds = wanted[0].span, {choice.kind for choice in wanted}
    problems = [dense_problem(span)] if "merge" in kinds else []
    return problems + ([consumer_problem(graph, span)] if "narrow" in kinds else [])


def fit_span(
    graph: fx.GraphModule, wanted: Sequence[Choice], sums: Sequence[Sums], *, roughly: bool = False
) -> list[Fitted]:
    """Choices of one span, fitted by the sums of `problems_of` them. `roughly`: all widths with the
    ridge that is best for half of the channels."""
    span = wanted[0].span
    kinds = {choice.kind for choice in wanted}
    merged = merged_kernel(graph, span) if "merge" in kinds else None
    order: list[int] = []
    now, how = torch.zeros(0), None
    if "narrow" in kinds and span.hidden is not None:
        now = weight_of(graph, span.hidden.consumer)
        half = -(-span.hidden.channels // 2)
        fewest = min(c.channels for c in wanted if c.kind == "narrow")
        order = order_of(sums[-1], span, min(half, fewest))
        if roughly:
            how = narrow_ridge(span.hidden, half, sums[-1], order, now)
    found: list[Fitted] = []
    for choice in wanted:
        match choice.kind:
            case "drop":
                found.append(fitted_drop(choice))
            case "merge":
                kernel = None if merged is None else merged.weight
                found.append(fit_dense(choice, sums[0], kernel))
            case "narrow":
                found.append(fit_narrow(choice, sums[-1], order, now, how))
    return found


def measure(
    graph: fx.GraphModule,
    wanted: Sequence[Choice],
    sample: Sample,
    cache: Path | None,
    progress: Progress,
    *,
    task: Task = CLASSIFICATION,
    parallel: Parallel = 1,
) -> list[Damage]:
    """The damage of each choice alone, in the order of `wanted`; the same in whatever number of
    processes. Raises as `run_jobs`."""
    sample = sample.at_most(MEASURED)
    fitting, judging = sample.split()
    seen = f"{task!r} {sample.images.digest} {sample.size} {sample.indices}"
    journal = Journal(cache, digest_of(graph, seen), count=3)
    known = {label: Damage(*numbers) for label, numbers in journal.entries.items()}
    order = {node.name: i for i, node in enumerate(graph.graph.nodes)}
    left: dict[int, list[Choice]] = {}
    for choice in sorted(wanted, key=lambda c: (order[c.span.source], order[c.span.sink])):
        if choice.label not in known:
            left.setdefault(id(choice.span), []).append(choice)
    spans, count = list(left.values()), sum(map(len, left.values()))
    with (
        progress.task("Measuring what each choice costs", count) as done,
        closing(_measured(graph, spans, fitting, judging, task, parallel)) as found,
    ):
        for index, damages in found:
            for choice, damage in zip(spans[index], damages, strict=True):
                journal.put(choice.label, [damage.loss, damage.agreement, damage.error])
                known[choice.label] = damage
                done()
    return [known[choice.label] for choice in wanted]


def _measured(
    graph: fx.GraphModule,
    spans: Sequence[list[Choice]],
    fitting: Sample,
    judging: Sample,
    task: Task,
    parallel: Parallel,
) -> Generator[tuple[int, list[Damage]]]:
    """(number of a span, the damages of its choices), as they are known."""
    if parallel == 1:
        yield from enumerate(_damages(graph, spans, fitting, judging, task))
        return
    bounds = parts([len(few) for few in spans], PARTS * workers(parallel))
    jobs = [Job(f"spans {i + 1} to {j}", _part, (i, j)) for i, j in bounds]
    shared = graph, spans, fitting.alone(), judging.alone(), task
    with closing(finished(jobs, len(jobs), parallel, shared=shared)) as results:
        for index, found in results:
            yield from enumerate(found, bounds[index][0])


def parts(weights: Sequence[int], count: int) -> list[tuple[int, int]]:
    """(first, behind the last) of at most `count` parts in a row, of about the same weight."""
    ends = list(accumulated(weights))
    middles = [end - weight / 2 for end, weight in zip(ends, weights, strict=True)]
    numbers = [int(count * middle / ends[-1]) for middle in middles]
    starts = [i for i, number in enumerate(numbers) if i == 0 or number != numbers[i - 1]]
    return list(pairwise([*starts, len(weights)]))


def _part(
    graph: fx.GraphModule,
    spans: Sequence[list[Choice]],
    fitting: Sample,
    judging: Sample,
    task: Task,
    start: int,
    end: int,
) -> list[list[Damage]]:
    return list(_damages(graph, spans[start:end], fitting, judging, task))


def _damages(
    graph: fx.GraphModule,
    spans: Sequence[list[Choice]],
    fitting: Sample,
    judging: Sample,
    task: Task,
) -> Iterator[list[Damage]]:
    """Of the choices of each span. None depends on the spans before it."""
    network = Resumed(graph)
    for few, sums in _summed(graph, spans, fitting):
        yield judge(network, fit_span(graph, few, sums, roughly=True), judging, task=task)


def _summed(
    graph: fx.GraphModule, spans: Sequence[list[Choice]], sample: Sample
) -> Iterator[tuple[list[Choice], list[Sums]]]:
    """The choices of each span with the sums that they are fitted by; one pass over the images for
    as many spans as `CHUNK` holds the sums of."""
    network, start = Resumed(graph), 0
    problems = [problems_of(graph, few) for few in spans]
    while start < len(spans):
        end, size = start, 0
        while end < len(spans) and (end == start or size < CHUNK):
            size += sum(16 * (p.numbers + 1) ** 2 for p in problems[end])
            end += 1
        together = [p for some in problems[start:end] for p in some]
        sums = iter(accumulate(together, network, network, sample) if together else [])
        for i in range(start, end):
            yield spans[i], [next(sums) for _ in problems[i]]
        start = end


def judge(
    network: Resumed,
    fitted: Sequence[Fitted],
    sample: Sample,
    *,
    task: Task = CLASSIFICATION,
) -> list[Damage]:
    """What each does alone. The part of the network before the span runs once for all of them, and
    for those of spans behind it."""
    graph, span = network.graph_module, fitted[0].choice.span
    changed = [one.replacement(graph).graph_module for one in fitted]
    totals = [[0.0, 0.0] for _ in fitted]
    count = 0
    network.settle(span.source)
    for number, (x, rows) in enumerate(sample.batches()):
        start = network.alive(number, x, span.source)
        want = resume(graph, start, x)
        for sums, student in zip(totals, changed, strict=True):
            got = resume(student, start, x)
            sums[0] += apart(task, got, want, len(rows))
            sums[1] += agreeing(task, got, want, len(rows))
        count += len(rows)
    return [
        Damage(sums[0] / count, sums[1] / count, one.error)
        for sums, one in zip(totals, fitted, strict=True)
    ]


def resume(graph: fx.GraphModule, known: dict[str, Tensor], x: tuple[Tensor, ...]) -> Answer:
    """The graph's outputs, computed from values that are known by name."""
    interpreter = fx.Interpreter(graph, garbage_collect_values=False)
    env = interpreter.env
    output = next(n for n in reversed(graph.graph.nodes) if n.op == "output")
    outputs: Any = output.args[0]
    given = dict(zip(graph.graph.find_nodes(op="placeholder"), x, strict=True))
    computed = set[fx.Node]().union(*(needed(node, known) for node in outputs))
    readers = {node: set(node.users) & (computed | {output}) for node in graph.graph.nodes}
    with torch.no_grad():
        for node in graph.graph.nodes:
            if node.name in known:
                env[node] = known[node.name]
            elif node not in computed:
                continue
            elif node.op == "placeholder":
                env[node] = given[node]
            else:
                env[node] = interpreter.run_node(node)
            if node not in computed:
                continue
            for source in node.all_input_nodes:
                readers[source].discard(node)
                if not readers[source]:
                    env.pop(source, None)
    return tuple(env[node] for node in outputs)
