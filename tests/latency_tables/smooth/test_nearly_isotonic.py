"""Small falls are levelled, large ones stay, rises are free; the answer is the optimum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrinkc.latency_tables.smooth.nearly_isotonic import nearly_isotonic

PENALTIES = st.sampled_from([0.0, 0.05, 0.3, 1.0, 5.0])
SEQUENCES = st.lists(st.integers(-3, 3) | st.floats(-3, 3), min_size=1, max_size=9)


def loss(found: np.ndarray, values: np.ndarray, penalty: float) -> float:
    falls = np.maximum(found[:-1] - found[1:], 0).sum()
    return float(np.square(values - found).sum() / 2 + penalty * falls)


@given(SEQUENCES, PENALTIES)
def test_no_move_of_a_run_of_values_is_better(sequence: list[float], penalty: float) -> None:
    """The loss is convex, and its kinks are where neighbours are equal."""
    values = np.array(sequence, np.float64)
    found = nearly_isotonic(values, penalty)
    least = loss(found, values, penalty)
    for first in range(len(values)):
        for last in range(first + 1, len(values) + 1):
            for step in (1e-4, -1e-4):
                moved = found.copy()
                moved[first:last] += step
                assert loss(moved, values, penalty) >= least - 1e-12


def test_a_staircase_stays_as_it_is() -> None:
    stairs = np.repeat([1.0, 1.5, 3.0], 4)
    assert nearly_isotonic(stairs, 0.5).tolist() == stairs.tolist()


def test_a_dip_is_filled_and_a_fall_that_lasts_stays() -> None:
    dip = np.array([1.0, 1.0, 1.0, 0.95, 1.0, 1.0, 1.0])
    assert (np.diff(nearly_isotonic(dip, 0.1)) >= -1e-12).all()
    lasts = np.repeat([2.0, 1.0], 8)
    found = nearly_isotonic(lasts, 0.1)
    assert found[7] - found[8] == pytest.approx(1.0 - 2 * 0.1 / 8)
