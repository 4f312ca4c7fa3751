"""Jobs for the runner at the other end of a link, and its failures as one line each."""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from shrinkc.compiler.devices.jobs import Array, Failed, Measured, Method, Model, Ran, Setup
from shrinkc.compiler.devices.link import Link, LinkEndedError, last_words
from shrinkc.compiler.devices.runner import PROTOCOL
from shrinkc.errors import DeviceError, DeviceLostError

# Exit codes of a process ended by a signal, as shells report it (128 + n) or Popen does (−n).
_SIGNALS = {
    4: "its processor lacks an instruction that the runtime uses; install a build of the runtime "
    "for that processor",
    6: "the runtime there gave up",
    7: "the runtime there crashed",
    8: "the runtime there crashed",
    9: "the process there was killed, most likely for want of memory",
    11: "the runtime there crashed",
    15: "the process there was ended",
}


@dataclass(frozen=True)
class Place:
    """Where a session runs: its `name`, how to start a Python there, and `explain`: why one that
    ended did, in the transport's own terms; None where it does not know better.

    `python` is what the messages call the interpreter. `send_runner` is False where the command
    starts a runner of its own.
    """

    name: str
    argv: tuple[str, ...]
    python: str
    explain: Callable[[LinkEndedError], str | None]
    send_runner: bool = True


@contextmanager
def open_session(place: Place, setup: Setup) -> Generator[RunnerSession]:
    """Raises DeviceError when there is no such device, Python or runtime."""
    try:
        link = Link(place.argv, setup.timeout_s, place.send_runner)
    except LinkEndedError as ended:
        raise DeviceError(f"{place.name}: {_why(place, ended)}") from None
    try:
        yield RunnerSession(place, setup, link)
    finally:
        link.close()


class RunnerSession:
    """A `Session` with a runner."""

    def __init__(self, place: Place, setup: Setup, link: Link) -> None:
        self._place, self._setup, self._link = place, setup, link
        self._model, self._doing = "", ""
        self._conditions: Mapping[str, Any] = {}
        with self._told():
            link.send({"job": "hello", "runtime": setup.runtime})
            self._hello = self._receive()
        if self._hello["protocol"] != PROTOCOL:
            raise DeviceError(f"{place.name}: its runner speaks another protocol")

    @property
    def environment(self) -> Mapping[str, Any]:
        return {k: v for k, v in self._hello.items() if k not in ("event", "protocol")}

    @property
    def conditions(self) -> Mapping[str, Any]:
        return self._conditions

    def measure(self, models: Sequence[Model], method: Method) -> Iterator[Measured | Failed]:
        job = {
            "job": "measure",
            "warmup": method.warmup,
            "rounds": list(method.rounds),
            "seconds": method.seconds,
            "ballast_bytes": method.ballast_bytes,
            "turn": method.turn,
            "kernels": method.kernels,
            "undisturbed": method.undisturbed,
        }
        with self._told():
            self._send(job, models)
            while (answer := self._receive())["event"] != "done":
                if answer["event"] == "failed":
                    yield Failed(answer["model"], answer["error"])
                elif answer["event"] == "measured":
                    times, reference = tuple(answer["times_us"]), tuple(answer["reference_us"])
                    yield Measured(answer["model"], times, reference, answer["kernels"])
            self._conditions = answer["after"]

    def run(self, model: Model, inputs: Sequence[Array] | None) -> Ran | Failed:
        given = None if inputs is None else [_encoded(array) for array in inputs]
        with self._told():
            self._send({"job": "run", "inputs": given}, (model,))
            while (answer := self._receive())["event"] == "at":
                pass
        if answer["event"] == "failed":
            return Failed(model.name, answer["error"])
        used = inputs if inputs is not None else [_decoded(a) for a in answer["inputs"]]
        outputs = tuple(_decoded(array) for array in answer["outputs"])
        memory = answer["idle_memory_bytes"], answer["peak_memory_bytes"]
        runtime = f"{answer['runtime']} {answer['runtime_version']}"
        return Ran(tuple(used), outputs, *memory, runtime)

    def _send(self, job: dict[str, Any], models: Sequence[Model]) -> None:
        listed: list[dict[str, Any]] = [
            {
                "name": model.name,
                "bytes": len(model.data),
                "key": model.key and asdict(model.key),
                "runtime": model.runtime or self._setup.runtime,
            }
            for model in models
        ]
        common = {"threads": self._setup.threads, "models": listed}
        self._link.send({**job, **common}, [model.data for model in models])

    def _receive(self) -> dict[str, Any]:
        answer = self._link.receive()
        if answer["event"] == "refused":
            raise DeviceError(f"{self._place.name}: {self._refusal(answer)}")
        if answer["event"] == "at":
            self._model, self._doing = answer["model"], answer["doing"]
        return answer

    def _refusal(self, answer: dict[str, Any]) -> str:
        python, error = self._place.python, answer["error"]
        match answer["kind"]:
            case "no-numpy":
                return f"{python} has no numpy: {python} -m pip install numpy ({error})"
            case "new-numpy":
                return f"{error} cannot work with numpy 2: {python} -m pip install 'numpy<2'"
            case "no-runtime":
                package = error.split(" or ")[0]
                return f"{python} has no {error}: {python} -m pip install {package}"
            case "broken-runtime":
                return f"{error}; install the build of it for that machine's processor and Python"
            case "disk-full":
                return f"no space left in {error}; free some, or set TMPDIR there"
            case _:
                return error

    @contextmanager
    def _told(self) -> Generator[None]:
        """The end of the link as a DeviceError; once models run, it names the one that did."""
        try:
            yield
        except LinkEndedError as ended:
            why = _why(self._place, ended)
            if not self._model:
                raise DeviceError(f"{self._place.name}: {why}") from None
            at = f"while {self._doing} {self._model}"
            # a connection that breaks ends the transport: silence is the model's own
            crashed = ended.silent_s is not None or _crash(ended.code) is not None
            text = f"{self._place.name}: lost {at}: {why}"
            raise DeviceLostError(text, self._model, crashed) from None


def _why(place: Place, ended: LinkEndedError) -> str:
    if ended.silent_s is not None:
        return f"it hangs: no word for {ended.silent_s:g} s; `timeout_s` allows it more"
    known = place.explain(ended) or _crash(ended.code)
    if known:
        return known
    return f"{last_words(ended.said) or 'it ended without a word'} (exit code {ended.code})"


def _crash(code: int) -> str | None:
    number = -code if code < 0 else code - 128
    return _SIGNALS.get(number)


def _encoded(array: Array) -> dict[str, Any]:
    data = base64.b64encode(array.tobytes()).decode("ascii")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def _decoded(value: Mapping[str, Any]) -> Array:
    flat = np.frombuffer(base64.b64decode(value["data"]), np.dtype(value["dtype"]))
    return flat.reshape(value["shape"])
