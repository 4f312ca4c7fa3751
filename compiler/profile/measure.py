"""Measure the operators of a latency table on a device.

Every operator is measured in several passes over the whole set, each time beside others: what the
machine does for a while (a slow clock, a neighbour) meets all of them alike. `_prepared` is the
method: which files run side by side, and what is an operator's own share of the times.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from statistics import median

from shrinkc.compiler.devices.jobs import REFERENCE, Failed, Measured, Method, Model, Session, Setup
from shrinkc.compiler.devices.samples import Sample, noisy, settle_all, usual_us
from shrinkc.compiler.profile.journal import Entry, Journal
from shrinkc.compiler.profile.op_files import NoFileError, OpFile, OpFiles, op_file, tiny_file
from shrinkc.compiler.profile.op_sets import NETWORK_BYTES
from shrinkc.compiler.profile.pace import Pace
from shrinkc.errors import DeviceLostError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.measured import Measurement
from shrinkc.latency_tables.table import NETWORK

PASSES = 3
ROUNDS = (6, 20)  # of every pass
GROUP = 24  # operators side by side at most
TINY = "(an inference)"
# Timed in every round: a convolution that stays in the cache, for the clock's speed.
REFERENCE_NOTE = "reference convolution"  # the µs that it took, in a table's note
REFERENCE_KEY = OpKey("conv2d", 40, 40, (3, 3), in_size=(28, 28), out_size=(28, 28))


@dataclass(frozen=True)
class Plan:
    """What to measure. `budget_s` ends the run early, once each operator was measured or the time
    is up, whichever comes first for what is left.

    Plans of devices that are measured side by side share `files`, and `turn`, which a device's
    thread holds while it computes. When all wake up at once, one after the other is soon waiting
    for its device again, and from then on they wake up one after the other: without turns all
    would be slow together, again and again.
    """

    keys: tuple[OpKey, ...]
    setup: Setup
    budget_s: float = 600.0
    passes: int = PASSES
    seed: int = 0
    files: OpFiles = field(default_factory=OpFiles, compare=False, repr=False)
    turn: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)


@dataclass(frozen=True)
class Outcome:
    """What is known now. `missing` were not reached in the budget; `failed` have their reasons.
    `throttled` says how the device got hot; empty where it did not. All of it is of the speed at
    which the reference takes `reference_us`."""

    measured: dict[OpKey, Measurement]
    failed: dict[OpKey, str]
    missing: tuple[OpKey, ...]
    noisy: tuple[OpKey, ...]
    reference_us: float | None = None
    throttled: str = ""


@lru_cache(maxsize=1 << 12)  # asked for several times in every pass, by every device
def described(key: OpKey) -> str:
    """All of a key in a few words: "conv2d 32→64 3×3/2 56×56→28×28 relu fp32"."""
    text = f"{key.op} {key.in_channels}→{key.out_channels}"
    if key.kernel != (1, 1) or key.stride != (1, 1):
        text += f" {_by(key.kernel)}" + (f"/{_same(key.stride)}" if key.stride != (1, 1) else "")
    text += f" dilated {_same(key.dilation)}" if key.dilation != (1, 1) else ""
    grouped = key.groups != 1 and key.op != "depthwise_conv2d"
    text += f" {key.groups} groups" if grouped else ""
    text += f" {_by(key.in_size)}"
    text += f"→{_by(key.out_size)}" if key.out_size != key.in_size else ""
    return f"{text} {key.activation} {key.precision}".replace(" none ", " ")


def _by(pair: tuple[int, int]) -> str:
    return f"{pair[0]}×{pair[1]}"


def _same(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else _by(pair)


def profile(
    session: Session,
    plan: Plan,
    journal: Journal,
    done: Callable[[], None],
    stop: threading.Event,
) -> Outcome:
    """Measure what the journal lacks; `done` is called once per operator and pass.

    Raises DeviceError; what was measured is in the journal by then.
    """
    pace, keys = Pace(time.monotonic() + plan.budget_s, stop), plan.keys
    with plan.turn:
        for number in range(plan.passes):
            _one_pass(session, plan, journal, keys, number, pace, done)
        found = outcome(plan, journal)
        if found.noisy and not stop.is_set():
            counts = {key: len(samples) for key, samples in journal.samples().items()}
            if all(counts[key] <= plan.passes for key in found.noisy):
                _one_pass(session, plan, journal, found.noisy, plan.passes, pace, lambda: None)
                found = outcome(plan, journal)
    return replace(found, throttled=str(pace))


@contextmanager
def _waiting(turn: threading.Lock) -> Generator[None]:
    """The turn is another device's meanwhile."""
    turn.release()
    try:
        yield
    finally:
        turn.acquire()


