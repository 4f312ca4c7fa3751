"""Exported files on an emulated Cortex-A72: do they run there, do they compute the same as here,
and do the instructions they take agree with what the rpi4 tables predict?

A count of instructions is no time: caches, memory, the number of cores and the instructions per
cycle do not show in it. Only which of two networks takes more is compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import numpy as np
import pytest
from arm_emulator import LITERT, RUNTIMES, RUY, Emulator, Job, Result, Runtime
from arm_networks import DIGITS, MERGES, NARROW, PRECISIONS, VARIANTS, WIDE, Built, Variant, build

from shrinkc.compiler.api.steps.target import cost_table
from shrinkc.compiler.cost.predict import predict
from shrinkc.compiler.formats.onnx import OnnxRunner
from shrinkc.compiler.formats.runner import Array
from shrinkc.compiler.formats.tflite import TfliteRunner
from shrinkc.compiler.support.difference import relative_error
from shrinkc.compiler.verify.files import FP32_TOLERANCE
from shrinkc.latency_tables.table import LatencyTable

pytestmark = pytest.mark.arm
runtimes = pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
precisions = pytest.mark.parametrize("precision", PRECISIONS)

# Steps of the int8 output. LiteRT's integer kernels are the same function on both machines; ONNX
# Runtime is compared with float arithmetic between quantisations; ruy rounds differently.
INT8_STEPS = {"ai-edge-litert": 0, "onnxruntime": 1, "tflite-runtime": 2}
REPEATABLE = 0.02
Key = tuple[Variant, str]
PAIRS = (
    *((unmerged, merged) for unmerged, merged in MERGES),
    (WIDE, NARROW),
    *((MERGES[0][i], MERGES[1][i]) for i in (0, 1)),
    (DIGITS[0], DIGITS[2]),
)
# TFLite's own kernels copy the patches of a k×k convolution on one thread before all four multiply;
# that the others wait meanwhile cannot be seen in instructions.
UNSEEN = {("rpi4/tflite-ruy", "fp32", Variant("unguarded linear", "none"))}


@pytest.fixture(scope="module")
def built(emulator: Emulator) -> dict[Variant, Built]:
    """Not without an emulator: it takes 20 seconds."""
    return {variant: build(variant) for variant in VARIANTS}


class Runs:
    """Every file on a runtime, in one emulated process, when first asked for."""

    def __init__(self, emulator: Emulator, built: dict[Variant, Built]) -> None:
        self.emulator, self.built = emulator, built
        self._done: dict[Runtime, dict[Key, Result]] = {}

    def jobs(self, runtime: Runtime) -> dict[Key, Job]:
        kind = runtime.kind
        return {
            (variant, precision): Job(one.files[kind, precision], one.stored_samples(kind))
            for variant, one in self.built.items()
            for precision in PRECISIONS
        }

    def on(self, runtime: Runtime) -> dict[Key, Result]:
        if not self.emulator.has(runtime):
            pytest.skip(f"no wheels of {runtime} for the root's Python")
        if runtime not in self._done:
            jobs = self.jobs(runtime)
            results = self.emulator.run(runtime, list(jobs.values()))
            self._done[runtime] = dict(zip(jobs, results, strict=True))
        return self._done[runtime]

    def instructions(self, runtime: Runtime, key: Key) -> float:
        counted = self.on(runtime)[key].instructions
        if not counted:
            pytest.skip("this qemu takes no plugins, which count")
        return median(counted)

    def table(self) -> list[str]:
        """Millions of instructions by file; fp32 / int8 of each runtime that ran."""
        ran = list(self._done)
        lines = [f"{'instructions, millions, fp32 / int8':36}" + "".join(f"{r!s:>22}" for r in ran)]
        for variant in VARIANTS:
            counts = [[self.instructions(r, (variant, p)) / 1e6 for p in PRECISIONS] for r in ran]
            cells = (f"{fp32:13.2f} / {int8:6.2f}" for fp32, int8 in counts)
            lines.append(f"{variant!s:36}" + "".join(cells))
        return lines


@pytest.fixture(scope="module")
def runs(emulator: Emulator, built: dict[Variant, Built], summary: list[str]) -> Iterator[Runs]:
    runs = Runs(emulator, built)
    yield runs
    if emulator.plugin is not None:
        summary += runs.table()


def outputs_here(runtime: Runtime, job: Job) -> list[Array]:
    """ONNX int8 in exact arithmetic: kernels of x86 without VNNI overflow 16-bit sums."""
    if runtime.kind == "onnx":
        runner = OnnxRunner(job.model, optimise=False)
    else:
        runner = TfliteRunner(job.model)
    return [runner.run([sample])[0] for sample in job.samples]


def test_the_emulated_processor_is_no_newer_than_the_raspberry_pi(emulator: Emulator) -> None:
    """It lacks what came with Armv8.2: half precision (bits 9, 10) and dot products (bit 20)."""
    script = "import ctypes; print(ctypes.CDLL(None).getauxval(16))"
    capabilities = int(emulator.python("-c", script))
    assert capabilities & 0b10, "NEON"
    assert not capabilities & (1 << 9 | 1 << 10 | 1 << 20)


@runtimes
def test_fp32_equals_what_is_computed_here(
    runtime: Runtime, runs: Runs, summary: list[str]
) -> None:
    jobs, errors = runs.jobs(runtime), dict[str, float]()
    for (variant, precision), result in runs.on(runtime).items():
        if precision == "fp32":
            wanted = outputs_here(runtime, jobs[variant, precision])
            pairs = zip(result.outputs, wanted, strict=True)
            errors[str(variant)] = max(relative_error(got, want) for got, want in pairs)
    summary.append(
        f"{runtime}, fp32: {max(errors.values()):.1e} of the output range away from here"
    )
    assert {name: error for name, error in errors.items() if error > FP32_TOLERANCE} == {}
    assert len(errors) == len(VARIANTS)


@runtimes
def test_int8_equals_within_steps_what_is_computed_here(
    runtime: Runtime, runs: Runs, summary: list[str]
) -> None:
    jobs, steps = runs.jobs(runtime), dict[str, float]()
    for (variant, precision), result in runs.on(runtime).items():
        if precision == "int8":
            wanted = outputs_here(runtime, jobs[variant, precision])
            difference = np.abs(np.stack(result.outputs) - np.stack(wanted)).max()
            steps[str(variant)] = float(difference) / runs.built[variant].step
    summary.append(f"{runtime}, int8: {max(steps.values()):.0f} steps of the output away from here")
    allowed = INT8_STEPS[runtime.package] + 0.01
    assert {name: count for name, count in steps.items() if count > allowed} == {}
    assert len(steps) == len(VARIANTS)


@runtimes
def test_merged_equals_unmerged_there(runtime: Runtime, runs: Runs) -> None:
    done = runs.on(runtime)
    for unmerged, merged in (*MERGES, (DIGITS[0], DIGITS[2])):
        a, b = (done[variant, "fp32"].outputs for variant in (unmerged, merged))
        for got, want in zip(b, a, strict=True):
            assert relative_error(got, want) <= FP32_TOLERANCE, merged


@runtimes
@precisions
@pytest.mark.parametrize("variant", DIGITS, ids=str)
def test_digits_are_read_right(
    runtime: Runtime, precision: str, variant: Variant, runs: Runs
) -> None:
    outputs = runs.on(runtime)[variant, precision].outputs
    assert [int(output.argmax()) for output in outputs] == list(range(10))


@runtimes
def test_counts_repeat_in_another_process(runtime: Runtime, runs: Runs, summary: list[str]) -> None:
    """Within 2%, beside other files."""
    keys = [(variant, precision) for variant in (DIGITS[0], WIDE) for precision in PRECISIONS]
    first = {key: runs.instructions(runtime, key) for key in keys}
    again = runs.emulator.run(runtime, [runs.jobs(runtime)[key] for key in keys])
    spread: dict[Key, float] = {}
    for key, repeated in zip(keys, again, strict=True):
        counts = (first[key], *runs.on(runtime)[key].instructions, *repeated.instructions)
        spread[key] = max(counts) / min(counts) - 1
    summary.append(f"{runtime}: counts repeat within {max(spread.values()):.2%}")
    assert max(spread.values()) <= REPEATABLE, spread


@precisions
@pytest.mark.parametrize(
    ("target", "runtime"), [("rpi4", LITERT), ("rpi4/tflite-ruy", RUY)], ids=str
)
def test_counts_agree_with_the_direction_of_the_table(
    target: str, runtime: Runtime, precision: str, runs: Runs, summary: list[str]
) -> None:
    """A network that the table predicts to be clearly slower executes more instructions: by 10%,
    or twice the mean error that the table states of networks it has not seen."""
    table = cost_table(target)
    assert isinstance(table, LatencyTable)
    error = table.mean_error_percent(precision)
    assert error is not None
    threshold = 1 + max(0.10, 2 * error / 100)
    lines = [f"{table.target} against instructions on {runtime}, {precision}"]
    clear, wrong = 0, list[str]()
    for a, b in PAIRS:
        times = [predict(runs.built[v].program, table, precision).total_ms for v in (a, b)]
        counts = [runs.instructions(runtime, (v, precision)) for v in (a, b)]
        predicted, counted = times[1] / times[0], counts[1] / counts[0]
        text = f"{b} / {a}: predicted ×{predicted:.2f}, instructions ×{counted:.2f}"
        if max(predicted, 1 / predicted) < threshold:
            text += " (not clear)"
        elif (target, precision, a) in UNSEEN:
            text += " (not comparable)"
        else:
            clear += 1
            if (predicted > 1) != (counted > 1):
                wrong.append(text)
        lines.append(f"  {text}")
    summary += lines
    assert wrong == []
    assert clear >= len(PAIRS) // 2
