"""What counts as kept."""

from __future__ import annotations

from typing import Any

from benchmarks.promised import NETWORKS, REQUESTS, kept, summary


def row(**changed: Any) -> dict[str, Any]:
    promised = {"drop": 0.01, "interval": (-0.005, 0.025)}
    delivered = {"drop": 0.012, "interval": (0.0, 0.024)}
    found = {"asked_speedup": 2.0, "budget_ms": 1.0, "measured_ms": 1.02}
    return found | {"promised": promised, "delivered": delivered} | changed


def losing(drop: float) -> dict[str, Any]:
    return {"drop": drop, "interval": (drop - 0.01, drop + 0.01)}


def test_milliseconds_may_be_three_in_a_hundred_over() -> None:
    assert kept(row(measured_ms=1.029))["in_time"]
    assert not kept(row(measured_ms=1.031))["in_time"]


def test_half_a_point_may_be_lost_beyond_the_promise() -> None:
    assert kept(row(delivered=losing(0.0149)))["drop"]
    assert not kept(row(delivered=losing(0.0151)))["drop"]
    assert kept(row(delivered=losing(-0.02)))["drop"]


def test_an_interval_is_missed_to_either_side() -> None:
    assert kept(row(delivered=losing(0.029)))["interval"]
    assert not kept(row(delivered=losing(0.031)))["interval"]
    assert not kept(row(delivered=losing(-0.011)))["interval"]


def test_a_drop_that_was_asked_for_counts_too() -> None:
    assert "requested" not in kept(row())
    assert kept(row(asked_drop=0.01, delivered=losing(0.0149)))["requested"]
    assert not kept(row(asked_drop=0.005, delivered=losing(0.012)))["requested"]


def test_the_summary_counts() -> None:
    rows = [row(), row(measured_ms=2.0)]
    assert summary([one | {"kept": kept(one)} for one in rows])["in_time"] == "1 of 2"


def test_forty_requests() -> None:
    assert REQUESTS.keys() == NETWORKS.keys()
    assert sum(map(len, REQUESTS.values())) == 40


def rival(ms: float, drop: float) -> dict[str, Any]:
    return {"measured_ms": ms, "delivered": losing(drop)}


def test_a_simpler_command_beats_what_is_slower_and_loses_more() -> None:
    """The plan takes 1.02 ms and loses 1.2 points."""

    def unbeaten(**rivals: Any) -> bool:
        return kept(row(rivals=rivals))["unbeaten"]

    assert "unbeaten" not in kept(row())
    assert unbeaten(compile=rival(1.1, 0.0), shrink=rival(1.0, 0.0075), prune={"failure": "no"})
    assert not unbeaten(compile=rival(1.1, 0.0), shrink=rival(1.0, 0.0065))
