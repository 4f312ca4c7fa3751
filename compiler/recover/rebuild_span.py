"""A changed span learns to answer as the original does, alone, before the next one is fitted.

Least squares changes one layer. Here all layers of the span move, by gradient, until its output
from the student's input is nearest to the teacher's (block reconstruction: Li et al., BRECQ, 2021;
Wang et al., MiR, 2022). Every position of every map is an example, so a few hundred images do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from shrinkc.compiler.recover.layer_problems import Sample, needed, shuffled
from shrinkc.compiler.recover.relative_adam import Relative
from shrinkc.compiler.recover.resumed import Resumed
from shrinkc.passes.analysis.linear.spans import Span
from shrinkc.passes.base import copy_graph

MEMORY = 400_000_000  # bytes, at most, of the maps before and behind a span
WARM_UP = 10  # steps
FEWEST, POSITIONS = 2, 8 * 28 * 28  # maps of a batch, and what is enough for it


@dataclass(frozen=True)
class Rebuilding:
    """How long. steps: of `batch` maps each, of fewer where maps are large; 0 leaves spans as they
    were fitted."""

    steps: int = 400
    batch: int = 8
    learning_rate: float = 0.01
    seed: int = 0


def rebuild(
    student: Resumed,
    teacher: Resumed,
    span: Span,
    sample: Sample,
    options: Rebuilding,
) -> fx.GraphModule:
    """The student with a span that is nearer to the teacher's. The span's source and sink exist
    in both."""
    reads, answers = maps(student, teacher, span, sample)
    scale = float(answers.var(dim=(0, 2, 3)).mean()) or 1.0
    graph = student.graph_module
    part = Relative(between(graph, span.source, span.sink), options.learning_rate, WARM_UP)
    batches = shuffled(len(reads), _batch(span, len(reads), options), options.seed)
    for step, rows in zip(range(options.steps), batches, strict=False):
        loss = (part(reads[rows]) - answers[rows]).square().mean() / scale
        part.step(loss, step / options.steps)
    result = copy_graph(graph)
    weights = part.weights()
    if all(bool(weight.isfinite().all()) for weight in weights.values()):
        result.load_state_dict(weights, strict=False)
    return result


def _batch(span: Span, count: int, options: Rebuilding) -> int:
    """Every position is an example, and neighbours say the same: few maps of many will do."""
    height, width = span.out_size
    return min(count, options.batch, max(FEWEST, POSITIONS // (height * width)))


def maps(student: Resumed, teacher: Resumed, span: Span, sample: Sample) -> tuple[Tensor, Tensor]:
    """What the span reads in the student and answers in the teacher, of as many images as the
    memory holds, of evenly spread batches."""
    window = span.window
    numbers = window.in_channels * span.in_size[0] * span.in_size[1]
    numbers += window.out_channels * span.out_size[0] * span.out_size[1]
    most = max(1, MEMORY // (4 * numbers))
    count = -(-len(sample) // sample.batch)
    step = max(1.0, count * sample.batch / most)
    chosen = {int(i * step) for i in range(max(1, round(count / step)))}
    reads, answers = list[Tensor](), list[Tensor]()
    for number, (x, _) in enumerate(sample.batches()):
        if number in chosen:
            reads.append(student.values(number, x, [span.source])[span.source][:most])
            answers.append(teacher.values(number, x, [span.sink])[span.sink][:most])
    return torch.cat(reads), torch.cat(answers)


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
