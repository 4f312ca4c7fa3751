"""What every shipped fitted CPU table promises: provenance, stated errors, shape, speed."""

import time
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from math import prod
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from unlike_networks import total_ms

from shrinkc.latency_tables.kernels.features import Tiles
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.makers.sources.networks import mobilenet_v2, resnet50
from shrinkc.latency_tables.store import (
    known_targets,
    load_table,
    read_statement,
    read_table,
    resolve,
)
from shrinkc.latency_tables.table import LatencyTable
from shrinkc.latency_tables.tested.accuracy import accuracy

DATA = Path(str(files("shrinkc.latency_tables"))) / "data"
TABLES = sorted({resolve(name) for name in known_targets()})
FITTED = [target for target in TABLES if load_table(target).meta.kind == "fitted"]
EVERY = [(target, p) for target in FITTED for p in load_table(target).precisions]
POINTWISE = OpKey("conv2d", 96, 96, in_size=(28, 28), out_size=(28, 28))


def tiles(table: LatencyTable, precision: str) -> Tiles:
    assert table.meta.model is not None
    return table.meta.model.tiles[precision]


@pytest.mark.parametrize(
    ("target", "threads", "source", "licence"),
    [
        ("pixel3", 1, "tensorflow/models", "Apache-2.0, MIT"),
        ("pixel4/tflite-cpu", 1, "qed-usc/mobile-ml-benchmark", "MIT"),
        ("rpi4/tflite-ruy", 4, "MLPerf Inference v2.1", "Apache-2.0"),
        ("pixel4/tflite-cpu-t4", 4, "qed-usc/mobile-ml-benchmark", "MIT"),
        ("rk3588/tflite-ruy", 4, "MLPerf Inference v3.0", "Apache-2.0"),
        ("rpi4/tflite-xnnpack", 4, "google/XNNPACK", "BSD-3-Clause, Apache-2.0"),
        ("rpi4/tflite-xnnpack-t1", 1, "MLPerf Inference v4.0", "Apache-2.0"),
        ("rpi5/tflite-xnnpack", 4, "Nota-NetsPresso", "Apache-2.0"),
    ],
)
def test_they_state_where_they_come_from(
    target: str, threads: int, source: str, licence: str
) -> None:
    meta = load_table(target).meta
    assert (meta.kind, meta.threads, meta.licence, meta.batch) == ("fitted", threads, licence, 1)
    assert source in meta.source
    assert meta.date == "unknown" or meta.date.startswith("20")
    units = (DATA.joinpath(*target.split("/")) / "model.csv").read_text("utf-8")
    assert all(",us_per_" in line for line in units.splitlines()[1:])


def test_short_names_mean_todays_runtimes() -> None:
    assert load_table("rpi4").target == "rpi4/tflite-xnnpack"
    assert load_table("pixel4").target == load_table("pixel").target == "pixel4/tflite-cpu"


@pytest.mark.parametrize(
    ("target", "precision", "held_out", "most"),
    [
        ("rpi4/tflite-ruy", "fp32", "network", 4.5),
        ("rpi4/tflite-ruy", "fp32", "family", 10.0),
        ("rpi4/tflite-ruy", "int8", "network", 1.5),
        ("rpi4/tflite-ruy", "int8", "family", 8.0),
        ("pixel4/tflite-cpu", "fp32", "network", 3.0),
        ("pixel4/tflite-cpu", "int8", "network", 5.0),
        ("pixel3", "fp32", "network", 7.0),
        ("rpi4/tflite-xnnpack", "fp32", "network", 6.0),
        ("rpi4/tflite-xnnpack", "fp32", "family", 9.0),
        ("rpi4/tflite-xnnpack-t1", "fp32", "network", 2.5),
        ("rpi4/tflite-xnnpack-t1", "fp32", "family", 7.0),
        ("rpi5/tflite-xnnpack", "fp32", "network", 15.0),
        ("rk3588/tflite-ruy", "int8", "network", 4.0),
    ],
)
def test_they_state_their_error(target: str, precision: str, held_out: str, most: float) -> None:
    table = load_table(target)
    stated, fitted = accuracy(table, precision, held_out), accuracy(table, precision, "none")
    assert stated is not None
    assert fitted is not None
    assert 0 < fitted.mean_error_percent < stated.mean_error_percent <= most


@pytest.mark.parametrize(
    ("precision", "within", "spearman"), [("fp32", 97, 0.995), ("int8", 85, 0.99)]
)
def test_pixel4_puts_unseen_networks_in_order(
    precision: str, within: float, spearman: float
) -> None:
    unseen = accuracy(load_table("pixel4"), precision)
    assert unseen is not None
    assert unseen.networks == 71
    assert unseen.within_10_percent >= within
    assert unseen.spearman >= spearman


