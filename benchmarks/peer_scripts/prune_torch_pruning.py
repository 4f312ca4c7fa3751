"""`python -m benchmarks.peer_scripts.prune_torch_pruning KEY FILE`: one by Torch-Pruning.

30 % of the channels of every group by their L1 norm, as its README shows. Layers that make the
outputs are left alone: those with as many channels as an output has.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch_pruning
from torch import nn

from benchmarks.coverage_one import Result, Stages, WrongResultError, outputs, run_alone
from benchmarks.prune_coverage_one import KEEP, LEAST, parameters
from benchmarks.shared.models import Architecture, build

STAGES = ("pruned",)


def measure(architecture: Architecture, save: Callable[[Result], None]) -> None:
    """Pruned, run, its outputs as wide as before, its parameters fewer."""
    stages = Stages(architecture, save, STAGES)
    with stages.stage("built"):
        model = build(architecture)
        x = torch.randn(1, *architecture.input_shape)
        shapes = [tuple(y.shape) for y in outputs(model, x)]
        before = parameters(model)
    if stages.result["errors"]:
        return
    with stages.stage("pruned"):
        started = time.perf_counter()
        pruner: Any = torch_pruning.pruner.MagnitudePruner(
            model,
            x,
            importance=torch_pruning.importance.MagnitudeImportance(p=1),
            pruning_ratio=1 - KEEP,
            ignored_layers=makers(model, shapes),
            output_transform=tensors,
        )
        pruner.step()
        stages.result["prune_seconds"] = round(time.perf_counter() - started, 3)
        got = [tuple(y.shape) for y in outputs(model, x)]
        if got != shapes:
            raise WrongResultError(f"the outputs are {got}, not {shapes}")
        stages.result["parameter_counts"] = counts = [before, parameters(model)]
        if counts[1] > (1 - LEAST) * counts[0]:
            raise WrongResultError(f"{counts[1]:,} of {counts[0]:,} parameters are left")


def makers(model: nn.Module, shapes: list[tuple[int, ...]]) -> list[nn.Module]:
    """Layers with as many channels as an output has, features or channels."""
    wide = {size for shape in shapes for size in (shape[1], shape[-1]) if len(shape) > 1}
    return [
        module
        for module in model.modules()
        if getattr(module, "out_channels", getattr(module, "out_features", None)) in wide
    ]


def tensors(value: Any) -> list[torch.Tensor]:
    """The tensors in whatever a model returns."""
    leaves = torch.utils._pytree.tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


if __name__ == "__main__":
    run_alone(measure)
