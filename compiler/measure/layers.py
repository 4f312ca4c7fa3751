"""What every layer takes among its neighbours in the written TFLite file, on this machine.

A layer's time is that of a few operators in front and the layer, less that of those in front alone:
it finds its input where they left it, which no operator that runs by itself does. The whole network
in front would tell the same and vary by more than most layers take.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, median
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shrinkc.compiler.cost.predict import Prediction
from shrinkc.compiler.devices import runner
from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.builder import Buffer, packed
from shrinkc.compiler.formats.exported import Exported
from shrinkc.compiler.formats.registry import HOST_FORMAT
from shrinkc.compiler.formats.tflite_boundary import code_of, content_of
from shrinkc.compiler.options import Options
from shrinkc.compiler.profile.host_table import loaded, own_us
from shrinkc.compiler.support.choices import is_host
from shrinkc.compiler.support.progress import Progress

SECONDS = 10.0  # of all layers
IN_FRONT = 3  # operators
WARMUP, ROUNDS = 1, (5, 30)  # of runs, in each of two orders
# Read in between: at most as much as the whole network, so that weights are as cold as in it. What
# is more than caches hold only takes time.
BALLAST_BYTES = 32 << 20
TO_INT8, TO_FP32 = "_quantized", "_dequant"  # what a conversion makes of a tensor's name
Span = tuple[int, int]  # operators, the second is the first behind it


class Cuts:
    """A TFLite file of one subgraph that can be cut in front of and behind any operator.

    operators  the name of the first output of each
    works      the same, but of a conversion to or from int8 what it reads, and what it makes of it
    """

    def __init__(self, data: bytes) -> None:
        file: Any = schema
        self._model = file.ModelT.InitFromPackedBuf(data, 0)
        self._model.signatureDefs = []  # they name tensors that a part may not have
        self._buffers = [content_of(buffer, data) for buffer in self._model.buffers]
        (self._graph,) = self._model.subgraphs
        self._operators = self._graph.operators
        self._computed = _tensors(self._graph.inputs)
        self._computed += [x for op in self._operators for x in _tensors(op.outputs)]
        self._outputs = _tensors(self._graph.outputs)
        self.operators = tuple(
            str(self._graph.tensors[op.outputs[0]].name, "utf-8") for op in self._operators
        )
        self.works = tuple(map(self._work, self._operators, self.operators))

    def _work(self, operator: Any, output: str) -> str:
        file: Any = schema
        code = self._model.operatorCodes[operator.opcodeIndex]
        kinds = {file.BuiltinOperator.QUANTIZE: TO_INT8, file.BuiltinOperator.DEQUANTIZE: TO_FP32}
        suffix = kinds.get(code_of(code))
        if suffix is None:
            return output
        read = str(self._graph.tensors[operator.inputs[0]].name, "utf-8")
        return read.partition("/")[0] + suffix

    def part(self, start: int, stop: int, end: int) -> bytes:
        """The file of the operators from `start` to `stop`, with the weights of no others. Its
        inputs are those of the operators from `start` to `end`; it gives what is read behind it
        and what the whole file gives, or the runtime would leave it out."""
        kept, behind = self._operators[start:stop], self._operators[stop:]
        inside = {x for op in self._operators[start:] for x in _tensors(op.outputs)}
        read = {x for op in self._operators[start:end] for x in _tensors(op.inputs)}
        wanted = {*self._outputs, *(x for op in behind for x in _tensors(op.inputs))}
        made = [x for op in kept for x in _tensors(op.outputs)]
        inputs = [x for x in self._computed if x in read and x not in inside]
        self._graph.operators = kept
        self._graph.inputs = np.array(inputs, np.int32)
        self._graph.outputs = np.array([x for x in made if x in wanted], np.int32)
        used = {self._graph.tensors[x].buffer for op in kept for x in _tensors(op.inputs)}
        self._model.buffers = [
            Buffer(content if at in used else memoryview(b""))
            for at, content in enumerate(self._buffers)
        ]
        return packed(self._model)


def measure_layers(
    exported: Exported, prediction: Prediction | None, options: Options, progress: Progress
) -> tuple[LayerTime, ...]:
    """Median ms of the layers of the file in HOST_FORMAT, in its order; empty where nothing is to
    be measured on this machine, or nothing is predicted to compare it with.

    No layer begins after SECONDS: those that were predicted slowest come first, and what is not
    reached has no time.
    """
    program, file = exported.program, exported.files.get(HOST_FORMAT.name)
    if not is_host(options.target) or options.runs == 0:
        return ()
    if program is None or file is None or prediction is None:
        return ()
    cuts, ballast_bytes = Cuts(file), min(len(file), BALLAST_BYTES)
    layers = layers_of(cuts.works, program)
    predicted = dict.fromkeys(layers, 0.0)
    for layer in prediction.layers:
        predicted[layer.name] = predicted.get(layer.name, 0.0) + layer.ms
    slowest = {name: layers[name] for name in sorted(layers, key=lambda name: -predicted[name])}
    took: dict[str, LayerTime] = {}
    with progress.task("Measuring layers", len(layers)) as done:
        for found in _timed(cuts, slowest, options.threads, ballast_bytes):
            took[found.layer] = found
            done()
    return tuple(took[name] for name in layers if name in took)


def layers_of(operators: Sequence[str], program: ops.Program) -> dict[str, tuple[Span, ...]]:
    """Layer → where its operators are, in the file's order. `operators` as the `works` of Cuts.

    Tensors are called by the value that they hold, or have the layer's name and what they do behind
    a slash: padding and changes of layout belong to the layer that needs them. The quantiser's
    conversions are layers of their own, called as predictions call them.
    """
    names = {op.name: op.name for op in program.ops}
    names |= {op.output.name: op.name for op in program.ops}
    heads = [name.partition("/")[0] for name in operators]
    owners = [names.get(head) or _conversion(head) for head in heads]
    found: dict[str, tuple[Span, ...]] = {}
    for owner, group in groupby(range(len(owners)), owners.__getitem__):
        places = list(group)
        found[owner] = (*found.get(owner, ()), (places[0], places[-1] + 1))
    return found


def _conversion(tensor: str) -> str:
    """Of a value, from what the quantiser calls the converted one."""
    for suffix, said in ((TO_INT8, " to int8"), (TO_FP32, " to fp32")):
        if tensor.endswith(suffix):
            return tensor.removesuffix(suffix) + said
    return tensor


def _timed(
    cuts: Cuts, layers: Mapping[str, tuple[Span, ...]], threads: int, ballast_bytes: int
) -> Iterator[LayerTime]:
    """Until time is up. Every span has an equal share of what is left of it."""
    deadline = time.perf_counter() + SECONDS
    left = sum(len(spans) for spans in layers.values())
    for name, spans in layers.items():
        total_us = 0.0
        for start, stop in spans:
            seconds = (deadline - time.perf_counter()) / left
            if seconds <= 0:
                return
            first = max(start - IN_FRONT, 0)
            files = [cuts.part(first, end, stop) for end in (start, stop)]
            total_us += _longer_us(files, seconds, threads, ballast_bytes)
            left -= 1
        yield LayerTime(name, max(total_us, 0.0) / 1e3)  # what varies by more than it takes: 0


def _longer_us(files: list[bytes], seconds: float, threads: int, ballast_bytes: int) -> float:
    """What the second of two files takes longer: the median difference of runs in turn. Each is
    first once, in memory and in turn: the second is faster, often by as much as a layer takes."""
    found: list[float] = []
    for order in ((0, 1), (1, 0)):
        models = {str(at): loaded(files[at], threads) for at in order}
        share = seconds / len(files)
        times, _ = runner.measure(models, WARMUP, ROUNDS, share, ballast_bytes, lambda _: None)
        del models  # before others are loaded
        shorter, longer = (own_us(times[name], threads) for name in ("0", "1"))
        found.append(median(b - a for a, b in zip(shorter, longer, strict=True)))
    return fmean(found)


def _tensors(indices: Any) -> list[int]:
    """Without those that an operator is not given."""
    return [int(x) for x in indices if x >= 0]


@dataclass(frozen=True)
class LayerTime:
    """Median ms of one layer among its neighbours in the written model.tflite, measured on the
    target. `layer` is a node of the network, or what the file calls an operator that belongs to
    none."""

    layer: str
    ms: float
