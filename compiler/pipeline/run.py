"""Runs passes and verifies each one; no pass verifies itself.

Exact passes work on a float64 copy, so that rounding cannot hide a mistake, and every value that a
pass says it preserved is compared at 1e-9 of its range: inside and at the border separately, since
mistakes with padding live at the border. The caller rounds the result to float32, once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx

from shrinkc.compiler.pipeline.contract import check_reported, fingerprint
from shrinkc.compiler.support.difference import relative_error
from shrinkc.errors import InputError, VerificationError
from shrinkc.passes import ir
from shrinkc.passes.base import Change, Pass, PassResult, Skip, copy_graph

EXACT_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Step:
    """What one pass did: its report, the largest relative error, wall time in seconds."""

    name: str
    changes: tuple[Change, ...]
    skipped: tuple[Skip, ...]
    max_error: float
    seconds: float


def run_exact_passes(
    graph_module: fx.GraphModule,
    passes: Sequence[Pass],
    on_step: Callable[[Step], None] | None = None,
) -> tuple[fx.GraphModule, tuple[Step, ...]]:
    """Apply exact passes in order. Returns the result in float64 and one Step per pass.

    Memory: the network in float64 twice, and the few activations alive at once.
    Raises VerificationError that names the pass and the node when a pass changed what the network
    computes, touched its input, or changed something it did not report; IllegalGraphError when
    its result is not canonical.
    """
    current = copy_graph(graph_module).double()
    inputs = sample_inputs(current, torch.float64)
    steps: list[Step] = []
    for exact_pass in passes:
        started = time.perf_counter()
        before = fingerprint(current)
        result: Any = exact_pass(current)  # a user's own may give anything
        if not isinstance(result, PassResult):
            kind = type(result).__name__
            raise InputError(
                f"the pass '{exact_pass.name}' of `passes` returns no PassResult: {kind}"
            )
        if fingerprint(current) != before:
            raise VerificationError(f"pass '{exact_pass.name}' changed its input graph")
        error = check_exact(exact_pass.name, current, result, inputs) if result.modified else 0.0
        step = Step(
            *(exact_pass.name, result.changes, result.skipped, error),
            time.perf_counter() - started,
        )
        steps.append(step)
        if on_step is not None:
            on_step(step)
        current = result.graph_module
    return current, tuple(steps)


def sample_inputs(
    graph_module: fx.GraphModule, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, ...]:
    """Seeded inputs of the captured shapes: normal ones in `dtype`; of whole numbers such as were
    seen, in their own type, or in float64 where that is asked for."""
    generator = torch.Generator().manual_seed(seed)
    made: list[Tensor] = []
    for node in graph_module.graph.find_nodes(op="placeholder"):
        shape, whole = ir.input_shapes(graph_module)[node.name], ir.whole_input(node)
        if whole is None:
            normal = torch.randn(shape, generator=generator, dtype=torch.float64)
            made.append(normal.to(dtype))
        else:
            found = torch.randint(whole.low, whole.high + 1, shape, generator=generator)
            wide = dtype == torch.float64
            made.append(found.to(dtype if wide else getattr(torch, whole.dtype)))
    return tuple(made)


def check_exact(
    name: str, old: fx.GraphModule, result: PassResult, inputs: tuple[Tensor, ...]
) -> float:
    """The largest relative error over everything the pass says it preserved, and the outputs."""
    new = result.graph_module
    ir.check_legal(new)
    check_reported(name, old, new, result.changes)
    pairs = [(c.node, c.replaces[-1]) for c in result.changes if c.replaces]
    worst = 0.0
    for new_name, old_name, got, want in paired_values(old, new, pairs, inputs):
        error, where = worst_error(got, want)
        if not error <= EXACT_TOLERANCE:
            raise VerificationError(
                f"pass '{name}' changed the result at node '{new_name}' (was '{old_name}'): "
                f"{error:.1e} of its range {where}, limit {EXACT_TOLERANCE:.0e}"
            )
        worst = max(worst, error)
    return worst


def worst_error(got: Tensor, want: Tensor) -> tuple[float, str]:
    """Largest absolute difference over the range of `want`, and where it was found.

    Maps (N, C, H, W) are judged twice, the one-pixel border and the interior, each against its
    own range.
    """
    if got.shape != want.shape:
        return float("inf"), f"(shape {tuple(got.shape)}, not {tuple(want.shape)})"
    if got.ndim != 4 or min(got.shape[2:]) < 3:
        return _error(got, want), "anywhere"
    inside = (..., slice(1, -1), slice(1, -1))
    mask = torch.ones(got.shape[2:], dtype=torch.bool)
    mask[1:-1, 1:-1] = False
    interior = _error(got[inside], want[inside])
    border = _error(got[..., mask], want[..., mask])
    return (border, "at the border") if border > interior else (interior, "in the interior")


def _error(got: Tensor, want: Tensor) -> float:
    return relative_error(got.detach().numpy(), want.detach().numpy())


def paired_values(
    old: fx.GraphModule,
    new: fx.GraphModule,
    pairs: Sequence[tuple[str, str]],
    inputs: tuple[Tensor, ...],
) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    """(new node, old node, new value, old value) for each pair and for every graph output.

    Both graphs run side by side, so that only values still waiting for their partner are kept.
    """
    outputs_new, outputs_old = _output_names(new), _output_names(old)
    wanted: dict[str, list[str]] = {}
    for new_name, old_name in (*pairs, *zip(outputs_new, outputs_old, strict=True)):
        if old_name not in wanted.setdefault(new_name, []):
            wanted[new_name].append(old_name)
    waiting: dict[str, Tensor] = {}
    remaining: dict[str, int] = {}
    for old_names in wanted.values():
        for old_name in old_names:
            remaining[old_name] = remaining.get(old_name, 0) + 1
    old_values = node_values(old, inputs, set(remaining))
    for new_name, got in node_values(new, inputs, set(wanted)):
        for old_name in wanted[new_name]:
            while old_name not in waiting:
                name, value = next(old_values)
                waiting[name] = value
            yield new_name, old_name, got, waiting[old_name]
            remaining[old_name] -= 1
            if not remaining[old_name]:
                del waiting[old_name]


def node_values(
    graph_module: fx.GraphModule, inputs: tuple[Tensor, ...], wanted: set[str]
) -> Iterator[tuple[str, Tensor]]:
    """Run the graph node by node; yields the wanted nodes' values as they are computed."""
    last_use: dict[fx.Node, list[fx.Node]] = {}
    seen: set[fx.Node] = set()
    for node in reversed(graph_module.graph.nodes):
        for source in node.all_input_nodes:
            if source not in seen:
                seen.add(source)
                last_use.setdefault(node, []).append(source)
    interpreter = fx.Interpreter(graph_module, garbage_collect_values=False)
    env = interpreter.env
    feed = iter(inputs)
    for node in graph_module.graph.nodes:
        if node.op == "output":
            return
        with torch.no_grad():
            env[node] = next(feed) if node.op == "placeholder" else interpreter.run_node(node)
        if node.name in wanted:
            yield node.name, env[node]
        for source in last_use.get(node, ()):
            del env[source]


def _output_names(graph_module: fx.GraphModule) -> list[str]:
    output = next(n for n in reversed(graph_module.graph.nodes) if n.op == "output")
    return [n.name for n in cast("tuple[fx.Node, ...]", output.args[0])]
