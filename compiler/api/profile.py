"""What is asked of a profile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shrinkc.compiler.api.steps.network import captured, input_shapes
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.load.load import load_model
from shrinkc.compiler.pipeline.deployed import BASE_PASSES
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.profile.op_sets import default_keys, network_keys
from shrinkc.latency_tables.key import OpKey
from shrinkc.passes.merge.merge_linear import MergeLinear
from shrinkc.passes.simplify.simplify import Simplify


@dataclass(frozen=True)
class ProfileArguments:
    """The command line of `shrinkc profile`, as given."""

    models: tuple[Path, ...]
    targets: tuple[str, ...]
    devices: tuple[str, ...]
    benchmark_model: str | None
    shapes: tuple[str, ...]
    widths: int
    precision: str
    runtime: str
    threads: int
    budget_minutes: float
    timeout_s: float
    arch: str | None
    trust: bool
    as_json: bool


def _keys(a: ProfileArguments) -> list[OpKey]:
    """Those of all models together, or the grid where there are none."""
    if not a.models:
        return default_keys(a.precision)
    found: dict[OpKey, None] = {}
    for path in a.models:
        model = load_model(path, arch=a.arch, trust=a.trust)
        graph = captured(model, input_shapes(model, a.shapes))
        folded, _ = run_exact_passes(graph, BASE_PASSES)
        merged, _ = run_exact_passes(folded, (MergeLinear(), Simplify()))
        for version in (folded, merged):
            program = lower(version.float())
            found.update(dict.fromkeys(network_keys(program, a.precision, a.widths)))
    return list(found)
