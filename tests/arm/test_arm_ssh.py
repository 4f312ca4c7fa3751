"""A user's own board, from the first connection to a table that is handed on: real ssh to a login
whose Python is the emulated Arm's. Its times mean nothing, but that they agree with each other."""

from __future__ import annotations

import getpass
import json
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import device_doubles as doubles
import pytest
import ssh_server
from arm_emulator import LITERT, Emulator

from shrinkc.compiler.cli.main import main
from shrinkc.latency_tables.store import load_table

pytestmark = [
    pytest.mark.arm,
    pytest.mark.skipif(not ssh_server.INSTALLED, reason=ssh_server.MISSING),
]

BOARD = "Raspberry Pi 4 Model B Rev 1.4"
DIGITS = ("examples/digits.pt", "--arch", "examples.digits_net:digits_net", "--input", "1,1,32,32")
CORE = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\n"
DEVICE_ERROR = 7


@dataclass(frozen=True)
class Board:
    """`on` is what the user writes, `folder` the user's own, `keys` the server's."""

    on: str
    login: tuple[str, ...]
    folder: Path
    keys: Path
    celsius: Path

    def says(self, *arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
        capsys.readouterr()
        code = main([*arguments, "--json"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return {**json.loads(captured.out), "stderr": captured.err}


def linux(root: Path, emulator: Emulator) -> Path:
    """The emulator's files under `root`, and what Linux tells of a Pi 4; its sensor."""
    for name in ("usr", "lib", "etc"):
        (root / name).symlink_to(emulator.folder / "root" / name)
    sensor = root / "sys" / "class" / "thermal" / "thermal_zone0" / "temp"
    files = {
        root / "proc" / "device-tree" / "model": f"{BOARD}\0",
        root / "proc" / "cpuinfo": CORE * 4,
        sensor: "51000\n",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return sensor


@pytest.fixture
def board(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    if not emulator.has(LITERT):
        pytest.skip(f"no wheels of {LITERT} for the root's Python")
    here, user, keys = (tmp_path / name for name in ("board", "user", "keys"))
    for folder in (here / "root", user, keys):
        folder.mkdir(parents=True)
    for name in ("tools", "sites"):
        (here / name).symlink_to(emulator.folder / name)
    celsius = linux(here / "root", emulator)
    python = Emulator(here).command(site=LITERT.site)
    doubles.program(here / "bin" / "python3", f'exec {shlex.join(python)} "$@"')
    # as a login does: a shell of its own, in which python3 is the board's
    path = f"PATH={here / 'bin'}:/usr/bin:/bin"
    shell = f'exec env {path} sh -c "$SSH_ORIGINAL_COMMAND"'
    with ssh_server.running(keys, ForceCommand=shell) as port:
        (keys / "authorized_keys").write_text("")
        (keys / "user_key").rename(user / "user_key")
        ssh_server.client(user, monkeypatch)
        monkeypatch.setenv("SHRINKC_TABLES", str(user / "tables"))
        name = f"{getpass.getuser()}@127.0.0.1"
        yield Board(f"ssh://{name}:{port}", ("-p", str(port), name), user, keys, celsius)


def let_in(board: Board) -> None:
    """What ssh and ssh-copy-id do when they are told yes."""
    public = (board.keys / "host_key.pub").read_text()
    _, port, name = board.login
    (board.folder / "known_hosts").write_text(f"[{name.partition('@')[2]}]:{port} {public}")
    (board.keys / "authorized_keys").write_text((board.keys / "user_key.pub").read_text())


def test_a_first_connection_says_each_step(
    board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every message names the command that makes the next one go away; the first is typed here."""
    ask = ["calibrate", "rpi4", "--on", board.on]
    assert main(ask) == DEVICE_ERROR
    connect = f"ssh {shlex.join(board.login)}"
    assert f"connect once and compare the key that is shown: {connect}\n" in capsys.readouterr().err
    told = [*shlex.split(connect), "true"]
    accept = [told[0], "-oStrictHostKeyChecking=accept-new", "-oBatchMode=yes", *told[1:]]
    assert subprocess.run(accept, capture_output=True).returncode == 255
    assert main(ask) == DEVICE_ERROR
    copy = f"let it in with ssh-copy-id {shlex.join(board.login)}"
    assert copy in capsys.readouterr().err
    let_in(board)
    bare = f"{board.on}/nowhere/python"
    assert main(["calibrate", "rpi4", "--on", bare]) == DEVICE_ERROR
    assert "no /nowhere/python there; install Python 3.8" in capsys.readouterr().err


def test_a_boards_own_table_from_profile_to_the_next_users(
    board: Board,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    summary: list[str],
) -> None:
    let_in(board)
    started = time.monotonic()
    profile = ("profile", *DIGITS, "--target", "mypi", "--on", board.on)
    quick = ("--widths", "1", "--budget-minutes", "1")
    (table,) = board.says(*profile, *quick, capsys=capsys)["tables"]
    summary.append(f"profile over ssh: {table['operators']} in {time.monotonic() - started:.0f} s")
    assert (table["device"], table["missing"], table["throttled"]) == (BOARD, 0, None)
    assert table["not_measured"] == []
    meta = load_table("mypi").meta
    assert (meta.soc, meta.kind) == ("4 Cortex-A72 (aarch64)", "measured")
    assert "51–51 °C" in meta.note
    assert "--on ssh" in meta.source  # no address goes with it
    told = board.says("estimate", *DIGITS, "--target", "mypi", capsys=capsys)
    handed = board.folder / "mypi.json"
    board.says("tables", "export", "mypi", str(handed), capsys=capsys)
    monkeypatch.setenv("SHRINKC_TABLES", str(board.folder / "next"))
    board.says("tables", "import", str(handed), "--name", "theirs", capsys=capsys)
    again = board.says("estimate", *DIGITS, "--target", "theirs", capsys=capsys)
    assert again["total_ms"] == told["total_ms"] > 0


def test_a_board_that_is_hot_is_told_of(
    board: Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    let_in(board)
    board.celsius.write_text("84500\n")
    monkeypatch.setattr("shrinkc.compiler.profile.pace.RESTS_S", (0.1,))
    profile = ("profile", *DIGITS, "--target", "hot", "--on", board.on)
    quick = ("--widths", "1", "--budget-minutes", "0.2")
    said = board.says(*profile, *quick, capsys=capsys)
    assert said["tables"][0]["throttled"].startswith("throttled (84 °C): rested")
    assert "a fan or a heat sink" in said["stderr"]
    assert "throttled (84 °C)" in load_table("hot").meta.note


def test_a_table_is_calibrated_in_as_many_networks_as_the_time_allows(
    board: Board, capsys: pytest.CaptureFixture[str], summary: list[str]
) -> None:
    """In an emulator the quickest six take a minute, of which this asks for none."""
    let_in(board)
    started = time.monotonic()
    calibrate = ("calibrate", "rpi4", "--on", board.on, "--precision", "fp32", "--name", "mypi4")
    said = board.says(*calibrate, "--budget-minutes", "0", capsys=capsys)
    before, after = (said[f"error_{when}_percent"]["fp32"] for when in ("before", "after"))
    summary.append(
        f"calibrate over ssh: {said['networks']} networks in {time.monotonic() - started:.0f} s, "
        f"{before:.0f}% → {after:.0f}%"
    )
    assert said["networks"] == 6
    assert "the time was up before 6 networks" in said["stderr"]
    assert before > 90
    assert after < 40
    assert "corrected by 6 networks" in load_table("mypi4").meta.note
