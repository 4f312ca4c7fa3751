"""A board may say anything: one line, in bounded time and memory, and what was measured is kept."""

import time
import tracemalloc
from pathlib import Path
from typing import Any

import device_doubles as doubles
import pytest
from fake_board import CONDITIONS, DONE, HELLO, at, line, measured, ran, says

from shrinkc.compiler.devices import link
from shrinkc.compiler.devices.answers import NonsenseError, read_answer, read_hello
from shrinkc.compiler.devices.benchmark_model import BenchmarkModel, inference_us
from shrinkc.compiler.devices.jobs import REFERENCE, Failed, Measured, Method, Model, Setup
from shrinkc.compiler.devices.session import Place, open_session
from shrinkc.errors import DeviceError, DeviceLostError

SETUP = Setup("tflite", timeout_s=2.0)
METHOD = Method(warmup=1, rounds=(1, 3), seconds=0.0)
HELLO_LINE = line(HELLO)
ARRAY = {"dtype": "float32", "shape": [1, 2], "data": "AAAAAAAAAAA="}


def measure(place: Place, *names: str) -> list[Measured | Failed]:
    with open_session(place, SETUP) as session:
        return list(session.measure([Model(name, b"") for name in names or ("m",)], METHOD))


def refused(place: Place) -> str:
    with pytest.raises(DeviceError) as error:
        measure(place)
    text = str(error.value)
    assert text.startswith("ssh://board: ")
    assert text.isprintable()
    return text


def test_what_a_runner_says_is_taken() -> None:
    talk = (at("m"), measured("m", [1.5, 2]), {"event": "failed", "model": "n", "error": "no"})
    place = says(HELLO_LINE, b"a library prints\n", *map(line, talk), line(DONE))
    with open_session(place, SETUP) as session:
        assert session.environment["cpu"] == "Cortex-A72"
        found = list(session.measure([Model("m", b""), Model("n", b"")], METHOD))
        assert session.conditions == CONDITIONS
    assert found == [Measured("m", (1.5, 2.0)), Failed("n", "no")]


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (line({**HELLO, "protocol": 99}), "another shrinkc answers .protocol 99, here 1.; end it"),
        (line({"event": "hello", "protocol": 99}), "another shrinkc"),
        (line({**HELLO, "protocol": "x"}), "no runner says .*protocol"),
        (line({**HELLO, "cores": -1}), "no runner says .*cores"),
        (line({**HELLO, "cpu": None}), "no runner says .*cpu"),
        (line({**HELLO, "temperature_c": float("nan")}), "no runner says .*temperature_c"),
        (line(DONE), "a hello is expected"),
        (line({"event": "sing"}), "no runner says"),
        (line([]), "no runner says"),
        (b"\x1e\n", "no runner says"),
        (b"\x1e\xff\xfe\n", "no runner says"),
        (b'\x1e{"event": ' + b"[" * 50_000 + b"\n", "no runner says"),
        (b"\x1e" + b"9" * 5000 + b"\n", "no runner says"),
        (line({"event": "refused", "kind": "odd", "error": "\x1b[31mred\nline"}), r"\\x1b.31mred"),
    ],
)
def test_a_hello_that_is_none(said: bytes, text: str) -> None:
    with pytest.raises(DeviceError, match=text) as error, open_session(says(said), SETUP):
        pass
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "message",
    [
        *(
            measured("m", [wrong])
            for wrong in (float("nan"), float("inf"), -1, 0, 1e300, "1", None)
        ),
        measured("m", []),
        measured("m", [1.0] * 4),  # more rounds than were asked for
        measured("m", [1.0], reference_us=[1.0, 2.0]),
        measured("m", [1.0], reference_us=[0.0]),
        measured("m", [1.0], kernels=-1),
        measured("other", [1.0]),
        measured(REFERENCE, [1.0]),
        at("other"),
        {"event": "failed", "model": "other", "error": ""},
        {"event": "failed", "model": "m"},
        DONE,  # with nothing measured
        HELLO,
        ran(ARRAY),
        {"event": "at", "model": 5, "doing": "running"},
    ],
)
def test_a_measurement_that_is_none(message: dict[str, Any]) -> None:
    assert "no runner says" in refused(says(HELLO_LINE, line(message), line(DONE)))


def test_what_was_measured_before_is_kept() -> None:
    place = says(HELLO_LINE, line(measured("m", [1.0])), line(measured("n", [float("nan")])))
    kept: list[Measured | Failed] = []

    def measure_all() -> None:
        with open_session(place, SETUP) as session:
            kept.extend(session.measure([Model("m", b""), Model("n", b"")], METHOD))

    with pytest.raises(DeviceError, match="no runner says"):
        measure_all()
    assert kept == [Measured("m", (1.0,))]


