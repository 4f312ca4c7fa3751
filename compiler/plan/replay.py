"""A plan done again: the same shapes by the same passes, the numbers from its file."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, fx

from ...passes.analysis.spans import find_spans
from ...passes.fold_batch_norm import FoldBatchNorm
from ...passes.ir import check_legal
from ...passes.simplify import Simplify
from ..errors import InputError, LoadError
from ..journal import digest_of
from ..pipeline import run_exact_passes
from ..shrink.choices import Choice
from ..shrink.closed_form import channels_last
from ..shrink.plans import outline
from .plan_file import Plan, Step


def deployed(captured: fx.GraphModule) -> fx.GraphModule:
    """What plans are made for: simplified, batch norms folded, each pass verified in float64."""
    folded = run_exact_passes(captured, (Simplify(), FoldBatchNorm()))[0].float()
    return channels_last(folded)


def model_digest(captured: fx.GraphModule) -> str:
    """What a plan knows its network by: code and numbers."""
    return digest_of(captured, "")


def changed_tensors(original: fx.GraphModule, changed: fx.GraphModule) -> dict[str, Tensor]:
    """Of `changed`, what `original` does not hold under the same name."""
    old = original.state_dict()

    def same(name: str, tensor: Tensor) -> bool:
        return name in old and old[name].shape == tensor.shape and bool((old[name] == tensor).all())

    return {name: t for name, t in changed.state_dict().items() if not same(name, t)}


def replay(
    captured: fx.GraphModule, plan: Plan, tensors: Mapping[str, Tensor]
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """(the original as deployed, the network after the plan).

    Raises InputError for another network than the plan was made for, LoadError for a plan whose
    steps or numbers do not fit it.
    """
    digest = model_digest(captured)
    if digest != plan.model:
        raise InputError(
            f"the plan was made for another network ({plan.model}, this is {digest}); plan anew"
        )
    original = deployed(captured)
    spans = {(s.source, s.sink): s for s in find_spans(original).spans}
    chosen: list[Choice] = []
    for step in plan.steps:
        span = spans.get((step.source, step.sink))
        if span is None or not _possible(step, span.hidden and span.hidden.channels):
            raise LoadError(f"the plan cannot {step.kind} '{step.source}' to '{step.sink}' here")
        chosen.append(Choice(span, step.kind, step.saving_ms, step.channels))
    graph = outline(original, chosen)
    state = graph.state_dict()
    for name, tensor in tensors.items():
        if name not in state or state[name].shape != tensor.shape:
            raise LoadError(f"the plan's numbers for '{name}' do not fit the network")
    graph.load_state_dict(dict(tensors), strict=False)
    graph.meta.update(captured.meta)
    check_legal(graph)
    return original, graph


def _possible(step: Step, hidden: int | None) -> bool:
    return step.kind != "narrow" or (hidden is not None and 0 < step.channels < hidden)
