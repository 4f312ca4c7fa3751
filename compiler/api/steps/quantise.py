"""The int8 versions of exported files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import fx

from shrinkc.compiler.formats.base import Batches, Format, Written
from shrinkc.compiler.formats.exported import Exported
from shrinkc.compiler.quantise.prepare import Prepared, boundary_grids, prepare
from shrinkc.compiler.quantise.simulate import Quantisation
from shrinkc.compiler.quantise.stored import inner_inputs
from shrinkc.compiler.support.choices import Io
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.verify.data import Data
from shrinkc.compiler.verify.files import Artefact
from shrinkc.compiler.verify.int8_files import FEW_BATCHES, Making, int8_files
from shrinkc.compiler.verify.raw_input import BYTES
from shrinkc.compiler.verify.signal import LEAST_DB, Signal
from shrinkc.errors import InputError, VerificationError


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
        known = {} if data.raw is None else dict.fromkeys(final.meta["input_shapes"], BYTES)
        prepared = prepare(
            *(final, batches, options.int8, progress), task=options.task, known=known
        )
        making = Making(formats, batches, options.int8, progress, options.opset, here)
        prepared, files = int8_files(prepared, making)
    else:
        prepared = options.stored.prepared(final)
        files = _from_stored(prepared, formats, options.opset, here, progress)
    if options.io != "float32":
        few = inner_inputs(final) if options.stored else data.calibration_batches()[:FEW_BATCHES]
        boundary = _Boundary(options.io, prepared.quantisation, few, here)
        files = {one.name: boundary.quantised(one, files[one.name]) for one in formats}
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


@dataclass(frozen=True, eq=False)
class _Boundary:
    """Inputs and outputs that are integers. `batches`: inputs that files are compared on."""

    io: Io
    quantisation: Quantisation
    batches: Batches
    here: bool

    def quantised(self, one: Format, file: Written) -> Written:
        """An int8 file with them. Raises VerificationError where it computes something else than
        the one with floats."""
        made = one.with_io(file.data, self.io, boundary_grids(self.quantisation))
        floats, integers = (self._loaded(one, data) for data in (file.data, made))
        signal = Signal(self.quantisation.program)
        for inputs in self.batches:
            signal.add(integers.run(inputs), floats.run(inputs))
        real = {x.name for x in self.quantisation.program.outputs if x.dtype == "float32"}
        for output in signal.outputs():
            if output.output in real and not output.snr_db >= LEAST_DB:
                raise VerificationError(
                    f"{one.file} with `io` {self.io} keeps {output.snr_db:.1f} dB of output "
                    f"'{output.output}' of the same file with floats, {LEAST_DB:.0f} are needed",
                    "leave `io` out",
                )
        return replace(file, data=made)

    def _loaded(self, one: Format, data: bytes) -> Artefact:
        return Artefact(one, data, self.quantisation.program, one.open_to_judge(data, self.here))


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
