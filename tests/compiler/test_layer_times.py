"""Layers timed inside the written file: real files, and a clock and a runtime that are made up."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from channel_networks import INPUTS, NETWORKS, Coupled, captured, conv, graph_of
from shrinkc.compiler import layer_times
from shrinkc.compiler.costs import LayerLatency, Prediction, keyed
from shrinkc.compiler.export import ops
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.layer_times import Cuts, layers_of, measure_layers
from shrinkc.compiler.measuring import tflite_file
from shrinkc.compiler.options import Options
from shrinkc.compiler.progress import Advance, Silent
from shrinkc.compiler.report_sections import LayerTime
from shrinkc.compiler.runtimes import TfliteRunner, random_inputs
from shrinkc.compiler.stages import Exported
from shrinkc.passes.fold_batch_norm import FoldBatchNorm
from shrinkc.passes.simplify import Simplify
from torch import fx, nn

import shrinkc

HOST = Options(target="host")
Array = np.ndarray[Any, Any]


def ready(graph: fx.GraphModule) -> fx.GraphModule:
    for exact_pass in (Simplify(), FoldBatchNorm(), Simplify()):
        graph = exact_pass(graph).graph_module
    return graph.float()


@cache
def file_of(name: str, precision: str) -> tuple[bytes, ops.Program]:
    graph = ready(graph_of(name))
    generator = torch.Generator().manual_seed(0)
    shapes = INPUTS.get(name, ((2, 3, 8, 8),))
    inputs = [tuple(torch.randn(s, generator=generator) for s in shapes) for _ in range(4)]
    return tflite_file(graph, precision, inputs), lower(graph)


def outputs_of(data: bytes) -> tuple[list[str], list[Array]]:
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    (graph,) = model.subgraphs
    names = [graph.tensors[at].name.decode() for at in graph.outputs]
    runner = TfliteRunner(data)
    return names, runner.run(random_inputs(runner))


# --- cutting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_cuts_compute_what_the_whole_file_does(name: str, precision: str) -> None:
    data, _ = file_of(name, precision)
    whole = TfliteRunner(data, keep_all=True)
    whole.run(random_inputs(whole))
    cuts = Cuts(data)
    for count in range(1, len(cuts.operators) + 1):
        names, arrays = outputs_of(cuts.behind(count))
        assert cuts.operators[count - 1] in names
        for tensor, array in zip(names, arrays, strict=True):
            expected = whole.tensor(tensor)
            assert expected is not None
            # kernels round differently where the runtime keeps every tensor, int8 by whole steps
            largest = 100 if array.dtype == np.int8 else np.abs(expected).max()
            error = np.abs(array.astype(np.float64) - expected).max()
            assert error <= (2e-2 if precision == "int8" else 1e-5) * largest, (count, tensor)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", ["two_inputs", "residual"])
def test_the_last_cut_is_the_whole_file(name: str, precision: str) -> None:
    data, _ = file_of(name, precision)
    cuts = Cuts(data)
    cut, whole = (
        dict(zip(*outputs_of(x), strict=True)) for x in (cuts.behind(len(cuts.operators)), data)
    )
    assert cut.keys() == whole.keys()
    for tensor, array in whole.items():
        np.testing.assert_array_equal(cut[tensor], array)


def test_the_first_cut_is_empty_and_runs() -> None:
    names, _ = outputs_of(Cuts(file_of("residual", "fp32")[0]).behind(0))
    assert names == []


def test_what_is_read_behind_a_cut_is_given() -> None:
    """Or the runtime could leave it out, and its time would be the next layer's."""
    cuts = Cuts(file_of("residual", "fp32")[0])
    places = {name: at for at, name in enumerate(cuts.operators)}
    first, second, third, total = sorted(places, key=places.__getitem__)[:4]
    assert outputs_of(cuts.behind(1))[0] == [first]
    assert outputs_of(cuts.behind(2))[0] == [first, second]  # the shortcut goes around it
    assert outputs_of(cuts.behind(3))[0] == [first, third]
    assert outputs_of(cuts.behind(4))[0] == [total]