def outcome(plan: Plan, journal: Journal) -> Outcome:
    """What the journal says of the plan's operators."""
    speed, failed = reference_us(journal), journal.failures()
    settled = settle_all(journal.samples(), speed)
    missing = tuple(k for k in plan.keys if k not in settled and k not in failed)
    spread = tuple(key for key, measurement in settled.items() if noisy(measurement))
    return Outcome(settled, failed, missing, spread, speed)


def _one_pass(
    session: Session,
    plan: Plan,
    journal: Journal,
    keys: Sequence[OpKey],
    number: int,
    pace: Pace,
    done: Callable[[], None],
) -> None:
    """Every operator that was not measured `number` + 1 times yet, in groups."""
    counts = {key: len(samples) for key, samples in journal.samples().items()}
    failed = journal.failures()
    left = [key for key in keys if key not in failed and counts.get(key, 0) <= number]
    for _ in range(len(keys) - len(left)):
        done()
    groups = _groups(left, journal.crashed(), plan.seed + number)
    for index, group in enumerate(groups):
        if pace.over:
            return
        share = pace.remaining_s / (len(groups) - index) / max(plan.passes - number, 1)
        models, entries = _prepared(plan, group)
        timed = partial(_answers, session, models, _method(plan, group, share))
        try:
            with _waiting(plan.turn):
                journal.force()
                found = pace.settled(timed, lambda: session.conditions)
        except DeviceLostError as lost:
            at = [key for key in group if lost.model in (described(key), _base(described(key)))]
            crashed = at if lost.crashed else []
            journal.add([Entry(key, failure=str(lost), crash=True) for key in crashed])
            raise
        entries += [_entry(key, found) for key in group if _name(key) in found]
        journal.add(entries, session.conditions)
        for _ in entries:
            done()


def _answers(
    session: Session, models: Sequence[Model], method: Method
) -> dict[str, Measured | Failed]:
    return {answer.model: answer for answer in session.measure(models, method)}


def _method(plan: Plan, group: Sequence[OpKey], seconds: float) -> Method:
    if group[0].op == NETWORK:
        return Method(2, ROUNDS, seconds, NETWORK_BYTES, undisturbed=True)
    ballast = max(NETWORK_BYTES - sum(map(footprint, group)), 0)
    return Method(2, ROUNDS, seconds, ballast, plan.setup.tells_kernels, undisturbed=True)


def _prepared(plan: Plan, group: Sequence[OpKey]) -> tuple[list[Model], list[Entry]]:
    """The method: models of these operators and what goes beside them, which run side by side,
    interleaved; entries of those without a model. An operator's own is

    * with TFLite: the time of a file of it alone, less that of a network of next to nothing, which
      by itself is what an inference costs besides its operators;
    * with ONNX Runtime: what its profile says of the kernels, so that changes of layout at the
      file's boundary do not count, less what being asked costs each kernel (a kernel of next to
      nothing tells); of an operator that it computes inside the convolution in front, or changes
      the layout for, the difference that it makes between two convolutions;
    * on a GPU: its share of a graph of many copies.
    """
    setup = plan.setup
    if group[0].op == NETWORK:
        return [_tiny(setup, group[0].precision)], []
    reference, entries = _reference_key(group[0].precision), list[Entry]()
    wanted = () if setup.runtime == "pytorch" else (reference, *group)
    files = plan.files.get(wanted, setup.runtime)
    models = [_named_reference(_models(reference, files))]
    if setup.runtime != "pytorch":
        models.append(_tiny(setup, group[0].precision))
    for key in group:
        try:
            models += _models(key, files)
        except NoFileError as error:
            entries.append(Entry(key, failure=str(error)))
    return models, entries


