"""The interval that a table states: by its own errors, wider where it was not tried."""

from __future__ import annotations

import numpy as np
import pytest

from shrinkc.latency_tables.files import Validation
from shrinkc.latency_tables.tested.interval import spread


def rows(held_out: str, *factors: float, precision: str = "fp32") -> list[Validation]:
    return [Validation(f"n{i}", precision, 10.0 * f, 10.0, held_out) for i, f in enumerate(factors)]


def test_nine_of_ten_new_networks_lie_within() -> None:
    dice = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        *known, new = np.exp(dice.normal(0, 0.1, 21))
        factor = spread(rows("network", *known), "fp32", 0.0)
        assert factor is not None
        inside += 1 / factor <= new <= factor
    assert 0.87 < inside / 400 < 0.96


def test_families_held_out_count_before_networks() -> None:
    known = [
        *rows("family", *[1.3] * 20),
        *rows("network", *[1.1] * 20),
        *rows("none", *[1.0] * 20),
    ]
    assert spread(known, "fp32", 0.0) == pytest.approx(1.3)
    assert spread(known, "int8", 0.0) is None


def test_what_is_unlike_the_fit_is_as_uncertain_as_such_networks_were() -> None:
    known = rows("family", *[1.1] * 20)
    assert spread(known, "fp32", 1.0) == pytest.approx(2.0)  # none were measured
    half = spread(known, "fp32", 0.5)
    assert half == pytest.approx((1.1 * 2.0) ** 0.5)
    unlike = [*known, *rows("unlike", *[1 / 1.5] * 9)]
    assert spread(unlike, "fp32", 1.0) == pytest.approx(1.5)


def test_few_networks_tell_less() -> None:
    few = rows("network", *[1.1] * 5)
    assert spread(few, "fp32", 0.0) == pytest.approx(1.1**1.5)
    assert spread(few[:3], "fp32", 0.0) == pytest.approx(2.0)
    assert spread([*few[:3], *rows("unlike", *[3.0] * 9)], "fp32", 0.0) == pytest.approx(3.0)
