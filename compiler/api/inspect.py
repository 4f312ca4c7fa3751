"""`shrinkc.inspect`: what a network is made of, and what could be done to it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from shrinkc.compiler.api.steps.network import Inputs, Model, subject_of
from shrinkc.compiler.api.steps.target import Target, cost_table
from shrinkc.compiler.cost.budget import price_of
from shrinkc.compiler.export.lower import lower, unsupported
from shrinkc.compiler.formats.base import FILE_PRECISIONS
from shrinkc.compiler.formats.registry import FORMATS
from shrinkc.compiler.pipeline.deployed import BASE_PASSES
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.support.choices import Precision
from shrinkc.compiler.support.progress import Progress, shown_by
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.support.unread import refuse_unread
from shrinkc.errors import InputError, UnsupportedOperatorError
from shrinkc.passes.analysis.channels.channel_groups import Groups, channel_groups
from shrinkc.passes.analysis.linear.linear_segments import LinearSegments, linear_segments
from shrinkc.passes.analysis.linear.spans import Spans, find_spans
from shrinkc.passes.analysis.op_spec import Price


@dataclass(frozen=True, eq=False, repr=False)
class Inspection:
    """What `inspect` found.

    graph     the network as it was captured
    segments  parts that are linear from end to end, which merging makes one convolution
    spans     what could be one convolution without its activations
    price     of a span's operators in ms, by the target's table; None without a target
    groups    channels that go together
    problems  operators that no format can express; without any, the first that each of them cannot
    """

    graph: fx.GraphModule
    segments: LinearSegments
    spans: Spans
    price: Price | None
    groups: Groups
    problems: tuple[UnsupportedOperatorError, ...]

    def __repr__(self) -> str:
        parts = (
            counted(len(self.graph.graph.nodes), "node"),
            counted(len(self.segments.regions), "linear segment"),
            counted(len(self.groups.groups), "channel group"),
            counted(len(self.problems), "problem"),
        )
        return f"Inspection({', '.join(parts)})"


def inspect(
    model: Model,
    inputs: Inputs = None,
    *,
    target: Target | None = None,
    precision: Precision = "fp32",
    progress: Progress | bool = False,
) -> Inspection:
    """Look at a network; nothing is written or measured.

    Args:
        model: a module, a captured graph, or the path of a file that `load` reads.
        inputs: an example (N, …) or its shape, one per input of `forward`.
        target: the latency table that says what merging a span would save; None: nothing does.
        precision: that the table is asked for.
        progress: True shows bars on stderr.

    Raises:
        TableError, InputError, CaptureError, ModelRunError: as `estimate`.
    """
    if precision not in FILE_PRECISIONS:
        raise InputError(f"`precision` {precision}: choose {', '.join(FILE_PRECISIONS)}")
    refuse_unread(("precision", precision != "fp32", target is not None, "a `target`'s table"))
    price = None if target is None else price_of(cost_table(target), precision)
    subject = subject_of(model, inputs)
    with shown_by(progress).task("Inspecting"):
        folded, _ = run_exact_passes(subject.graph, BASE_PASSES)
        return Inspection(
            graph=subject.graph,
            segments=linear_segments(folded),
            spans=find_spans(folded),
            price=price,
            groups=channel_groups(folded),
            problems=tuple(_problems(folded.float())),
        )


def _problems(graph: fx.GraphModule) -> list[UnsupportedOperatorError]:
    problems = unsupported(graph)
    if problems:
        return problems
    program = lower(graph)
    for one in FORMATS:
        try:
            one.encode(program)
        except UnsupportedOperatorError as error:
            problems.append(error)
    return problems
