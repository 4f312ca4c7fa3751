"""Whole networks timed on a device, and a table corrected by them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import exp, inf

import torch

from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.keys import keyed
from shrinkc.compiler.cost.predict import predict
from shrinkc.compiler.devices.jobs import Device, Failed, Measured, Method, Model, Session, Setup
from shrinkc.compiler.devices.samples import Sample, settle, usual_us
from shrinkc.compiler.export import ops
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.formats.registry import format_of_device
from shrinkc.compiler.profile.measure import REFERENCE_NOTE, reference_model
from shrinkc.compiler.profile.pace import Pace
from shrinkc.compiler.profile.reference_networks import REFERENCE_NETWORKS, ReferenceNetwork
from shrinkc.compiler.quantise.simulate import Quantisation
from shrinkc.errors import DeviceError, TableError
from shrinkc.latency_tables import correct
from shrinkc.latency_tables.measured import Measurement
from shrinkc.latency_tables.table import LatencyTable
from shrinkc.latency_tables.tested.interval import UNTRIED

TOGETHER, PASSES = 3, 3  # networks timed side by side, each beside others in every pass
HANDFUL = 6  # networks that are timed however slow the device is
RESTING_S = 300.0  # after that a hot device is taken as it is
METHOD = Method(warmup=2, rounds=(5, 20), seconds=3.0, undisturbed=True, turn=5)


@dataclass(frozen=True, eq=False)
class Network:
    """A lowered network and a name for it."""

    name: str
    program: ops.Program


def reference_networks(
    networks: Sequence[ReferenceNetwork] = REFERENCE_NETWORKS,
) -> Iterator[Network]:
    for network in networks:
        inputs = (torch.zeros(network.input_shape),)
        yield Network(network.name, lower(capture(network.model(), inputs)))


def network_file(program: ops.Program, runtime: str, precision: str) -> bytes:
    """The model file as shrinkc exports it; int8 is calibrated on random inputs, which does for
    timing. Raises InputError where the quantiser is not installed."""
    form = format_of_device(runtime)
    batches = [tuple(torch.randn(value.shape) for value in program.inputs)]
    model = form.encode(program)
    if precision == "fp32":
        return model
    return form.quantise(model, Quantisation(program, {}), batches).data


@dataclass(frozen=True)
class Timed:
    """An inference of each network by name, at the speed of the undisturbed machine, at which the
    reference convolution takes `reference_us` (as `profile` times it); None where it does not
    run."""

    networks: Mapping[str, Measurement]
    reference_us: float | None
    throttled: str = ""  # how the device got hot; empty where it did not


def time_networks(
    session: Session,
    setup: Setup,
    networks: Sequence[Network],
    precision: str,
    done: Callable[[], None],
    seconds: float = inf,
) -> Timed:
    """Time them in turns, in several passes. `done` is called once for each network and pass.

    When `seconds` are over no further pass is begun, and none of the first one's networks after
    HANDFUL: it takes them in the order given. What a hot device rests comes on top.
    Raises DeviceError: the device is lost, or refuses a network.
    """
    files = {n.name: network_file(n.program, setup.runtime, precision) for n in networks}
    answers: dict[str, list[Measured]] = {}
    speeds, ends = list[float](), time.monotonic() + seconds
    pace = Pace(time.monotonic() + RESTING_S)
    for names, turns in _turns(list(files), answers):
        left_s = max(ends + pace.rested_s - time.monotonic(), 0.0)
        if not left_s and len(answers) >= min(HANDFUL, len(files)):
            break
        method = replace(METHOD, seconds=min(METHOD.seconds, left_s / turns))
        timed = [reference_model(setup, precision), *(Model(name, files[name]) for name in names)]
        found = pace.settled(
            lambda timed=timed, method=method: list(session.measure(timed, method)),
            lambda: session.conditions,
        )
        for answer in found:
            if isinstance(answer, Failed):
                raise DeviceError(f"the device refuses {answer.model}: {answer.reason}")
            answers.setdefault(answer.model, []).append(answer)
            done()
        speeds += _reference_times(session, setup, precision)
    usual = usual_us(t for found in answers.values() for a in found for t in a.reference_us)
    settled = {
        name: settle([Sample(a.times_us, reference_us=a.reference_us) for a in found], usual)
        for name, found in answers.items()
    }
    return Timed(settled, usual_us(speeds), str(pace))


def _turns(names: Sequence[str], timed: Mapping[str, object]) -> Iterator[tuple[list[str], int]]:
    """Who is timed side by side, and how many such turns are left, this one included. Later passes
    shuffle those that the first has `timed`."""
    dice = random.Random(0)
    for number in range(PASSES):
        order = dice.sample(list(timed), len(timed)) if number else list(names)
        groups = [order[i : i + TOGETHER] for i in range(0, len(order), TOGETHER)]
        for index, group in enumerate(groups):
            yield group, len(groups) * (PASSES - number) - index


def _reference_times(session: Session, setup: Setup, precision: str) -> tuple[float, ...]:
    """The reference alone, timed as `profile` times it: of the kernels where the runtime tells."""
    model = replace(reference_model(setup, precision), name="reference alone")
    method = replace(METHOD, rounds=(10, 10), kernels=setup.tells_kernels)
    (answer,) = session.measure([model], method)
    return answer.times_us if isinstance(answer, Measured) else ()


def runs(
    table: LatencyTable,
    networks: Sequence[Network],
    measured: Mapping[str, Measurement],
    precision: str,
) -> list[correct.Run]:
    """What the table, uncorrected, says of the networks beside what they took."""
    plain = replace(table, corrections={})
    overhead_us = plain.network_overhead_ms(precision) * 1e3
    return [
        correct.Run(
            network.name,
            [(k, plain.estimate(k).ms * 1e3) for _, k in keyed(network.program, precision)],
            overhead_us,
            measured[network.name].median_us,
        )
        for network in networks
        if network.name in measured
    ]


@dataclass(frozen=True)
class Calibrated:
    """`table` has the corrections and states their error; percent errors by precision: of the table
    as it was, and of networks left out of the correction. `disagreeing`, by precision, are networks
    that the others put further off than the table's interval: no part of the correction;
    `missing` are those that the time did not suffice for."""

    table: LatencyTable
    before_percent: dict[str, float]
    after_percent: dict[str, float]
    disagreeing: dict[str, tuple[str, ...]]
    missing: dict[str, tuple[str, ...]]
    throttled: str


def calibrate_table(
    table: LatencyTable,
    device: Device,
    setup: Setup,
    precisions: Sequence[str],
    done: Callable[[], None],
    seconds: float = inf,
) -> Calibrated:
    """Correct `table` by the reference networks, measured on `device`; `done` is called once for
    each network, precision and pass. `seconds` are shared by the precisions; see `time_networks`.

    Raises DeviceError, TableError for a precision that the table lacks.
    """
    started = time.monotonic()
    by_precision: dict[str, list[correct.Run]] = {}
    missing: dict[str, tuple[str, ...]] = {}
    speeds, throttled = list[float](), ""
    with device.open(setup) as session:  # what cannot be reached is told at once
        environment = session.environment
        networks = list(reference_networks())
        for index, precision in enumerate(precisions):
            share = (started + seconds - time.monotonic()) / (len(precisions) - index)
            quickest = _quickest_first(networks, table, precision)
            timed = time_networks(session, setup, quickest, precision, done, share)
            names = (network.name for network in quickest)
            missing[precision] = tuple(name for name in names if name not in timed.networks)
            by_precision[precision] = runs(table, networks, timed.networks, precision)
            speeds += [] if timed.reference_us is None else [timed.reference_us]
            throttled = timed.throttled or throttled
    disagreeing = {p: _disagreeing(table, found, p) for p, found in by_precision.items()}
    agreeing = {
        p: [run for run in found if run.network not in disagreeing[p]]
        for p, found in by_precision.items()
    }
    validation = tuple(v for p, found in by_precision.items() for v in correct.validate(found, p))
    untouched = tuple(v for v in table.validation if v.precision not in by_precision)
    cpu, version = (environment.get(n, "unknown") for n in ("cpu", "runtime_version"))
    used = min(map(len, agreeing.values()))
    note = (
        f"corrected by {used} networks on {device.name} ({cpu}, {setup.runtime} "
        f"{version}, {setup.threads} threads, {datetime.now(UTC):%Y-%m-%d})"
    )
    corrected = replace(
        table,
        meta=replace(table.meta, note=_noted(table.meta.note, note, speeds)),
        validation=(*untouched, *validation),
        corrections={
            **table.corrections,
            **{p: correct.fit(found) for p, found in agreeing.items()},
        },
    )
    return Calibrated(
        corrected,
        {p: _mean_percent(found) for p, found in by_precision.items()},
        {p: corrected.mean_error_percent(p) or 0.0 for p in by_precision},
        disagreeing,
        missing,
        throttled,
    )


def _quickest_first(
    networks: Sequence[Network], table: LatencyTable, precision: str
) -> list[Network]:
    return sorted(networks, key=lambda n: predict(n.program, table, precision).total_ms)


def _disagreeing(
    table: LatencyTable, found: Sequence[correct.Run], precision: str
) -> tuple[str, ...]:
    """Networks further from what a correction by all others says of them than the table says that
    networks may be. Raises TableError where that is every second: they have no correction."""
    factor = table.spread(precision, 1.0) or exp(UNTRIED)
    rows = correct.validate(found, precision)
    off = {v.network: v.predicted_ms / v.measured_ms for v in rows}
    names = tuple(name for name, ratio in off.items() if not 1 / factor <= ratio <= factor)
    if 2 * len(names) >= len(found):
        shown = "; ".join(f"{name} × {1 / off[name]:.2f}" for name in names[:3])
        raise TableError(
            f"{table.target}: {len(names)} of {len(found)} networks disagree with what the others "
            f"say of them by more than a factor of {factor:.2f} ({shown}): no correction fits; "
            "measure a table of this device with shrinkc profile"
        )
    return names


def _noted(earlier: str, note: str, speeds: Sequence[float]) -> str:
    """The corrected table is of the speed at which the networks were timed."""
    kept = [part for part in earlier.split("; ") if part and not part.startswith(REFERENCE_NOTE)]
    return "; ".join([*kept, note, *(f"{REFERENCE_NOTE} {s:.1f} µs" for s in speeds[:1])])


def _mean_percent(found: Sequence[correct.Run]) -> float:
    """Of the table without corrections."""
    errors = [
        abs((run.overhead_us + sum(us for _, us in run.predicted_us)) / run.measured_us - 1)
        for run in found
    ]
    return 100 * sum(errors) / len(errors)
