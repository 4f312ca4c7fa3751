"""No shipped table prices anything faster than its machine can be, whatever the exporter writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import get_args

import pytest

from shrinkc.compiler.export import ops
from shrinkc.latency_tables.columns import OpColumns
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.measured import LazyOps, MeasuredOps, Measurement
from shrinkc.latency_tables.store import known_targets, load_table, resolve
from shrinkc.latency_tables.table import LatencyTable, OpEstimate

TARGETS = sorted({resolve(name) for name in known_targets()})
WHERE = [(t, p) for t in TARGETS for p in load_table(t).precisions]
MARGIN = 1.02  # two timings of one operator differ by as much
UNARY, BINARY = get_args(ops.UnaryKind), get_args(ops.BinaryKind)
MOVING = ("concat", "slice", "transpose", "pad", "resize", "depth_to_space")
ELEMENTWISE = (*UNARY, *BINARY, *MOVING, "prelu", "softmax", "layer_norm")
REDUCING = ("mean", "sum", "max")
PRODUCTS = ("linear", "matmul", "conv_transpose2d")
SIDES = (8, 16, 32, 64, 128)
CHANNELS, SIZES = (4, 96, 2048), (1, 28, 224)

Estimate = Callable[[OpKey], OpEstimate]


def square(op: str, inside: int, out: int, size: int, result: int, **more: object) -> OpKey:
    sizes = {"in_size": (size, size), "out_size": (result, result)}
    return replace(OpKey(op, inside, out), **sizes, **more)  # pyright: ignore[reportArgumentType]


def windows() -> Iterator[OpKey]:
    """(kernel, stride) of convolutions, of every kind, and of pools."""
    for c, size, (k, s) in product(CHANNELS, SIZES, ((1, 1), (3, 1), (3, 2), (7, 2))):
        shape = {"kernel": (k, k), "stride": (s, s)}
        for out in (64, 1000):
            yield square("conv2d", c, out, size * s, size, **shape)
            yield square("conv2d", c, out, size * s, size, groups=4, **shape)
        yield square("depthwise_conv2d", c, c, size * s, size, groups=c, **shape)
        for pool in ("max_pool", "avg_pool"):
            yield square(pool, c, c, size * s, size, **shape)


def products() -> Iterator[OpKey]:
    for c, out, size in product(CHANNELS, (64, 1000), SIZES):
        rows = {"in_size": (size * size, 1), "out_size": (size * size, 1)}
        for op in ("linear", "matmul"):
            yield replace(OpKey(op, c, out), **rows)
        for k in (2, 4):
            shape = {"kernel": (k, k), "stride": (2, 2)}
            yield square("conv_transpose2d", c, out, size, 2 * size, **shape)


def others() -> Iterator[OpKey]:
    for c, size in product(CHANNELS, SIZES):
        yield from (square(op, c, c, size, size) for op in ELEMENTWISE)
        yield from (square(op, c, c, size, 1) for op in REDUCING)


EVERY = (*windows(), *products(), *others())


def moved(key: OpKey, batch: int) -> float:
    """Bytes: operands, result, weights."""
    return float(OpColumns.of((key,)).bytes(batch)[0])


def reads_all(key: OpKey) -> bool:
    return key.kernel[0] >= key.stride[0]


def peaks(table: LatencyTable, precision: str) -> tuple[float, float]:
    """Multiply-accumulates and bytes a µs. Of a measured table the fastest operators, of a fitted
    one the floors of its prices, which are its hardware's."""
    model = table.models.get(precision)
    if model is not None:
        per_mac, per_kb = (model.coefficients[n].floor for n in ("gemm", "elementwise"))
        return 1e6 / per_mac, 1e3 / per_kb
    measured, batch, macs, moving = table.measured, table.meta.batch, 0.0, 0.0
    known = measured.part(precision) if isinstance(measured, LazyOps) else MeasuredOps.of(measured)
    for op in known.kinds if known else ():
        columns, taken = known.kind(op, precision)
        if columns.multiplies:
            macs = max(macs, float((columns.work * batch / taken).max()))
        whole = columns.area("kernel") >= columns.area("stride")
        moving = max(moving, float((columns.bytes(batch) / taken)[whole].max(initial=0.0)))
    return macs, moving


def too_fast(estimate: Estimate, table: LatencyTable, precision: str) -> list[OpKey]:
    """What would need a faster machine. Caches hold small tensors on a CPU: of its bytes only
    those of large element-wise operators tell."""
    (macs, moving), batch = peaks(table, precision), table.meta.batch
    found: list[OpKey] = []
    for key in (replace(key, precision=precision) for key in EVERY):
        us = 1e3 * estimate(key).ms
        streams = not table.models or (key.op in ELEMENTWISE and moved(key, batch) > 1e6)
        bytes_left = moved(key, batch) if streams and reads_all(key) else 0.0
        if us <= 0 or max(key.macs * batch / macs, bytes_left / moving) > MARGIN * us:
            found.append(key)
    return found


@pytest.mark.parametrize(("target", "precision"), WHERE)
def test_nothing_is_faster_than_the_machine(target: str, precision: str) -> None:
    table = load_table(target)
    assert too_fast(table.estimate, table, precision) == []


