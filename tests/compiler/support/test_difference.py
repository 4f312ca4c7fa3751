"""How far outputs are apart: every channel by its own range, and nothing hides beside another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from shrinkc.compiler.pipeline.run import EXACT_TOLERANCE, worst_error
from shrinkc.compiler.support import difference
from shrinkc.compiler.support.difference import Array, OutputError, relative_error

RNG = np.random.default_rng(0)


def error_of(got: NDArray[np.float64], want: NDArray[np.float64]) -> float:
    error = OutputError()
    error.add(got, want)
    return error.relative()


def test_errors_are_relative_to_the_range() -> None:
    want = np.array([[0.0, 50.0, 100.0]])
    assert relative_error(want + 1.0, want) == pytest.approx(0.01)
    assert relative_error(want[:, :2], want) == float("inf")
    assert relative_error(want * np.nan, want) == float("inf")
    assert relative_error(np.full((1, 2), 3.0), np.full((1, 2), 2.0)) == pytest.approx(0.5)


@pytest.mark.parametrize("constant", [-1.0, 3e5, 2e-7])
@pytest.mark.parametrize("relative", [relative_error, error_of])
def test_a_range_that_is_only_rounding_is_not_divided_by(
    relative: Callable[[Array, Array], float], constant: float
) -> None:
    """A constant output, computed in two ways, is equal; one that is off by a millionth is not."""
    rounded = constant * (1 + np.finfo(np.float64).eps * RNG.integers(-3, 4, (2, 3, 4, 4)))
    other = constant * (1 + np.finfo(np.float64).eps * RNG.integers(-3, 4, (2, 3, 4, 4)))
    assert 0 < np.ptp(rounded) < 1e-14 * abs(constant)
    for want in (rounded, np.full_like(rounded, constant)):
        assert relative(other, want) < 1e-12
        spoilt = other.copy()
        spoilt[1, 2, 3, 3] += 1e-6 * constant
        assert relative(spoilt, want) > EXACT_TOLERANCE


def test_an_exact_pass_may_round_a_constant_and_not_change_it() -> None:
    """The same through the check of exact passes."""
    x = torch.linspace(-2, 2, 32, dtype=torch.float64).reshape(1, 2, 4, 4)
    constant = torch.sin(x) ** 2 + torch.cos(x) ** 2 - 2
    assert 0 < float(constant.max() - constant.min()) < 1e-15
    assert worst_error(-torch.ones_like(x), constant)[0] <= EXACT_TOLERANCE
    assert worst_error(-torch.ones_like(x) - 1e-6, constant)[0] > EXACT_TOLERANCE


@pytest.mark.parametrize("shape", [(8, 5), (2, 5, 6, 7), (2, 9, 5), (2, 5, 9), (2, 3, 4, 4, 5)])
def test_a_rounded_channel_does_not_hide_beside_a_large_one(shape: tuple[int, ...]) -> None:
    want = RNG.standard_normal(shape)
    dimension = shape.index(5)
    small = [slice(None)] * len(shape)
    small[dimension] = 3  # pyright: ignore[reportArgumentType, reportCallIssue]
    want *= 40000.0
    want[tuple(small)] /= 40000.0
    got = want.copy()
    got[tuple(small)] = np.trunc(got[tuple(small)])
    assert relative_error(got, want) < 1e-4
    assert error_of(got, want) > 0.05
    assert error_of(want, want) == 0


def test_ranges_are_those_of_all_batches() -> None:
    """One sample says nothing of a column's range: 1e-6 is much for a score that is nearly 0."""
    want = RNG.standard_normal((64, 10))
    want[0] *= 1e-6
    got = want + 1e-7
    assert error_of(got[:1], want[:1]) > 1e-3
    error = OutputError()
    for row in range(64):
        error.add(got[row : row + 1], want[row : row + 1])
    assert error.relative() < 1e-6


