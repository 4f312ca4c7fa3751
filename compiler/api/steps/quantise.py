"""The int8 versions of exported files."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, fx

from shrinkc.compiler.formats.exported import Exported
from shrinkc.compiler.pipeline.run import sample_inputs
from shrinkc.compiler.quantise.prepare import Prepared, prepare, with_levels
from shrinkc.compiler.quantise.simulate import Quantisation
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.verify.data import Data
from shrinkc.errors import InputError

FEW_BATCHES = 8  # for what is no node of the graph: the inner tensors of composed operators


def quantised(
    exported: Exported, final: fx.GraphModule, data: Data, here: bool, progress: Progress
) -> tuple[Exported, Prepared]:
    """int8 versions of the files, with the same activation ranges, weights and biases. `here`:
    they are for this machine. A format without int8 is a failure."""
    if exported.program is None:
        raise InputError("int8 needs a network that shrinkc can lower itself")
    options, stored = data.options, data.options.stored
    if stored is not None:
        prepared, batches = stored.prepared(final), list[tuple[Tensor, ...]]()
        few = [sample_inputs(final, torch.float32, seed) for seed in range(FEW_BATCHES)]
    else:
        batches = data.calibration_batches()
        prepared = prepare(final, batches, options.int8, progress, task=options.task)
        few = batches[:FEW_BATCHES]

    def with_weights(levels: int) -> Quantisation:
        if levels == prepared.quantisation.levels:
            return prepared.quantisation
        if stored is not None:  # which says what the biases are
            return replace(prepared.quantisation, levels=levels)
        return with_levels(prepared, levels, batches, options.int8, progress).quantisation

    files: dict[str, bytes] = {}
    failures, notes = list[str](), list[str]()
    for one in options.formats:
        if one.name not in exported.files:
            continue
        if options.precision not in one.precisions:
            failures.append(f"{one.file}: the format has no {options.precision}")
            continue
        quantisation = with_weights(one.weight_levels(here))
        with progress.task(f"Quantising {one.file}"):
            written = one.write_int8(quantisation, few, options.opset)
        files[one.name] = written.data
        notes += written.notes
    if not files:
        raise InputError(f"`precision` {options.precision}: {'; '.join(failures)}")
    quantised = Exported(
        prepared.quantisation.program,
        files,
        (*exported.failures, *failures),
        (*exported.notes, *prepared.notes, *notes),
    )
    return quantised, prepared
