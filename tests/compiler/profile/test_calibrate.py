"""Networks timed on a device, and a table corrected by them, on a device that is played."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Never

import pytest

from shrinkc.compiler.api import calibrate as api_calibrate
from shrinkc.compiler.cli.main import main
from shrinkc.compiler.cost.keys import keyed
from shrinkc.compiler.devices.jobs import REFERENCE, Failed, Measured, Method, Model, Setup
from shrinkc.compiler.profile import calibrate as calibration
from shrinkc.compiler.profile.calibrate import PASSES, calibrate_table, reference_networks
from shrinkc.compiler.profile.reference_networks import REFERENCE_NETWORKS
from shrinkc.errors import DeviceError, TableError
from shrinkc.latency_tables.store import load_table

FEW = REFERENCE_NETWORKS[:4]
TABLE = load_table("rpi4/tflite-ruy")


@dataclass
class Board:
    """Takes 1.7 times what the shipped table says, half as long again while it is disturbed."""

    refuses: str = ""
    name: str = "board"
    runtimes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"tflite": ("fp32",)})
    environment: Mapping[str, Any] = field(
        default_factory=lambda: {"cpu": "a chip", "runtime_version": "2.3"}
    )
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.us = {
            n.name: 1.7e3 * sum(TABLE.estimate(k).ms for _, k in keyed(n.program, "fp32"))
            for n in reference_networks(FEW)
        }

    @contextmanager
    def open(self, setup: Setup) -> Generator[Board]:
        yield self

    def measure(self, models: Sequence[Model], method: Method) -> Iterator[Measured | Failed]:
        slow = (1.0, 1.0, 1.0, 1.0, 1.5, 1.5)
        if len(models) == 1:
            yield Measured(models[0].name, (290.0,) * 10)
            return
        assert models[0].name == REFERENCE
        for model in models[1:]:
            if model.name == self.refuses:
                yield Failed(model.name, "no kernel")
                continue
            times = tuple(self.us[model.name] * s for s in slow)
            yield Measured(model.name, times, tuple(300.0 * s for s in slow))


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (calibration, api_calibrate):
        monkeypatch.setattr(module, "REFERENCE_NETWORKS", FEW)
    defaults = (FEW,)
    monkeypatch.setattr(reference_networks, "__defaults__", defaults)


def test_a_slower_board_is_learnt_and_the_new_error_stated() -> None:
    counted: list[None] = []
    found = calibrate_table(
        TABLE, Board(), Setup("tflite", 4), ("fp32",), lambda: counted.append(None)
    )
    assert len(counted) == len(FEW) * PASSES
    assert found.before_percent["fp32"] == pytest.approx(100 * (1 - 1 / 1.7), abs=1)
    assert found.after_percent["fp32"] < 3
    scales = [c.scale for c in found.table.corrections["fp32"].by_class.values()]
    assert min(scales) == pytest.approx(1.7, rel=0.05)
    rows = [row for row in found.table.validation if row.precision == "fp32"]
    assert {row.network for row in rows} == {network.name for network in FEW}
    assert (
        "corrected by 4 networks on board (a chip, tflite 2.3, 4 threads" in found.table.meta.note
    )


def test_when_the_time_is_up_the_quickest_handful_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibration, "TOGETHER", 1)
    monkeypatch.setattr(calibration, "HANDFUL", 3)
    counted: list[None] = []
    found = calibrate_table(
        TABLE, Board(), Setup("tflite"), ("fp32",), lambda: counted.append(None), seconds=0.0
    )
    assert len(counted) == 3
    slowest = max(Board().us.items(), key=lambda item: item[1])[0]
    assert found.missing == {"fp32": (slowest,)}
    assert {row.network for row in found.table.validation if row.precision == "fp32"} == {
        network.name for network in FEW if network.name != slowest
    }
    assert "corrected by 3 networks" in found.table.meta.note


def test_a_device_is_reached_before_networks_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(Board):
        def open(self, setup: Setup) -> Never:
            raise DeviceError("it is switched off")

    board = Gone()
    monkeypatch.setattr(calibration, "reference_networks", lambda: pytest.fail("too early"))
    with pytest.raises(DeviceError, match="switched off"):
        calibrate_table(TABLE, board, Setup("tflite"), ("fp32",), lambda: None)


def test_a_second_correction_starts_from_the_table_as_shipped() -> None:
    setup = Setup("tflite")
    once = calibrate_table(TABLE, Board(), setup, ("fp32",), lambda: None)
    twice = calibrate_table(once.table, Board(), setup, ("fp32",), lambda: None)
    assert twice.table.corrections == once.table.corrections


def test_a_network_that_disagrees_is_said_and_not_averaged() -> None:
    board = Board()
    board.us[FEW[2].name] *= 4
    found = calibrate_table(TABLE, board, Setup("tflite"), ("fp32",), lambda: None)
    assert FEW[2].name in found.disagreeing["fp32"]
    scales = [c.scale for c in found.table.corrections["fp32"].by_class.values()]
    assert max(scales) < 2.5
    for name in board.us:
        board.us[name] *= 3 if name in (FEW[0].name, FEW[2].name) else 1
    with pytest.raises(TableError, match=r"of 4 networks disagree .* shrinkc profile"):
        calibrate_table(TABLE, board, Setup("tflite"), ("fp32",), lambda: None)


def test_a_hot_board_rests_and_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shrinkc.compiler.profile.pace.RESTS_S", (0.01,))
    board = Board(conditions={"temperature_c": 85.0})
    found = calibrate_table(TABLE, board, Setup("tflite"), ("fp32",), lambda: None)
    assert "85 °C" in found.throttled


def test_a_network_that_the_device_refuses_is_named() -> None:
    board = Board(refuses=FEW[1].name)
    with pytest.raises(DeviceError, match=r"refuses separable 1.0, 192: no kernel"):
        calibrate_table(TABLE, board, Setup("tflite"), ("fp32",), lambda: None)


def test_the_command_saves_a_table_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHRINKC_TABLES", str(tmp_path))
    monkeypatch.setattr("shrinkc.compiler.api.calibrate.parse_device", lambda *_: Board())
    assert main(["calibrate", "rpi4/tflite-ruy", "--on", "host", "--precision", "fp32"]) == 0
    assert "rpi4/tflite-ruy now means this table" in capsys.readouterr().out.replace("\n", " ")
    key = next(iter(keyed(next(reference_networks(FEW)).program, "fp32")))[1]
    ratio = load_table("rpi4/tflite-ruy").estimate(key).ms / TABLE.estimate(key).ms
    assert ratio == pytest.approx(1.7, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rpi9", "--on", "host"), "unknown target 'rpi9'"),
        (("rpi4", "--on", "nowhere"), "no device 'nowhere'"),
        (("rpi4", "--on", "host", "--runtime", "ncnn"), "--runtime ncnn: host has tflite"),
        (("rpi4", "--on", "host", "--precision", "fp16"), "--precision fp16: the table has"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
