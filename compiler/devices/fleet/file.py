"""A fleet's file: boards, how each is reached, and of which kind it is.

    [[boards]]
    name = "lab-1"
    address = "ssh://pi@lab-1"
    kind = "pi4"
    target = "pi4-lab"
    threads = 4

    [[boards]]
    name = "lab-2"
    address = "ssh://pi@lab-2"
    kind = "pi4"

Boards of one kind are run alike and fill one table: what one of them states holds for all, and two
that contradict each other are refused.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from shrinkc.compiler.devices.adb import FORM as ADB
from shrinkc.compiler.devices.jobs import Device, Setup
from shrinkc.compiler.devices.parse import parse_device
from shrinkc.compiler.devices.ssh import Ssh
from shrinkc.compiler.support.reading.regular_file import read_regular
from shrinkc.compiler.support.text import one_line, shown
from shrinkc.errors import InputError, LoadError, ShrinkcError
from shrinkc.latency_tables.target import Target

MAX_BYTES = 1 << 20
MAX_BOARDS = 1000
MAX_TEXT = 200  # characters of a name, an address, a path
MAX_THREADS = 1024
SSH_PORT = 22
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_NEEDED = ("name", "address", "kind")
_ALIKE = ("target", "runtime", "threads", "benchmark_model")  # what boards of one kind share
_KEYS = (*_NEEDED, *_ALIKE)


@dataclass(frozen=True)
class Board:
    """`target` and `runtime` are empty, `threads` is None where nothing is said of the kind."""

    name: str
    kind: str
    device: Device
    target: str = ""
    runtime: str = ""
    threads: int | None = None

    def setup(self, otherwise: Setup) -> Setup:
        """How it is run; `otherwise` holds where the file says nothing."""
        return Setup(
            self.runtime or otherwise.runtime,
            self.threads or otherwise.threads,
            otherwise.timeout_s,
        )


@dataclass(frozen=True)
class Fleet:
    """The boards of a file, in its order; at least one."""

    path: Path
    boards: tuple[Board, ...]


def read_fleet(path: Path, benchmark_model: str | None = None) -> Fleet:
    """`benchmark_model` is for the phones of kinds that name none.

    Raises LoadError for what cannot be read or is no TOML, InputError for what a fleet cannot be:
    both name the file, and the board. Nothing is contacted.
    """
    entries = _entries(path)
    for number, entry in enumerate(entries, 1):
        _check_entry(f"{path}: {_called(entry, number)}", entry)
    _one_name_each(path, [str(entry["name"]) for entry in entries])
    shared = _shared(path, entries)
    boards = [_board(path, entry, shared[entry["kind"]], benchmark_model) for entry in entries]
    _one_address_each(path, boards)
    _one_kind_a_target(path, boards)
    return Fleet(path, tuple(boards))


def _entries(path: Path) -> list[dict[str, Any]]:
    """What stands under [[boards]]."""
    try:
        content = tomllib.loads(read_regular(path, MAX_BYTES).decode("utf-8"))
    except OSError as error:
        raise LoadError(f"{path}: cannot be read: {error.strerror}") from error
    except RecursionError:
        raise LoadError(f"{path}: not valid TOML: nested too deep") from None
    except ValueError as error:  # of text that is no UTF-8, of numbers and dates as well
        raise LoadError(f"{path}: not valid TOML: {one_line(error)}") from None
    _only(str(path), content, ("boards",))
    found: Any = content.get("boards", [])
    if not isinstance(found, list) or not all(
        isinstance(x, dict) for x in cast("list[Any]", found)
    ):
        raise InputError(f"{path}: boards is no list: begin every board with [[boards]]")
    entries = cast("list[dict[str, Any]]", found)
    if not entries:
        raise InputError(f"{path}: no board in it; begin each with [[boards]]")
    if len(entries) > MAX_BOARDS:
        raise InputError(f"{path}: {len(entries):,} boards; at most {MAX_BOARDS:,}, so split it")
    return entries


def _called(entry: Mapping[str, Any], number: int) -> str:
    name = entry.get("name")
    return shown(name, 60) if isinstance(name, str) and name else f"board {number}"


def _only(where: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    unknown = [key for key in given if key not in known]
    if unknown:
        raise InputError(f"{where}: unknown key {shown(unknown[0], 60)}; known: {', '.join(known)}")


def _check_entry(where: str, entry: Mapping[str, Any]) -> None:
    """The keys, and the type and size of every value."""
    _only(where, entry, _KEYS)
    for key in _NEEDED:
        if key not in entry:
            raise InputError(f"{where}: no {key}; a board has {', '.join(_NEEDED)}")
    for key, value in entry.items():
        if key == "threads":
            if type(value) is not int or not 1 <= value <= MAX_THREADS:
                raise InputError(f"{where}: threads is no whole number from 1 to {MAX_THREADS:,}")
        elif not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
            raise InputError(f"{where}: {key} is no text of 1 to {MAX_TEXT} characters")
    for key in ("name", "kind"):
        if not _NAME.fullmatch(entry[key]):
            raise InputError(
                f"{where}: {key} {shown(entry[key], 60)}: write up to 60 letters, digits, dots, "
                "dashes and underscores"
            )


def _one_name_each(path: Path, names: Sequence[str]) -> None:
    """Files are named after boards, so that upper and lower case are one."""
    for name, count in Counter(name.casefold() for name in names).items():
        if count > 1:
            twice = " and ".join(dict.fromkeys(n for n in names if n.casefold() == name))
            raise InputError(f"{path}: {twice}: listed {count} times; give each board its own name")


def _shared(path: Path, entries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Kind → what its boards state. Raises InputError for boards that contradict each other."""
    found: dict[str, dict[str, Any]] = {}
    first: dict[tuple[str, str], str] = {}
    for entry in entries:
        kind = str(entry["kind"])
        known = found.setdefault(kind, {})
        for key in _ALIKE:
            if key not in entry:
                continue
            other = first.setdefault((kind, key), str(entry["name"]))
            if known.setdefault(key, entry[key]) != entry[key]:
                raise InputError(
                    f"{path}: {entry['name']}: {key} {entry[key]}, and {other}, of the same kind "
                    f"{kind}, has {known[key]}: boards of one kind are run alike and fill one table"
                )
    return found


