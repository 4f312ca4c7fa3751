"""What simpler commands than a plan give in a plan's time: fitted to the same images, in int8."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

import shrinkc
from shrinkc import Goal, ShrinkcError
from shrinkc.compiler.images.decoded import Images, Samples

FILE = "model.tflite"
SHARED: dict[str, Any] = {"target": "host", "precision": "int8", "runs": 0}


def compiled(model: nn.Module, example: Tensor, images: Tensor, _: Goal) -> Any:
    """As it is, whatever the time."""
    return shrinkc.compile(model, example, calibration=images, **SHARED)


def shrunk(model: nn.Module, example: Tensor, images: Tensor, goal: Goal) -> Any:
    return shrinkc.shrink(model, example, images=images, goal=goal, **SHARED)


def pruned(model: nn.Module, example: Tensor, images: Tensor, goal: Goal) -> Any:
    return shrinkc.prune(model, example, images=images, goal=goal, criterion="he", **SHARED)


RIVALS = {"compile": compiled, "shrink": shrunk, "prune": pruned}


def rival(
    name: str, model: nn.Module, example: Tensor, fitted: Samples, budget_ms: float
) -> tuple[bytes, fx.GraphModule | None] | str:
    """Its TFLite file and the network in it, None for the model's own, or why there is none."""
    size = (example.shape[2], example.shape[3]) if isinstance(fitted, Images) else None
    (images,) = fitted.taken(torch.arange(len(fitted)), size)
    try:
        found = RIVALS[name](model, example, images, Goal.budget_ms(budget_ms))
    except ShrinkcError as error:
        return str(error).splitlines()[0]
    return found.files[FILE], None if name == "compile" else found.graph_module
