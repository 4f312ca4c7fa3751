"""The program that measures on devices, on an emulated Arm: with that processor's runtimes, one of
them beside NumPy 1, it loads, runs and times models and hands their outputs back. The times mean
nothing there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from arm_emulator import LITERT, ONNXRUNTIME, TFLITE_RUNTIME, Emulator, Runtime

from shrinkc.compiler.devices.jobs import Measured, Method, Model, Ran, Setup
from shrinkc.compiler.devices.link import BOOT
from shrinkc.compiler.devices.session import Place, RunnerSession, open_session
from shrinkc.compiler.export import ops
from shrinkc.compiler.export.onnx import write_onnx
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.formats.onnx import OnnxRunner
from shrinkc.compiler.formats.tflite import TfliteRunner
from shrinkc.compiler.support.difference import relative_error
from shrinkc.compiler.verify.files import FP32_TOLERANCE

pytestmark = pytest.mark.arm
NAMES = {"onnx": "onnxruntime", "tflite": "tflite"}
runtimes = pytest.mark.parametrize("runtime", [ONNXRUNTIME, LITERT, TFLITE_RUNTIME], ids=str)


@contextmanager
def session(emulator: Emulator, runtime: Runtime) -> Iterator[RunnerSession]:
    if not emulator.has(runtime):
        pytest.skip(f"no wheels of {runtime} for the root's Python")
    argv = emulator.command("-u", "-c", BOOT, site=runtime.site)
    place = Place("arm", tuple(argv), "python3", lambda _: None)
    with open_session(place, Setup(NAMES[runtime.kind], timeout_s=600)) as opened:
        yield opened


def model(runtime: Runtime) -> bytes:
    """A 3×3 convolution."""
    generator = np.random.default_rng(0)
    x, y = ops.Value("x", (1, 8, 12, 12)), ops.Value("y", (1, 16, 12, 12))
    weight = generator.standard_normal((16, 8, 3, 3), dtype=np.float32)
    bias = generator.standard_normal(16, dtype=np.float32)
    conv = ops.Conv("y", y, x, weight, bias, pads=(1, 1, 1, 1), activation="relu")
    program = ops.Program((x,), (conv,), (y,))
    if runtime.kind == "tflite":
        return write_tflite(program)
    return write_onnx(program, 17).SerializeToString()


@runtimes
def test_runs_and_hands_outputs_back(runtime: Runtime, emulator: Emulator) -> None:
    data = model(runtime)
    with session(emulator, runtime) as opened:
        ran = opened.run(Model("conv", data), None)
    assert isinstance(ran, Ran)
    assert ran.runtime.startswith(runtime.package)
    assert ran.outputs is not None
    here = OnnxRunner(data) if runtime.kind == "onnx" else TfliteRunner(data)
    (want,) = here.run(ran.inputs)
    assert relative_error(ran.outputs[0], want) <= FP32_TOLERANCE


@runtimes
def test_measures(runtime: Runtime, emulator: Emulator) -> None:
    with session(emulator, runtime) as opened:
        assert opened.environment["machine"] == "aarch64"
        (measured,) = opened.measure([Model("conv", model(runtime))], Method(1, (3, 3)))
    assert isinstance(measured, Measured)
    assert len(measured.times_us) == 3
    assert min(measured.times_us) > 0
