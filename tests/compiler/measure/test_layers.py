"""Layers timed inside the written file: real files, and a clock and a runtime that are made up."""

from __future__ import annotations

import json
import time
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
from torch import fx, nn

import shrinkc
from shrinkc.compiler.cost.keys import keyed
from shrinkc.compiler.cost.predict import LayerLatency, Prediction, predict
from shrinkc.compiler.devices import runner
from shrinkc.compiler.export import ops
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.formats.exported import Exported
from shrinkc.compiler.formats.runner import random_inputs
from shrinkc.compiler.formats.tflite import TfliteRunner, quantize_tflite
from shrinkc.compiler.measure import layers as layer_times
from shrinkc.compiler.measure.layers import Cuts, layers_of, measure_layers
from shrinkc.compiler.measure.speedup import host_file
from shrinkc.compiler.options import Options
from shrinkc.compiler.profile.host_table import HostTable
from shrinkc.compiler.support.progress import Advance, Progress, Silent
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm
from shrinkc.passes.simplify.simplify import Simplify

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
    return host_file(graph, precision, inputs), lower(graph)


def names_of(data: bytes) -> tuple[list[str], list[str]]:
    """Of inputs and outputs."""
    (graph,) = schema.ModelT.InitFromPackedBuf(data, 0).subgraphs
    inputs, outputs = (
        [graph.tensors[at].name.decode() for at in indices]
        for indices in (graph.inputs, graph.outputs)
    )
    return inputs, outputs


def run(data: bytes, given: Callable[[str], Array | None]) -> dict[str, Array]:
    inputs, outputs = names_of(data)
    arrays = [x for x in map(given, inputs) if x is not None]
    return dict(zip(outputs, TfliteRunner(data).run(arrays), strict=True))


def ran(data: bytes) -> TfliteRunner:
    """With all its tensors."""
    whole = TfliteRunner(data, keep_all=True)
    whole.run(random_inputs(whole))
    return whole


# --- cutting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "lookup"])  # 60 operators
def test_parts_compute_what_the_whole_file_does(name: str, precision: str) -> None:
    data, _ = file_of(name, precision)
    whole, cuts = ran(data), Cuts(data)
    for stop in range(1, len(cuts.operators) + 1):
        for start in {0, max(stop - 3, 0), stop - 1}:
            found = run(cuts.part(start, stop, stop), whole.tensor)
            own = names_of(cuts.part(stop - 1, stop, stop))[1]  # of several outputs, what is read
            assert own
            assert set(own) <= set(found)
            for tensor, array in found.items():
                expected = whole.tensor(tensor)
                assert expected is not None
                # kernels round differently where all tensors are kept, int8 by whole steps
                largest = 100 if array.dtype == np.int8 else np.abs(expected).max()
                error = np.abs(array.astype(np.float64) - expected).max()
                limit = 2e-2 if precision == "int8" else 1e-5
                assert error <= limit * largest, (start, stop, tensor)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", ["two_inputs", "residual"])
def test_all_operators_are_the_whole_file(name: str, precision: str) -> None:
    data, _ = file_of(name, precision)
    count = len(Cuts(data).operators)
    part = Cuts(data).part(0, count, count)
    assert [sorted(names) for names in names_of(part)] == [sorted(x) for x in names_of(data)]
    given = ran(data).tensor
    found, expected = run(part, given), run(data, given)
    for tensor, array in expected.items():
        np.testing.assert_array_equal(found[tensor], array)


def test_a_part_without_operators_runs() -> None:
    data, _ = file_of("residual", "fp32")
    assert run(Cuts(data).part(0, 0, 1), ran(data).tensor) == {}


def test_what_is_read_behind_a_part_is_given_and_what_it_reads_is_asked_for() -> None:
    """Or the runtime could leave it out, and its time would be the next layer's."""
    cuts = Cuts(file_of("residual", "fp32")[0])
    first, second, third, total = cuts.operators[:4]
    assert names_of(cuts.part(0, 1, 1)) == (["x"], [first])
    assert names_of(cuts.part(0, 2, 2)) == (["x"], [first, second])  # the shortcut goes around it
    assert names_of(cuts.part(0, 3, 3)) == (["x"], [first, third])
    assert names_of(cuts.part(0, 4, 4)) == (["x"], [total])
    assert names_of(cuts.part(2, 4, 4)) == ([first, second], [total])
    assert names_of(cuts.part(2, 3, 4)) == ([first, second], [third])  # as the longer one


