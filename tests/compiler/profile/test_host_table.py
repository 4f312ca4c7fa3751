"""This machine as a target: operators timed one by one, plans corrected by whole files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from closed_form_doubles import Dense, small, some_images
from small_networks import NETWORKS
from torch import Tensor

from shrinkc.compiler.cost.budget import predicted_ms
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.depth.closed_form import ClosedForm, shrink_closed_form
from shrinkc.compiler.measure import speedup
from shrinkc.compiler.measure.speedup import host_file, measuring, speedup_of
from shrinkc.compiler.profile import host_table as host
from shrinkc.compiler.profile.host_table import HostTable
from shrinkc.compiler.recover.distil import Tuning
from shrinkc.compiler.recover.rebuild_span import Rebuilding
from shrinkc.compiler.support.progress import Silent
from shrinkc.latency_tables.key import OpKey


@pytest.fixture(autouse=True)
def _few_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of networks that take a tenth of a millisecond."""
    monkeypatch.setattr(speedup, "RUNS", 300)


KEY = OpKey("conv2d", 16, 32, (3, 3), in_size=(20, 20), out_size=(20, 20), precision="int8")


def test_times_are_kept_for_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = HostTable(cache=tmp_path).estimate(KEY)
    assert first.ms > 0
    assert first.source == "measured here"
    (file,) = tmp_path.iterdir()

    def never(*_: Any) -> None:
        pytest.fail("measured again")

    monkeypatch.setattr(host.runner, "measure", never)
    assert HostTable(cache=tmp_path).estimate(KEY) == first
    with pytest.raises(pytest.fail.Exception):
        HostTable(2, tmp_path).estimate(KEY)  # two threads are another machine
    file.unlink()
    with pytest.raises(pytest.fail.Exception):
        HostTable(cache=tmp_path).estimate(KEY)


def inputs() -> list[tuple[Tensor, ...]]:
    images = some_images(4)
    return [(x[None],) for x in images.inputs(images.pixels[:, 2:22, 2:22])]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_network_beside_itself_is_as_fast(precision: str) -> None:
    graph = small(NETWORKS["mobilenet_v2"]())
    file = host_file(graph, precision, inputs())
    assert speedup_of(file, file) == pytest.approx(1, rel=0.3)


def test_milliseconds_are_the_originals_by_the_table() -> None:
    graph = small(NETWORKS["mobilenet_v2"]())
    assert measuring(graph, 8.0, "fp32", ())(graph) == pytest.approx(8.0, rel=0.3)


def test_plans_are_corrected_until_a_measurement_fits() -> None:
    """The device is slower than its table says by a fifth."""
    graph, table = small(NETWORKS["mobilenet_v2"]()), Dense()
    seen: list[float] = []

    def measured_ms(network: Any) -> float:
        seen.append(1.2 * predicted_ms(network, table, "fp32"))
        return seen[-1]

    options = ClosedForm(rebuilding=Rebuilding(steps=0), tuning=Tuning(steps=0))
    by_table, by_measuring = (
        shrink_closed_form(
            *(graph, some_images(), table, "fp32", Goal.speedup(1.3)),
            options=options,
            progress=Silent(),
            measured_ms=how,
        )
        for how in (None, measured_ms)
    )
    budget = by_table.before_ms / 1.3
    assert by_table.after_ms <= budget
    assert len(seen) > 1
    assert 1.2 * by_measuring.after_ms <= budget


def test_a_plan_is_outlined_with_numbers_that_can_be_quantised() -> None:
    graph = small(NETWORKS["mobilenet_v2"]())
    table = Dense()
    before_ms = predicted_ms(graph, table, "int8")
    options = ClosedForm(rebuilding=Rebuilding(steps=0), tuning=Tuning(steps=0))
    times: list[float] = []

    def measured_ms(network: Any) -> float:
        times.append(measuring(graph, before_ms, "int8", inputs())(network))
        return predicted_ms(network, table, "int8")

    shrink_closed_form(
        *(graph, some_images(), table, "int8", Goal.speedup(1.3)),
        options=options,
        measured_ms=measured_ms,
    )
    assert times
    assert min(times) > 0


def test_what_cannot_run_in_int8_costs_what_it_does_in_fp32(tmp_path: Path) -> None:
    """TFLite ends a run in which an int8 divisor is 0, as some of random numbers are."""
    table = HostTable(cache=tmp_path)
    key = OpKey("div", 16, 16, in_size=(20, 20), out_size=(20, 20), precision="int8")
    assert table.estimate(key) == table.estimate(replace(key, precision="fp32"))
    assert table.estimate(key).ms > 0
