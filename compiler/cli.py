"""The command line: `shrinkc MODEL --target T` and the commands of `COMMANDS`.

One line on stderr and exit code 2 for whatever a user can cause; `--json` prints one object.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import InputError, ShrinkcError
from .json_values import finite

COMMANDS = (
    *("compile", "estimate", "inspect", "profile", "bench", "tables", "calibrate"),
    *("shrink", "prune", "sensitivity", "apply", "compare"),
)
GLOBAL_OPTIONS = ("--help", "-h", "--version")

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Compile a trained CNN into the ONNX and TFLite files that run fastest on one device, "
    "with proof that they compute the same. `shrinkc MODEL --target rpi4` is short for "
    "`shrinkc compile MODEL --target rpi4`.",
)

ModelArgument = Annotated[
    Path, typer.Argument(help="A .pt module or state dict, or a .safetensors file.")
]
TargetOption = Annotated[
    str, typer.Option(help="A shipped latency table, a table's folder, or host.")
]
InputOption = Annotated[
    list[str] | None,
    typer.Option("--input", help="Input shape N,C,H,W; once per input. Default: 1,C,224,224."),
]
ArchOption = Annotated[
    str | None,
    typer.Option(help="package.module:factory that builds the network of a state dict."),
]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Load files that can run code. Only for files you made.")
]
PrecisionOption = Annotated[str, typer.Option(help="fp32 or int8.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Threads of every measurement here.")]
ON_HELP = r"host, ssh://user@host\[:port]\[/path/to/python], adb:SERIAL, or cuda."
DevicesOption = Annotated[
    list[str], typer.Option("--on", help=f"{ON_HELP} Several are measured side by side.")
]
BenchmarkModelOption = Annotated[
    str | None,
    typer.Option(
        help="TFLite's benchmark_model, for adb: a file here or a path on the phone. Without it, "
        "Python in Termux."
    ),
]
TimeoutOption = Annotated[
    float, typer.Option(min=1, help="Seconds without a word after which a device counts as hung.")
]
ClassesOption = Annotated[
    Path | None, typer.Option(help="JSON: class folder → class index. Default: sorted order.")
]
ResizeOption = Annotated[int | None, typer.Option(help="Shorter side before the crop.")]
MeanOption = Annotated[str | None, typer.Option(help="Per channel, after scaling to 0–1.")]
StdOption = Annotated[str | None, typer.Option(help="Per channel.")]
OpsetOption = Annotated[int, typer.Option(help="ONNX opset.")]
RunsOption = Annotated[int, typer.Option(min=0, help="Timed runs per file; 0: none.")]
BudgetOption = Annotated[
    float | None, typer.Option(help="Milliseconds by the target's table, instead of --speedup.")
]
EvaluationOption = Annotated[
    Path | None, typer.Option(help="Other pictures, to judge it on; class folders: top-1.")
]
BatchOption = Annotated[int, typer.Option(min=1, help="Pictures per training step.")]
RateOption = Annotated[float, typer.Option(help="Of SGD, at its peak.")]
StepsOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Where nothing is trained: of distillation at the end, on --images without labels.",
    ),
]
SpeedupOption = Annotated[
    float | None, typer.Option(help="Over what the table says of the network as it is.")
]
MergeOption = Annotated[
    str, typer.Option(help="Merge linear segments: auto (where the table says it pays), all, none.")
]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)
    ] = False,
) -> None:
    """Reached only for options in front of any command."""
    if version:
        from shrinkc import __version__

        print(f"shrinkc {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("compile")
def compile_command(
    context: typer.Context,
    model: ModelArgument,
    target: TargetOption,
    input: InputOption = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Pictures to verify on: a folder, class folders, or a tar of them."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Pictures for int8; default: half of --images, not judged then."),
    ] = None,
    classes: ClassesOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Output folder. Default: MODEL-TARGET.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="fp32 (default) or int8; with a goal: the better one, unless given."),
    ] = None,
    speedup: Annotated[
        float | None,
        typer.Option(help="Goal: so many times as fast as the original in fp32; lossy."),
    ] = None,
    budget_ms: Annotated[float | None, typer.Option(help="Goal: milliseconds.")] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="Goal: the fastest that loses at most these points of top-1."),
    ] = None,
    pareto: Annotated[
        int | None, typer.Option(help="Goal: so many networks, the most accurate to the fastest.")
    ] = None,
    evaluation: EvaluationOption = None,
    train: Annotated[
        Path | None,
        typer.Option(help="With a goal: pictures to train on afterwards, a folder per class."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of that training.")] = 10,
    int8_tuning: Annotated[
        str | None,
        typer.Option(
            help="Before int8: bias (correct biases on the calibration pictures; the default), "
            "equalise (ranges of channels), both, none."
        ),
    ] = None,
    keep_fp32: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER", help="Leave LAYER in fp32 in int8 files; several times."),
    ] = None,
    min_snr: Annotated[
        float | None,
        typer.Option(help="Leave layers in fp32 whose signal to noise in int8 is less (dB)."),
    ] = None,
    opset: OpsetOption = 17,
    merge: MergeOption = "auto",
    arch: ArchOption = None,
    trust: TrustOption = False,
    threads: ThreadsOption = 1,
    runs: RunsOption = 30,
    as_json: JsonOption = False,
) -> None:
    """Compile MODEL for a target: verified ONNX and TFLite files, a prediction, a measurement.

    Exact without a goal. With one, depth, width and precision are planned together on --images.
    """
    from .commands import CompileArguments, int8_of, run_compile
    from .plan_commands import PlanArguments, PlanGoal, run_plan
    from .shrink.recipe import Recipe

    arguments = CompileArguments(
        model=model,
        target=target,
        shapes=tuple(input or ()),
        images=images,
        calibration=calibration,
        classes=classes,
        resize=resize,
        mean=mean,
        std=std,
        out=out,
        precision=precision or "fp32",
        opset=opset,
        merge=merge,
        arch=arch,
        trust=trust,
        threads=threads,
        runs=runs,
        as_json=as_json,
        command=context.obj,
        int8=int8_of(precision or "fp32", int8_tuning, tuple(keep_fp32 or ()), min_snr),
    )
    goal = PlanGoal(speedup, budget_ms, max_drop, pareto)
    if goal.given and (int8_tuning, keep_fp32, min_snr) != (None, None, None):
        raise InputError(
            "--int8-tuning, --keep-fp32 and --min-snr are for compiling without a goal: a plan "
            "corrects biases and is int8 or fp32 as a whole"
        )
    if goal.given:
        recipe = Recipe(epochs=epochs)
        run_plan(PlanArguments(arguments, goal, precision, evaluation, train, recipe))
    elif evaluation is not None or train is not None:
        raise InputError("--evaluation and --train belong to a goal: --speedup, --budget-ms, …")
    else:
        run_compile(arguments)


@app.command()
def apply(
    context: typer.Context,
    model: ModelArgument,
    plan: Annotated[Path, typer.Argument(help="A plan.json, its plan.safetensors beside it.")],
    target: Annotated[
        str | None, typer.Option(help="Predict for another target than the plan's.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Pictures to judge on. A plan needs none.")
    ] = None,
    classes: ClassesOption = None,
    input: InputOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Output folder. Default: MODEL-TARGET-planned."),
    ] = None,
    opset: OpsetOption = 17,
    arch: ArchOption = None,
    trust: TrustOption = False,
    threads: ThreadsOption = 1,
    runs: RunsOption = 30,
    as_json: JsonOption = False,
) -> None:
    """Do again what a plan did: the same network, without device and pictures."""
    from .commands import CompileArguments
    from .plan_commands import run_apply

    arguments = CompileArguments(
        *(model, target or "", tuple(input or ()), images, None, classes, resize, mean, std, out),
        *("fp32", opset, "none", arch, trust, threads, runs, as_json, context.obj),
    )
    run_apply(arguments, plan)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A folder that shrinkc wrote.")],
    second: Annotated[Path, typer.Argument(help="Another.")],
    threads: ThreadsOption = 1,
    runs: RunsOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Two compiled networks side by side, their files timed in turn here."""
    from .compare_command import run_compare

    run_compare(first, second, threads, runs, as_json)


