"""What follows `--on`."""

from __future__ import annotations

from shrinkc.compiler.devices import adb, ssh
from shrinkc.compiler.devices.benchmark_model import BenchmarkModel
from shrinkc.compiler.devices.cuda.device import Cuda
from shrinkc.compiler.devices.host import Host
from shrinkc.compiler.devices.jobs import Device
from shrinkc.compiler.support.checks import check_kind
from shrinkc.compiler.support.choices import HOST, is_host
from shrinkc.compiler.support.text import shown
from shrinkc.errors import InputError, UnknownDeviceError

FORMS = (HOST, ssh.FORM, adb.FORM, "cuda")


def parse_device(text: str, benchmark_model: str | None = None) -> Device:
    """The device that `text` names; nothing is contacted. `benchmark_model` is TFLite's tool, for
    phones.

    Raises UnknownDeviceError that lists the forms, InputError for the tool and no phone.
    """
    check_kind("on", text, str, f"one of {', '.join(FORMS)}")
    if benchmark_model and not text.startswith(f"{adb.FORM.partition(':')[0]}:"):
        raise InputError("`benchmark_model` has no effect here: it is for phones, `on` adb:SERIAL")
    if is_host(text):
        return Host()
    if text == "cuda":
        return Cuda()
    phone = adb.Adb.parse(text)
    if phone is not None:
        return BenchmarkModel(phone.serial, benchmark_model) if benchmark_model else phone
    board = ssh.Ssh.parse(text)
    if board is not None:
        return board
    raise UnknownDeviceError(f"no device '{shown(text)}': write one of {', '.join(FORMS)}")
