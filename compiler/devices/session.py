"""Jobs for the runner at the other end of a link, and its failures as one line each."""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from shrinkc.compiler.devices.answers import (
    Answer,
    At,
    Done,
    FailedAnswer,
    MeasuredAnswer,
    NonsenseError,
    RanAnswer,
    Refusal,
    Version,
    read_answer,
    read_hello,
)
from shrinkc.compiler.devices.jobs import (
    REFERENCE,
    Array,
    Failed,
    Measured,
    Method,
    Model,
    Ran,
    Setup,
)
from shrinkc.compiler.devices.link import Link, LinkEndedError, last_words
from shrinkc.compiler.devices.runner import PROTOCOL
from shrinkc.compiler.support.text import shown
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
        self._asked: frozenset[str] = frozenset()
        self._model, self._doing = "", ""
        self._conditions: Mapping[str, Any] = {}
        with self._told():
            link.send({"job": "hello", "runtime": setup.runtime})
            text = link.receive()
            answer = self._answer(text)
            if not isinstance(answer, Version):
                raise NonsenseError(f"a hello is expected, and it says {answer.event}")
            if answer.protocol != PROTOCOL:
                raise DeviceError(
                    f"{place.name}: a runner of another shrinkc answers (protocol "
                    f"{answer.protocol}, here {PROTOCOL}); end it there, and see what "
                    f"{place.python} is"
                )
            self.environment: Mapping[str, Any] = read_hello(text).model_dump()

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
        left = {model.name for model in models if model.name != REFERENCE}
        with self._told():
            self._send(job, models)
            for answer in self._answers(len(models) * (method.warmup + method.rounds[1] + 3) + 1):
                if isinstance(answer, Done) and not left:
                    self._conditions = answer.after.model_dump()
                    return
                if isinstance(answer, FailedAnswer) and answer.model in (*left, REFERENCE):
                    left.discard(answer.model)
                    yield Failed(answer.model, answer.error)
                elif isinstance(answer, MeasuredAnswer) and answer.model in left:
                    left.remove(answer.model)
                    yield self._measured(answer, method)
                elif not isinstance(answer, At):
                    raise NonsenseError(f"{answer.event} of what was not asked")

    def run(self, model: Model, inputs: Sequence[Array] | None) -> Ran | Failed:
        given = None if inputs is None else [_encoded(array) for array in inputs]
        with self._told():
            self._send({"job": "run", "inputs": given}, (model,))
            answer = next(a for a in self._answers(3) if not isinstance(a, At))
            if isinstance(answer, FailedAnswer):
                return Failed(model.name, answer.error)
            if not isinstance(answer, RanAnswer):
                raise NonsenseError(f"{answer.event} of what was not asked")
            used = inputs if inputs is not None else [one.array() for one in answer.inputs]
            outputs = tuple(one.array() for one in answer.outputs)
        memory = answer.idle_memory_bytes, answer.peak_memory_bytes
        runtime = f"{answer.runtime} {answer.runtime_version}"
        return Ran(tuple(used), outputs, *memory, runtime)

    def _measured(self, answer: MeasuredAnswer, method: Method) -> Measured:
        """Raises NonsenseError for times that the rounds asked for cannot take."""
        times, reference = answer.times_us, answer.reference_us
        if len(times) > method.rounds[1] or len(reference) not in (0, len(times)):
            raise NonsenseError(f"{len(times)} times beside {len(reference)} of the reference")
        if max((*times, *reference)) > self._setup.timeout_s * 1e6:
            raise NonsenseError("a run that took longer than it may be silent")
        own = method.undisturbed or method.kernels  # what is left of a run may be nothing
        if not own and min(times) == 0:
            raise NonsenseError("a run that took no time")
        return Measured(answer.model, times, reference, answer.kernels)

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
        self._asked = frozenset(model.name for model in models)
        common = {"threads": self._setup.threads, "models": listed}
        self._link.send({**job, **common}, [model.data for model in models])

    def _answers(self, most: int) -> Iterator[Answer]:
        """Answers to one job. A runner says a word before every run, and one result: one that says
        more never ends. Raises NonsenseError."""
        for _ in range(most):
            yield self._answer(self._link.receive())
        raise NonsenseError(f"over {most:,} answers to one job")

    def _answer(self, text: bytes) -> Answer:
        answer = read_answer(text)
        if isinstance(answer, Refusal):
            raise DeviceError(f"{self._place.name}: {self._refusal(answer)}")
        if isinstance(answer, At):
            if answer.model not in self._asked:
                raise NonsenseError(f"it runs {shown(answer.model)}, which nobody sent")
            self._model, self._doing = answer.model, answer.doing
        return answer

    def _refusal(self, answer: Refusal) -> str:
        python, error = self._place.python, answer.error
        match answer.kind:
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
        except NonsenseError as nonsense:
            raise DeviceError(
                f"{self._place.name}: answers what no runner says ({nonsense}); restart it, and "
                f"see what {self._place.python} there is"
            ) from None
        except LinkEndedError as ended:
            why = _why(self._place, ended)
            if not self._model:
                raise DeviceError(f"{self._place.name}: {why}") from None
            at = f"while {self._doing} {shown(self._model)}"
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
