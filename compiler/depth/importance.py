"""How much every choice alone hurts: fitted in the original network, judged on its outputs.

The damage of a choice is the task's divergence of the answers from the original's, averaged over
images that no fit saw. It is measured once and kept in a file; a run that was interrupted goes on
where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
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
    order_of,
    weight_of,
)
from shrinkc.compiler.recover.divergence import Damage, agreeing, apart
from shrinkc.compiler.recover.layer_problems import Sample, accumulate, needed, values
from shrinkc.compiler.support.journal import Journal, digest_of
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Answer, Task
from shrinkc.passes.analysis.linear.spans import Span

MEASURED = 160  # images; three of four fit, the others judge


def fit_span(
    graph: fx.GraphModule,
    teacher: fx.GraphModule,
    wanted: Sequence[Choice],
    sample: Sample,
    done: Callable[[], None],
) -> list[Fitted]:
    """Choices of one span, fitted with the student's inputs to the teacher's output; one pass."""
    span = wanted[0].span
    kinds = {choice.kind for choice in wanted}
    problems = [dense_problem(span)] if "merge" in kinds else []
    problems += [consumer_problem(graph, span)] if "narrow" in kinds else []
    sums = accumulate(problems, graph, teacher, sample, done) if problems else []
    merged = merged_kernel(graph, span) if "merge" in kinds else None
    order: list[int] = []
    now = torch.zeros(0)
    if "narrow" in kinds and span.hidden is not None:
        now = weight_of(graph, span.hidden.consumer)
        order = order_of(sums[-1], span, min(c.channels for c in wanted if c.kind == "narrow"))
    found: list[Fitted] = []
    for choice in wanted:
        match choice.kind:
            case "drop":
                found.append(fitted_drop(choice))
            case "merge":
                kernel = None if merged is None else merged.weight
                found.append(fit_dense(choice, sums[0], kernel))
            case "narrow":
                found.append(fit_narrow(choice, sums[-1], order, now))
    return found


def measure(
    graph: fx.GraphModule,
    wanted: Sequence[Choice],
    sample: Sample,
    cache: Path | None,
    progress: Progress,
    *,
    task: Task = CLASSIFICATION,
) -> list[Damage]:
    """The damage of each choice alone, in the order of `wanted`."""
    sample = sample.at_most(MEASURED)
    fitting, judging = sample.split()
    seen = f"{task!r} {sample.images.digest} {sample.size} {sample.indices}"
    journal = Journal(cache, digest_of(graph, seen), count=3)
    known = {label: Damage(*numbers) for label, numbers in journal.entries.items()}
    spans = {id(choice.span): i for i, choice in reversed(list(enumerate(wanted)))}
    left = [c for c in wanted if c.label not in known]
    left.sort(key=lambda c: spans[id(c.span)])  # one pass for all choices of a span
    with progress.task("Measuring what each choice costs", len(left)) as done:
        for _, group in groupby(left, key=lambda c: id(c.span)):
            few = list(group)
            fitted = fit_span(graph, graph, few, fitting, lambda: None)
            judged = judge(graph, fitted, judging, task=task)
            for one, damage in zip(fitted, judged, strict=True):
                journal.put(one.choice.label, [damage.loss, damage.agreement, damage.error])
                known[one.choice.label] = damage
                done()
    return [known[choice.label] for choice in wanted]


def judge(
    graph: fx.GraphModule,
    fitted: Sequence[Fitted],
    sample: Sample,
    *,
    task: Task = CLASSIFICATION,
) -> list[Damage]:
    """What each does alone. The part of the network before the span runs once for all of them."""
    changed = [one.replacement(graph).graph_module for one in fitted]
    span = fitted[0].choice.span
    totals = [[0.0, 0.0] for _ in fitted]
    count = 0
    for x, rows in sample.batches():
        start = before(graph, span, x)
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


def before(graph: fx.GraphModule, span: Span, x: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The values computed before the span that are read in it or behind it."""
    order = {node.name: i for i, node in enumerate(graph.graph.nodes)}
    at = order[span.source]
    names = [
        node.name
        for node in graph.graph.nodes
        if order[node.name] <= at and any(order[u.name] > at for u in node.users)
    ]
    return values(graph, x, names)


def resume(graph: fx.GraphModule, known: dict[str, Tensor], x: tuple[Tensor, ...]) -> Answer:
    """The graph's outputs, computed from values that are known by name."""
    interpreter = fx.Interpreter(graph, garbage_collect_values=False)
    output = next(n for n in reversed(graph.graph.nodes) if n.op == "output")
    outputs: Any = output.args[0]
    given = dict(zip(graph.graph.find_nodes(op="placeholder"), x, strict=True))
    computed = set[fx.Node]().union(*(needed(node, known) for node in outputs))
    with torch.no_grad():
        for node in graph.graph.nodes:
            if node.name in known:
                interpreter.env[node] = known[node.name]
            elif node not in computed:
                continue
            elif node.op == "placeholder":
                interpreter.env[node] = given[node]
            else:
                interpreter.env[node] = interpreter.run_node(node)
    return tuple(interpreter.env[node] for node in outputs)
