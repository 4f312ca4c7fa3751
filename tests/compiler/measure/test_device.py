"""`shrinkc bench`: times, pairs, memory, and whether a device computes what this machine does."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from shrinkc.compiler.cli.main import main
from shrinkc.compiler.devices.cuda.device import Cuda
from shrinkc.compiler.devices.host import Host
from shrinkc.compiler.devices.jobs import Array, Failed, Measured, Method, Model, Ran, Setup
from shrinkc.compiler.export import ops
from shrinkc.compiler.export.onnx import write_onnx
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.formats.base import Format
from shrinkc.compiler.formats.onnx import ONNX, quantize_onnx
from shrinkc.compiler.formats.tflite import TFLITE, quantize_tflite
from shrinkc.compiler.measure.device import Agreement, bench_files, compared
from shrinkc.compiler.quantise.rounding import Grid
from shrinkc.compiler.support.choices import Io
from shrinkc.errors import EXIT_CODES, DeviceError, InputError, LoadError

Streams = pytest.CaptureFixture[str]
SETUP = Setup("", timeout_s=20)


def network(channels: int) -> ops.Program:
    x, y, z = (ops.Value(n, (1, c, 12, 12)) for n, c in (("x", 3), ("y", channels), ("z", 4)))
    random = np.random.default_rng(0)

    def weight(*shape: int) -> ops.FloatArray:
        return random.standard_normal(shape, dtype=np.float32)

    first = ops.Conv("a", y, x, weight(channels, 3, 3, 3), weight(channels), pads=(1, 1, 1, 1))
    last = ops.Conv("b", z, y, weight(4, channels, 1, 1), weight(4))
    return ops.Program((x,), (first, last), (z,))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    program = network(8)
    (tmp_path / "net.tflite").write_bytes(write_tflite(program))
    (tmp_path / "net.onnx").write_bytes(write_onnx(program).SerializeToString())
    (tmp_path / "wide.tflite").write_bytes(write_tflite(network(512)))
    return {path.name: path for path in tmp_path.iterdir()}


class Elsewhere:
    """This machine under another name, whose outputs are `factor` times as large."""

    name = "ssh://pi@board"
    runtimes: Mapping[str, tuple[str, ...]] = Host().runtimes

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    @contextmanager
    def open(self, setup: Setup) -> Generator[Elsewhere]:
        with Host().open(setup) as self.session:
            yield self

    environment: Mapping[str, object] = {}
    conditions: Mapping[str, object] = {}

    def measure(self, models: Sequence[Model], method: Method) -> Iterator[Measured | Failed]:
        return self.session.measure(models, method)

    def run(self, model: Model, inputs: Sequence[Array] | None) -> Ran | Failed:
        result = self.session.run(model, inputs)
        if isinstance(result, Failed) or result.outputs is None:
            return result
        return replace(result, outputs=tuple(a * np.float32(self.factor) for a in result.outputs))


def test_two_files_of_two_runtimes_in_pairs(files: dict[str, Path]) -> None:
    result = bench_files(Host(), [files["net.tflite"], files["net.onnx"]], SETUP, 7)
    first, second = result.files
    assert (len(first.timing.times_ms), len(second.timing.times_ms)) == (7, 7)
    assert first.runtime.startswith("ai-edge-litert")
    assert second.runtime.startswith("onnxruntime")
    pairs = zip(first.timing.times_ms, second.timing.times_ms, strict=True)
    assert result.ratio is not None
    assert min(b / a for a, b in pairs) <= result.ratio.median
    assert first.agreement is None  # nothing to compare this machine with


def test_the_ratio_tells_the_slower_file(files: dict[str, Path]) -> None:
    result = bench_files(Host(), [files["net.tflite"], files["wide.tflite"]], SETUP, 20)
    assert result.ratio is not None
    assert result.ratio.median > 5


def test_a_file_against_itself(files: dict[str, Path]) -> None:
    path = files["wide.tflite"]
    result = bench_files(Host(), [path, path], SETUP, 20)
    assert result.ratio is not None
    assert result.ratio.median == pytest.approx(1, abs=0.3)
    assert result.files[0].timing != result.files[1].timing


@pytest.mark.parametrize("name", ["net.tflite", "net.onnx"])
def test_outputs_of_a_device(files: dict[str, Path], name: str) -> None:
    (same,) = bench_files(Elsewhere(), [files[name]], SETUP, 2).files
    assert same.agreement == Agreement(0.0, "of the output's range", True)
    (other,) = bench_files(Elsewhere(1.001), [files[name]], SETUP, 2).files
    assert other.agreement is not None
    assert not other.agreement.equal
    assert other.agreement.largest == pytest.approx(1e-3, rel=0.1)


def test_the_command(files: dict[str, Path], capsys: Streams) -> None:
    arguments = ["bench", str(files["net.tflite"]), "--runs", "5"]
    assert main([*arguments, "--compare", str(files["net.onnx"]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["device"] == "host"
    assert found["compare"]["ratio"] > 0
    assert found["compare"]["runtime"].startswith("onnxruntime")
    assert found["peak_memory_bytes"] > 1e6
    assert main([*arguments, "--compare", str(files["net.onnx"])]) == 0
    shown = capsys.readouterr().out
    assert "times as long as" in shown
    assert "peak memory" in shown


def test_a_device_that_computes_something_else_is_an_error(
    files: dict[str, Path], capsys: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shrinkc.compiler.api.bench.parse_device", lambda *_: Elsewhere(1.001))
    arguments = ["bench", str(files["net.tflite"]), "--on", "ssh://pi@board", "--runs", "2"]
    assert main([*arguments, "--json"]) == EXIT_CODES["verification"]
    captured = capsys.readouterr()
    assert json.loads(captured.out)["outputs_equal"] is False
    assert json.loads(captured.out)["error"]["kind"] == "verification"
    assert "differ from those here" in captured.err
    monkeypatch.setattr("shrinkc.compiler.api.bench.parse_device", lambda *_: Elsewhere())
    assert main(arguments) == 0
    assert "outputs equal to those here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "error", "text"),
    [
        ("none.tflite", None, LoadError, "cannot read"),
        ("text.txt", b"hello, world", LoadError, "neither a .onnx nor a .tflite"),
        ("bad.onnx", b"hello, world", DeviceError, "host: cannot run .*bad.onnx"),
        ("bad.tflite", b"\x1c\0\0\0TFL3garbage", DeviceError, "host: .*bad.tflite"),
    ],
)
def test_files_that_do_not_run(
    tmp_path: Path, name: str, content: bytes | None, error: type[Exception], text: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=text):
        bench_files(Host(), [tmp_path / name], SETUP, 2)


def test_a_gpu_runs_onnx_files(files: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"cuda runs \.onnx files"):
        bench_files(Cuda(), [files["net.tflite"]], SETUP, 2)


# --- quantisation steps --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def int8() -> dict[str, bytes]:
    pytest.importorskip("ai_edge_quantizer")
    program = network(8)
    batch = (torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)),)
    onnx = quantize_onnx(write_onnx(program).SerializeToString(), [batch], {}, False)
    return {
        "net.tflite": quantize_tflite(write_tflite(program), program, [batch], {}),
        "net.onnx": onnx,
    }


@pytest.mark.parametrize(("name", "form"), [("net.tflite", TFLITE), ("net.onnx", ONNX)])
def test_the_step_of_an_int8_file_is_that_between_its_outputs(
    int8: dict[str, bytes], name: str, form: Format, tmp_path: Path
) -> None:
    steps = form.output_steps(int8[name])
    assert steps is not None
    assert steps[0] is not None
    (tmp_path / name).write_bytes(int8[name])
    runtime = "tflite" if name == "net.tflite" else "onnxruntime"
    with Host().open(Setup(runtime)) as session:
        ran = session.run(Model(name, int8[name]), None)
    assert isinstance(ran, Ran)
    assert ran.outputs is not None
    gaps = np.diff(np.unique(ran.outputs[0].astype(np.float64)))
    assert float(gaps.min()) == pytest.approx(steps[0], rel=1e-3)
    (same,) = bench_files(Elsewhere(), [tmp_path / name], SETUP, 2).files
    assert same.agreement == Agreement(0.0, "quantisation steps", True)


@pytest.mark.parametrize("io", ["int8", "uint8"])
@pytest.mark.parametrize(("name", "form"), [("net.tflite", TFLITE), ("net.onnx", ONNX)])
def test_integers_in_and_out(
    int8: dict[str, bytes], name: str, form: Format, io: Io, tmp_path: Path
) -> None:
    program = network(8)
    grids = {value.name: Grid(0.1, 0) for value in (*program.inputs, *program.outputs)}
    (tmp_path / name).write_bytes(form.with_io(int8[name], io, grids))
    (same,) = bench_files(Elsewhere(), [tmp_path / name], SETUP, 2).files
    assert same.agreement == Agreement(0.0, "quantisation steps", True)
    (other,) = bench_files(Elsewhere(1.5), [tmp_path / name], SETUP, 2).files
    assert other.agreement is not None
    assert not other.agreement.equal


def test_a_float_file_has_no_steps(files: dict[str, Path]) -> None:
    for name, form in (("net.tflite", TFLITE), ("net.onnx", ONNX)):
        assert form.output_steps(files[name].read_bytes()) is None


def test_one_step_is_equal_and_two_are_not() -> None:
    here = np.array([0.0, 0.5, 1.0], np.float32)
    for steps, equal in ((1, True), (2, False)):
        there = here + np.float32(0.1 * steps)
        found = compared([there], [here], (0.1,))
        assert found.equal is equal
        assert found.largest == pytest.approx(steps, rel=1e-5)
    unknown = compared([here + np.float32(1 / 255)], [here], (None,))
    assert unknown.equal


def test_other_shapes_and_not_a_number_are_not_equal() -> None:
    here = np.ones(3, np.float32)
    assert not compared([np.ones(4, np.float32)], [here], None).equal
    assert not compared([np.array([1, np.nan, 1], np.float32)], [here], None).equal
