"""adb devices: the system's adb against a small adbd."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import device_doubles as doubles
import pytest
from fake_adbd import Adbd

from shrinkc.compiler.devices.adb import Adb
from shrinkc.compiler.devices.benchmark_model import BenchmarkModel, inference_us
from shrinkc.compiler.devices.jobs import REFERENCE, Failed, Measured, Method, Model, Ran, Setup
from shrinkc.compiler.devices.link import LinkEndedError
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.profile.one_operator import one_operator
from shrinkc.errors import DeviceError, DeviceLostError
from shrinkc.latency_tables.key import OpKey

needs_adb = pytest.mark.skipif(shutil.which("adb") is None, reason="no adb here (Debian: adb)")
QUICK = Method(warmup=1, rounds=(3, 3), seconds=10.0)
SETUP = Setup("tflite", timeout_s=20)

TOOL = """
graph=$(echo "$@" | sed 's/.*--graph=\\([^ ]*\\).*/\\1/')
case $(cat "$graph") in
    refuse) echo 'ERROR: Didn'\"'\"'t find op for builtin opcode 999'; exit 1 ;;
    unplug) sleep 60 ;;
esac
echo 'INFO: count=3 first=900 curr=880 min=870 max=900 avg=885.5 std=10'
echo 'INFO: count=12 first=450 curr=440 min=430 max=460 avg=441.5 std=8 p5=431 median=440 p95=455'
echo 'INFO: Inference timings in us: Init: 200, First inference: 900, Warmup (avg): 885.5, '\
'Inference (avg): 441.5'
echo 'INFO: Overall peak memory footprint (MB) via periodic monitoring: 12.5'
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An adb server of the tests' own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    settings = {"ANDROID_ADB_SERVER_PORT": port, "HOME": str(tmp_path_factory.mktemp("home"))}
    yield settings
    subprocess.run(("adb", "kill-server"), env={**os.environ, **settings}, check=False)


@pytest.fixture
def phone(
    server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Adbd]:
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "phone").mkdir()
    doubles.program(tmp_path / "bin" / "getprop", "echo Pixel 4")
    environment = {
        "PATH": doubles.in_front(tmp_path / "bin"),
        "PYTHONPATH": str(doubles.fake_runtime(tmp_path / "packages")),
    }
    adbd = Adbd(tmp_path / "phone", environment)
    subprocess.run(("adb", "connect", serial(adbd)), check=True, capture_output=True)
    yield adbd
    subprocess.run(("adb", "disconnect", serial(adbd)), check=False, capture_output=True)
    adbd.close()


def serial(phone: Adbd) -> str:
    return f"127.0.0.1:{phone.port}"


def termux(phone: Adbd) -> None:
    """Let run-as into a Termux with a Python."""
    inside = '[ "$1 $2" = "com.termux files/usr/bin/python3" ] || exit 1; shift 2'
    script = f"{inside}; exec '{sys.executable}' \"$@\""
    doubles.program(phone.folder.parent / "bin" / "run-as", script)


@needs_adb
def test_the_runner_in_termux(phone: Adbd) -> None:
    termux(phone)
    with Adb(serial(phone)).open(SETUP) as session:
        assert session.environment["machine"]
        answers = list(session.measure([Model("good", b"ok"), Model("odd", b"refuse")], QUICK))
    assert {type(answer) for answer in answers} == {Measured, Failed}


@needs_adb
def test_the_runner_computes_over_adb(phone: Adbd) -> None:
    """A real runtime, and a model that does not fit one packet."""
    python = doubles.python(phone.folder / "python", PYTHONPATH="")
    key = OpKey("linear", 300, 300)
    model = Model("linear", write_tflite(one_operator(key)))
    assert len(model.data) > 1 << 18
    with Adb(serial(phone), str(python)).open(SETUP) as session:
        ran = session.run(model, None)
    assert isinstance(ran, Ran)
    assert ran.outputs is not None
    assert ran.outputs[0].shape == (1, 300)


@needs_adb
def test_a_crash_and_a_hang_in_termux(phone: Adbd) -> None:
    termux(phone)
    with (
        Adb(serial(phone)).open(SETUP) as session,
        pytest.raises(DeviceLostError, match=r"lost while running conv2d 3→8: .*crashed"),
    ):
        list(session.measure([Model("conv2d 3→8", b"crash")], QUICK))
    with (
        Adb(serial(phone)).open(Setup("tflite", timeout_s=3)) as session,
        pytest.raises(DeviceLostError, match=r"no word for 3 s"),
    ):
        list(session.measure([Model("conv2d 3→8", b"hang")], QUICK))


