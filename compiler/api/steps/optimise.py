"""Every exact pass, in order, each verified."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from shrinkc.compiler.capture.names import with_outputs_named_as
from shrinkc.compiler.cost.budget import price_of
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.options import Options
from shrinkc.compiler.pipeline.deployed import BASE_PASSES, merge_passes
from shrinkc.compiler.pipeline.run import Step, run_exact_passes
from shrinkc.passes.base import Pass, copy_graph


@dataclass(frozen=True)
class Optimised:
    """`baseline` is what a plain converter would export (batch norm folded), `final` ours."""

    baseline: fx.GraphModule
    final: fx.GraphModule
    steps: tuple[Step, ...]
    merged: bool


def optimise(graph_module: fx.GraphModule, table: CostTable, options: Options) -> Optimised:
    """Every exact pass, verified; outputs keep their names. Raises VerificationError."""
    folded, steps = run_exact_passes(graph_module, BASE_PASSES)
    folded = with_outputs_named_as(folded, graph_module)
    baseline = copy_graph(folded).float()
    passes = (*options.passes, *_merging(table, options))
    if not passes:
        return Optimised(baseline, baseline, steps, merged=False)
    final, merges = run_exact_passes(folded, passes)
    final = with_outputs_named_as(final, graph_module)
    merged = any(step.changes for step in merges)
    return Optimised(
        baseline, final.float() if merged else baseline, (*steps, *merges), merged=merged
    )


def _merging(table: CostTable, options: Options) -> tuple[Pass, ...]:
    """Merging where the table says it pays; `options.merge` may force or forbid it."""
    if options.merge == "none":
        return ()
    price = None if options.merge == "all" else price_of(table, options.precision)
    return merge_passes(price)
