"""One architecture pruned, checked and exported, as JSON; prune_coverage.py runs it.

python -m benchmarks.prune_coverage_one pytorchcv/mobilenet_w1
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from benchmarks.coverage_one import (
    EQUAL,
    Result,
    Stages,
    WrongResultError,
    check,
    largest_error,
    multiplies_activations,
    outputs,
    run_alone,
    run_file,
)
from benchmarks.shared.models import Architecture, build

STAGES = ("pruned", "masked", "saved", "onnx", "tflite")
KEEP = 0.7  # of the channels of every group
MASKED = 1e-12  # of the output's range, in float64
LEAST = 0.15  # of the parameters gone, or nothing was pruned


def measure(architecture: Architecture, save: Callable[[Result], None]) -> None:
    """Every stage that can be reached."""
    stages = Stages(architecture, save, STAGES)
    result = stages.result
    graph: fx.GraphModule | None = None
    with stages.stage("captured"):
        from shrinkc.compiler.capture import capture

        model = build(architecture)
        x = torch.randn(2, *architecture.input_shape)
        result["attention"] = multiplies_activations(model, x[:1])
        shapes = [tuple(y.shape[1:]) for y in outputs(model, x[:1])]
        graph = capture(model, (x[:1],))
    if graph is None:
        return
    x = x[: 2 if graph.meta.get("dynamic_batch", True) else 1]
    sliced: fx.GraphModule | None = None
    with stages.stage("pruned"):
        slicing, sliced = _prune(graph, result)
        want = outputs(sliced, x)
        if [tuple(y.shape[1:]) for y in want] != shapes:
            raise WrongResultError("the outputs have other shapes")
    if sliced is None or "pruned" in result["errors"]:
        return
    with stages.stage("masked"):
        from shrinkc.passes.channels.mask_channels import mask_channels

        wide = graph.double()
        got = outputs(slicing(wide).graph_module, x.double())
        result["masked_error"] = largest_error(
            got, outputs(mask_channels(wide, slicing), x.double())
        )
        check("masked", result["masked_error"], MASKED)
    with stages.stage("saved"):
        sliced = _save_and_load(sliced)
        if not all(map(torch.equal, outputs(sliced, x), want)):
            raise WrongResultError("the loaded network computes something else")
    _export(stages, sliced, x, want)


def _prune(graph: fx.GraphModule, result: Result) -> tuple[Any, fx.GraphModule]:
    """30 % of the channels of every group, those of the smallest L1 norm."""
    from shrinkc.passes.analysis.channels.channel_groups import channel_groups
    from shrinkc.passes.channels.slice_channels import SliceChannels
    from shrinkc.passes.criteria.base import uniform
    from shrinkc.passes.criteria.magnitude import FilterNorm
    from shrinkc.passes.ir import check_legal

    channel_groups(graph)  # the first imports scipy
    started = time.perf_counter()
    groups = channel_groups(graph)
    result["group_seconds"] = round(time.perf_counter() - started, 3)
    slicing = SliceChannels(uniform(groups, FilterNorm(1).scores(graph, groups), KEEP))
    done = slicing(graph)
    result["prune_seconds"] = round(time.perf_counter() - started, 3)
    check_legal(done.graph_module)
    if done.skipped:
        raise WrongResultError(f"declined: {done.skipped[0]}")
    kept = sum(int(mask.sum()) for mask in slicing.selection.keep.values())
    result["channel_counts"] = [sum(group.size for group in groups.groups), kept]
    result["protected_channels"] = sum(p.channels for p in groups.protected)
    result["parameter_counts"] = counts = [parameters(graph), parameters(done.graph_module)]
    if counts[1] > (1 - LEAST) * counts[0]:
        raise WrongResultError(f"{counts[1]:,} of {counts[0]:,} parameters are left")
    return slicing, done.graph_module


def parameters(module: torch.nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in module.parameters())


def _save_and_load(graph: fx.GraphModule) -> fx.GraphModule:
    from shrinkc.compiler.model_file.file import load_model_file, save_model

    with tempfile.TemporaryDirectory() as folder:
        save_model(graph, Path(folder) / "pruned.safetensors", {})
        return load_model_file(Path(folder) / "pruned.safetensors")[0]


def _export(stages: Stages, graph: fx.GraphModule, x: Tensor, want: list[Tensor]) -> None:
    """As `compile` does it: simplified, batch norms folded, written, run."""
    from shrinkc.compiler.export.lower import lower
    from shrinkc.compiler.formats.registry import FORMATS
    from shrinkc.compiler.pipeline.deployed import BASE_PASSES
    from shrinkc.compiler.pipeline.run import run_exact_passes

    program: Any = None
    with stages.stage("lowered"):
        folded, _ = run_exact_passes(graph, BASE_PASSES)
        program = lower(folded.float())
    if program is None:
        stages.result["errors"]["onnx"] = stages.result["errors"].pop("lowered")
        return
    for form in FORMATS:
        batch = len(x) if form.takes_any_batch(program) else 1
        with stages.stage(form.name):
            got = [torch.from_numpy(array) for array in run_file(form, program, x[:batch])]
            error = largest_error(got, [y[:batch] for y in want])
            stages.result[f"{form.name}_error"] = error
            check(form.name, error, EQUAL)


if __name__ == "__main__":
    run_alone(measure)