@app.command()
def shrink(
    context: typer.Context,
    model: ModelArgument,
    target: TargetOption,
    images: Annotated[
        Path | None,
        typer.Option(help="Pictures to fit and calibrate on, no labels needed: a folder, a tar."),
    ] = None,
    speedup: SpeedupOption = None,
    budget_ms: BudgetOption = None,
    method: Annotated[
        str,
        typer.Option(
            help="closed-form (no labels), or with training: depthshrinker, two-stage-dp, "
            "layermerge, layer-pruning; expand trains for accuracy at equal speed."
        ),
    ] = "closed-form",
    train: Annotated[
        Path | None, typer.Option(help="Pictures to train on, a folder for every class.")
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Train on --images: their folders are classes.")
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Of fine-tuning.")] = 10,
    search_epochs: Annotated[
        int | None, typer.Option(min=1, help="Of depthshrinker's search; default: --epochs.")
    ] = None,
    trial_steps: Annotated[
        int, typer.Option(min=1, help="Of training before the DP methods judge an option.")
    ] = 50,
    batch: BatchOption = 128,
    learning_rate: RateOption = 0.02,
    jobs: Annotated[
        str, typer.Option(help="Options tried side by side: a number of processes, or ray.")
    ] = "1",
    seed: Annotated[int, typer.Option(help="Of the training.")] = 0,
    keep: Annotated[
        int | None,
        typer.Option(help="depthshrinker: blocks that keep their activations, not a budget."),
    ] = None,
    keep_ratio: Annotated[
        float | None, typer.Option(help="depthshrinker: their share, 0 to 1, not a budget.")
    ] = None,
    per_activation: Annotated[
        bool, typer.Option("--per-activation", help="depthshrinker: a mask for each activation.")
    ] = False,
    expand_ratio: Annotated[float, typer.Option(help="expand: hidden channels over inputs.")] = 2.0,
    evaluation: EvaluationOption = None,
    classes: ClassesOption = None,
    steps: StepsOption = None,
    input: InputOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Output folder. Default: MODEL-TARGET-shrunk."),
    ] = None,
    precision: PrecisionOption = "fp32",
    opset: OpsetOption = 17,
    arch: ArchOption = None,
    trust: TrustOption = False,
    threads: ThreadsOption = 1,
    runs: RunsOption = 30,
    as_json: JsonOption = False,
) -> None:
    """Shrink depth within a latency budget: from unlabelled pictures alone, or with training."""
    from .commands import CompileArguments
    from .shrink.recipe import Recipe
    from .shrink.trained import Goal, Trained
    from .shrink_commands import ShrinkArguments, run_shrink, side_by_side

    compiled = CompileArguments(
        *(model, target, tuple(input or ()), images, None, classes, resize, mean, std, out),
        *(precision, opset, "none", arch, trust, threads, runs, as_json, context.obj),
    )
    recipe = Recipe(
        epochs,
        search_epochs,
        trial_steps,
        batch,
        learning_rate,
        parallel=side_by_side(jobs),
        seed=seed,
    )
    goal = Goal(speedup, budget_ms, keep, keep_ratio)
    trained = Trained(recipe, per_activation, expand_ratio)
    run_shrink(ShrinkArguments(compiled, method, goal, evaluation, steps, train, labels, trained))


