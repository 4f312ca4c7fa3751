"""The benchmark of all methods, on noise and a tiny network: every method runs as it is asked for,
rows are kept, a run that was stopped goes on, what fails is a row."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from small_networks import InvertedResidual
from torch import fx, nn
from training_examples import images

from benchmarks import methods_cifar
from benchmarks.shared import cifar, methods_run, results, tuning_cifar
from benchmarks.shared.common import replace_json
from benchmarks.shared.methods_rows import (
    AIMS,
    CONTROLS,
    DEPTH,
    ROWS,
    WIDTH,
    Aim,
    Assignment,
    Length,
    Row,
    Width,
    chained,
)
from benchmarks.shared.methods_run import Network
from benchmarks.shared.tuning_cifar import deployed
from shrinkc.compiler.cost.keys import macs
from shrinkc.compiler.depth import trained as depth_trained
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.measure import speedup
from shrinkc.compiler.model_file.file import save_model
from shrinkc.compiler.profile.host_table import HostTable
from shrinkc.compiler.width import prune
from shrinkc.errors import InputError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.table import OpEstimate

LAUNCH_MS = 1e-2  # of an operator: so small networks are merged to have fewer

SHORT = Length(("tiny",), 64, 3, 1, 16, 1, 4, 1)
HALF = AIMS[0]


def network(_: Path) -> nn.Module:
    """Two inverted residuals on 8×8 maps, so that both width and depth can go."""
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
    blocks = [InvertedResidual(16, 16, expansion=4) for _ in range(2)]
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


class Counted:
    """A method that leaves the network as it is, and a log of the rates and seeds that it had."""

    def __init__(self, before: Callable[[int], None] = lambda _: None) -> None:
        self.calls: list[tuple[float, int]] = []
        self.before = before

    def __call__(self, given: Assignment) -> fx.GraphModule:
        self.calls.append((given.rate, given.seed))
        self.before(len(self.calls))
        return given.base


Bench = Callable[..., str]


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Bench:
    """Runs the command with some rows, for half the MACs alone; what it prints."""
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(cifar, "images", lambda _: (images(300, side=32), images(32, 1, side=32)))
    monkeypatch.setattr(tuning_cifar, "HELD_OUT", 40)
    monkeypatch.setattr(methods_run, "LOOKED", 48)
    monkeypatch.setattr(speedup, "SECONDS", 0.05)
    for module in (methods_run, methods_cifar):
        monkeypatch.setattr(module, "OUT", tmp_path / "out")
    monkeypatch.setattr(methods_cifar, "ROOT", tmp_path)
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setitem(methods_run.LENGTHS, "short", SHORT)
    tiny = Network(network, methods_run.new, 1, 1)
    monkeypatch.setitem(methods_run.NETWORKS, "tiny", tiny)

    def run(rows: tuple[Row, ...], *arguments: str) -> str:
        monkeypatch.setattr(methods_cifar, "ROWS", rows)
        command = ["methods_cifar", "--data", str(tmp_path), "--only", HALF.name, *arguments]
        monkeypatch.setattr(sys, "argv", command)
        methods_cifar.main()
        return capsys.readouterr().out

    return run


def row(method: str, make: Callable[[Assignment], fx.GraphModule], cost: int = 0) -> Row:
    return Row(method, "width", make, cost)


def rows_in(folder: Path) -> dict[str, results.Row]:
    """By method; the first seed's."""
    found = results.read(folder / "methods_cifar.json").rows
    return {one["method"]: one for one in found if one.get("seed", 0) == 0}