def test_weights_of_other_layers_are_left_out() -> None:
    cuts = Cuts(tflite_file(_wide(), "fp32", ()))
    sizes = [len(cuts.behind(count)) for count in range(len(cuts.operators) + 1)]
    assert sizes[0] < 10_000
    assert sizes[2] - sizes[1] > 4 * 9 * 64 * 512


def test_weights_behind_the_flatbuffer_are_brought_in() -> None:
    data = tflite_file(_wide(), "int8", [(torch.randn(1, 3, 8, 8),)])
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    assert any(buffer.offset for buffer in model.buffers)
    cuts = Cuts(data)
    cut = schema.ModelT.InitFromPackedBuf(cuts.behind(len(cuts.operators)), 0)
    assert not any(buffer.offset for buffer in cut.buffers)
    assert sum(len(x.data) for x in cut.buffers if x.data is not None) > 9 * 64 * 512


def _wide() -> fx.GraphModule:
    return ready(captured(nn.Sequential(conv(3, 64), conv(64, 512)), (1, 3, 8, 8)))


# --- whose operators are whose --------------------------------------------------------------------


def test_operators_go_to_the_layer_that_needs_them() -> None:
    x = ops.Value("x", (1, 3, 8, 8))
    relu = ops.Value("relu", (1, 3, 8, 8))
    program = ops.Program(
        (x,), (ops.Unary("conv", relu, x, "relu"), ops.Unary("conv_2", x, relu, "relu")), (relu,)
    )
    operators = ("x_quantized", "conv/pad", "relu", "conv_2/transpose", "conv/reshape", "out")
    assert layers_of(operators, program) == {
        "x_quantized": ((0, 1),),
        "conv": ((1, 3), (4, 5)),
        "conv_2": ((3, 4),),
        "out": ((5, 6),),
    }


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_operator_belongs_to_a_layer(name: str, precision: str) -> None:
    data, program = file_of(name, precision)
    layers = layers_of(Cuts(data).operators, program)
    places = [at for spans in layers.values() for span in spans for at in range(*span)]
    assert sorted(places) == list(range(len(Cuts(data).operators)))
    unknown = layers.keys() - {op.name for op in program.ops}
    assert all(x.endswith(("_quantized", "_dequant")) for x in unknown), unknown
    gone = [op for op, _ in keyed(program, precision) if op.name not in layers]
    assert all(isinstance(op, ops.Transpose | ops.Slice) for op in gone)  # left to their readers


# --- measuring ------------------------------------------------------------------------------------


class Machine:
    """A clock, and a runtime whose operators take 100 µs times their place, 1 for the first."""

    def __init__(self, load_seconds: float = 0.0, slower: float = 1.0) -> None:
        self.now, self.load_seconds, self.slower = 0.0, load_seconds, slower
        self.alive = self.most = self.loads = 0

    def perf_counter(self) -> float:
        return self.now

    def load(self, model: bytes, threads: int) -> Loaded:
        self.now += self.load_seconds
        self.loads += 1
        operators = len(Cuts(model).operators)
        return Loaded(self, 1e-6 + 100e-6 * self.slower * operators * (operators + 1) / 2)


class Loaded:
    """What is loaded behind another is faster, as on a real machine."""

    def __init__(self, machine: Machine, seconds: float) -> None:
        self.machine = machine
        self.seconds = seconds * (0.98 if machine.alive else 1.0)
        machine.alive += 1
        machine.most = max(machine.most, machine.alive)

    def __del__(self) -> None:
        self.machine.alive -= 1

    def prepare(self) -> None:
        self.machine.now += 1e-6

    def run(self) -> None:
        self.machine.now += self.seconds

    def time_us(self) -> tuple[float, float]:
        self.run()
        return 1e6 * self.seconds, 1e6 * self.seconds


Measured = tuple[tuple[LayerTime, ...], Machine, list[str]]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Measured]:
    """Layers of a file on a machine; the last predicted slowest, unless told otherwise."""

    def run(
        machine: Machine, file: str = "residual", ms: Callable[[int], float] = float
    ) -> Measured:
        monkeypatch.setattr(layer_times, "time", machine)
        monkeypatch.setattr(layer_times, "_loaded", machine.load)
        data, program = file_of("residual", "fp32")
        names = list(layers_of(Cuts(data).operators, program))
        layers = (LayerLatency(x, "conv2d", ms(at), "measured", 1) for at, x in enumerate(names))
        prediction = Prediction("host", "fp32", tuple(layers), 0.0)
        exported = Exported(program, b"", data)
        return measure_layers(exported, prediction, HOST, Silent()), machine, names

    return run


