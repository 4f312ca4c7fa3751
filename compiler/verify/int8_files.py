"""int8 files, judged by their own outputs; operators that spoil them stay fp32.

Where a file cannot be made or run, the operators that it fails on are found by leaving them out;
where its outputs are too noisy, those that make the noise (`contributions`). A file that is good
as it is stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from shrinkc.compiler.export.onnx import DEFAULT_OPSET
from shrinkc.compiler.formats.base import Batches, Format, Written
from shrinkc.compiler.quantise.options import Int8
from shrinkc.compiler.quantise.prepare import Prepared, with_fp32, with_levels
from shrinkc.compiler.quantise.simulate import Quantisation
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.support.text import one_line
from shrinkc.compiler.verify.contributions import Contributions, choose, contributions
from shrinkc.compiler.verify.files import Artefact
from shrinkc.compiler.verify.signal import LEAST_CHANNEL_DB, LEAST_DB, Signal
from shrinkc.errors import DeviceError, ExportError, InputError

FEW_BATCHES = 8  # for what is no node of the graph: the inner tensors of composed operators
JUDGED = 32  # calibration images that a file is judged on before it is good enough
RESERVE_DB = 3.0  # that other images may take away: MobileNetV2's logits have 23.7 here
MORE_DB = (3.0, 9.0)  # than the least, aimed at: noises add up only roughly
EXACT_DB = 100.0  # of what is float32
GAIN_DB = 1.0  # that fp32 must bring, or the operators stay int8

Pair = tuple[tuple[Tensor, ...], Sequence[Tensor]]  # inputs and what the fp32 network makes of them


@dataclass(frozen=True, eq=False)
class Making:
    """How int8 files are made.

    formats  those to write
    batches  calibration inputs, each of the captured batch size
    here     the files are for this machine
    judged   outputs decide what stays fp32; otherwise files must only run
    """

    formats: Sequence[Format]
    batches: Batches
    options: Int8
    progress: Progress
    opset: int = DEFAULT_OPSET
    here: bool = False
    judged: bool = True

    def quantisation(self, prepared: Prepared, form: Format) -> Quantisation:
        """What a format's file is written from."""
        levels = form.weight_levels(self.here)
        if levels == prepared.quantisation.levels:
            return prepared.quantisation
        other = with_levels(prepared, levels, self.batches, self.options, self.progress)
        return other.quantisation


@dataclass(frozen=True, eq=False)
class _Tried:
    """A file and its signal; or why there is none. `noisiest`: inputs by number, worst first."""

    form: Format
    written: Written | None = None
    signal: Signal | None = None
    failure: str = ""
    noisiest: tuple[int, ...] = ()

    @property
    def margin_db(self) -> float:
        """By which it is better than good enough, in its worst place; negative: too noisy."""
        if self.signal is None:
            return -np.inf
        outputs = self.signal.outputs()
        wholes = (output.snr_db - LEAST_DB - RESERVE_DB for output in outputs)
        return min((np.inf, *wholes, *(output.margin_db for output in outputs)))


def int8_files(prepared: Prepared, making: Making) -> tuple[Prepared, dict[str, Written]]:
    """The files by format, and what they were written from: `prepared`, or the same with more
    operators in fp32, which its notes name.

    Raises ExportError where a file cannot be made even so, InputError where what quantises it is
    not installed.
    """
    tried = _tried(prepared, making)
    unfit = {name for one in tried if one.failure for name in _unfit(prepared, making, one)}
    if unfit:
        prepared = _with_fp32(prepared, making, unfit)
        reason = next(f"{one.form.file}: {one.failure}" for one in tried if one.failure)
        note = f"stays fp32, since it cannot be int8: {_listed(unfit)} ({reason})"
        prepared = replace(prepared, notes=(*prepared.notes, note))
        tried = _tried(prepared, making)
    if making.judged:
        prepared, tried = _less_noisy(prepared, making, tried)
    files: dict[str, Written] = {}
    for one in tried:
        if one.written is None:
            raise ExportError(f"{one.form.file} in int8: {one.failure}")
        files[one.form.name] = one.written
    return prepared, files