def test_numbers_without_a_batch_are_judged_whole() -> None:
    assert error_of(np.array(2.02), np.array(2.0)) == pytest.approx(0.01)
    assert error_of(np.array([0.0, 1.01]), np.array([0.0, 1.0])) == pytest.approx(0.01)
    assert error_of(np.array(0.0), np.array(0.0)) == 0


def test_another_shape_and_a_new_nan_are_infinitely_far() -> None:
    want = RNG.standard_normal((2, 3))
    assert error_of(want[:, :2], want) == float("inf")
    spoilt = want.copy()
    spoilt[0, 0] = np.nan
    assert error_of(spoilt, want) == float("inf")


def test_outputs_without_numbers_are_equal() -> None:
    empty = np.zeros((1, 0, 4), np.float32)
    assert relative_error(empty, empty) == 0
    assert relative_error(empty, np.zeros((1, 1, 4), np.float32)) == float("inf")


def test_comparing_leaves_both_as_they_are() -> None:
    got, want = np.array([[1.0, 2.0]]), np.array([[1.5, np.inf]])
    error = OutputError()
    error.add(got, want)
    assert got.tolist() == [[1.0, 2.0]]
    assert want.tolist() == [[1.5, np.inf]]


def test_infinity_equals_itself_and_nan_is_no_answer() -> None:
    want = RNG.standard_normal((2, 3))
    want[0] = (np.inf, -np.inf, np.nan)
    assert error_of(want, want) == 0
    assert error_of(np.nan_to_num(want), want) == float("inf")
    got = want.copy()
    got[0, 2] = 1.0
    assert error_of(got, want) == 0


def test_denormal_numbers_may_be_zero() -> None:
    want = np.array([[1e-40, 2e-39], [3e-40, 1e-39]])
    assert error_of(np.zeros_like(want), want) == 0
    assert error_of(np.zeros_like(want), 1e3 * want) > 0.1


def test_integers_are_judged_by_the_share_that_differs() -> None:
    want = np.arange(100).reshape(1, 100)
    got = want.copy()
    got[0, :3] += 1
    assert error_of(got, want) == pytest.approx(0.03)


def test_what_rounding_explains_is_forgiven_channel_by_channel() -> None:
    want = RNG.standard_normal((16, 3))
    got = want + np.array([0.0, 1e-3, 1e-3])
    unsure = want + np.array([1.0, 1e-2, 0.0])
    error, rounding = OutputError(), OutputError()
    error.add(got, want)
    rounding.add(unsure, want)
    error.forgive(rounding)
    assert 1e-4 < error.relative() < 1e-3  # the last column is not explained
    rounding.add(want + 1e-2, want)
    error.forgive(rounding)
    assert error.relative() == 0


def test_flipped_integers_are_forgiven_where_rounding_flips_as_many() -> None:
    want = np.arange(100).reshape(1, 100)
    got, unsure = want.copy(), want.copy()
    got[0, 0], unsure[0, 5] = 7, 8
    error, rounding = OutputError(), OutputError()
    error.add(got, want)
    rounding.add(want, want)
    error.forgive(rounding)
    assert error.relative() == pytest.approx(0.01)
    rounding = OutputError()
    rounding.add(unsure, want)
    error.forgive(rounding)
    assert error.relative() == 0


@pytest.mark.parametrize("shape", [(2, 7, 5), (3, 6, 4, 5), (1, 5, 1, 3), (2, 9)])
def test_some_channels_at_a_time_are_as_all_at_once(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    want = rng.normal(size=shape).astype(np.float32)
    got = want + rng.normal(scale=1e-3, size=shape).astype(np.float32)
    want[0, 1], got[0, 2] = np.inf, np.nan
    whole, parts = OutputError(), OutputError()
    whole.add(got, want)
    monkeypatch.setattr(difference, "SLAB", 12)
    parts.add(got, want)
    assert whole._along.keys() == parts._along.keys()
    for key, one in whole._along.items():
        other = parts._along[key]
        for name in ("difference", "low", "high"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