def test_a_layer_takes_what_the_network_takes_longer_with_it(
    measured: Callable[..., Measured],
) -> None:
    times, machine, names = measured(Machine())
    assert [x.layer for x in times] == names
    assert len(times) > 4
    # one operator a layer here; loading orders make 2% of a file, and cancel out but for 1%
    assert [x.ms for x in times] == pytest.approx([0.099 * (at + 1) for at in range(len(times))])
    assert machine.most == 2


def test_time_is_bounded_and_goes_to_what_was_predicted_slowest(
    measured: Callable[..., Measured],
) -> None:
    times, machine, names = measured(Machine(load_seconds=0.5, slower=20))
    assert machine.now <= layer_times.SECONDS + 4 * 0.5 + 0.2
    assert 0 < len(times) < len(names)
    assert [x.layer for x in times] == names[-len(times) :]
    times, _, _ = measured(Machine(load_seconds=0.5, slower=20), ms=lambda at: -float(at))
    assert [x.layer for x in times] == names[: len(times)]


def test_nothing_is_timed_where_one_run_takes_too_long(measured: Callable[..., Measured]) -> None:
    times, _, _ = measured(Machine(slower=1e5))
    assert times == ()


def test_a_layer_faster_than_nothing_takes_nothing(
    measured: Callable[..., Measured], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine()
    monkeypatch.setattr(Loaded, "time_us", lambda loaded: (-loaded.seconds, -loaded.seconds))
    monkeypatch.setattr(layer_times, "own_us", lambda taken, threads: [wall for wall, _ in taken])
    times, _, names = measured(machine)
    assert [x.ms for x in times] == [0.0] * len(names)


def test_progress_counts_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, said = Machine(), list[str]()
    monkeypatch.setattr(layer_times, "time", machine)
    monkeypatch.setattr(layer_times, "_loaded", machine.load)

    class Counting:
        @contextmanager
        def task(self, text: str, total: int | None = None) -> Generator[Advance]:
            said.append(f"{text} {total}")
            yield lambda note="": said.append("done")

    data, program = file_of("residual", "fp32")
    prediction = Prediction("host", "fp32", (), 0.0)
    times = measure_layers(Exported(program, b"", data), prediction, HOST, Counting())
    assert said == [f"Measuring layers {len(times)}", *(["done"] * len(times))]


def test_what_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_times, "Cuts", None)
    data, program = file_of("residual", "fp32")
    exported, prediction = Exported(program, b"", data), Prediction("host", "fp32", (), 0.0)
    for given, priced, options in (
        (exported, prediction, Options(target="rpi4")),
        (exported, prediction, replace(HOST, runs=0)),
        (exported, None, HOST),
        (Exported(program, b"", None), prediction, HOST),  # what TFLite cannot express
        (Exported(None, b"", None), prediction, HOST),
    ):
        assert measure_layers(given, priced, options, Silent()) == ()


def test_the_report_has_them(tmp_path: Path) -> None:
    """For real, in a network with a shortcut and two outputs."""

    def body(m: Coupled, x: torch.Tensor) -> object:
        y = m.a(x)
        return m.b(y) + y, y.mean((2, 3))

    model = Coupled(body, a=conv(3, 8), b=conv(8, 8)).eval()
    shrinkc.compile(model, [(1, 3, 16, 16)], tmp_path / "out", replace(HOST, runs=1))
    report = json.loads(Path(tmp_path, "out", "report.json").read_text("utf-8"))
    measured = {x["layer"]: x["ms"] for x in report["measured_layers"]}
    assert measured.keys() >= {x["name"] for x in report["prediction"]["layers"]}
    assert any(ms > 0 for ms in measured.values())
    page = Path(tmp_path, "out", "report.html").read_text("utf-8")
    assert "measured on this machine, inside the written model.tflite, with 1 thread" in page
