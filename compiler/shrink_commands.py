"""`shrinkc shrink`: less depth, within a latency budget, from pictures without labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_dir
from rich.console import Console
from rich.markup import escape
from torch import Tensor, fx

from ..passes.fold_batch_norm import FoldBatchNorm
from ..passes.simplify import Simplify
from . import show
from .cli import print_json
from .commands import CompileArguments, images_of, input_shapes, preprocessing_of, progress
from .compile import compile_model
from .data import split
from .errors import InputError
from .load import load_model
from .options import Options
from .pipeline import run_exact_passes
from .shrink.closed_form import ClosedForm, Shrunk, shrink_closed_form
from .shrink.tune import Tuning
from .stages import captured, cost_table, require_convolutions
from .train.cache import load_pictures, with_margin


@dataclass(frozen=True)
class ShrinkArguments:
    """The command line of `shrinkc shrink`, as given; `compile.images` are what it is fitted to."""

    compile: CompileArguments
    speedup: float | None
    budget_ms: float | None
    evaluation: Path | None
    steps: int


@dataclass(frozen=True)
class Judged:
    """The shrunk network beside the original, in PyTorch. Top-1 is None without labels."""

    pictures: int
    agreement: float
    original_top1: float | None
    shrunk_top1: float | None


def run_shrink(a: ShrinkArguments) -> None:
    """Shrink, compile what is left, print both reports."""
    given = a.compile
    table = cost_table(given.target, given.threads)
    if given.images is None:
        raise InputError("shrinking looks at pictures; give --images DIR (no labels are needed)")
    model = load_model(given.model, arch=given.arch, trust=given.trust)
    shapes = input_shapes(model, given.shapes)
    if len(shapes) > 1:
        raise InputError("shrinking works for networks with one input")
    preprocessing = preprocessing_of(given, shapes)
    if preprocessing is None:
        raise InputError("shrinking needs a network that reads pictures (N,C,H,W)")
    reporter = progress(given.as_json)
    with reporter.task("Capturing, folding; each pass verified in float64"):
        graph = captured(model, shapes)
        require_convolutions(graph)
        folded, _ = run_exact_passes(graph, (Simplify(), FoldBatchNorm()))
        original = folded.float()
    images = images_of(given.images, None, labelled=False)
    assert images is not None
    pictures = load_pictures(images, with_margin(preprocessing), progress=reporter)
    cache = Path(user_cache_dir("shrinkc", appauthor=False), "damages")
    shrunk = shrink_closed_form(
        original,
        pictures,
        table,
        given.precision,
        speedup=a.speedup,
        budget_ms=a.budget_ms,
        options=ClosedForm(tuning=Tuning(steps=a.steps), cache=cache),
        progress=reporter,
    )
    shrunk.graph_module.meta.update(graph.meta)
    options = Options(
        target=given.target,
        precision=given.precision,
        opset=given.opset,
        images=images_of(a.evaluation or given.images, given.classes),
        calibration=images if given.precision == "int8" else None,
        preprocessing=preprocessing,
        threads=given.threads,
        runs=given.runs,
    )
    out = given.out or Path(f"{given.model.stem}-{Path(given.target).name}-shrunk")
    report = compile_model(shrunk.graph_module, shapes, out, options, given.model.name, reporter)
    judged = None if a.evaluation is None else _judge(original, shrunk.graph_module, options)
    if given.as_json:
        print_json({"shrunk": _json(shrunk, judged), "compiled": report.to_json()})
        return
    _show(shrunk, judged)
    show.report(report, out)


@torch.no_grad()
def _judge(original: fx.GraphModule, shrunk: fx.GraphModule, options: Options) -> Judged:
    """On pictures that shrinking did not see."""
    counts = {"pictures": 0, "same": 0, "original": 0, "shrunk": 0}
    labelled = True
    for (x,), labels in split(original, replace(options, precision="fp32")).batches():
        before, after = _classes(original, x), _classes(shrunk, x)
        counts["pictures"] += len(x)
        counts["same"] += int((before == after).sum())
        labelled = labelled and labels is not None
        if labels is not None:
            counts["original"] += int((before == labels).sum())
            counts["shrunk"] += int((after == labels).sum())
    total = counts["pictures"]
    top1 = (counts["original"] / total, counts["shrunk"] / total) if labelled else (None, None)
    return Judged(total, counts["same"] / total, *top1)


def _classes(graph: fx.GraphModule, x: Tensor) -> Tensor:
    outputs: Any = graph(x)
    return outputs[0].flatten(1).argmax(1)


def _json(shrunk: Shrunk, judged: Judged | None) -> dict[str, Any]:
    return {
        "predicted_ms_before": shrunk.before_ms,
        "predicted_ms_after": shrunk.after_ms,
        "predicted_speedup": shrunk.speedup,
        "choices": [asdict(row) for row in shrunk.rows],
        "skipped": [asdict(skip) for skip in shrunk.skipped],
        "judged": None if judged is None else asdict(judged),
    }


def _show(shrunk: Shrunk, judged: Judged | None) -> None:
    console = Console()
    for row in shrunk.rows:
        console.print(
            f"{row.kind} {escape(row.source)} … {escape(row.sink)}: saves {row.saving_ms:.3g} ms, "
            f"alone it agrees with the original on {row.agreement:.1%} of the pictures"
        )
    console.print(
        f"predicted: {shrunk.before_ms:.4g} → {shrunk.after_ms:.4g} ms, {shrunk.speedup:.2f}×; "
        f"{len(shrunk.skipped)} spans declined"
    )
    if judged is None:
        console.print("not judged: give --evaluation DIR, pictures that it was not fitted to")
        return
    top1 = ""
    if judged.original_top1 is not None and judged.shrunk_top1 is not None:
        top1 = f"; top-1 {judged.original_top1:.2%} before, {judged.shrunk_top1:.2%} after"
    console.print(
        f"on {judged.pictures} other pictures it agrees with the original on "
        f"{judged.agreement:.1%}{top1} (PyTorch, fp32)"
    )