def _board(
    path: Path, entry: Mapping[str, Any], alike: Mapping[str, Any], benchmark_model: str | None
) -> Board:
    where, address = f"{path}: {entry['name']}", str(entry["address"])
    phone = address.startswith(f"{ADB.partition(':')[0]}:")
    if "benchmark_model" in entry and not phone:
        raise InputError(f"{where}: benchmark_model is for phones, and its address is {address}")
    tool = alike.get("benchmark_model")
    beside = path.parent / tool if tool else None
    tool = str(beside) if beside is not None and beside.is_file() else tool or benchmark_model
    try:
        device = parse_device(address, tool if phone else None)
        target = str(Target.parse(alike["target"])) if "target" in alike else ""
    except ShrinkcError as error:
        raise InputError(f"{where}: {error}") from None
    runtime = str(alike.get("runtime", ""))
    if runtime and runtime not in device.runtimes:
        known = ", ".join(device.runtimes)
        raise InputError(f"{where}: runtime {runtime}: {device.name} has {known}")
    return Board(
        str(entry["name"]), str(entry["kind"]), device, target, runtime, alike.get("threads")
    )


def _one_address_each(path: Path, boards: Sequence[Board]) -> None:
    """Runs on one board disturb each other."""
    found: dict[str, Board] = {}
    for board in boards:
        other = found.setdefault(_place(board.device), board)
        if other is not board:
            raise InputError(
                f"{path}: {other.name} and {board.name} are one board: both are at "
                f"{_place(board.device)}; keep one of the two"
            )


def _place(device: Device) -> str:
    """The machine, whoever logs in there, in whichever Python."""
    if isinstance(device, Ssh):
        return f"ssh://{device.host.lower()}:{device.port or SSH_PORT}"
    return device.name


def _one_kind_a_target(path: Path, boards: Sequence[Board]) -> None:
    found: dict[str, Board] = {}
    for board in boards:
        other = found.setdefault(board.target, board) if board.target else board
        if other.kind != board.kind:
            raise InputError(
                f"{path}: {other.name} ({other.kind}) and {board.name} ({board.kind}) are of "
                f"different kinds and would fill one table, {board.target}: give each kind its own"
            )
