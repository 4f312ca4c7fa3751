"""A plan done again: the same shapes by the same passes, the numbers from its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from shrinkc.compiler.depth.choice_sets import outline
from shrinkc.compiler.depth.choices import Choice, why_no_fit
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.pipeline.deployed import channels_last, deployed
from shrinkc.compiler.plan.plan_file import INT8, Plan, Resolution, Step
from shrinkc.compiler.quantise.stored import StoredCalibration
from shrinkc.compiler.recover.layer_problems import size_of
from shrinkc.compiler.support.journal import digest_of
from shrinkc.errors import InputError, LoadError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.analysis.linear.spans import Span, find_spans
from shrinkc.passes.base import copy_graph
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.ir import check_legal
from shrinkc.passes.merge.merge_spans import MergeSpans
from shrinkc.passes.simplify.simplify import Simplify


def model_digest(captured: fx.GraphModule) -> str:
    """What a plan knows its network by: code and numbers."""
    return digest_of(captured, "")


def require_model(captured: fx.GraphModule, plan: Plan) -> None:
    """Raise InputError for another network than the plan was made for."""
    digest = model_digest(captured)
    if digest != plan.model:
        raise InputError(
            f"the plan was made for another network ({plan.model}, this is {digest}); plan anew"
        )


def changed_tensors(original: fx.GraphModule, changed: fx.GraphModule) -> dict[str, Tensor]:
    """Of `changed`, what `original` does not hold under the same name."""
    old = original.state_dict()

    def same(name: str, tensor: Tensor) -> bool:
        return name in old and old[name].shape == tensor.shape and bool((old[name] == tensor).all())

    return {name: t for name, t in changed.state_dict().items() if not same(name, t)}


def replay(
    captured: fx.GraphModule,
    plan: Plan,
    tensors: Mapping[str, Tensor],
    smaller: fx.GraphModule | None = None,
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """(the original as deployed, the network after the plan).

    smaller  the same network, captured for smaller images, where the plan has such

    Raises InputError for another network than the plan was made for, LoadError for a plan whose
    steps or numbers do not fit it.
    """
    require_model(captured, plan)
    if plan.resolution is not None:
        captured = _at_size(plan.resolution, captured, smaller)
    original = deployed(captured)
    start = _merged(original, [step for step in plan.steps if step.kind == "exact"])
    slicing = _sliced(start, [step for step in plan.steps if step.kind == "slice"])
    spans = {(s.source, s.sink): s for s in find_spans(slicing).spans}
    chosen, used = list[Choice](), set[str]()
    for step in plan.steps:
        if step.kind in ("exact", "slice"):
            continue
        span = spans.get((step.source, step.sink))
        if span is None or not _possible(step, span) or not used.isdisjoint(span.nodes):
            raise _cannot(step)
        used.update(span.nodes)
        chosen.append(Choice(span, step.kind, step.saving_ms, step.channels))
    graph = outline(slicing, chosen)
    own = {name: t for name, t in tensors.items() if not name.startswith(INT8)}
    for numbers in (own, in_int8(tensors)):
        _check_fit(graph, numbers)
    graph.load_state_dict(own, strict=False)
    graph.meta.update(captured.meta)
    check_legal(graph)
    _check_told(graph, plan)
    return original, graph


def _at_size(
    plan: Resolution, captured: fx.GraphModule, smaller: fx.GraphModule | None
) -> fx.GraphModule:
    """Raises LoadError for networks of other sizes."""
    if smaller is None or (size_of(captured), size_of(smaller)) != (plan.size_before, plan.size):
        raise LoadError(f"the plan reads {plan}, which this network does not")
    return smaller


def _check_told(graph: fx.GraphModule, plan: Plan) -> None:
    """What the plan says of parts of the network: of none that are not there, and in int8 of all,
    as writers would find a range that is missing on noise."""
    program = lower(graph)
    unknown = set(plan.keep_fp32) - {op.name for op in program.ops}
    if unknown:
        raise LoadError(f"the plan keeps '{min(unknown)}' in fp32, which is no layer here")
    if plan.promise is not None and len(plan.promise.outputs) != len(program.outputs):
        told = len(plan.promise.outputs)
        raise LoadError(f"the plan promises {told} outputs, this has {len(program.outputs)}")
    if plan.precision == "int8":
        ends = (*program.inputs, *program.outputs)
        whole = {value.name for value in ends if value.dtype != "float32"}
        needed = {node.name for node in graph.graph.nodes} & set(program.names) - whole
        missing = needed - plan.ranges.keys()
        if missing:
            raise LoadError(f"the plan is for int8 and has no range of '{min(missing)}'")


def _merged(original: fx.GraphModule, steps: Sequence[Step]) -> fx.GraphModule:
    """With linear layers that became one, in float64 as they were then."""
    if not steps:
        return original
    pairs = tuple((step.source, step.sink) for step in steps)
    result = MergeSpans(pairs)(copy_graph(original).double())
    skipped = {skip.node for skip in result.skipped}
    for step in steps:
        if step.sink in skipped:
            raise _cannot(step)
    return channels_last(Simplify()(result.graph_module).graph_module.float())


def _sliced(start: fx.GraphModule, steps: Sequence[Step]) -> fx.GraphModule:
    """The shape that its channel groups leave."""
    if not steps:
        return start
    sizes = {group.name: group.size for group in channel_groups(start).groups}
    keep: dict[str, npt.NDArray[np.bool_]] = {}
    for step in steps:
        mask = np.isin(np.arange(sizes.get(step.source, 0)), step.kept)
        fits = step.channels == len(step.kept) == mask.sum() < mask.size
        if step.source in keep or not fits:
            raise _cannot(step)
        keep[step.source] = mask
    result = SliceChannels(Selection(keep))(start)
    skipped = {skip.node for skip in result.skipped}
    for step in steps:
        if step.source in skipped:
            raise _cannot(step)
    return result.graph_module


def _cannot(step: Step) -> LoadError:
    what = f"'{step.source}' to '{step.sink}'" if step.kind != "slice" else f"'{step.source}'"
    kind = "merge" if step.kind == "exact" else step.kind
    return LoadError(f"the plan cannot {kind} {what} here")


def in_int8(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The numbers that only int8 files have."""
    return {n.removeprefix(INT8): t for n, t in tensors.items() if n.startswith(INT8)}


def stored_calibration(plan: Plan, tensors: Mapping[str, Tensor]) -> StoredCalibration | None:
    """What int8 files are written from; None for a plan in fp32."""
    if plan.precision != "int8":
        return None
    return StoredCalibration(plan.ranges, in_int8(tensors), frozenset(plan.keep_fp32))


def _check_fit(graph: fx.GraphModule, numbers: Mapping[str, Tensor]) -> None:
    state = graph.state_dict()
    for name, tensor in numbers.items():
        known = state.get(name)
        shape = _new_bias(state, name) if known is None else known.shape
        dtype = torch.float32 if known is None else known.dtype
        sound = tensor.dtype == dtype and bool(tensor.isfinite().all())
        if shape != tensor.shape or not sound:
            raise LoadError(f"the plan's numbers for '{name}' do not fit the network")


def _new_bias(state: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    """Of a layer without one: int8 may give it one."""
    weight = state.get(f"{name.removesuffix('.bias')}.weight")
    return None if weight is None or not name.endswith(".bias") else (weight.shape[0],)


def _possible(step: Step, span: Span) -> bool:
    match step.kind:
        case "merge":
            return why_no_fit(span.window) is None
        case "drop":
            return span.identity
        case _:
            return span.hidden is not None and 0 < step.channels < span.hidden.channels