def test_a_row_is_made_once_and_judged_at_the_rate_that_held_out_images_choose(
    bench: Bench, tmp_path: Path
) -> None:
    counted = Counted()
    rows = (row("L1", Width()), row("as it is", counted))
    printed = bench(rows)
    found = rows_in(tmp_path)
    assert found.keys() == {"original", "L1", "as it is"}
    kept = [json.loads(p.read_text()) for p in (tmp_path / "out").rglob("rates/l1-*.json")]
    assert sorted(one["learning_rate"] for one in kept) == list(methods_cifar.RATES)
    best = max(kept, key=lambda one: (one["held_out_top1"], one["learning_rate"]))
    assert found["L1"].items() >= best.items()
    assert 0.3 < found["L1"]["macs"] <= 0.5
    assert found["as it is"]["macs"] == 1
    for precision, name in (("fp32", "top1"), ("int8", "top1_int8")):
        measured = found["as it is"]["measured"][precision]
        assert measured["top1"] == found["original"][name]
        assert 0.5 < measured["speedup"] < 2
    assert "| tiny    | half-macs | L1 " in printed
    assert (tmp_path / "docs" / "methods.png").stat().st_size > 5000
    assert len(counted.calls) == 3
    assert bench(rows).count("rate ") == 1  # in the table
    assert len(counted.calls) == 3


def test_later_seeds_take_the_rate_of_the_first(bench: Bench, tmp_path: Path) -> None:
    counted = Counted()
    printed = bench((row("as it is", counted),), "--seeds", "3")
    chosen = rows_in(tmp_path)["as it is"]["learning_rate"]
    assert counted.calls == [*((rate, 0) for rate in methods_cifar.RATES), (chosen, 1), (chosen, 2)]
    assert "1.00 (1.00–1.00)" in printed


def test_a_run_that_was_stopped_shows_what_it_has_and_goes_on(bench: Bench, tmp_path: Path) -> None:
    def stop(call: int) -> None:
        if call == 2:
            raise KeyboardInterrupt

    counted = Counted(stop)
    rows = (row("first", Counted()), row("stopped", counted, 1), row("last", Counted(), 2))
    printed = bench(rows)
    assert "stopped; the same command goes on" in printed
    assert rows_in(tmp_path).keys() == {"original", "first"}
    bench(rows)
    assert rows_in(tmp_path).keys() == {"original", "first", "stopped", "last"}
    rates = [rate for rate, _ in counted.calls]
    assert rates == [methods_cifar.RATES[i] for i in (0, 1, 1, 2)]


def test_a_run_stops_after_its_minutes_in_the_middle_of_a_row(bench: Bench) -> None:
    started = time.monotonic()
    rows = (row("first", Counted()), row("slow", Counted(lambda _: time.sleep(60)), 1))
    bench(rows[:1])
    assert "stopped; the same command goes on" in bench(rows, "--minutes", "0.02")
    assert time.monotonic() - started < 50


def test_what_fails_is_a_row_with_its_reason_and_others_go_on(bench: Bench, tmp_path: Path) -> None:
    def fail(call: int) -> None:
        if call == 1:
            raise InputError("no channel can go")
        if call == 2:
            raise OSError(f"no space left for {tmp_path}/file")

    counted = Counted(fail)
    rows = (row("fails", counted), row("works", Counted(), 1))
    printed = bench(rows)
    assert counted.calls == [(methods_cifar.RATES[0], 0)]
    assert rows_in(tmp_path)["fails"]["failure"] == "no channel can go"
    assert "no channel can go" in printed
    assert "measured" in rows_in(tmp_path)["works"]
    bench(rows)
    assert len(counted.calls) == 1
    bench(rows, "--again")
    assert "it names a file" in rows_in(tmp_path)["fails"]["failure"]
    bench(rows, "--again")
    assert "measured" in rows_in(tmp_path)["fails"]


def test_a_rate_that_fails_leaves_the_smaller_ones(bench: Bench, tmp_path: Path) -> None:
    def fail(call: int) -> None:
        if call == 2:
            raise InputError("it diverged")

    bench((row("fast", Counted(fail)),))
    found = rows_in(tmp_path)["fast"]
    assert (found["learning_rate"], "failure" in found) == (methods_cifar.RATES[0], False)


