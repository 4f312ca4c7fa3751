"""One architecture through capture, folding and both writers, as JSON; coverage.py runs it.

python -m benchmarks.coverage_one pytorchcv/mobilenet_w1
"""

from __future__ import annotations

import copy
import json
import logging
import re
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.shared.common import peak_megabytes, replace_json
from benchmarks.shared.models import Architecture, architectures, build

STAGES = ("captured", "folded", "onnx", "tflite")
EQUAL = 1e-4  # of the output's range
Result = dict[str, Any]


class WrongResultError(Exception):
    """A stage that ran and gave a wrong result."""


def empty_result(architecture: Architecture, stages: Sequence[str] = STAGES) -> Result:
    """Nothing passed yet."""
    return {
        "library": architecture.library,
        "name": architecture.name,
        "parameters": architecture.parameters,
        "errors": {},
        "stage_seconds": {},
        **dict.fromkeys(stages, False),
    }


class Stages:
    """Runs stages one after the other; what they find goes into `result`, and that to `save`
    after each, so that a stage which is killed does not take the others with it."""

    def __init__(
        self,
        architecture: Architecture,
        save: Callable[[Result], None],
        stages: Sequence[str] = STAGES,
    ) -> None:
        self.result = empty_result(architecture, stages)
        self.save, self.stages = save, stages

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        except Exception as error:
            self.result["errors"][name] = f"{type(error).__name__}: {_one_line(error)}"
        else:
            if name in self.stages:
                self.result[name] = True
        finally:
            self.result["stage_seconds"][name] = round(time.perf_counter() - start, 2)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            self.result["peak_mb"] = round(peak_megabytes(peak))
            self.save(self.result)


def measure(architecture: Architecture, save: Callable[[Result], None]) -> None:
    """Every stage that can be reached."""
    stages = Stages(architecture, save)
    result = stages.result
    graph: fx.GraphModule | None = None
    folded: fx.GraphModule | None = None
    with stages.stage("build"):
        model = build(architecture)
        x = torch.randn(2, *architecture.input_shape)
        want = outputs(model, x)
        result["attention"] = multiplies_activations(model, x[:1])
        result["float32_error"] = _float32_error(model, x, want)
    if "build" in result["errors"]:
        return
    with stages.stage("captured"):
        graph = _capture(model, x, want, result)
    if graph is not None:
        with stages.stage("folded"):
            folded = _fold(graph, result)
        _export(stages, folded or graph, x, want)
    if folded is not None:
        with stages.stage("merged"):
            _merge(folded, x, want, result)


def _capture(model: nn.Module, x: Tensor, want: list[Tensor], result: Result) -> fx.GraphModule:
    from shrinkc.compiler.capture import capture

    graph = capture(model, (x[:1],))
    result["captured_by"] = graph.meta.get("captured_by")
    result["nodes"] = len(graph.graph.nodes)
    batch = 2 if graph.meta.get("dynamic_batch", True) else 1
    result["dynamic_batch"] = batch == 2
    got = outputs(graph, x[:batch])
    check("captured", largest_error(got, [one[:batch] for one in want]), EQUAL)
    return graph


def _fold(graph: fx.GraphModule, result: Result) -> fx.GraphModule:
    """run_exact_passes verifies each pass in float64 and raises what it finds."""
    from shrinkc.compiler.pipeline.deployed import BASE_PASSES
    from shrinkc.compiler.pipeline.run import run_exact_passes

    after, steps = run_exact_passes(graph, BASE_PASSES)
    skipped = steps[1].skipped
    result["batch_norm_counts"] = [_batch_norms(graph), _batch_norms(after)]
    result["kept_batch_norms"] = dict(
        Counter(re.sub(r"'[^']+'", "…", skip.reason) for skip in skipped)
    )
    result["folded_error"] = max(step.max_error for step in steps)
    unexplained = _batch_norms(after) - len({skip.node for skip in skipped})
    if unexplained > 0:
        raise WrongResultError(f"{unexplained} batch norms are left without a reason")
    return after