def _tiny(setup: Setup, precision: str) -> Model:
    key = OpKey("relu", 8, 8, precision=precision)
    if setup.runtime == "pytorch":
        return Model(TINY, b"", key)
    return Model(TINY, tiny_file(precision, setup.runtime), key)


def reference_model(setup: Setup, precision: str) -> Model:
    """Timed in every round beside others, to tell how fast the clock runs just then."""
    key = _reference_key(precision)
    made = {} if setup.runtime == "pytorch" else {key: op_file(key, setup.runtime)}
    return _named_reference(_models(key, made))


def _reference_key(precision: str) -> OpKey:
    return replace(REFERENCE_KEY, precision=precision)


def _named_reference(models: Iterable[Model]) -> Model:
    (model,) = models
    return replace(model, name=REFERENCE)


def _models(key: OpKey, files: Mapping[OpKey, OpFile | NoFileError]) -> Iterator[Model]:
    """Without a file where the device makes the operator itself. Raises NoFileError."""
    name, file = described(key), files.get(key)
    if isinstance(file, NoFileError):
        raise file
    yield Model(name, b"" if file is None else file.model, key)
    if file is not None and file.base is not None:
        yield Model(_base(name), file.base)


def _base(name: str) -> str:
    return f"{name} (without it)"


def _name(key: OpKey) -> str:
    """Of the model that tells what it takes."""
    return TINY if key.op == NETWORK else described(key)


def _entry(key: OpKey, found: Mapping[str, Measured | Failed]) -> Entry:
    """What is not the operator's own: the neighbours, and what it costs to run or to ask."""
    name = _name(key)
    answer = found[name]
    if isinstance(answer, Failed):
        return Entry(key, failure=answer.reason)
    if key.op == NETWORK:
        return Entry(key, Sample(answer.times_us))
    base_us, kernels = 0.0, answer.kernels
    base = found.get(_base(name))
    if isinstance(base, Failed):
        return Entry(key, failure=base.reason)
    if base is not None:
        base_us, kernels = median(base.times_us), kernels - base.kernels
    tiny = found.get(TINY)
    if isinstance(tiny, Measured):
        base_us += median(tiny.times_us) * (kernels if tiny.kernels else 1)
    return Entry(key, Sample(answer.times_us, base_us, answer.reference_us))


def footprint(key: OpKey) -> int:
    """Bytes of weights, input and output."""
    return key.element_bytes * (key.weight_elements + key.input_elements + key.output_elements)


def _groups(keys: Sequence[OpKey], last: set[OpKey], seed: int) -> list[list[OpKey]]:
    """Shuffled, each about as large as a network and of one precision; alone: what an inference
    costs, and `last`, at the end."""
    groups = [[key] for key in keys if key.op == NETWORK]
    shuffled = [key for key in keys if key not in last and key.op != NETWORK]
    random.Random(seed).shuffle(shuffled)
    for precision in dict.fromkeys(key.precision for key in shuffled):
        room = 0
        for key in (k for k in shuffled if k.precision == precision):
            if footprint(key) > room or len(groups[-1]) == GROUP:
                groups.append([])
                room = NETWORK_BYTES
            groups[-1].append(key)
            room -= footprint(key)
    return [*groups, *([key] for key in keys if key in last)]


def reference_us(journal: Journal) -> float | None:
    """The speed that the table is of: what the reference took while nothing disturbed the machine.
    None without one."""
    samples = journal.samples().values()
    return usual_us(t for passes in samples for sample in passes for t in sample.reference_us)