def _less_noisy(
    prepared: Prepared, making: Making, tried: Sequence[_Tried]
) -> tuple[Prepared, Sequence[_Tried]]:
    """With the operators in fp32 that make outputs too noisy, where that helps."""
    poor = [one for one in tried if one.margin_db < 0 and one.signal is not None]
    if not poor:
        return prepared, tried
    with making.progress.task("Finding what int8 spoils", len(poor)) as done:
        inputs, found = _judged_on(making), list[Contributions]()
        for one in poor:
            of_format = replace(prepared, quantisation=making.quantisation(prepared, one.form))
            half = FEW_BATCHES // 2
            worst = {*one.noisiest[:half], *range(0, len(inputs), max(1, len(inputs) // half))}
            few = [inputs[i] for i in sorted(worst)]
            found.append(contributions(one.form, of_format, few, making.here))
            done()
    idle = {name for name in found[0] if all(_is_idle(one, name) for one in found)}
    best, best_tried, kept = prepared, tried, set[str]()
    seen = list[set[str]]()
    for more_db in MORE_DB:
        names = {name for one in found for name in choose(one, more_db)}
        if names in seen or not names | idle:
            continue
        seen.append(names)
        changed = _with_fp32(prepared, making, names | idle)
        again = _tried(changed, making)
        if _worst(again) < _worst(best_tried) + GAIN_DB:
            break
        best, best_tried, kept = changed, again, names
        if _worst(again) >= 0:
            break
    if kept:
        least = f"less than {LEAST_DB:.0f} dB of an output, or {LEAST_CHANNEL_DB:.0f} of a channel"
        note = f"stays fp32, since int8 would leave {least}: {_listed(kept)}"
        best = replace(best, notes=(*best.notes, note))
    return best, best_tried


def _is_idle(found: Contributions, name: str) -> bool:
    """An operator that adds no noise is one that the format leaves in fp32 anyway. To say so makes
    the simulation true that biases are corrected by."""
    signal = found[name][1]
    return signal is not None and all(o.snr_db > EXACT_DB for o in signal.outputs())


def _worst(tried: Sequence[_Tried]) -> float:
    return min(one.margin_db for one in tried)


def _listed(names: Collection[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))


def _with_fp32(prepared: Prepared, making: Making, names: Collection[str]) -> Prepared:
    kept = frozenset(names)
    return with_fp32(prepared, kept, making.batches, making.options, making.progress)


def _judged_on(making: Making) -> Batches:
    """Calibration inputs, evenly spread."""
    batches = making.batches
    count = max(1, JUDGED // len(batches[0][0])) if making.judged else 1
    return batches[:: max(1, -(-len(batches) // count))]


def _tried(prepared: Prepared, making: Making) -> list[_Tried]:
    """Every format's file, run on calibration images beside the fp32 network."""
    pairs = _pairs(prepared, _judged_on(making))
    found: list[_Tried] = []
    for form in making.formats:
        quantisation = making.quantisation(prepared, form)
        with making.progress.task(f"Quantising {form.file}"):
            found.append(_try(form, quantisation, making, pairs))
    return found


def _pairs(prepared: Prepared, batches: Batches) -> list[Pair]:
    with torch.no_grad():
        return [(x, prepared.uncorrected(*x)) for x in batches]


def _try(form: Format, quantisation: Quantisation, making: Making, pairs: Sequence[Pair]) -> _Tried:
    signal = Signal(quantisation.program)
    try:
        written = form.write_int8(quantisation, making.batches[:FEW_BATCHES], making.opset)
        runner = form.open_to_judge(written.data, making.here)
        file = Artefact(form, written.data, quantisation.program, runner)
        noise = [signal.add(file.run(inputs), [w.numpy() for w in want]) for inputs, want in pairs]
    except (InputError, DeviceError):  # something is not installed
        raise
    except Exception as error:  # quantisers and runtimes raise anything
        return _Tried(form, failure=one_line(error))
    energies = np.array([whole[0] for whole in signal.signal])
    shares = np.stack(noise) / np.maximum(energies, np.finfo(np.float64).tiny)
    return _Tried(form, written, signal, noisiest=tuple(np.argsort(-shares.max(1)).tolist()))


def _unfit(prepared: Prepared, making: Making, failed: _Tried) -> set[str]:
    """The operators that must stay fp32 for the file to be made and to run. Raises ExportError
    where it fails with all of them in fp32 too."""
    quantisation = making.quantisation(prepared, failed.form)
    once = replace(making, batches=making.batches[:1])
    names = dict.fromkeys(op.name for op in quantisation.program.ops)
    free = [name for name in names if name not in quantisation.keep_fp32]
    pairs = _pairs(prepared, once.batches)

    def works(kept: Collection[str]) -> bool:
        other = replace(quantisation, keep_fp32=quantisation.keep_fp32 | frozenset(kept))
        return not _try(failed.form, other, once, pairs).failure

    if not works(free):
        raise ExportError(f"{failed.form.file} in int8: {failed.failure}")
    with making.progress.task(f"Finding what {failed.form.file} cannot hold in int8"):
        return _released(free, works)


def _released(names: Sequence[str], works: Callable[[Collection[str]], bool]) -> set[str]:
    """The names without which it does not work; it does with all, and not with none."""
    kept = set(names)

    def release(part: Sequence[str]) -> None:
        if works(kept - set(part)):
            kept.difference_update(part)
        elif len(part) > 1:
            release(part[: len(part) // 2])
            release(part[len(part) // 2 :])

    release(names)
    return kept