def _merge(graph: fx.GraphModule, x: Tensor, want: list[Tensor], result: Result) -> None:
    """Every linear segment merged, whatever it costs: verified in float64, and as ONNX."""
    from shrinkc.compiler.export.lower import lower
    from shrinkc.compiler.formats.onnx import ONNX
    from shrinkc.compiler.pipeline.run import run_exact_passes
    from shrinkc.passes.merge.merge_linear import MergeLinear

    after, (step,) = run_exact_passes(graph, (MergeLinear(),))
    result["merges"], result["merged_error"] = len(step.changes), step.max_error
    if step.changes:
        got = [torch.from_numpy(array) for array in run_file(ONNX, lower(after), x[:1])]
        check("merged", largest_error(got, [one[:1] for one in want]), EQUAL)


def _export(stages: Stages, graph: fx.GraphModule, x: Tensor, want: list[Tensor]) -> None:
    result = stages.result
    program: Any = None
    with stages.stage("lowered"):
        from shrinkc.compiler.export.lower import lower
        from shrinkc.compiler.formats.registry import FORMATS

        program = lower(graph)
        result["operators"] = len(program.ops)
    if program is None:
        result["errors"]["onnx"] = result["errors"]["tflite"] = result["errors"].pop("lowered")
        return
    for form in FORMATS:
        batch = 2 if form.takes_any_batch(program) else 1
        with stages.stage(form.name):
            got = [torch.from_numpy(array) for array in run_file(form, program, x[:batch])]
            error = largest_error(got, [one[:batch] for one in want])
            result[f"{form.name}_error"] = error
            check(form.name, error, EQUAL)


def run_file(form: Any, program: Any, x: Tensor) -> list[Any]:
    """Write the file in a Format and run it in the format's runtime."""
    from shrinkc.compiler.verify.files import artefact

    return artefact(form, form.encode(program), program).run((x,))


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Every tensor that the model returns, in order."""
    with torch.no_grad():
        leaves = torch.utils._pytree.tree_leaves(model(x))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def largest_error(got: Sequence[Tensor], want: Sequence[Tensor]) -> float:
    """Over all outputs, the largest difference relative to that output's range."""
    if len(got) != len(want):
        raise WrongResultError(f"{len(got)} outputs instead of {len(want)}")
    worst = 0.0
    for index, (a, b) in enumerate(zip(got, want, strict=True)):
        if a.shape != b.shape:
            raise WrongResultError(f"output {index} is {tuple(a.shape)}, not {tuple(b.shape)}")
        b = b.double()
        if not torch.isfinite(b).all():
            raise WrongResultError(f"output {index} of the model is not finite")
        spread = float(b.max() - b.min()) or 1.0
        difference = (a.double() - b).abs().max() if b.numel() else torch.zeros(())
        worst = max(worst, float(difference.nan_to_num(float("inf"))) / spread)
    return worst


def check(name: str, error: float, limit: float) -> None:
    if error > limit:
        raise WrongResultError(f"{name}: differs by {error:.1e} of the output's range")


def _batch_norms(graph: fx.GraphModule) -> int:
    called = [graph.get_submodule(n.target) for n in graph.graph.nodes if n.op == "call_module"]
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in called)


class _Operators(TorchDispatchMode):
    """Collects the names of what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.add(func.__name__)
        return func(*args, **(kwargs or {}))


def multiplies_activations(model: nn.Module, x: Tensor) -> bool:
    """Whether the model multiplies two matrices that it computed, as attention does."""
    with _Operators() as seen:
        outputs(model, x)
    return any("bmm" in name or "attention" in name for name in seen.names)


def _float32_error(model: nn.Module, x: Tensor, want: list[Tensor]) -> float | None:
    """The model's own rounding; None for a model that runs in float32 only."""
    try:
        return largest_error(want, outputs(copy.deepcopy(model).double(), x.double()))
    except RuntimeError:
        return None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."


def run_alone(measure: Callable[[Architecture, Callable[[Result], None]], None]) -> None:
    """Arguments `KEY [FILE]`: the result goes to FILE, or to stdout. A key, LIBRARY/NAME, that is
    not in the list reads 224×224."""
    key, *path = sys.argv[1:]
    library, _, name = key.partition("/")
    other = Architecture(library, name, (3, 224, 224), 0)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    latest: Result = {}

    def save(result: Result) -> None:
        latest.update(result)
        if path:
            replace_json(Path(path[0]), result)

    measure(next((one for one in architectures() if one.key == key), other), save)
    if not path:
        print(json.dumps(latest, indent=1))


if __name__ == "__main__":
    run_alone(measure)
