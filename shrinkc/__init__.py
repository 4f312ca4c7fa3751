"""shrinkc: a trained CNN in, the file that runs fastest on one named device out.

    import shrinkc
    from shrinkc import Goal

    compiled = shrinkc.compile(model, x, target="rpi4")
    planned = shrinkc.plan(model, x, target="rpi4", goal=Goal.speedup(2.5), images="images/")
    pruned = shrinkc.prune(model, x, goal=Goal.macs(0.5))

A model is a torch.nn.Module, which is left as it is, or the path of a file; x is an example input.
`compiled(x)` runs the file, `compiled.save("out")` writes all files; planned, pruned and shrunk
networks are modules that train. Whatever is wrong with the arguments is one ShrinkcError that names
the parameter, before any long work begins.

Passes, criteria, tasks and formats of one's own are objects that these functions take.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from shrinkc.version import __version__

if TYPE_CHECKING:
    from shrinkc.compiler.api.bench import bench
    from shrinkc.compiler.api.calibrate import calibrate
    from shrinkc.compiler.api.compare import compare
    from shrinkc.compiler.api.compile import compile
    from shrinkc.compiler.api.estimate import estimate
    from shrinkc.compiler.api.files import capture, load, save
    from shrinkc.compiler.api.inspect import inspect
    from shrinkc.compiler.api.plan import apply, frontier, plan
    from shrinkc.compiler.api.profile import profile
    from shrinkc.compiler.api.prune import prune
    from shrinkc.compiler.api.sensitivity import sensitivity
    from shrinkc.compiler.api.shrink import shrink
    from shrinkc.compiler.api.steps.network import ModelFile
    from shrinkc.compiler.api.targets.many import plan_for
    from shrinkc.compiler.api.targets.worst_case import plan_worst_case
    from shrinkc.compiler.cost.goal import Goal
    from shrinkc.compiler.formats.base import Format
    from shrinkc.compiler.images.source import ImageFolder
    from shrinkc.compiler.recover.recipe import Recipe
    from shrinkc.compiler.support.jobs import Ray
    from shrinkc.compiler.tasks.classification import Classification
    from shrinkc.compiler.tasks.dense import Dense
    from shrinkc.compiler.tasks.detection.detection import Detection
    from shrinkc.compiler.tasks.embedding import Embedding
    from shrinkc.compiler.tasks.regression import Regression
    from shrinkc.compiler.tasks.segmentation import Segmentation
    from shrinkc.compiler.tasks.task import Task
    from shrinkc.errors import ShrinkcError
    from shrinkc.latency_tables.store import known_targets as tables
    from shrinkc.latency_tables.store import load_table


# ONNX Runtime reads these when it is first imported, wherever that is, and would leave a device's
# identifier and queued events in the user's cache. (Its releases disagree about the name.)
for _name in ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):
    os.environ.setdefault(_name, "1")

_HOMES = {
    "Classification": ("compiler.tasks.classification", "Classification"),
    "Dense": ("compiler.tasks.dense", "Dense"),
    "Detection": ("compiler.tasks.detection.detection", "Detection"),
    "Embedding": ("compiler.tasks.embedding", "Embedding"),
    "Format": ("compiler.formats.base", "Format"),
    "Goal": ("compiler.cost.goal", "Goal"),
    "ImageFolder": ("compiler.images.source", "ImageFolder"),
    "ModelFile": ("compiler.api.steps.network", "ModelFile"),
    "Ray": ("compiler.support.jobs", "Ray"),
    "Recipe": ("compiler.recover.recipe", "Recipe"),
    "Regression": ("compiler.tasks.regression", "Regression"),
    "Segmentation": ("compiler.tasks.segmentation", "Segmentation"),
    "ShrinkcError": ("errors", "ShrinkcError"),
    "Task": ("compiler.tasks.task", "Task"),
    "apply": ("compiler.api.plan", "apply"),
    "bench": ("compiler.api.bench", "bench"),
    "calibrate": ("compiler.api.calibrate", "calibrate"),
    "capture": ("compiler.api.files", "capture"),
    "compare": ("compiler.api.compare", "compare"),
    "compile": ("compiler.api.compile", "compile"),
    "estimate": ("compiler.api.estimate", "estimate"),
    "frontier": ("compiler.api.plan", "frontier"),
    "inspect": ("compiler.api.inspect", "inspect"),
    "load": ("compiler.api.files", "load"),
    "load_table": ("latency_tables.store", "load_table"),
    "plan": ("compiler.api.plan", "plan"),
    "plan_for": ("compiler.api.targets.many", "plan_for"),
    "plan_worst_case": ("compiler.api.targets.worst_case", "plan_worst_case"),
    "profile": ("compiler.api.profile", "profile"),
    "prune": ("compiler.api.prune", "prune"),
    "save": ("compiler.api.files", "save"),
    "sensitivity": ("compiler.api.sensitivity", "sensitivity"),
    "shrink": ("compiler.api.shrink", "shrink"),
    "tables": ("latency_tables.store", "known_targets"),
}

__all__ = [
    "Classification",
    "Dense",
    "Detection",
    "Embedding",
    "Format",
    "Goal",
    "ImageFolder",
    "ModelFile",
    "Ray",
    "Recipe",
    "Regression",
    "Segmentation",
    "ShrinkcError",
    "Task",
    "__version__",
    "apply",
    "bench",
    "calibrate",
    "capture",
    "compare",
    "compile",
    "estimate",
    "frontier",
    "inspect",
    "load",
    "load_table",
    "plan",
    "plan_for",
    "plan_worst_case",
    "profile",
    "prune",
    "save",
    "sensitivity",
    "shrink",
    "tables",
]


def __getattr__(name: str) -> Any:
    """Names are imported when first used, so that `import shrinkc` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'shrinkc' has no attribute '{name}'")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
