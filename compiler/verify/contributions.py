"""What each operator alone adds to the noise of the outputs, and which of them must stay fp32.

Every operator runs in int8 by itself, on fp32 inputs, in the format's own runtime
(`quantise.apart`); what it leaves takes the place of the value in the fp32 network, and the outputs
are compared. The noises of all operators add up, roughly, to that of the whole file.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.formats.base import Batches, Format
from shrinkc.compiler.pipeline.run import node_values
from shrinkc.compiler.quantise.apart import (
    GIVEN,
    Part,
    outputs_with,
    parts_of,
    ranges_beside,
    side_by_side,
)
from shrinkc.compiler.quantise.headroom import leave_room_for_biases
from shrinkc.compiler.quantise.prepare import Prepared
from shrinkc.compiler.quantise.simulate import Quantisation
from shrinkc.compiler.verify.signal import (
    BEHIND_DB,
    LEAST_CHANNEL_DB,
    LEAST_DB,
    Energies,
    Signal,
)
from shrinkc.errors import DeviceError, InputError

NUMBERS = 64 << 20  # that go in and out of the operators of one file, and of the images together
# An operator whose own noise leaves an output this many dB or more (whole, slice) is not at fault.
BLAMELESS = (LEAST_DB + 5, LEAST_CHANNEL_DB + 5)
BLAMELESS_LAYER = (LEAST_DB, LEAST_CHANNEL_DB)  # these make int8 files fast
MANY = 8  # one layer of so many may stay fp32; two always

Values = dict[fx.Node, Any]
Contributions = dict[str, tuple[Part, Signal | None]]


def contributions(form: Format, prepared: Prepared, batches: Batches, here: bool) -> Contributions:
    """Operator → the outputs' signal where it alone is int8; None where it cannot be. `batches` are
    a few inputs at the captured batch size; `here`: the files are for this machine."""
    graph = prepared.uncorrected
    quantisation = prepared.quantisation
    fitting, _ = leave_room_for_biases(graph, quantisation)
    program = lower(fitting)
    parts = [p for p in parts_of(program) if p.name not in quantisation.keep_fp32 and p.reads]
    all_numbers = sum(part.elements for part in parts)
    few = batches[: max(1, NUMBERS // max(1, all_numbers))]
    seen = [_values(graph, inputs) for inputs in few]
    wanted = [outputs_with(graph, values, {}) for values in seen]
    found: Contributions = {}
    for some in _chunks(parts):
        for part, left in _alone(form, some, quantisation, seen, here).items():
            if left is None:
                found[part.name] = part, None
                continue
            signal = Signal(program)
            for values, want, changed in zip(seen, wanted, left, strict=True):
                signal.add(outputs_with(graph, values, changed), want)
            found[part.name] = part, signal
    return found


def choose(found: Contributions, more_db: float) -> list[str]:
    """The operators that must stay fp32 so that what the others add up to leaves every output, and
    every slice, `more_db` more than the least.

    Those that are not at fault stay int8. So do all layers where many of them would have to be
    fp32: then it is the whole network that int8 does not suit, and tuning is what helps.
    """
    layers = {name for name, (part, _) in found.items() if part.weighted}
    chosen = _chosen(found, more_db)
    if len(layers.intersection(chosen)) <= max(2, len(layers) // MANY):
        return chosen
    return _chosen(found, more_db, stay=layers)


def _chosen(found: Contributions, more_db: float, stay: Collection[str] = ()) -> list[str]:
    chosen = [name for name, (_, signal) in found.items() if signal is None]
    judged = {name: (part, s) for name, (part, s) in found.items() if s is not None and s.noise}
    if not judged:
        return chosen
    places = _Places.of(next(s for _, s in judged.values()).signal)
    noise = {name: np.concatenate(s.noise) for name, (_, s) in judged.items()}
    at_fault = {
        name: places.excess(noise[name], BLAMELESS_LAYER if part.weighted else BLAMELESS) > 1
        for name, (part, _) in judged.items()
    }
    hopeless = places.signal <= 0
    aim = (LEAST_DB + more_db, LEAST_CHANNEL_DB + more_db)
    while noise:
        excess = places.excess(np.sum(list(noise.values()), axis=0), aim)
        excess[hopeless] = 0.0
        at = int(excess.argmax())
        if excess[at] <= 1:
            break
        guilty = [name for name in noise if at_fault[name][at] and name not in stay]
        if not guilty:
            hopeless[at] = True
            continue
        worst = max(guilty, key=lambda name: noise[name][at])
        chosen.append(worst)
        del noise[worst]
    return chosen


@dataclass(frozen=True, eq=False)
class _Places:
    """Where outputs are judged, one behind the other: each as a whole, then its slices. (places,)

    signal  Σ y²
    whole   the place of the whole that it belongs to
    """

    signal: Energies
    whole: NDArray[np.int64]

    @classmethod
    def of(cls, signal: Sequence[Energies]) -> _Places:
        starts = np.cumsum([0, *(len(s) for s in signal[:-1])])
        wholes = [np.full(len(s), at) for s, at in zip(signal, starts, strict=True)]
        return cls(np.concatenate(signal), np.concatenate(wholes))

    def excess(self, noise: Energies, least_db: tuple[float, float]) -> NDArray[np.float64]:
        """The noise over what leaves so many dB, of an output and of a slice; in a slice there may
        be more where it is in the whole output."""
        share = noise / np.where(self.signal > 0, self.signal, np.inf)
        most_whole, most_slice = (10 ** (-db / 10) for db in least_db)
        in_slices = np.maximum(most_slice, share[self.whole] * 10 ** (BEHIND_DB / 10))
        is_whole = self.whole == np.arange(len(self.whole))
        with np.errstate(invalid="ignore"):
            found = share / np.where(is_whole, most_whole, in_slices)
        return np.where(np.isnan(found), 1.0, found)  # infinite in the slice as in the whole


def _values(graph_module: fx.GraphModule, inputs: tuple[Tensor, ...]) -> Values:
    nodes = {node.name: node for node in graph_module.graph.nodes if node.op != "output"}
    return {nodes[n]: value for n, value in node_values(graph_module, inputs, set(nodes))}


def _chunks(parts: Sequence[Part]) -> list[list[Part]]:
    """As many together as fit into a file of NUMBERS."""
    chunks: list[list[Part]] = [[]]
    numbers = 0
    for part in parts:
        if chunks[-1] and numbers + part.elements > NUMBERS:
            chunks.append([])
            numbers = 0
        chunks[-1].append(part)
        numbers += part.elements
    return chunks


def _alone(
    form: Format,
    parts: Sequence[Part],
    quantisation: Quantisation,
    seen: Sequence[Values],
    here: bool,
) -> dict[Part, list[dict[str, Tensor]] | None]:
    """Part → its results in int8 by name, on each of the inputs; None where it cannot be int8."""
    if not parts:
        return {}
    try:
        results = _run(form, side_by_side(parts), quantisation, seen, here)
    except (InputError, DeviceError):  # something is not installed
        raise
    except Exception:  # quantisers and runtimes raise anything
        if len(parts) == 1:
            return {parts[0]: None}
        middle = len(parts) // 2
        halves = (parts[:middle], parts[middle:])
        return {
            p: r for some in halves for p, r in _alone(form, some, quantisation, seen, here).items()
        }
    known: Collection[str] = {node.name for node in seen[0]}
    return {
        part: [{v.name: one[v.name] for v in part.leaves if v.name in known} for one in results]
        for part in parts
    }


def _run(
    form: Format,
    program: ops.Program,
    quantisation: Quantisation,
    seen: Sequence[Values],
    here: bool,
) -> list[dict[str, Tensor]]:
    beside = Quantisation(
        program, ranges_beside(quantisation.ranges, program), levels=quantisation.levels
    )
    by_name = [{node.name: value for node, value in values.items()} for values in seen]
    batches = [
        tuple(values[v.name.removesuffix(GIVEN)] for v in program.inputs) for values in by_name
    ]
    runner = form.open_to_judge(form.write_int8(beside, batches).data, here)
    results: list[dict[str, Tensor]] = []
    for inputs in batches:
        arrays = form.run(runner, program, [x.numpy() for x in inputs])
        named = zip(program.outputs, arrays, strict=True)
        results.append({v.name: torch.as_tensor(np.ascontiguousarray(a)) for v, a in named})
    return results
