"""ssh devices against a real sshd on loopback."""

import getpass
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import device_doubles as doubles
import numpy as np
import pytest
import ssh_server

from shrinkc.compiler.devices.host import Host
from shrinkc.compiler.devices.jobs import Measured, Method, Model, Ran, Setup
from shrinkc.compiler.devices.parse import parse_device
from shrinkc.compiler.devices.ssh import Ssh
from shrinkc.compiler.export.onnx import write_onnx
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.profile.one_operator import one_operator
from shrinkc.errors import DeviceError, DeviceLostError
from shrinkc.latency_tables.key import OpKey

pytestmark = pytest.mark.skipif(not ssh_server.INSTALLED, reason=ssh_server.MISSING)

QUICK = Method(warmup=1, rounds=(3, 3), seconds=0.0)
SETUP = Setup("tflite", timeout_s=20)
CONV = OpKey("conv2d", 8, 8, (3, 3), in_size=(6, 6), out_size=(6, 6))


@dataclass(frozen=True)
class Server:
    """An sshd, what its client must know, and a folder for Pythons of its own."""

    device: Ssh
    folder: Path

    def client(self, monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
        """Put an `ssh` on the path that uses the test's files instead of the user's."""
        ssh_server.client(self.folder, monkeypatch, **changes)

    def with_python(self, name: str, **environment: str | Path) -> Ssh:
        return replace(
            self.device, python=str(doubles.python(self.folder / "py" / name, **environment))
        )


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    folder = tmp_path_factory.mktemp("sshd")
    with ssh_server.running(folder) as port:
        yield folder, port


@pytest.fixture
def server(sshd: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    keys, port = sshd
    for name in ("user_key", "stranger_key"):
        shutil.copy(keys / name, tmp_path / name)
        (tmp_path / name).chmod(0o600)
    public = " ".join((keys / "host_key.pub").read_text().split()[:2])
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")
    (tmp_path / "other_key.pub").write_text((keys / "other_key.pub").read_text())
    device = parse_device(f"ssh://{getpass.getuser()}@127.0.0.1:{port}")
    assert isinstance(device, Ssh)
    made = Server(device, tmp_path)
    made.client(monkeypatch)
    return made


def conv(runtime: str) -> Model:
    program = one_operator(CONV)
    data = write_tflite(program) if runtime == "tflite" else write_onnx(program).SerializeToString()
    return Model("conv", data)


@pytest.mark.parametrize("runtime", ["tflite", "onnxruntime"])
def test_a_board_measures_and_computes_the_same(server: Server, runtime: str) -> None:
    temporary = server.folder / "tmp"
    temporary.mkdir()
    board = server.with_python("python", TMPDIR=temporary)
    setup = replace(SETUP, runtime=runtime)
    with board.open(setup) as session:
        assert session.environment["machine"]
        (answer,) = session.measure([conv(runtime)], replace(QUICK, kernels=True))
        there = session.run(conv(runtime), None)
    assert isinstance(answer, Measured)
    assert len(answer.times_us) == 3
    assert isinstance(there, Ran)
    assert there.outputs is not None
    with Host().open(setup) as session:
        here = session.run(conv(runtime), there.inputs)
    assert isinstance(here, Ran)
    assert here.outputs is not None
    np.testing.assert_allclose(there.outputs[0], here.outputs[0], rtol=1e-4, atol=1e-4)
    assert list(temporary.glob("shrinkc*")) == []


def refused(device: Ssh, setup: Setup = SETUP) -> str:
    with pytest.raises(DeviceError) as error, device.open(setup):
        pass
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(f"{device.name}: ")
    return text


def test_a_key_that_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.client(monkeypatch, IdentityFile=str(server.folder / "stranger_key"))
    text = refused(server.device)
    assert "refuses the key" in text
    assert f"ssh-copy-id -p {server.device.port} {server.device.user}@127.0.0.1" in text


def test_an_unknown_host_key(server: Server) -> None:
    (server.folder / "known_hosts").write_text("")
    text = refused(server.device)
    assert "host key is not known" in text
    assert f"ssh -p {server.device.port} {server.device.user}@127.0.0.1" in text


def test_a_changed_host_key(server: Server) -> None:
    key = " ".join((server.folder / "other_key.pub").read_text().split()[:2])
    known = f"[127.0.0.1]:{server.device.port} {key}\n"
    (server.folder / "known_hosts").write_text(known)
    assert "ssh-keygen -R" in refused(server.device)


def test_the_users_configuration_cannot_trust_unknown_hosts(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.client(monkeypatch, StrictHostKeyChecking="no")
    (server.folder / "known_hosts").write_text("")
    assert "host key is not known" in refused(server.device)
    assert (server.folder / "known_hosts").read_text() == ""


def test_nobody_listens(server: Server) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "refuses the connection" in refused(replace(server.device, port=port))


def test_a_python_that_is_not_there(server: Server) -> None:
    text = refused(replace(server.device, python="/opt/none/python"))
    assert "no /opt/none/python there" in text
    assert f"{server.device.name}/path/to/python" in text


def test_a_python_of_another_processor(server: Server) -> None:
    foreign = server.folder / "foreign"
    foreign.write_bytes(b"\x7fELF\x01\x01\x01" + bytes(9) + b"\x02\x00\xf7\x00" + bytes(40))
    foreign.chmod(0o755)
    assert "another processor" in refused(replace(server.device, python=str(foreign)))


def test_a_python_that_is_too_old(server: Server) -> None:
    old = doubles.program(server.folder / "old", "echo Python 3.8 or newer is needed >&2; exit 1")
    assert "Python 3.8 or newer" in refused(replace(server.device, python=str(old)))


def test_no_runtime_there(server: Server) -> None:
    packages = doubles.no_runtime(server.folder / "packages")
    board = server.with_python("bare", PYTHONPATH=packages)
    assert f"{board.python} -m pip install ai-edge-litert" in refused(board)


def test_a_runtime_of_another_processor(server: Server) -> None:
    packages = doubles.foreign_runtime(server.folder / "packages")
    board = server.with_python("foreign", PYTHONPATH=packages)
    assert "wrong ELF class" in refused(board)


def test_a_full_disk(server: Server) -> None:
    """Files that cannot grow stand for a disk that cannot take any."""
    script = f"ulimit -f 0; exec '{doubles.sys.executable}' \"$@\""
    full = doubles.program(server.folder / "full", script)
    with replace(server.device, python=str(full)).open(replace(SETUP, runtime="onnxruntime")) as s:
        list(s.measure([conv("onnxruntime")], QUICK))  # needs no disk
        with pytest.raises(DeviceError, match=r"no space left .* TMPDIR"):
            list(s.measure([conv("onnxruntime")], replace(QUICK, kernels=True)))


def broken(server: Server, what: str, timeout_s: float = 20) -> DeviceLostError:
    packages = doubles.fake_runtime(server.folder / "packages")
    board = server.with_python("fake", PYTHONPATH=packages)
    models = [Model("good", b"ok"), Model("conv2d 3→8", what.encode())]
    with (
        board.open(replace(SETUP, timeout_s=timeout_s)) as session,
        pytest.raises(DeviceLostError) as lost,
    ):
        list(session.measure(models, QUICK))
    assert lost.value.model == "conv2d 3→8"
    assert "while running conv2d 3→8" in str(lost.value)
    return lost.value


def test_a_board_that_disappears(server: Server) -> None:
    """Its end of the connection is killed, as a power cut does."""
    lost = broken(server, "unplug")
    assert "connection was lost" in str(lost)
    assert not lost.crashed


def test_a_board_that_hangs(server: Server) -> None:
    assert "no word for 3 s" in str(broken(server, "hang", 3))


def test_a_board_without_memory(server: Server) -> None:
    lost = broken(server, "starve")
    assert "want of memory" in str(lost)
    assert lost.crashed


def test_a_greeting_on_stdout_disturbs_nothing(server: Server) -> None:
    script = f'echo "Welcome!"; exec \'{doubles.sys.executable}\' "$@"'
    board = replace(server.device, python=str(doubles.program(server.folder / "chatty", script)))
    with board.open(SETUP) as session:
        assert session.environment["runtime"]