def test_estimates_add_up_to_the_measured_networks() -> None:
    ruy, pixel4 = load_table("rpi4/tflite-ruy"), load_table("pixel4")
    assert total_ms(ruy, mobilenet_v2(1.0, 224, "fp32")) == pytest.approx(61.6, rel=0.03)
    assert total_ms(ruy, mobilenet_v2(1.0, 224, "int8")) == pytest.approx(23.0, rel=0.03)
    assert total_ms(ruy, resnet50(224, "fp32")) == pytest.approx(571, rel=0.03)
    assert total_ms(pixel4, mobilenet_v2(1.0, 224, "fp32")) == pytest.approx(27.4, rel=0.05)
    assert total_ms(pixel4, mobilenet_v2(1.0, 224, "int8")) == pytest.approx(15.5, rel=0.05)


@pytest.mark.parametrize(("target", "precision"), EVERY)
def test_widths_have_cliffs_where_the_kernels_have_blocks(target: str, precision: str) -> None:
    table = load_table(target)
    block = tiles(table, precision).out_channels
    base = replace(POINTWISE, precision=precision)
    widths = range(96 - block, 96 + block + 2)
    ms = [table.estimate(replace(base, out_channels=width)).ms for width in widths]
    steps = [after - before for before, after in pairwise(ms)]
    assert min(steps[0], steps[block]) > 3 * max(steps[1:block])


WINDOWED = ("conv2d", "depthwise_conv2d", "conv_transpose2d", "max_pool", "avg_pool")
KEEPING = ("max_pool", "avg_pool", "mean", "add", "mul", "hard_swish", "silu", "gelu", "softmax")
KEEPING = (*KEEPING, "layer_norm", "resize", "transpose", "concat", "pad")
OPS = (*WINDOWED[:3], "linear", "matmul", *KEEPING)
EXTENTS = st.tuples(st.integers(1, 600), st.integers(1, 600), st.integers(1, 64))


def sized(op: str, channels: int, out: int, size: int, taps: int, precision: str) -> OpKey:
    depthwise = op == "depthwise_conv2d"
    kernel = taps if op in WINDOWED else 1
    return OpKey(
        *(op, channels, channels if depthwise or op in KEEPING else out),
        kernel=(kernel, kernel),
        groups=channels if depthwise else 1,
        in_size=(size, size),
        out_size=(1, 1) if op == "mean" else (size, size),
        precision=precision,
    )


@settings(max_examples=300)
@given(st.sampled_from(EVERY), st.sampled_from(OPS), EXTENTS, st.sampled_from([1, 3, 5]))
def test_more_of_anything_never_costs_less(
    where: tuple[str, str], op: str, extents: tuple[int, int, int], kernel: int
) -> None:
    table = load_table(where[0])

    def ms(*shape: int) -> float:
        return table.estimate(sized(op, *shape, precision=where[1])).ms

    channels, out, size = extents
    base = ms(channels, out, size, kernel)
    assert base > 0
    assert ms(channels + 1, out, size, kernel) >= base
    assert ms(channels, out + 1, size, kernel) >= base
    # a product with one column is another kernel: a cliff that is real
    assert size == 1 or ms(channels, out, size + 1, kernel) >= base
    assert ms(channels, out, size, kernel + 2) >= base


@settings(max_examples=300)
@given(st.sampled_from(EVERY), st.sampled_from(OPS), EXTENTS, st.sampled_from([1, 3, 5]))
@example(("rpi5/tflite-xnnpack", "fp32"), "depthwise_conv2d", (2, 2, 1), 5)
def test_nothing_outruns_arithmetic_or_memory(
    where: tuple[str, str], op: str, extents: tuple[int, int, int], kernel: int
) -> None:
    """The floors of prices are what the device can do at most."""
    table = load_table(where[0])
    key = sized(op, *extents, kernel, precision=where[1])
    prices = table.models[where[1]].coefficients
    us = 1e3 * table.estimate(key).ms
    # bound by reading its weights; a depthwise convolution's few are in a cache
    vector = prod(key.out_size) == 1 and op != "depthwise_conv2d"
    if key.macs and not vector:
        assert us >= 0.999 * prices["gemm"].floor * key.macs / 1e6
    streamed = key.weight_elements if vector else key.input_elements + key.output_elements
    if not key.macs or vector:
        assert us >= 0.999 * prices["elementwise"].floor * key.element_bytes * streamed / 1e3


@pytest.mark.parametrize("target", FITTED)
def test_a_network_is_estimated_within_50_ms_and_loading_takes_half_a_second(target: str) -> None:
    started = time.process_time()
    table = read_table(DATA.joinpath(*target.split("/")), target)  # not the cached one
    loaded = time.process_time()
    total_ms(table, mobilenet_v2(1.0, 224, "fp32"))
    assert time.process_time() - loaded < 0.050
    assert loaded - started < 0.5


@pytest.mark.parametrize("target", TABLES)
def test_what_a_table_states_is_what_its_rows_say(target: str) -> None:
    meta, errors = read_statement(target)
    table = load_table(target)
    assert meta == table.meta
    known = {(row.precision, row.held_out) for row in table.validation}
    assert errors.keys() == known
    for (precision, held_out), error in errors.items():
        assert error == pytest.approx(table.mean_error_percent(precision, held_out))