@needs_adb
def test_benchmark_model(phone: Adbd) -> None:
    tool = doubles.program(phone.folder.parent / "benchmark_model", TOOL)
    with BenchmarkModel(serial(phone), str(tool)).open(SETUP) as session:
        assert session.environment["cpu"] == "Pixel 4"
        models = [Model(REFERENCE, b"ok"), Model("good", b"ok"), Model("odd", b"refuse")]
        answers = {a.model: a for a in session.measure(models, QUICK)}
        ran = session.run(Model("good", b"ok"), None)
        (folder,) = phone.folder.iterdir()
        assert [p.name for p in folder.iterdir()] == ["benchmark_model"]
    assert answers["good"] == Measured("good", (440.0,) * 3, (440.0,) * 3)
    assert answers["odd"] == Failed("odd", "ERROR: Didn't find op for builtin opcode 999")
    assert isinstance(ran, Ran)
    assert (ran.outputs, ran.peak_memory_bytes) == (None, 12_500_000)
    assert list(phone.folder.iterdir()) == []


@needs_adb
def test_a_tool_on_the_phone(phone: Adbd) -> None:
    doubles.program(phone.folder / "benchmark_model", TOOL)
    with BenchmarkModel(serial(phone), "/data/local/tmp/benchmark_model").open(SETUP) as session:
        (answer,) = session.measure([Model("good", b"ok")], QUICK)
    assert isinstance(answer, Measured)


@needs_adb
def test_a_tool_of_another_processor(phone: Adbd) -> None:
    tool = phone.folder.parent / "benchmark_model"
    tool.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x16\x00" + bytes(44))
    assert "is made for ELF machine 22" in refused(BenchmarkModel(serial(phone), str(tool)))


@needs_adb
def test_a_tool_that_is_nowhere(phone: Adbd) -> None:
    assert "neither a file" in refused(BenchmarkModel(serial(phone), "no/such/tool"))
    device = BenchmarkModel(serial(phone), "/data/local/tmp/none")
    with device.open(SETUP) as session, pytest.raises(DeviceError, match="none cannot run there"):
        list(session.measure([Model("good", b"ok")], QUICK))


@needs_adb
def test_a_phone_that_is_full(phone: Adbd) -> None:
    tool = doubles.program(phone.folder.parent / "benchmark_model", TOOL)
    phone.full = True
    assert "no space left" in refused(BenchmarkModel(serial(phone), str(tool)))


@needs_adb
def test_a_phone_that_is_unplugged(phone: Adbd) -> None:
    tool = doubles.program(phone.folder.parent / "benchmark_model", TOOL)
    with (
        BenchmarkModel(serial(phone), str(tool)).open(Setup("tflite", timeout_s=3)) as session,
        pytest.raises(DeviceLostError, match=r"lost while running conv2d 3→8: it hangs.*3 s"),
    ):
        list(session.measure([Model("good", b"ok"), Model("conv2d 3→8", b"unplug")], QUICK))
    phone.close()
    for device in (Adb(serial(phone)), BenchmarkModel(serial(phone), str(tool))):
        text = refused(device)
        assert "offline" in text or "no such device" in text


@needs_adb
def test_no_such_phone(phone: Adbd) -> None:
    for device in (Adb("nobody"), BenchmarkModel("nobody", "/tool")):
        assert "adb devices lists" in refused(device)


def refused(device: Adb | BenchmarkModel) -> str:
    with pytest.raises(DeviceError) as error, device.open(SETUP):
        pass
    assert str(error.value).startswith(f"{device.name}: ") or "`benchmark_model`" in str(
        error.value
    )
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (1, "error: device unauthorized.\nThis adb server's ...", "accept the key"),
        (1, "error: device offline", "offline"),
        (1, "adb: device 'x' not found", "adb devices lists"),
        (1, "run-as: unknown package: com.termux", "start sshd in Termux"),
        (1, "run-as: package not debuggable: com.termux", "--benchmark-model"),
        (127, "sh: files/usr/bin/python3: not found", "pkg install python"),
        (1, "", "connection was lost"),
    ],
)
def test_what_adb_complains_of(code: int, said: str, expected: str) -> None:
    text = Adb("x")._explain(LinkEndedError(code, said, None))
    assert text is not None
    assert expected in text


def test_without_adb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for device in (Adb("x"), BenchmarkModel("x", "/tool")):
        with pytest.raises(DeviceError, match="adb cannot be started"), device.open(SETUP):
            pass


def test_times_in_what_the_tool_prints() -> None:
    old = (
        "INFO: count=58 first=9 curr=8 min=7 max=9 avg=8.5 std=1\n"
        "INFO: Inference timings in us: Init: 1, First inference: 9, Warmup (avg): 9, "
        "Inference (avg): 5.6e+03"
    )
    assert inference_us(old) == 5600
    assert inference_us("ERROR: failed to load") is None