def test_a_name_that_nothing_has_is_refused(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench(ROWS, "--only", "L3")
    assert "--only L3" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bench(ROWS, "--only", HALF.name, "group_sl")
    assert "no --venvs" in capsys.readouterr().err


def trained(method: Row, aim: Aim, folder: Path) -> results.Row:
    """At one rate, from an original that was not trained first."""
    run = methods_cifar.Run(folder, None, "short", False)
    place = run.folder("tiny")
    place.mkdir(parents=True)
    save_model(cifar.captured(network(folder)), place / "base.safetensors", {})
    replace_json(place / "base.json", {"int8_speedup": 1.0})
    point = methods_cifar.Point(run, "tiny", method, aim, 0)
    return methods_cifar.attempt(lambda: point.train(0.005))


@cache
def whole() -> float:
    return macs(lower(deployed(cifar.captured(network(Path())))))


# One for each way of asking; what the others ask for is tested up to where the work begins.
MADE = {
    *("L1", "L1, compensated", "Pruning Filters", "Network Slimming", "He 2017, measured"),
    *("HRank", "DropNet, weights kept", "Group Fisher", "ABCPruner, repaired", "CACP", "DMCP"),
    *("L1, Scratch-B", "uniform width", "closed form", "DepthShrinker", "Layer Folding"),
    *("Practise", "layer pruning", "L1 + chains"),
}
EVERY = (*WIDTH, *DEPTH, *CONTROLS, *(chained(row) for row in (WIDTH[1], DEPTH[2])))
FAST = replace(AIMS[2], value=1.02, precision="fp32")  # int8 is no faster on such a network


def aim_of(method: Row) -> Aim:
    return HALF if method.of == "width" else FAST


@pytest.fixture
def counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """By multiplications: times of so small a network are noise."""

    def speedup_of(_: speedup.Measuring, graph: fx.GraphModule) -> float:
        return whole() / macs(lower(graph))

    def estimate(_: HostTable, key: OpKey) -> OpEstimate:
        return OpEstimate(LAUNCH_MS + key.macs * 1e-7, "measured", False)

    monkeypatch.setattr(speedup.Measuring, "speedup", speedup_of)
    monkeypatch.setattr(HostTable, "estimate", estimate)


def given_epochs(patch: pytest.MonkeyPatch, epochs: int) -> None:
    """All but the last before the last training."""
    length = replace(SHORT, epochs=epochs, choosing=epochs - 1)
    patch.setitem(methods_run.LENGTHS, "short", length)


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(
    "method", [row for row in EVERY if row.method in MADE], ids=lambda r: r.method
)
def test_a_method_of_every_kind_runs_as_it_is_asked_for(
    method: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_epochs(monkeypatch, 12 if method.method == "Group Fisher" else 5)  # a channel a step
    known = trained(method, aim_of(method), tmp_path)
    assert "failure" not in known, known


class BegunError(BaseException):
    """No failure of the row."""


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(
    "method", [row for row in EVERY if row.method not in MADE], ids=lambda r: r.method
)
def test_every_other_method_takes_what_it_is_asked_for(
    method: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun(*_: object) -> None:
        raise BegunError

    given_epochs(monkeypatch, 5)
    monkeypatch.setattr(prune._Run, "pruned", begun)  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(depth_trained, "depth_options", begun)
    monkeypatch.setattr(depth_trained, "interval_options", begun)
    with pytest.raises(BegunError):
        trained(method, aim_of(method), tmp_path)


@pytest.mark.usefixtures("bench")
def test_more_trainings_than_epochs_are_refused(tmp_path: Path) -> None:
    (hrank,) = (one for one in WIDTH if one.method == "HRank")
    assert "behind each of 3 groups, in 1 epoch" in trained(hrank, HALF, tmp_path)["failure"]


def test_int8_is_asked_for_beside_int8() -> None:
    assert AIMS[2].goal(1.6).value == pytest.approx(2.4)
    assert Aim("fp32", "width", "speedup", 1.5, "fp32", 2).goal(1.6).value == 1.5