def test_weights_of_other_layers_are_left_out() -> None:
    cuts = Cuts(host_file(_wide(), "fp32", ()))
    sizes = [len(cuts.part(0, count, count)) for count in range(3)]
    assert sizes[0] < 10_000
    assert sizes[2] - sizes[1] > 4 * 9 * 64 * 512
    assert len(cuts.part(1, 1, 2)) < 10_000


def test_weights_behind_the_flatbuffer_are_brought_in() -> None:
    graph, inputs = _wide(), (torch.randn(1, 3, 8, 8),)
    program = lower(graph)
    data = quantize_tflite(write_tflite(program), program, [inputs], {})
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    assert any(buffer.offset for buffer in model.buffers)
    count = len(Cuts(data).operators)
    part = schema.ModelT.InitFromPackedBuf(Cuts(data).part(0, count, count), 0)
    assert not any(buffer.offset for buffer in part.buffers)
    assert sum(len(x.data) for x in part.buffers if x.data is not None) > 9 * 64 * 512


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
    operators += ("relu_dequant",)
    assert layers_of(operators, program) == {
        "x to int8": ((0, 1),),
        "conv": ((1, 3), (4, 5)),
        "conv_2": ((3, 4),),
        "out": ((5, 6),),
        "relu to fp32": ((6, 7),),
    }


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_operator_belongs_to_a_layer(name: str, precision: str) -> None:
    data, program = file_of(name, precision)
    layers = layers_of(Cuts(data).works, program)
    places = [at for spans in layers.values() for span in spans for at in range(*span)]
    assert sorted(places) == list(range(len(Cuts(data).operators)))
    unknown = layers.keys() - {op.name for op in program.ops}
    assert all(x.endswith((" to int8", " to fp32")) for x in unknown), unknown
    gone = [op for op, _ in keyed(program, precision) if op.name not in layers]
    assert all(isinstance(op, ops.Transpose | ops.Slice) for op in gone)  # left to their readers


def test_conversions_around_fp32_layers_are_called_as_predictions_call_them() -> None:
    graph = ready(graph_of("residual"))
    file = host_file(graph, "int8", [(torch.randn(2, 3, 8, 8),)], keep_fp32=("b_0",))
    program = lower(graph)
    layers = layers_of(Cuts(file).works, program)
    predicted = predict(program, HostTable(), "int8", ("b_0",)).layers
    between = {x.name for x in predicted if " to " in x.name}
    assert len(between) == 2
    assert {x.name for x in predicted} <= layers.keys()


# --- measuring ------------------------------------------------------------------------------------


class Machine:
    """A clock, and a runtime whose operators take `ms`, times their place in the file."""

    def __init__(self, places: dict[str, int], ms: float = 0.1) -> None:
        self.now, self.places, self.ms = 0.0, places, ms
        self.alive = self.most = 0

    def perf_counter(self) -> float:
        return self.now

    def get_clock_info(self, name: str) -> Any:
        return time.get_clock_info("perf_counter")

    def load(self, model: bytes, threads: int) -> Loaded:
        total = sum(self.places[name] for name in Cuts(model).operators)
        return Loaded(self, 1e-6 + 1e-3 * self.ms * total)


class Loaded:
    """What is loaded behind another is faster by a tenth of a microsecond, as on a real machine."""

    def __init__(self, machine: Machine, seconds: float) -> None:
        self.machine = machine
        self.seconds = seconds - 1e-7 * (machine.alive > 0)
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


