import pytest

from shrinkc.compiler.devices.adb import Adb
from shrinkc.compiler.devices.benchmark_model import BenchmarkModel
from shrinkc.compiler.devices.cuda.device import Cuda
from shrinkc.compiler.devices.host import Host
from shrinkc.compiler.devices.parse import parse_device
from shrinkc.compiler.devices.ssh import Ssh
from shrinkc.errors import DeviceError, InputError


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("host", Host()),
        ("cuda", Cuda()),
        ("ssh://pi@board", Ssh("board", "pi")),
        ("ssh://board", Ssh("board")),
        ("ssh://pi@192.168.1.20:2222", Ssh("192.168.1.20", "pi", 2222)),
        ("ssh://pi@[fe80::1]:22", Ssh("fe80::1", "pi", 22)),
        ("ssh://pi@board/", Ssh("board", "pi")),
        ("ssh://pi@board/opt/py/bin/python", Ssh("board", "pi", None, "/opt/py/bin/python")),
        ("ssh://pi@board:22/~/env/bin/python", Ssh("board", "pi", 22, "./env/bin/python")),
        ("adb:8A1X0QZ", Adb("8A1X0QZ")),
        ("adb:192.168.1.5:5555", Adb("192.168.1.5:5555")),
        ("adb:emulator-5554/data/local/tmp/py", Adb("emulator-5554", "/data/local/tmp/py")),
    ],
)
def test_forms(text: str, device: object) -> None:
    assert parse_device(text) == device


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "HOST",
            "pi@board",
            "ssh://",
            "ssh://pi@",
            "ssh://pi@board:0",
            "ssh://pi@board:70000",
        ),
        *("ssh://pi@board:x", "ssh://-oProxyCommand=sh@board", "ssh://pi@-oProxyCommand=sh"),
        *("ssh://pi@board/bin/sh -c", "ssh://pi@board/$(reboot)", "ssh://pi:secret@board"),
        *("adb:", "adb:-a", "adb:x;reboot", "cuda:0", "telnet://board", "ssh://pi@board\n"),
    ],
)
def test_anything_else_is_an_error_that_lists_the_forms(text: str) -> None:
    with pytest.raises(DeviceError, match="no device") as error:
        parse_device(text)
    for form in ("host", "ssh://user@host[:port]", "adb:SERIAL", "cuda"):
        assert form in str(error.value)


def test_benchmark_model_is_for_phones() -> None:
    assert parse_device("adb:8A1X0QZ", "/data/tool") == BenchmarkModel("8A1X0QZ", "/data/tool")
    with pytest.raises(InputError, match="`benchmark_model` has no effect here"):
        parse_device("host", "/data/tool")


@pytest.mark.parametrize(
    "name", ["ssh://pi@board:22", "ssh://board", "adb:8A1X0QZ", "host", "cuda"]
)
def test_a_device_is_named_as_it_is_written(name: str) -> None:
    assert parse_device(name).name == name