@pytest.mark.parametrize(
    "wrong",
    [
        *({"shape": shape} for shape in ([1, 3], [-1, -2], [2**62, 2**62], [0] * 17, 2, None)),
        *({"dtype": dtype} for dtype in ("object", "float8", "f4,f4", "S8", "")),
        *({"data": data} for data in ("", "A", "!!!!", "AAAA")),
    ],
)
def test_an_array_that_is_none(wrong: dict[str, Any]) -> None:
    place = says(HELLO_LINE, line(ran({**ARRAY, **wrong})))
    with (
        open_session(place, SETUP) as session,
        pytest.raises(DeviceError, match="no runner says"),
    ):
        session.run(Model("m", b""), None)


@pytest.mark.parametrize(
    ("then", "text"),
    [
        ("time.sleep(60)", "no word for 2 s"),
        ("while True: sys.stdout.write('noise\\n')", "no word for 2 s"),
        ("while True: sys.stdout.buffer.write(b'\\x1e' + b'9' * 65536)", "MiB in one line"),
        ("while True: os.write(2, b'noise' * 9999)", "no word for 2 s"),
        ("os.close(1); time.sleep(60)", "ended without a word"),
        ("print('\\x1b]0;owned\\x07 Error: gone', file=sys.stderr); sys.exit(3)", "exit code 3"),
        ("os.fork() or time.sleep(60)", "no word for 2 s"),  # a child that holds the pipe
    ],
)
def test_floods_stalls_and_closes(then: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_LINE", 1 << 20)
    started = time.monotonic()
    tracemalloc.start()
    try:
        assert text in refused(says(HELLO_LINE, then=then))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 10


def test_words_without_end_are_counted() -> None:
    assert "answers to one job" in refused(says(HELLO_LINE, line(at("m")) * 1000))


def test_what_a_lost_board_was_running_is_named() -> None:
    with pytest.raises(DeviceLostError, match="lost while running m") as lost:
        measure(
            says(
                HELLO_LINE,
                line(at("m")),
                then="sys.stdin.buffer.readline(); os.kill(os.getpid(), 11)",
            )
        )
    assert (lost.value.model, lost.value.crashed) == ("m", True)


@pytest.mark.parametrize("said", ["1.2.3e", "e+", "nan", "-1", "9" * 400, "1e+999", ".", "\u0661"])
def test_times_of_the_tool_that_are_none(said: str) -> None:
    found = inference_us(f"count=3 median={said} Inference (avg): {said}")
    assert found is None or 0 <= found < 1e112


def phone(folder: Path, says: str, monkeypatch: pytest.MonkeyPatch) -> BenchmarkModel:
    """An adb whose phone answers like that, and everything else with an escape code."""
    doubles.program(folder / "adb", f'case "$*" in {says} *) printf "\\033[31mred\\n";; esac')
    monkeypatch.setenv("PATH", doubles.in_front(folder))
    return BenchmarkModel("SERIAL", "/data/tool")


def test_a_phone_that_answers_nonsense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = f"""*nproc*) echo "x {"9" * 5000}";; *temp*) echo "{"7" * 5000} -3 51000";;
        *good.tflite*|*676f6f64*) echo "Inference (avg): 12.5";;
        */data/tool*) echo "Inference (avg): nan";;"""
    with phone(tmp_path, says, monkeypatch).open(SETUP) as session:
        found = session.environment
        assert (found["cores"], found["temperature_c"]) == (1, 51.0)
        assert all(str(value).isprintable() for value in found.values())
        answers = list(session.measure([Model("good", b""), Model("bad", b"")], METHOD))
    good, bad = answers
    assert isinstance(good, Measured)
    assert set(good.times_us) == {12.5}
    assert isinstance(bad, Failed)
    assert bad.reason.isprintable()


def test_a_phone_that_floods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    floods = phone(tmp_path, "*getprop*) exec yes;;", monkeypatch)
    tracemalloc.start()
    try:
        with pytest.raises(DeviceError, match="no end after 2 s"), floods.open(SETUP):
            pass
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_line_of_very_many_objects_is_told_at_once() -> None:
    line = b'{"event": "done", "after": ' + b"[{}," * 100_000 + b"1" + b"]" * 100_000 + b"}"
    for read in (read_hello, read_answer):
        with pytest.raises(NonsenseError, match="over 10,000 objects and lists"):
            read(line)
