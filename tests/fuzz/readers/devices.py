"""What a board answers, what a phone's tool prints, and what follows `--on`."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, cast

import fake_board
import mutate
from reader import Files, Reader

from shrinkc.compiler.devices.benchmark_model import inference_us
from shrinkc.compiler.devices.fleet.file import read_fleet
from shrinkc.compiler.devices.jobs import Method, Model, Setup
from shrinkc.compiler.devices.link import Link, LinkEndedError, last_words, next_answer
from shrinkc.compiler.devices.parse import parse_device
from shrinkc.compiler.devices.session import Place, RunnerSession

_PLACE = Place("ssh://board", ("ssh",), "python3", lambda _: None)
_ARRAY = {"dtype": "float32", "shape": [1, 2], "data": "AAAAAAAAAAA="}


def _talks() -> list[Files]:
    measured = fake_board.measured("m", [1.5, 2.0], reference_us=[3.0, 3.5], kernels=2)
    failed = {"event": "failed", "model": "n", "error": "no such operator"}
    talks: tuple[list[dict[str, Any]], ...] = (
        [fake_board.HELLO, fake_board.at("m"), measured, failed, fake_board.DONE],
        [fake_board.HELLO, fake_board.at("m"), fake_board.ran(_ARRAY)],
    )
    return [{"said": b"".join(map(fake_board.line, talk))} for talk in talks]


def _changed_talk(rng: Random, files: Files) -> Files:
    if rng.random() < 0.2:
        return {"said": mutate.text(rng, files["said"], (b"\x1e", b"\x1e{}"))}
    talk = [json.loads(line[1:]) for line in files["said"].splitlines()]
    changed = mutate.tree(
        rng, talk, ("m", "n", "reference", "hello", "done", "float64", fake_board.DONE)
    )
    said = changed if isinstance(changed, list) else [changed]
    lines = (mutate.json_bytes(rng, one).replace(b"\n", b" ") for one in said)
    return {"said": b"".join(b"\x1e" + line + b"\n" for line in lines)}


class _Board:
    """A link to what was said before."""

    def __init__(self, said: bytes) -> None:
        self._stream = io.BytesIO(said)

    def send(self, message: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        json.dumps(message)

    def receive(self) -> bytes:
        answer = next_answer(self._stream)
        if answer is None:
            raise LinkEndedError(
                1, last_words(self._stream.getvalue().decode("utf-8", "replace")), None
            )
        return answer


def _listen(folder: Path) -> None:
    said = (folder / "said").read_bytes()
    session = RunnerSession(_PLACE, Setup("tflite"), cast("Link", _Board(said)))
    if b'"ran"' in said:
        session.run(Model("m", b""), None)
        return
    method = Method(rounds=(1, 5), undisturbed=True)
    list(session.measure([Model(name, b"") for name in ("reference", "m", "n")], method))


def _printed() -> list[Files]:
    return [
        {
            "said": b"count=12 first=9 curr=8 min=7 max=9 avg=8.1 std=1 p5=7 median=8 p95=9\n"
            b"Inference timings in us: Init: 5, Inference (avg): 8.16\n"
        }
    ]


def _changed_text(rng: Random, files: Files) -> Files:
    return {name: mutate.text(rng, data) for name, data in files.items()}


def _listen_to_tool(folder: Path) -> None:
    found = inference_us((folder / "said").read_bytes().decode("utf-8", "replace"))
    assert found is None or 0 <= found < 1e200, f"{found} µs"


_ON = (
    *("host", "cuda", "ssh://pi@board:22/opt/python3", "ssh://[fe80::1]:2222", "adb:8A1X0QZ"),
    *("adb:192.168.1.5:5555/data/local/tmp/py", "ssh://board/~/env/bin/python"),
)


def _devices() -> list[Files]:
    return [{"on": text.encode()} for text in _ON]


def _changed_device(rng: Random, files: Files) -> Files:
    text = files["on"].decode()
    parts = (
        "ssh://",
        "adb:",
        "@",
        ":",
        "/",
        "-oProxyCommand=sh",
        "$(ran)",
        "`ran`",
        ";",
        "'",
        "\n",
        "\0",
        "[",
        "]",
        "~",
        "..",
    )
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(text) + 1)
        cut = rng.choice((0, 0, 1, 3))
        text = (
            text[:at] + rng.choice((*parts, *mutate.TEXTS, mutate.letters(rng))) + text[at + cut :]
        )
    return {"on": text.encode("utf-8", "surrogatepass")}


def _parse(folder: Path) -> None:
    """A device that is taken is named as it is written, and nothing of it is an option of ssh."""
    text = (folder / "on").read_bytes().decode("utf-8", "surrogatepass")
    device = parse_device(text)
    assert device.name.isprintable()
    host = getattr(device, "host", "x")
    assert not host.startswith("-"), f"{host} is an option"


_FLEET = """[[boards]]
name = "lab-1"
address = "ssh://pi@lab-1:22/bin/python"
kind = "pi4"
target = "pi4-lab"
threads = 4

[[boards]]
name = "phone"
address = "adb:8A1X0QZ"
kind = "pixel"
runtime = "tflite"
benchmark_model = "/data/tool"
"""


def _changed_fleet(rng: Random, files: Files) -> Files:
    words = (b"[[boards]]", b"threads = 1", b'kind = "pi4"', b'"host"', b"'../x'", b"1979-05-27")
    return {name: mutate.text(rng, data, words) for name, data in files.items()}


def _read_boards(folder: Path) -> None:
    """Boards of their own, whose names can stand in the name of a file."""
    boards = read_fleet(folder / "boards.toml").boards
    assert len({board.name.casefold() for board in boards}) == len(boards) > 0
    for board in boards:
        assert Path(board.name).name == board.name, board.name
        assert board.name.isascii(), board.name
        assert board.threads is None or board.threads > 0


READERS = (
    Reader("fleet", lambda: [{"boards.toml": _FLEET.encode()}], _changed_fleet, _read_boards),
    Reader("board", _talks, _changed_talk, _listen),
    Reader("tool", _printed, _changed_text, _listen_to_tool),
    Reader("on", _devices, _changed_device, _parse),
)
