"""Factors of spans, learnt from what sets lose."""

from __future__ import annotations

from math import inf, nan
from typing import Any, cast

import pytest

from shrinkc.compiler.plan.comparing.span_factors import NOISE, SpanFactors

# Spans are nothing but keys here.
DAMAGES: list[tuple[Any, float]] = [(f"span {i}", 0.1) for i in range(12)]
SPANS = [span for span, _ in DAMAGES]


def factors_of(damages: list[tuple[Any, float]] | None = None) -> SpanFactors:
    return SpanFactors(SPANS, DAMAGES if damages is None else damages)


def values(found: Any) -> list[float]:
    return list(cast("dict[Any, float]", found).values())


def test_one_set_tells_one_factor() -> None:
    """All spans are in it, and it loses three times the sum: by hand, whatever the noise."""
    factors = factors_of()
    assert factors.saw(range(12), 3.6)
    assert values(factors.expected()) == pytest.approx([3.0] * 12)


def test_two_sets_by_hand() -> None:
    """One span with a damage of 1: first it loses 2, then 3. The start is 2 with a variance of 4;
    both are seen with a noise of 7% and 1% of the first. The mean is the weighted one."""
    factors = SpanFactors(SPANS[:1], [(SPANS[0], 1.0)])
    assert factors.saw([0], 2.0)
    assert factors.saw([0], 3.0)
    weights = [1 / 4] + [1 / ((NOISE * lost) ** 2 + 0.02**2) for lost in (2.0, 3.0)]
    mean = (2 * weights[0] + 2 * weights[1] + 3 * weights[2]) / sum(weights)
    assert factors.expected() == {SPANS[0]: pytest.approx(mean)}


def test_leaving_choices_out_tells_their_factors() -> None:
    """Planted: from 0.3 in front to 3 behind."""
    planted = [0.3 * 10 ** (i / 11) for i in range(12)]
    factors = factors_of()
    whole = sum(0.1 * one for one in planted)
    factors.saw(range(12), whole)
    for left_out, one in enumerate(planted):
        factors.saw([i for i in range(12) if i != left_out], whole - 0.1 * one)
    found = values(factors.expected())
    assert found[1:] == sorted(found[1:])
    assert found == pytest.approx(planted, abs=0.6)
    assert found[0] < 0.6 < 2.4 < found[11]


def test_neighbours_are_alike_and_far_spans_are_not() -> None:
    """Of the middle it is known that it costs more; the nearer a span, the more does it, too."""
    factors = factors_of()
    factors.saw([0], 0.1)
    factors.saw([6], 0.3)
    found = values(factors.expected())
    assert found[6] > found[7] > found[9] > found[11] > 1
    assert found[0] == pytest.approx(1, abs=0.2)


def test_draws_stray_by_their_share_and_are_the_same_again() -> None:
    def drawn(share: float) -> list[float]:
        factors = factors_of()
        factors.saw(range(12), 1.2)
        return values(factors.drawn(share))

    assert drawn(0.0) == pytest.approx([1.0] * 12)
    assert drawn(0.1) == drawn(0.1) != drawn(1.0)
    assert max(abs(x - 1) for x in drawn(0.1)) < max(abs(x - 1) for x in drawn(1.0))


def test_no_factor_makes_a_choice_free() -> None:
    factors = factors_of()
    factors.saw(range(12), 1.2)
    factors.saw(range(11), 5.0)  # one less loses far more
    assert min(values(factors.expected())) > 0


@pytest.mark.parametrize("lost", [nan, inf, 0.0])
def test_what_tells_nothing_is_left(lost: float) -> None:
    factors = factors_of()
    assert not factors.saw(range(12), lost)
    free: list[tuple[Any, float]] = [(span, 0.0) for span in SPANS]
    assert not factors_of(free).saw(range(12), 1.0)
