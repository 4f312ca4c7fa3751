"""Which layer became which, and that the milliseconds add up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sample_reports import plain, rich, uncaptured

from shrinkc.compiler.report.html.sections.blocks import Block, blocks_of
from shrinkc.compiler.report.html.sections.frontier import ticks
from shrinkc.compiler.report.html.sections.network import described
from shrinkc.compiler.report.html.sections.waterfall import Step, steps

Sample = Callable[[], dict[str, Any]]


def layer(name: str, macs: int = 1, op: str = "conv2d", ms: float = 1.0) -> dict[str, Any]:
    return {"name": name, "op": op, "ms": ms, "source": "fitted", "macs": macs}


def between(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, Any]:
    return {"prediction_before": {"layers": before}, "prediction": {"layers": after}}


def shapes(blocks: tuple[Block, ...]) -> list[tuple[str, str, str]]:
    return [
        (b.kind, "".join(x.name for x in b.before), "".join(x.name for x in b.after))
        for b in blocks
    ]


def test_a_pass_says_what_it_merged() -> None:
    blocks = blocks_of(plain())
    assert shapes(blocks) == [("kept", "a", "a"), ("merged", "bc", "d"), ("kept", "e", "e")]
    assert described(blocks[1]) == (
        "merged: b, c → d (3 nodes are one 3×3 convolution, stride 1×1); 5.00 ms before, 3.50 ms "
        "after"
    )


def test_a_merged_layer_may_have_the_name_of_the_last() -> None:
    before = [layer("a"), layer("b", 5), layer("c", 9), layer("d")]
    after = [layer("a"), layer("c", 8), layer("d")]
    assert shapes(blocks_of(between(before, after)))[1] == ("merged", "bc", "c")


def test_narrowed_dropped_new_changed() -> None:
    before = [layer("a"), layer("b", 8), layer("c"), layer("d"), layer("e"), layer("f")]
    after = [layer("a"), layer("b", 4), layer("c"), layer("e"), layer("n"), layer("f", 2)]
    assert shapes(blocks_of(between(before, after))) == [
        *(("kept", "a", "a"), ("narrowed", "b", "b"), ("kept", "c", "c"), ("dropped", "d", "")),
        *(("kept", "e", "e"), ("changed", "f", "nf")),
    ]
    more = [*before, layer("z")]
    assert ("new", "", "y") in shapes(blocks_of(between(before, [*before, layer("y")])))
    assert ("dropped", "z", "") in shapes(blocks_of(between(more, before)))


def test_branches_in_another_order_are_still_there() -> None:
    before, after = [layer(x) for x in "abcd"], [layer(x) for x in "acbd"]
    blocks = blocks_of(between(before, after))
    assert sorted(x.name for b in blocks for x in b.before) == list("abcd")
    assert sorted(x.name for b in blocks for x in b.after) == list("abcd")


@pytest.mark.parametrize("report", [plain, rich])
def test_every_layer_is_in_one_block(report: Sample) -> None:
    found = report()
    blocks = blocks_of(found)
    for side, key in (("before", "prediction_before"), ("after", "prediction")):
        places = [x.place for b in blocks for x in getattr(b, side)]
        assert sorted(places) == list(range(len(found[key]["layers"])))


def test_a_plan_names_its_blocks() -> None:
    kinds = [block.kind for block in blocks_of(rich())]
    assert kinds.count("merged") == 2
    assert kinds.count("dropped") == 1
    assert kinds.count("narrowed") == 6


def test_without_a_prediction_before_every_layer_stays() -> None:
    blocks = blocks_of(plain() | {"prediction_before": None})
    assert [b.kind for b in blocks] == ["kept"] * 3
    assert blocks_of(uncaptured()) == ()


# --- the waterfall -------------------------------------------------------------------------------


def check_sum(report: dict[str, Any]) -> tuple[Step, ...]:
    found = steps(report)
    first, *differences, last = found
    assert first.ms + sum(x.ms for x in differences) == pytest.approx(last.ms)
    assert (first.total, last.total) == (True, True)
    return found


def test_waterfall_of_exact_merges() -> None:
    found = check_sum(plain())
    assert [(x.label, x.kind) for x in found[1:-1]] == [("merged: 2 layers, d", "merged")]
    assert found[1].ms == pytest.approx(-1.5)


def test_waterfall_of_a_plan() -> None:
    found = check_sum(rich())
    assert found[1].label == "int8 instead of fp32"
    assert [x.kind for x in found[2:-2]] == ["merged", "merged", "dropped", "narrowed", "narrowed"]
    assert found[-2].label.startswith("the rest")


def test_waterfall_without_the_network_in_that_precision() -> None:
    found = check_sum(rich() | {"plan": None, "predicted_ms_before_in_precision": None})
    assert [x.label for x in found[1:-1]] == ["int8 and all the rest"]


def test_waterfall_of_int8_alone() -> None:
    found = check_sum(rich() | {"plan": None})
    assert [x.label for x in found[1:-1]] == ["int8 instead of fp32", "all changes to layers"]


def test_many_small_savings_are_one() -> None:
    report = rich()
    choice = report["plan"]["choices"][0]
    report["plan"]["choices"] = [choice | {"saving_ms": 0.1 + 0.01 * at} for at in range(20)]
    found = check_sum(report)
    assert sum(x.kind == "merged" for x in found) == 8
    assert any(x.label == "12 other choices" for x in found)


def test_what_costs_looks_different() -> None:
    report = rich()
    report["plan"]["choices"][0]["saving_ms"] = -2.0
    assert check_sum(report)[2].kind == "cost"


@pytest.mark.parametrize("value", [None, float("nan")])
def test_no_waterfall_without_totals(value: float | None) -> None:
    assert steps(plain() | {"predicted_ms_after": value}) == ()


@pytest.mark.parametrize(("low", "high"), [(0, 62), (0.78, 0.9), (0, 0.0312), (0.5, 0.5), (0, 1e4)])
def test_ticks_are_few_and_around(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    assert found[0] <= low
    assert found[-1] >= high
