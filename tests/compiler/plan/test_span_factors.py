"""Factors of spans, learnt from what sets lose."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf, nan
from typing import Any, cast

import pytest

from shrinkc.compiler.plan.comparing.span_factors import NOISE, SeenSet, SpanFactors

SPANS: list[Any] = [f"span {i}" for i in range(12)]  # nothing but keys here


def seen(loss: float, which: Iterable[int] = range(12), damage: float = 0.1) -> SeenSet:
    return SeenSet({SPANS[i]: damage for i in which}, loss)


def values(found: Any) -> list[float]:
    return list(cast("dict[Any, float]", found).values())


def test_one_set_tells_one_factor() -> None:
    """All spans are in it, and it loses three times the sum: by hand, whatever the noise."""
    factors = SpanFactors(SPANS, seen(3.6))
    assert values(factors.expected()) == pytest.approx([3.0] * 12)


def test_two_sets_by_hand() -> None:
    """One span with a damage of 1: first it loses 2, then 3. The start is 2 with a variance of 4;
    both are seen with a noise of 7% and 1% of the first. The mean is the weighted one."""
    factors = SpanFactors(SPANS[:1], seen(2.0, [0], 1.0))
    factors.saw(seen(3.0, [0], 1.0))
    weights = [1 / 4] + [1 / ((NOISE * lost) ** 2 + 0.02**2) for lost in (2.0, 3.0)]
    mean = (2 * weights[0] + 2 * weights[1] + 3 * weights[2]) / sum(weights)
    assert factors.expected() == {SPANS[0]: pytest.approx(mean)}


def test_leaving_choices_out_tells_their_factors() -> None:
    """Planted: from 0.3 in front to 3 behind."""
    planted = [0.3 * 10 ** (i / 11) for i in range(12)]
    whole = sum(0.1 * one for one in planted)
    factors = SpanFactors(SPANS, seen(whole))
    for left_out, one in enumerate(planted):
        factors.saw(seen(whole - 0.1 * one, (i for i in range(12) if i != left_out)))
    found = values(factors.expected())
    assert found[1:] == sorted(found[1:])
    assert found == pytest.approx(planted, abs=0.6)
    assert found[0] < 0.6 < 2.4 < found[11]


def test_neighbours_are_alike_and_far_spans_are_not() -> None:
    """Of the middle it is known that it costs more; the nearer a span, the more does it, too."""
    factors = SpanFactors(SPANS, seen(0.1, [0]))
    factors.saw(seen(0.3, [6]))
    found = values(factors.expected())
    assert found[6] > found[7] > found[9] > found[11] > 1
    assert found[0] == pytest.approx(1, abs=0.2)


def test_draws_stray_by_their_share_and_are_the_same_again() -> None:
    def drawn(share: float) -> list[float]:
        return values(SpanFactors(SPANS, seen(1.2)).drawn(share))

    assert drawn(0.0) == pytest.approx([1.0] * 12)
    assert drawn(0.1) == drawn(0.1) != drawn(1.0)
    assert max(abs(x - 1) for x in drawn(0.1)) < max(abs(x - 1) for x in drawn(1.0))


def test_no_factor_makes_a_choice_free() -> None:
    factors = SpanFactors(SPANS, seen(1.2))
    factors.saw(seen(5.0, range(11)))  # one less loses far more
    assert min(values(factors.expected())) > 0


def test_what_is_no_number_tells_nothing() -> None:
    factors = SpanFactors(SPANS, seen(1.2))
    factors.saw(seen(nan, range(6)))
    factors.saw(seen(inf, range(6)))
    assert values(factors.expected()) == pytest.approx([1.0] * 12)


@pytest.mark.parametrize("lost", [nan, inf, 0.0])
def test_a_first_set_may_tell_nothing(lost: float) -> None:
    assert not seen(lost).tells
    assert not seen(1.0, damage=0.0).tells
    assert seen(1.0).tells
