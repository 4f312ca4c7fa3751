"""int8 files beside the network: scores, signal to noise, and no number that is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shrinkc.compiler.formats.runner import Array
from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.verify.data import Data
from shrinkc.compiler.verify.files import Artefact, Comparison, judge
from shrinkc.compiler.verify.signal import OutputSignal, Signal, check_finite, notes


@dataclass(frozen=True)
class Int8Judged:
    """Of all files, by the format's name. `outputs`: empty where there were no images, since on
    random numbers, which ranges are not made for, it would say nothing."""

    tallies: dict[str, Comparison]
    outputs: Mapping[str, tuple[OutputSignal, ...]]
    notes: tuple[str, ...]


def judge_int8(
    original: Original,
    files: Sequence[Artefact],
    data: Data,
    progress: Progress,
    users: Original | None = None,
) -> Int8Judged:
    """On the images that are judged; without any, the signal to noise is that on calibration
    images. Raises VerificationError for outputs that are NaN or infinite."""
    signals = {file.name: Signal(file.program) for file in files}

    def watch(name: str, got: Sequence[Array], want: Sequence[Array]) -> None:
        signals[name].add(got, want)

    tallies = judge(original, files, data, progress, watch, users)
    _check_finite(files, signals)
    if data.evaluation is None:
        signals = {file.name: Signal(file.program) for file in files}
        batches = [] if data.calibration is None else data.calibration_batches()
        for index, inputs in enumerate(batches):
            want = original.outputs(f"calibration {index}", inputs)
            for file in files:
                watch(file.name, file.run(inputs), want)
        _check_finite(files, signals)
    outputs = {file.name: signals[file.name].outputs() for file in files}
    noisy = (note for file in files for note in notes(file.format.file, outputs[file.name]))
    return Int8Judged(tallies, outputs, tuple(noisy))


def _check_finite(files: Sequence[Artefact], signals: Mapping[str, Signal]) -> None:
    for file in files:
        check_finite(file.format.file, signals[file.name].outputs())
