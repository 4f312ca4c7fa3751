"""A changed span learns to answer as the original does, alone, before the next one is fitted.

Least squares changes one layer. Here all layers of the span move, by gradient, until its output
from the student's input is nearest to the teacher's (block reconstruction: Li et al., BRECQ, 2021;
Wang et al., MiR, 2022). Every position of every map is an example, so a few hundred images do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from shrinkc.compiler.recover.layer_problems import Sample, needed, shuffled, values
from shrinkc.compiler.recover.relative_adam import Relative
from shrinkc.passes.analysis.linear.spans import Span
from shrinkc.passes.base import copy_graph

MEMORY = 400_000_000  # bytes, at most, of the maps before and behind a span
WARM_UP = 10  # steps


@dataclass(frozen=True)
class Rebuilding:
    """How long. steps: of `batch` maps each; 0 leaves spans as they were fitted."""

    steps: int = 400
    batch: int = 8
    learning_rate: float = 0.01
    seed: int = 0


def rebuild(
    student: fx.GraphModule,
    teacher: fx.GraphModule,
    span: Span,
    sample: Sample,
    options: Rebuilding,
) -> fx.GraphModule:
    """The student with a span that is nearer to the teacher's. The span's source and sink exist
    in both."""
    reads, answers = maps(student, teacher, span, sample)
    scale = float(answers.var(dim=(0, 2, 3)).mean()) or 1.0
    part = Relative(between(student, span.source, span.sink), options.learning_rate, WARM_UP)
    batches = shuffled(len(reads), min(options.batch, len(reads)), options.seed)
    for step, rows in zip(range(options.steps), batches, strict=False):
        loss = (part(reads[rows]) - answers[rows]).square().mean() / scale
        part.step(loss, step / options.steps)
    result = copy_graph(student)
    weights = part.weights()
    if all(bool(weight.isfinite().all()) for weight in weights.values()):
        result.load_state_dict(weights, strict=False)
    return result


def maps(
    student: fx.GraphModule, teacher: fx.GraphModule, span: Span, sample: Sample
) -> tuple[Tensor, Tensor]:
    """What the span reads in the student and answers in the teacher, of as many images as the
    memory holds."""
    reads, answers = list[Tensor](), list[Tensor]()
    for x, _ in _within_memory(span, sample).batches():
        reads.append(values(student, x, [span.source])[span.source])
        answers.append(values(teacher, x, [span.sink])[span.sink])
    return torch.cat(reads), torch.cat(answers)


def _within_memory(span: Span, sample: Sample) -> Sample:
    window = span.window
    numbers = window.in_channels * span.in_size[0] * span.in_size[1]
    numbers += window.out_channels * span.out_size[0] * span.out_size[1]
    return sample.at_most(max(1, MEMORY // (4 * numbers)))


def between(graph: fx.GraphModule, source: str, sink: str) -> fx.GraphModule:
    """The part of a graph that computes one node's value from another's; parameters keep their
    names."""
    nodes = {node.name: node for node in graph.graph.nodes}
    inside = needed(nodes[sink], {source})
    part = fx.Graph()
    copies = {nodes[source]: part.placeholder(source)}
    for node in graph.graph.nodes:
        if node in inside:
            copies[node] = part.node_copy(node, lambda n: copies[n])
    part.output(copies[nodes[sink]])
    return fx.GraphModule(graph, part)
