"""A value that stands alone is not believed; one that repeats is."""

from __future__ import annotations

import numpy as np
import pytest

from shrinkc.latency_tables.columns import FloatArray
from shrinkc.latency_tables.smooth.kriging import FEWEST, Kriging


def grid() -> FloatArray:
    x, y = np.meshgrid(np.arange(6) / 4, np.arange(6) / 4)
    return np.stack([x.ravel(), y.ravel()], 1)


def plane(points: FloatArray) -> FloatArray:
    noise = np.random.default_rng(0).normal(0, 0.01, len(points))
    return points @ np.array([0.3, 0.1]) + noise


def test_between_values_it_is_smooth_and_at_them_near() -> None:
    points = grid()
    near = Kriging.of(points, plane(points))
    assert len(near.points) == len(points)
    between = points[:-1] + 0.1
    assert near.at(between) == pytest.approx(between @ [0.3, 0.1], abs=0.05)


@pytest.mark.parametrize("off", [0.6, -0.6])
def test_a_lone_value_is_dropped(off: float) -> None:
    points = grid()
    values = plane(points)
    alone = values.copy()
    alone[14] += off
    near = Kriging.of(points, alone)
    assert len(near.points) == len(points) - 1
    assert not (near.points == points[14]).all(1).any()
    assert near.at(points[14:15])[0] == pytest.approx(values[14], abs=0.05)
    without = Kriging.of(np.delete(points, 14, 0), np.delete(values, 14))
    assert near.at(points) == pytest.approx(without.at(points), abs=1e-9)


def test_a_step_that_repeats_is_believed() -> None:
    """Half of the plane is cheaper by the same amount."""
    points = grid()
    values = plane(points) - 0.6 * (points[:, 0] > 0.6)
    near = Kriging.of(points, values)
    steps = near.at(np.array([[0.75, 0.6]])) - near.at(np.array([[0.5, 0.6]]))
    assert len(near.points) == len(points)
    assert steps[0] == pytest.approx(-0.6 + 0.25 * 0.3, abs=0.1)


def test_most_values_are_believed_whatever_they_are() -> None:
    points = grid()
    wild = np.random.default_rng(1).standard_cauchy(len(points))
    assert len(Kriging.of(points, wild).points) >= int(FEWEST * len(points))
