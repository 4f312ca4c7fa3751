"""What every layer takes inside the written TFLite file, on this machine.

A layer's time is that of the network up to and with it, less that of the network up to it: its
input is in the cache and its weights are not, which no operator that runs by itself has.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from statistics import fmean, median
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..latency_tables.devices import runner
from .costs import Prediction
from .export import ops
from .export.tflite_builder import Buffer, packed
from .host import own_us
from .options import Options
from .progress import Progress
from .quiet import silent
from .report_sections import LayerTime
from .stages import Exported

SECONDS = 10.0  # of all layers
ROUNDS = (5, 30)  # of runs, in each order of loading
Span = tuple[int, int]  # operators, the second is the first behind it


class Cuts:
    """A TFLite file of one subgraph that can be cut off behind any of its operators.

    operators  the name of the first output of each
    """

    def __init__(self, data: bytes) -> None:
        file: Any = schema
        self._model = file.ModelT.InitFromPackedBuf(data, 0)
        self._model.signatureDefs = []  # they name tensors that a cut may not make
        self._buffers = [_content(buffer, data) for buffer in self._model.buffers]
        (self._graph,) = self._model.subgraphs
        self._operators = self._graph.operators
        self._outputs = {int(tensor) for tensor in self._graph.outputs}
        self.operators = tuple(
            str(self._graph.tensors[op.outputs[0]].name, "utf-8") for op in self._operators
        )

    def behind(self, count: int) -> bytes:
        """The file of the first `count` operators. It gives what those behind read, and what the
        whole file gives, so that nothing of it can be left out; weights of others are left out."""
        kept, later = self._operators[:count], self._operators[count:]
        made = [int(tensor) for op in kept for tensor in op.outputs]
        wanted = self._outputs | {int(tensor) for op in later for tensor in op.inputs}
        self._graph.operators = kept
        self._graph.outputs = np.array([x for x in made if x in wanted], np.int32)
        read = {self._graph.tensors[x].buffer for op in kept for x in op.inputs if x >= 0}
        self._model.buffers = [
            Buffer(content if at in read else memoryview(b""))
            for at, content in enumerate(self._buffers)
        ]
        return packed(self._model)


def measure_layers(
    exported: Exported, prediction: Prediction | None, options: Options, progress: Progress
) -> tuple[LayerTime, ...]:
    """Median ms of the layers of `exported.tflite`, in the file's order; empty where nothing is to
    be measured on this machine, or nothing is predicted to compare it with.

    Ends after SECONDS and at most one layer's loading: those that were predicted slowest come
    first, and what is not reached has no time.
    """
    program, file = exported.program, exported.tflite
    if options.target != "host" or options.runs == 0:
        return ()
    if program is None or file is None or prediction is None:
        return ()
    cuts = Cuts(file)
    layers = layers_of(cuts.operators, program)
    predicted = dict.fromkeys(layers, 0.0)
    for layer in prediction.layers:
        predicted[layer.name] = predicted.get(layer.name, 0.0) + layer.ms
    slowest = {name: layers[name] for name in sorted(layers, key=lambda name: -predicted[name])}
    took: dict[str, LayerTime] = {}
    with progress.task("Measuring layers", len(layers)) as done:
        for found in _timed(cuts, slowest, options.threads):
            took[found.layer] = found
            done()
    return tuple(took[name] for name in layers if name in took)


def layers_of(operators: Sequence[str], program: ops.Program) -> dict[str, tuple[Span, ...]]:
    """Layer → where its operators are, in the file's order. `operators` as Cuts has them.

    Tensors are called by the value that they hold, or have the layer's name and what they do in
    front of a slash: padding and changes of layout belong to the layer that needs them. What the
    quantiser puts in between is called by neither, and is a layer of its own name.
    """
    names = {op.name: op.name for op in program.ops}
    names |= {op.output.name: op.name for op in program.ops}
    heads = [name.partition("/")[0] for name in operators]
    owners = [names.get(head, head) for head in heads]
    found: dict[str, tuple[Span, ...]] = {}
    for owner, group in groupby(range(len(owners)), owners.__getitem__):
        places = list(group)
        found[owner] = (*found.get(owner, ()), (places[0], places[-1] + 1))
    return found


def _timed(cuts: Cuts, layers: Mapping[str, tuple[Span, ...]], threads: int) -> Iterator[LayerTime]:
    """Until time is up. Every span has an equal share of what is left of it."""
    deadline = time.perf_counter() + SECONDS
    left = sum(len(spans) for spans in layers.values())
    for name, spans in layers.items():
        total_us = 0.0
        for span in spans:
            files = [cuts.behind(count) for count in span]
            us = _longer_us(files, (deadline - time.perf_counter()) / left, deadline, threads)
            if us is None:
                return
            total_us += us
            left -= 1
        yield LayerTime(name, max(total_us, 0.0) / 1e3)  # what varies by more than it takes: 0


def _longer_us(files: list[bytes], seconds: float, deadline: float, threads: int) -> float | None:
    """What the second of two files takes longer; None where there is no time to tell. Each is
    loaded first once: what is loaded behind another runs up to 2% faster, often as much as a
    layer takes."""
    begun = time.perf_counter()
    found: list[float] = []
    for order in ((0, 1), (1, 0)):
        enough = begun + seconds * (len(found) + 1) / 2
        difference_us = _difference_us(files, order, enough, deadline, threads)
        if difference_us is None:
            return None
        found.append(difference_us)
    return fmean(found)


def _difference_us(
    files: list[bytes], order: tuple[int, int], enough: float, deadline: float, threads: int
) -> float | None:
    """Median of the differences of runs in turn, until `enough`, within ROUNDS; None where even
    the fewest end behind the deadline. Only the runs are timed."""
    loaded = {at: _loaded(files[at], threads) for at in order}
    pair = [loaded[0], loaded[1]]
    for model in pair:
        model.prepare()
        model.run()
    times: tuple[list[runner.Clocked], list[runner.Clocked]] = ([], [])
    for count in range(ROUNDS[1]):
        now = time.perf_counter()
        if now > deadline:
            break
        if count >= ROUNDS[0] and now > enough:
            break
        for taken, model in zip(times, pair, strict=True):
            model.prepare()
            taken.append(model.time_us())
    if len(times[0]) < ROUNDS[0]:
        return None
    shorter, longer = (own_us(taken, threads) for taken in times)
    return median(b - a for a, b in zip(shorter, longer, strict=True))


def _loaded(model: bytes, threads: int) -> Any:
    with silent():  # announces its delegate from C++
        return runner.Tflite(model, threads, False)


def _content(buffer: Any, data: bytes) -> memoryview:
    """The quantiser writes large buffers behind the FlatBuffer."""
    if buffer.size:
        return memoryview(data)[buffer.offset : buffer.offset + buffer.size]
    return memoryview(b"" if buffer.data is None else buffer.data)
