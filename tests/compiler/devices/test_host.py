"""The conversation with a runner in a process here, real and with runtimes that misbehave."""

import sys
from pathlib import Path

import device_doubles as doubles
import numpy as np
import pytest

from shrinkc.compiler.devices.host import Host
from shrinkc.compiler.devices.jobs import REFERENCE, Failed, Measured, Method, Model, Ran, Setup
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.profile.one_operator import one_operator
from shrinkc.errors import DeviceError, DeviceLostError
from shrinkc.latency_tables.key import OpKey

QUICK = Method(warmup=1, rounds=(3, 3), seconds=0.0)
SETUP = Setup("tflite", timeout_s=20)
OK = Model("fine", b"ok")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doubles.fake_runtime(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def relu() -> Model:
    return Model(
        "relu", write_tflite(one_operator(OpKey("relu", 8, 8, in_size=(4, 4), out_size=(4, 4))))
    )


def test_measuring_and_running_for_real() -> None:
    with Host().open(SETUP) as session:
        assert session.environment["runtime"] in ("ai-edge-litert", "tflite-runtime")
        assert {"cpu", "cores", "machine", "governor", "temperature_c"} <= set(session.environment)
        reference = Model(REFERENCE, relu().data)
        (answer,) = session.measure([reference, relu()], QUICK)
        assert isinstance(answer, Measured)
        assert answer.model == "relu"
        assert len(answer.times_us) == len(answer.reference_us) == 3
        assert 0 < min(answer.times_us) < 1e5
        assert "load" in session.conditions
        ran = session.run(relu(), None)
        assert isinstance(ran, Ran)
        assert ran.outputs is not None
        np.testing.assert_array_equal(ran.outputs[0], np.maximum(ran.inputs[0], 0))
        given = np.full((1, 4, 4, 8), -1, np.float32)
        again = session.run(relu(), (given,))
        assert isinstance(again, Ran)
        assert again.outputs is not None
        assert not again.outputs[0].any()
        assert (again.peak_memory_bytes or 1) > 1e6


@pytest.mark.usefixtures("fake")
def test_what_a_runtime_refuses_fails_alone_and_prints_disturb_nothing() -> None:
    with Host().open(SETUP) as session:
        answers = {a.model: a for a in session.measure([Model("odd", b"refuse"), OK], QUICK)}
    assert answers["odd"] == Failed("odd", "ValueError: op code 999 is not known")
    assert isinstance(answers["fine"], Measured)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("what", "text"),
    [("crash", "crashed"), ("starve", "want of memory"), ("illegal", "lacks an instruction")],
)
def test_a_crash_names_the_model(what: str, text: str) -> None:
    with Host().open(SETUP) as session:
        bad = Model("conv2d 3→8", what.encode())
        with pytest.raises(DeviceLostError, match=text) as lost:
            list(session.measure([OK, bad], QUICK))
    assert lost.value.crashed
    assert lost.value.model == "conv2d 3→8"
    assert "host: lost while running conv2d 3→8" in str(lost.value)


@pytest.mark.usefixtures("fake")
def test_a_hang_states_the_time_out() -> None:
    with (
        Host().open(Setup("tflite", timeout_s=2)) as session,
        pytest.raises(DeviceLostError, match="no word for 2 s") as lost,
    ):
        list(session.measure([OK, Model("loops", b"hang")], QUICK))
    assert lost.value.model == "loops"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (doubles.no_runtime, "no ai-edge-litert or tflite-runtime.*pip install ai-edge-litert"),
        (doubles.old_runtime, "tflite-runtime cannot work with numpy 2.*numpy<2"),
        (doubles.foreign_runtime, "wrong ELF class.*that machine's processor"),
    ],
)
def test_runtimes_that_cannot_be_used(
    make: object, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(make)
    make(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DeviceError, match=text), Host().open(SETUP):
        pass


def test_without_numpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doubles.package(tmp_path, "numpy", "raise ImportError('no numpy')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DeviceError, match="pip install numpy"), Host().open(SETUP):
        pass


def test_modules_of_the_directory_are_not_taken_for_the_runtimes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubles.package(tmp_path, "numpy", "raise ImportError('a stranger')")
    monkeypatch.chdir(tmp_path)
    with Host().open(SETUP) as session:
        assert session.environment["runtime"]


def test_a_python_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(DeviceError, match="/nowhere/python cannot be started"), Host().open(SETUP):
        pass
