"""From a deployed fp32 network to the one that int8 files are written from."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, fx

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.images.sanity import Sanity
from shrinkc.compiler.pipeline.run import Step, run_exact_passes
from shrinkc.compiler.quantise.bias import correct_biases
from shrinkc.compiler.quantise.headroom import leave_room_for_biases
from shrinkc.compiler.quantise.noise import LayerNoise, own_noise
from shrinkc.compiler.quantise.options import Int8
from shrinkc.compiler.quantise.ranges import Range, calibrate, channel_ranges
from shrinkc.compiler.quantise.rounding import Grid, grid_of
from shrinkc.compiler.quantise.simulate import Quantisation
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task
from shrinkc.errors import InputError
from shrinkc.passes.base import Skip
from shrinkc.passes.fold.equalise_channels import EqualiseChannels

CORRECTION_IMAGES = 100  # three times as many changed MobileNetV2's divergence by 0.0002
NOISE_IMAGES = 32
FEWEST = 32  # calibration images
NOISY_DB = 25.0  # MobileNetV2's noisiest layer has 30; 16 after its channels are scaled at random
JOINED_BYTES = 5 << 20  # of input that runs together: 8 images of 224 × 224

ADVICE = "int8 ranges come from them: calibrate on real images of many classes"

Batches = Sequence[tuple[Tensor, ...]]


@dataclass(frozen=True)
class Prepared:
    """The network that int8 files are written from; in fp32 it is no longer the original.

    uncorrected   before its biases were corrected: still the original's function
    """

    graph_module: fx.GraphModule
    quantisation: Quantisation
    uncorrected: fx.GraphModule
    noise: tuple[LayerNoise, ...] = ()
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()


def prepare(
    graph_module: fx.GraphModule,
    batches: Batches,
    options: Int8,
    progress: Progress | None = None,
    *,
    task: Task = CLASSIFICATION,
    known: Mapping[str, Range] | None = None,
) -> Prepared:
    """Equalise, calibrate, choose what stays fp32, correct biases, leave room for them.

    `graph_module` is left as it is. `batches` are calibration inputs, each of the captured batch
    size; `known` are ranges that no images need to tell. Raises InputError for a layer that is not
    there.
    """
    progress = progress or Silent()
    check_layers(lower(graph_module), options.keep_fp32)
    steps: tuple[Step, ...] = ()
    if options.tuning in ("equalise", "both"):
        few = _groups(graph_module, batches, NOISE_IMAGES)
        seen = channel_ranges(graph_module, lower(graph_module).names, map(_joined, few))
        equalised, steps = run_exact_passes(graph_module, (EqualiseChannels(seen),))
        graph_module = equalised.float()
    program = lower(graph_module)
    sanity = Sanity("calibration images", ADVICE, task=task)
    inputs, outputs = ([value.name for value in v] for v in (program.inputs, program.outputs))
    with progress.task("Calibrating", len(batches)) as done:
        watch, endless = sanity.watch(inputs, outputs), set[str]()
        ranges = calibrate(graph_module, program.names, batches, done, watch, endless)
    ranges = {**ranges, **(known or {})}
    kept = operators(program, options.keep_fp32) | _always_fp32(program)
    kept |= _with_infinity(program, endless)
    quantisation = Quantisation(program, ranges, kept)
    noise: tuple[LayerNoise, ...] = ()
    if options.noise or options.min_snr_db is not None:
        few = _groups(graph_module, batches, NOISE_IMAGES)
        with progress.task("Measuring noise", len(few)) as done:
            own = own_noise(graph_module, quantisation, map(_joined, few), done)
        least = -torch.inf if options.min_snr_db is None else options.min_snr_db
        noisy = {layer for layer, decibels in own.items() if decibels < least}
        quantisation = replace(quantisation, keep_fp32=quantisation.keep_fp32 | noisy)
        noise = _noise(own, quantisation)
    made, final, skipped = _corrected(graph_module, quantisation, batches, options, progress)
    notes = (*notes_of(final, skipped), *_noisy(noise, options), *sanity.notes(), *_few(batches))
    return Prepared(made, final, graph_module, noise, steps, notes)


def with_levels(
    prepared: Prepared, levels: int, batches: Batches, options: Int8, progress: Progress
) -> Prepared:
    """The same for weights of other levels: rounded otherwise, they need other biases."""
    other = replace(prepared.quantisation, levels=levels)
    return _recorrected(prepared, other, batches, options, progress)


def with_fp32(
    prepared: Prepared,
    names: frozenset[str],
    batches: Batches,
    options: Int8,
    progress: Progress,
) -> Prepared:
    """The same with these operators in fp32 too: without their noise, biases shift otherwise."""
    kept = prepared.quantisation.keep_fp32 | names
    other = replace(prepared.quantisation, keep_fp32=kept)
    made = _recorrected(prepared, other, batches, options, progress)
    noise = _noise({layer.layer: layer.snr_db for layer in prepared.noise}, other)
    outdated = _noisy(prepared.noise, options)
    notes = tuple(note for note in prepared.notes if note not in outdated)
    return replace(made, noise=noise, notes=(*notes, *_noisy(noise, options)))


def _recorrected(
    prepared: Prepared,
    quantisation: Quantisation,
    batches: Batches,
    options: Int8,
    progress: Progress,
) -> Prepared:
    made, final, _ = _corrected(prepared.uncorrected, quantisation, batches, options, progress)
    return replace(prepared, graph_module=made, quantisation=final)


def _corrected(
    graph_module: fx.GraphModule,
    quantisation: Quantisation,
    batches: Batches,
    options: Int8,
    progress: Progress,
) -> tuple[fx.GraphModule, Quantisation, tuple[Skip, ...]]:
    """With biases that int8 needs, and has room for."""
    skipped: tuple[Skip, ...] = ()
    if options.tuning in ("bias", "both"):
        some = _groups(graph_module, batches, CORRECTION_IMAGES)
        with progress.task("Correcting biases", len(some)) as done:
            result = correct_biases(graph_module, quantisation, map(_joined, some), done)
        graph_module, skipped = result.graph_module, result.skipped
    graph_module, _ = leave_room_for_biases(graph_module, quantisation)
    return graph_module, replace(quantisation, program=lower(graph_module)), skipped


def boundary_grids(quantisation: Quantisation) -> dict[str, Grid]:
    """The grids of what the network reads and returns, by name, where those are floats."""
    program, ranges = quantisation.program, quantisation.ranges
    makers = {op.output.name: op for op in program.ops}
    found: dict[str, Grid] = {}
    for value in (*program.inputs, *program.outputs):
        if value.dtype != "float32":
            continue
        name = value.name
        while name not in ranges:  # a copy of what is returned twice
            maker = makers[name]
            assert isinstance(maker, ops.Reshape)
            name = maker.x.name
        found[value.name] = grid_of(*ranges[name])
    return found


def operators(program: ops.Program, layers: Sequence[str]) -> frozenset[str]:
    """Operators named by their graph node, or by the activation fused into them."""
    asked = set(layers)
    return frozenset(op.name for op in program.ops if asked & {op.name, op.output.name})


def _always_fp32(program: ops.Program) -> frozenset[str]:
    """Recurrent layers: no quantiser takes them, and noise adds up over their steps. Divisions by
    what is computed: TFLite ends a run in which a divisor rounds to 0."""
    return frozenset(
        op.name
        for op in program.ops
        if isinstance(op, ops.Recurrent)
        or (isinstance(op, ops.Binary) and op.kind == "div" and isinstance(op.b, ops.Value))
    )


def _with_infinity(program: ops.Program, endless: Collection[str]) -> frozenset[str]:
    """Operators that read or write infinity, as masks of attention have it: no grid holds it, and
    TFLite ends the process at a file with such a one. `endless`: the values that were seen to."""
    found, unseen = set[str](), set(endless)
    for op in program.ops:
        read = list(op.operands())
        known = any(isinstance(x, ops.Const) and not np.isfinite(x.array).all() for x in read)
        if isinstance(op, ops.Constant):
            known = not np.isfinite(op.array).all()
        if known:
            unseen.add(op.output.name)
        if known or not unseen.isdisjoint({op.output.name, *(x.name for x in read)}):
            found.add(op.name)
    return frozenset(found)


def check_layers(program: ops.Program, layers: Sequence[str]) -> None:
    """Raise InputError that lists near matches of a layer that is no operator."""
    known = list(dict.fromkeys(op.name for op in program.ops))
    outputs = {op.output.name for op in program.ops}
    for layer in layers:
        if layer in outputs or layer in known:
            continue
        close = difflib.get_close_matches(layer, known, n=4, cutoff=0.4) or known[:4]
        near = ", ".join(close)
        raise InputError(
            f"`keep_fp32` {layer}: no such layer in the deployed network; near it: {near}"
        )


def _groups(graph_module: fx.GraphModule, batches: Batches, images: int) -> list[Batches]:
    """At most so many images, evenly spread; batches that run as one where the network takes
    any batch size."""
    if not batches:
        return []
    count = max(1, images // len(batches[0][0]))
    spread = batches[:: max(1, -(-len(batches) // count))]
    size = 1
    if graph_module.meta.get("dynamic_batch", False):
        each = sum(x.numel() * x.element_size() for x in batches[0])
        size = max(1, JOINED_BYTES // each)
    return [spread[start : start + size] for start in range(0, len(spread), size)]


def _joined(group: Batches) -> tuple[Tensor, ...]:
    return tuple(torch.cat(column) for column in zip(*group, strict=True))


def _noise(own: dict[str, float], quantisation: Quantisation) -> tuple[LayerNoise, ...]:
    return tuple(
        LayerNoise(layer, decibels, "fp32" if layer in quantisation.keep_fp32 else "int8")
        for layer, decibels in own.items()
    )


def notes_of(quantisation: Quantisation, skipped: Sequence[Skip] = ()) -> tuple[str, ...]:
    """For the report."""
    notes: list[str] = []
    if quantisation.keep_fp32:
        kept = sorted(quantisation.keep_fp32)
        notes.append(f"fp32 in the int8 files: {', '.join(kept)}")
    if skipped:
        left, first = counted(len(skipped), "bias", "biases"), skipped[0]
        notes.append(f"{left} not corrected, first '{first.node}': {first.reason}")
    return tuple(notes)


def _few(batches: Batches) -> tuple[str, ...]:
    """Ranges from so few images clip what others hold."""
    count = sum(len(inputs[0]) for inputs in batches)
    if count >= FEWEST:
        return ()
    return (f"int8 was calibrated on {counted(count, 'image')}; give {FEWEST} or more",)


def _noisy(noise: Sequence[LayerNoise], options: Int8) -> tuple[str, ...]:
    """What would help the noisiest layer."""
    left = [layer for layer in noise if layer.precision == "int8" and layer.snr_db < NOISY_DB]
    if not left:
        return ()
    worst = min(left, key=lambda layer: layer.snr_db)
    equalise = "" if options.tuning in ("equalise", "both") else "--int8-tuning both, "
    return (
        f"'{worst.layer}' alone has {worst.snr_db:.1f} dB in int8, {len(left)} layers less than "
        f"{NOISY_DB:.0f}: try {equalise}--keep-fp32 {worst.layer} or --min-snr {NOISY_DB:.0f}",
    )
