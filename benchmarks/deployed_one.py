"""One network through capture, both files, pruning and a plan; deployed.py runs it."""

from __future__ import annotations

import logging
import resource
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.coverage_one import EQUAL, check, largest_error
from benchmarks.shared.common import peak_megabytes, replace_json
from benchmarks.shared.deployed import networks
from shrinkc import Goal
from shrinkc.compiler.api.compile import compile as compile_files
from shrinkc.compiler.api.estimate import estimate
from shrinkc.compiler.api.files import capture
from shrinkc.compiler.api.plan import Planned, plan
from shrinkc.compiler.api.prune import prune
from shrinkc.compiler.api.steps.results import Compiled
from shrinkc.compiler.formats.registry import FORMATS
from shrinkc.compiler.verify.files import artefact
from shrinkc.errors import ShrinkcError, UnreachableGoalError

TARGET, KEEP, SPEEDUP = "rpi4", 0.7, 1.5
IMAGES = 24  # random, that a plan is fitted to and judged on
SLACK = 1.02  # of the fastest that was found, where the speedup is out of reach
Row = dict[str, Any]
Inputs = tuple[Tensor, ...]


def empty_row(family: str, name: str) -> Row:
    """Nothing passed yet."""
    passed = dict.fromkeys(("captured", "onnx", "tflite", "pruned"), False)
    return {"family": family, "name": name, "errors": {}, "stage_seconds": {}, **passed}


def run(family: str, name: str, path: Path, with_plan: bool) -> None:
    """The row goes to `path` after each stage."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    row = empty_row(family, name)
    model, x = networks(family)[name]()
    row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    with stage(row, "captured", path):
        graph = capture(model, x)
        row["captured_by"] = graph.meta["captured_by"]
        row["captured"] = True
    if row["captured"]:
        with stage(row, "compiled", path):
            compiled = compile_files(model, x, target=TARGET, runs=0)
            row["notes"] = list(compiled.report.notes)
            row |= judged(compiled, model, x, row["errors"])
        with stage(row, "pruned", path):
            pruned = prune(model, x, goal=Goal.channels(KEEP), target=TARGET, runs=0)
            before, after = (
                sum(p.numel() for p in module.parameters()) for module in (model, pruned)
            )
            row["parameter_counts"] = [before, after]
            assert pruned.compiled is not None
            found = judged(pruned.compiled, pruned, x, row["errors"], "pruned ")
            row["pruned"] = all(found[form.name] for form in FORMATS)
        if with_plan:
            row["planned"] = False
            with stage(row, "planned", path):
                row |= _planned(model, x)


@contextmanager
def stage(row: Row, name: str, path: Path) -> Iterator[None]:
    """Its seconds, and what went wrong: a refusal in shrinkc's words, or a crash and its place."""
    start = time.perf_counter()
    try:
        yield
    except ShrinkcError as error:
        row["errors"][name] = f"{type(error).__name__}: {_one_line(error)}"
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(at.filename).name}:{at.lineno}"
        row["errors"][name] = f"crash in {place}, {type(error).__name__}: {_one_line(error)}"
    row["stage_seconds"][name] = round(time.perf_counter() - start, 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row["peak_mb"] = round(peak_megabytes(peak))
    replace_json(path, row)


def judged(
    compiled: Compiled, model: nn.Module, x: Inputs, errors: dict[str, str], what: str = ""
) -> Row:
    """By format: whether its file computes what `model` does, of other numbers than the example."""
    torch.manual_seed(1)
    x = tuple(torch.randn_like(one) if one.is_floating_point() else one for one in x)
    with torch.no_grad():
        want = tensors(model(*x))
    found: Row = {}
    for form in FORMATS:
        data = compiled.files.get(form.file)
        found[form.name] = False
        if data is None:
            reasons = "; ".join(compiled.report.failures)
            errors[f"{what}{form.name}"] = reasons or "no file was written"
            continue
        arrays = artefact(form, data, compiled.artefact.program).run(x)
        got = tensors(compiled.structure.restore([torch.as_tensor(one) for one in arrays]))
        error = largest_error(got, want)
        if not what:
            found[f"{form.name}_error"] = error
        check(f"{what}{form.name}", error, EQUAL)
        found[form.name] = True
    return found


def tensors(value: Any) -> list[Tensor]:
    """Those that a model returns, in order, as numbers."""
    leaves = torch.utils._pytree.tree_leaves(value)
    return [leaf.double() for leaf in leaves if isinstance(leaf, Tensor)]


def _planned(model: nn.Module, x: Inputs) -> Row:
    """For the speedup, or where nothing is that fast the most that there is: every output's
    damage."""
    torch.manual_seed(2)
    images = tuple(
        torch.randn(IMAGES, *one.shape[1:])
        if one.is_floating_point()
        else one.repeat(IMAGES, *(1,) * (one.ndim - 1))
        for one in x
    )
    given: Any = {"images": images[0] if len(images) == 1 else [images]}
    given |= {"target": TARGET, "precision": "fp32", "runs": 0}
    found = _fastest(model, x, Goal.speedup(SPEEDUP), given)
    promise = found.plan.promise
    assert promise is not None
    with torch.no_grad():
        count = len(tensors(model(*x)))
    stated = promise.outputs
    if len(stated) != count:
        raise AssertionError(f"{len(stated)} damages are stated of {count} outputs")
    return {
        "table_speedup": found.plan.speedup,
        "damages": [one.error for one in stated],
        "planned": True,
    }


def _fastest(
    model: nn.Module, x: Inputs, goal: Goal, given: dict[str, Any], tries: int = 3
) -> Planned:
    """The plan for the goal, or as fast as it gets, nearly."""
    try:
        return plan(model, x, goal=goal, **given)
    except UnreachableGoalError as error:
        before_ms = estimate(model, x, target=TARGET).total_ms
        if error.fastest_ms is None or error.fastest_ms >= before_ms or not tries:
            raise
        budget_ms = min(error.fastest_ms * SLACK, (error.fastest_ms + before_ms) / 2)
        return _fastest(model, x, Goal.budget_ms(budget_ms), given, tries - 1)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
