"""The int8 versions of exported files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import fx

from shrinkc.compiler.formats.base import Format, Written
from shrinkc.compiler.formats.exported import Exported
from shrinkc.compiler.quantise.prepare import Prepared, prepare
from shrinkc.compiler.quantise.stored import inner_inputs
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.verify.data import Data
from shrinkc.compiler.verify.int8_files import Making, int8_files
from shrinkc.errors import InputError


def quantised(
    exported: Exported, final: fx.GraphModule, data: Data, here: bool, progress: Progress
) -> tuple[Exported, Prepared]:
    """int8 versions of the files, with the same activation ranges, weights and biases, and the same
    operators in fp32. `here`: they are for this machine. A format without int8 is a failure."""
    if exported.program is None:
        raise InputError("int8 needs a network that shrinkc can lower itself")
    options = data.options
    written = [one for one in options.formats if one.name in exported.files]
    formats = [one for one in written if options.precision in one.precisions]
    failures = [
        f"{one.file}: the format has no {options.precision}"
        for one in written
        if one not in formats
    ]
    if not formats:
        raise InputError(f"`precision` {options.precision}: {'; '.join(failures)}")
    if options.stored is None:
        batches = data.calibration_batches()
        prepared = prepare(final, batches, options.int8, progress, task=options.task)
        making = Making(formats, batches, options.int8, progress, options.opset, here)
        prepared, files = int8_files(prepared, making)
    else:
        prepared = options.stored.prepared(final)
        files = _from_stored(prepared, formats, options.opset, here, progress)
    quantised = Exported(
        prepared.quantisation.program,
        {name: file.data for name, file in files.items()},
        (*exported.failures, *failures),
        (
            *exported.notes,
            *prepared.notes,
            *(note for file in files.values() for note in file.notes),
        ),
    )
    return quantised, prepared


def _from_stored(
    prepared: Prepared, formats: Sequence[Format], opset: int, here: bool, progress: Progress
) -> dict[str, Written]:
    """Files of a stored calibration, which says what the biases are, and what stays fp32."""
    graph, quantisation = prepared.graph_module, prepared.quantisation
    few = inner_inputs(graph)
    files: dict[str, Written] = {}
    for one in formats:
        other = replace(quantisation, levels=one.weight_levels(here))
        with progress.task(f"Quantising {one.file}"):
            files[one.name] = one.write_int8(other, few, opset)
    return files