@app.command()
def prune(
    context: typer.Context,
    model: ModelArgument,
    target: TargetOption,
    criterion: Annotated[
        str,
        typer.Option(
            help="Without pictures: l1, l2, slimming, ssl, random, equal; with --images: hrank, "
            "dropnet, cap, he; with labels too: group-fisher."
        ),
    ] = "l1",
    speedup: SpeedupOption = None,
    budget_ms: BudgetOption = None,
    macs: Annotated[
        float | None, typer.Option(help="Share of the multiply-accumulates to keep, 0 to 1.")
    ] = None,
    params: Annotated[
        float | None, typer.Option(help="Share of the parameters to keep, 0 to 1.")
    ] = None,
    keep_ratio: Annotated[
        float | None, typer.Option(help="Share of the channels to keep, 0 to 1.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="GROUP=RATIO: this group alone; several times. See shrinkc inspect."),
    ] = None,
    allocation: Annotated[
        str | None,
        typer.Option(
            help="knapsack (least importance for the cost), global (one threshold), uniform. "
            "Default: knapsack; uniform for --keep-ratio."
        ),
    ] = None,
    normalise: Annotated[
        str | None,
        typer.Option(
            help="How groups compare: share, mean, sum, none, cumulative; measured: each pruned "
            "alone and judged on --images. Default: as the criterion needs."
        ),
    ] = None,
    multiple: Annotated[
        int | None, typer.Option(help="Widths are multiples of it. Default: the target's.")
    ] = None,
    floor: Annotated[float, typer.Option(help="Share of each group that stays.")] = 0.1,
    candidates: Annotated[
        int, typer.Option(help="Widths of a group that are priced, at most.")
    ] = 16,
    images: Annotated[
        Path | None,
        typer.Option(help="Pictures for criteria and --compensate: a folder, a tar."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Of those pictures.")] = 500,
    labels: Annotated[
        bool, typer.Option("--labels", help="Folders of --images are classes.")
    ] = False,
    compensate: Annotated[
        bool | None,
        typer.Option(
            "--compensate/--no-compensate",
            help="Fit what is left to what the network computed, by least squares. "
            "Default: cap, he.",
        ),
    ] = None,
    steps: StepsOption = None,
    train: Annotated[
        Path | None,
        typer.Option(help="Pictures to train on, labelled by folders or not."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Of fine-tuning; 10 with --train. With --labels: on --images."),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Prune a little, tune a little.")] = 1,
    round_epochs: Annotated[
        int, typer.Option(min=1, help="Of training between rounds, or with a penalty.")
    ] = 1,
    every: Annotated[
        int | None,
        typer.Option(
            help="group-fisher with --train: a channel goes every so many steps of --round-epochs "
            "of training, as published (25)."
        ),
    ] = None,
    strength: Annotated[float, typer.Option(help="slimming, ssl: weight of the penalty.")] = 1e-4,
    batch: BatchOption = 128,
    learning_rate: RateOption = 0.02,
    seed: Annotated[int, typer.Option(help="Of training and random scores.")] = 0,
    evaluation: EvaluationOption = None,
    classes: ClassesOption = None,
    input: InputOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Output folder. Default: MODEL-TARGET-pruned."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="PNG of the widths before and after to write.")
    ] = None,
    precision: PrecisionOption = "fp32",
    opset: OpsetOption = 17,
    arch: ArchOption = None,
    trust: TrustOption = False,
    threads: ThreadsOption = 1,
    runs: RunsOption = 30,
    as_json: JsonOption = False,
) -> None:
    """Remove channels until the network fits a budget: at once, or in rounds with training."""
    from .commands import CompileArguments
    from .prune.allocation import Allocation
    from .prune.goal import Goal
    from .prune.prune import Pruning
    from .prune_commands import (
        PruneArguments,
        allocation_named,
        normalise_named,
        run_prune,
        shares,
    )
    from .shrink.recipe import Recipe

    compiled = CompileArguments(
        *(model, target, tuple(input or ()), images, None, classes, resize, mean, std, out),
        *(precision, opset, "none", arch, trust, threads, runs, as_json, context.obj),
    )
    widths = Allocation(
        *(allocation_named(allocation), normalise_named(normalise), multiple, floor, candidates)
    )
    recipe = Recipe(epochs or 10, round_epochs, batch=batch, learning_rate=learning_rate, seed=seed)
    pruning = Pruning(widths, rounds, recipe, every)
    goal = Goal(speedup, budget_ms, macs, params, keep_ratio, shares(keep or []))
    run_prune(
        PruneArguments(
            *(compiled, criterion, goal, pruning, limit, labels, train),
            *(epochs, compensate, steps, strength, evaluation, plot),
        )
    )


@app.command()
def sensitivity(
    model: ModelArgument,
    images: Annotated[
        Path | None, typer.Option(help="Pictures to judge on: a folder, a tar.")
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Folders of --images are classes: judge top-1.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Of those pictures.")] = 200,
    criterion: Annotated[str, typer.Option(help="As in prune.")] = "l1",
    classes: ClassesOption = None,
    input: InputOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="PNG to write.")] = None,
    arch: ArchOption = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Prune every channel group alone and judge: what each bears (Li et al., 2017)."""
    from .commands import CompileArguments
    from .sensitivity_command import SensitivityArguments, run_sensitivity

    compiled = CompileArguments(
        *(model, "", tuple(input or ()), images, None, classes, resize, mean, std, out),
        *("fp32", 17, "none", arch, trust, 1, 0, as_json),
    )
    run_sensitivity(SensitivityArguments(compiled, criterion, limit, labels))


@app.command()
def estimate(
    model: ModelArgument,
    target: TargetOption,
    input: InputOption = None,
    precision: PrecisionOption = "fp32",
    merge: MergeOption = "auto",
    arch: ArchOption = None,
    trust: TrustOption = False,
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Predict milliseconds per layer and in total, and say how the table knows."""
    from .commands import run_estimate

    shapes = tuple(input or ())
    run_estimate(model, target, shapes, precision, merge, arch, trust, threads, as_json)


@app.command()
def inspect(
    model: ModelArgument,
    input: InputOption = None,
    target: Annotated[
        str | None, typer.Option(help="Say what its table thinks that merging would save.")
    ] = None,
    precision: PrecisionOption = "fp32",
    arch: ArchOption = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the graph, what is linear or could be, its channel groups, what cannot be exported."""
    from .commands import run_inspect

    run_inspect(model, tuple(input or ()), target, precision, arch, trust, as_json)


@app.command("profile")
def profile_command(
    target: Annotated[
        list[str], typer.Option(help="Name of the table to make; once, or once per --on.")
    ],
    on: DevicesOption,
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Measure what planning these needs. Default: a grid of usual operators."
        ),
    ] = None,
    input: InputOption = None,
    widths: Annotated[
        int, typer.Option(min=1, help="Widths of each layer, from all channels to a quarter.")
    ] = 8,
    precision: Annotated[str, typer.Option(help="fp32, int8 or (cuda) fp16.")] = "fp32",
    runtime: Annotated[
        str,
        typer.Option(help="tflite, onnxruntime; on cuda pytorch, tensorrt. Default: the first."),
    ] = "",
    threads: ThreadsOption = 1,
    budget_minutes: Annotated[
        float, typer.Option(min=0, help="Time for each device; what is left over goes on later.")
    ] = 10.0,
    benchmark_model: BenchmarkModelOption = None,
    timeout: TimeoutOption = 120.0,
    arch: ArchOption = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a latency table on a device. Killed or cut off, the same command goes on."""
    from .device_commands import ProfileArguments, run_profile

    run_profile(
        ProfileArguments(
            models=tuple(models or ()),
            targets=tuple(target),
            devices=tuple(on),
            benchmark_model=benchmark_model,
            shapes=tuple(input or ()),
            widths=widths,
            precision=precision,
            runtime=runtime,
            threads=threads,
            budget_minutes=budget_minutes,
            timeout_s=timeout,
            arch=arch,
            trust=trust,
            as_json=as_json,
        )
    )


@app.command()
def bench(
    file: Annotated[Path, typer.Argument(help="A .onnx or .tflite file.")],
    on: Annotated[str, typer.Option(help=ON_HELP)] = "host",
    compare: Annotated[
        Path | None, typer.Option(help="Another file, timed in turn with FILE.")
    ] = None,
    threads: ThreadsOption = 1,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs.")] = 50,
    benchmark_model: BenchmarkModelOption = None,
    timeout: TimeoutOption = 120.0,
    as_json: JsonOption = False,
) -> None:
    """Time FILE on a device: median, interquartile range, memory, and whether it computes what it
    computes here."""
    from .device_commands import run_bench

    run_bench(file, on, compare, benchmark_model, threads, runs, timeout, as_json)


OnOption = Annotated[str, typer.Option("--on", help=ON_HELP)]


@app.command()
def calibrate(
    target: Annotated[str, typer.Argument(help="The table to correct.")],
    on: OnOption,
    runtime: Annotated[
        str | None, typer.Option(help="tflite or onnxruntime. Default: the device's first.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Default: as the table was measured.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Default: all that table and device have.")
    ] = None,
    benchmark_model: BenchmarkModelOption = None,
    name: Annotated[
        str | None, typer.Option(help="Target to save it as. Default: TARGET, which it then means.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Correct a table by a dozen whole networks measured on your own device."""
    from .table_commands import run_calibrate

    run_calibrate(target, on, runtime, threads, precision, benchmark_model, name, as_json)


tables = typer.Typer(help="What latency tables there are, and what they know.")
app.add_typer(tables, name="tables")


@tables.callback(invoke_without_command=True)
def tables_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the targets and the error that each states."""
    if context.invoked_subcommand is None:
        from .table_commands import run_tables

        run_tables(as_json)


@tables.command("show")
def tables_show(
    target: Annotated[str, typer.Argument(help="A target, or a table's folder.")],
    plot: Annotated[
        Path | None, typer.Option(help="PNG of predicted against measured to write.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Where a table comes from, what it covers, how wrong it is."""
    from .table_commands import run_show

    run_show(target, plot, as_json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    # OpenMP threads that spin at barriers starve on busy machines; read when torch is imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as for Ctrl-C
    given = list(sys.argv[1:] if arguments is None else arguments)
    typed = shlex.join(("shrinkc", *given))
    if given and given[0] not in (*COMMANDS, *GLOBAL_OPTIONS):
        given.insert(0, "compile")
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        return _guarded(lambda: app(given, standalone_mode=False, obj=typed))


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """One line, without the place in the code."""
    print(f"shrinkc: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _guarded(run: Callable[[], Any]) -> int:
    try:
        result = run()
    except (ShrinkcError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        print(f"shrinkc: {' '.join(message.split())}", file=sys.stderr)
        return 2
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort) as stop:
        said = str(stop) or "interrupted; nothing was written"  # a stopped training names its file
        print(f"shrinkc: {said}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    return result if isinstance(result, int) else 0


def print_json(value: dict[str, Any]) -> None:
    """One object on stdout; numbers that JSON lacks become null."""
    print(json.dumps(finite(value), indent=2, ensure_ascii=False))