@pytest.mark.parametrize("target", ["v100/tensorrt-b1", "pixel4/tflite-cpu"])
def test_prices_that_are_too_low_are_found(target: str) -> None:
    table = load_table(target)

    def sold_off(key: OpKey) -> OpEstimate:
        """Elements at a constant, products at a twentieth."""
        found = table.estimate(key)
        return replace(found, ms=0.015 if key.op in ELEMENTWISE else found.ms / 20)

    found = {key.op for key in too_fast(sold_off, table, "fp32")}
    assert {"conv2d", *PRODUCTS, "add", "gelu", "pad"} <= found


@pytest.mark.parametrize(("target", "precision"), WHERE)
def test_elements_cost_more_the_more_there_are(target: str, precision: str) -> None:
    table = load_table(target)
    for op, channels in product((*ELEMENTWISE, *REDUCING), (4, 96, 512)):
        ms = [
            table.estimate(square(op, channels, channels, size, size, precision=precision)).ms
            for size in (28, 112, 448)
        ]
        assert 0 < ms[0] < ms[1] < ms[2]
        # of sixteen times as many; what is small is overhead
        assert ms[2] > 8 * ms[1] or ms[1] < 0.1


@pytest.mark.parametrize(("target", "precision"), WHERE)
def test_products_cost_more_the_more_they_multiply(target: str, precision: str) -> None:
    table = load_table(target)
    for op, inside, out in product(PRODUCTS, (64, 256, 1024), (64, 1024)):
        ms = [
            table.estimate(square(op, inside, out, size, size, precision=precision)).ms
            for size in (14, 28, 112)
        ]
        assert ms[0] < 1.02 * ms[1]
        assert ms[2] > 4 * ms[1] or (ms[1] < 0.05 and ms[2] > ms[1])


@pytest.mark.parametrize("target", ["v100/tensorrt-b1", "pixel4/tflite-gpu"])
def test_products_that_were_not_measured_cost_their_1x1_convolution(target: str) -> None:
    table = load_table(target)
    for op, rows in product(("matmul", "linear"), (64, 2048)):
        conv = OpKey("conv2d", 512, 512, in_size=(rows, 1), out_size=(rows, 1))
        found = table.estimate(replace(conv, op=op))
        assert (found.source, found.extrapolated) == ("priced as a 1×1 convolution", True)
        assert found.ms == table.estimate(conv).ms
    up = square("conv_transpose2d", 256, 128, 28, 56, kernel=(2, 2), stride=(2, 2))
    assert table.estimate(up).ms == table.estimate(square("conv2d", 256, 512, 28, 28)).ms


def test_heads_of_attention_are_multiplied_each() -> None:
    """`in_size` holds the rows of all heads together."""
    table = load_table("v100")
    one = OpKey("matmul", 64, 784, in_size=(784, 1), out_size=(784, 1))
    many = replace(one, in_size=(64 * 784, 1), out_size=(64 * 784, 1))
    assert many.macs == 64 * one.macs
    assert table.estimate(many).ms > 16 * table.estimate(one).ms


def test_the_fastest_of_several_kinds_prices_an_unknown_one() -> None:
    meta = replace(load_table("v100").meta, precisions=("fp32",), batch=1)
    maps = [square("add", 32, 32, size, size) for size in SIDES]
    slow = {replace(key, op="mul"): Measurement(9 + 3e-4 * moved(key, 1)) for key in maps}
    fast = {key: Measurement(2 + 1e-4 * moved(key, 1)) for key in maps}
    table = LatencyTable("board", meta, {**slow, **fast})
    key = square("gelu", 64, 64, 256, 256)
    assert 1e3 * table.estimate(key).ms == pytest.approx(2 + 1e-4 * moved(key, 1), rel=0.01)


def test_a_kind_whose_time_does_not_grow_moves_no_bytes_for_nothing() -> None:
    meta = replace(load_table("v100").meta, precisions=("fp32",), batch=1)
    maps = [square("add", 32, 32, size, size) for size in SIDES]
    table = LatencyTable("board", meta, {key: Measurement(9.0) for key in maps})
    key = square("gelu", 64, 64, 256, 256)
    rate = moved(key, 1) / table.estimate(key).ms
    assert rate == pytest.approx(max(moved(k, 1) for k in maps) / 9e-3)


def test_where_no_convolution_was_measured_none_outruns_what_was() -> None:
    meta = replace(load_table("v100").meta, precisions=("fp32",), batch=1)
    maps = [square("depthwise_conv2d", 32, 32, n, n, kernel=(3, 3), groups=32) for n in SIDES]
    measured = {key: Measurement(2 + key.macs / 1e3) for key in maps}
    measured |= {replace(k, op="add", kernel=(1, 1), groups=1): Measurement(2.0) for k in maps}
    table = LatencyTable("board", meta, measured)
    key = square("conv2d", 256, 256, 56, 56, kernel=(3, 3))
    assert 1e3 * table.estimate(key).ms == pytest.approx(key.macs / 1e3, rel=0.01)