class Measured:
    """The layers of a file with a shortcut, timed on a machine; `names` are in the file's order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self._data, self._program = file_of("residual", "fp32")
        operators = Cuts(self._data).operators
        self.places = {name: place for place, name in enumerate(operators, 1)}
        self.names = list(layers_of(operators, self._program))

    def on(
        self,
        machine: Machine,
        predicted: Callable[[int], float] = float,
        progress: Progress | None = None,
    ) -> dict[str, float]:
        for module in (layer_times, runner):
            self._patch.setattr(module, "time", machine)
        self._patch.setattr(layer_times, "loaded", machine.load)
        layers = tuple(
            LayerLatency(name, "conv2d", predicted(place), "measured", 1)
            for place, name in enumerate(self.names)
        )
        exported = Exported(self._program, {"tflite": self._data})
        prediction = Prediction("host", "fp32", layers, 0.0)
        found = measure_layers(exported, prediction, HOST, progress or Silent())
        return {x.layer: x.ms for x in found}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    return Measured(monkeypatch)


def test_a_layer_takes_what_its_neighbours_take_longer_with_it(measured: Measured) -> None:
    """One operator a layer here. The advantage of what is loaded second cancels out."""
    machine = Machine(measured.places)
    found = measured.on(machine)
    assert list(found) == measured.names
    assert list(found.values()) == pytest.approx(
        [0.1 * place for place in measured.places.values()]
    )
    assert machine.most == 2  # at a time in memory


def test_time_is_bounded_and_goes_to_what_was_predicted_slowest(measured: Measured) -> None:
    machine = Machine(measured.places, ms=20)
    found = measured.on(machine)
    runs = 2 * 2 * (layer_times.WARMUP + layer_times.ROUNDS[0])
    assert machine.now <= layer_times.SECONDS + runs * 0.02 * sum(measured.places.values())
    assert 0 < len(found) < len(measured.names)
    assert list(found) == measured.names[-len(found) :]
    found = measured.on(Machine(measured.places, ms=20), predicted=lambda place: -float(place))
    assert list(found) == measured.names[: len(found)]


def test_time_that_is_there_is_used_for_all(measured: Measured) -> None:
    machine = Machine(measured.places, ms=4)
    assert list(measured.on(machine)) == measured.names
    assert 0.8 * layer_times.SECONDS < machine.now < 1.1 * layer_times.SECONDS


def test_a_layer_faster_than_nothing_takes_nothing(measured: Measured) -> None:
    found = measured.on(Machine(measured.places, ms=-1e-4))
    assert list(found.values()) == [0.0] * len(measured.names)


def test_progress_counts_layers(measured: Measured) -> None:
    said: list[str] = []

    class Counting:
        @contextmanager
        def task(self, text: str, total: int | None = None) -> Generator[Advance]:
            said.append(f"{text} {total}")
            yield lambda note="": said.append("done")

    found = measured.on(Machine(measured.places), progress=Counting())
    assert said == [f"Measuring layers {len(found)}", *(["done"] * len(found))]


def test_what_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_times, "Cuts", None)
    data, program = file_of("residual", "fp32")
    exported, prediction = Exported(program, {"tflite": data}), Prediction("host", "fp32", (), 0.0)
    for given, priced, options in (
        (exported, prediction, Options(target="rpi4")),
        (exported, prediction, replace(HOST, runs=0)),
        (exported, None, HOST),
        (Exported(program, {}), prediction, HOST),  # what TFLite cannot express
        (Exported(None, {}), prediction, HOST),
    ):
        assert measure_layers(given, priced, options, Silent()) == ()


def test_the_report_has_them(tmp_path: Path) -> None:
    """For real, in a network with a shortcut and two outputs."""

    def body(m: Coupled, x: torch.Tensor) -> object:
        y = m.a(x)
        return m.b(y) + y, y.mean((2, 3))

    model = Coupled(body, a=conv(3, 8), b=conv(8, 8)).eval()
    shrinkc.compile(model, (1, 3, 16, 16), target="host", runs=1).save(tmp_path / "out")
    report = json.loads(Path(tmp_path, "out", "report.json").read_text("utf-8"))
    measured = {x["layer"]: x["ms"] for x in report["measured_layers"]}
    assert measured.keys() >= {x["name"] for x in report["prediction"]["layers"]}
    assert any(ms > 0 for ms in measured.values())
    page = Path(tmp_path, "out", "report.html").read_text("utf-8")
    assert "measured on this machine, beside their neighbours in the written model.tflite" in page
