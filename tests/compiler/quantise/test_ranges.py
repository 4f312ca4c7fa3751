"""Ranges suit the images that calibrate and those that exceed them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from shrinkc.compiler.quantise.ranges import HEAVIEST, Histogram, Range, Tail

Draw = Callable[[int, int], Tensor]  # count, seed → (count, values)


def bright(count: int, seed: int, tail: float = 0.3) -> Tensor:
    """Values between 0 and 1 times a brightness of the image, Pareto with ξ = `tail`."""
    generator = torch.Generator().manual_seed(seed)
    brightness = torch.rand(count, 1, generator=generator) ** -tail
    return brightness * torch.rand(count, 500, generator=generator)


def limited(count: int, seed: int) -> Tensor:
    """Behind a ReLU6 that all images reach."""
    generator = torch.Generator().manual_seed(seed)
    return (4 * torch.randn(count, 500, generator=generator)).clamp(0, 6)


def histogram(images: Tensor) -> Histogram:
    found = Histogram()
    for values in images:
        found.add(values)
    return found


def without_room(found: Histogram) -> Range:
    return replace(found, below=Tail(), above=Tail()).best_range()


def error(values: Tensor, found: Range) -> float:
    """Mean squared, of 8 bits."""
    low, high = found
    step = (high - low) / 255
    return float((values.clamp(low, high) - values).square().mean()) + step**2 / 12


def test_unseen_images_are_clipped_less() -> None:
    """Ten samples of 100 images each, ten thousand other images."""
    others = bright(10_000, 99)
    found = [histogram(bright(100, seed)) for seed in range(10)]
    with_room = np.array([error(others, one.best_range()) for one in found])
    without = np.array([error(others, without_room(one)) for one in found])
    assert with_room.mean() < 0.4 * without.mean()
    assert (with_room < without).all()


@pytest.mark.parametrize("seed", range(3))
def test_where_all_images_end_alike_nothing_changes(seed: int) -> None:
    found = histogram(limited(50, seed))
    assert found.best_range() == without_room(found)
    assert found.best_range()[1] <= 6


@pytest.mark.parametrize("draw", [bright, limited])
def test_one_image_tells_of_no_other(draw: Draw) -> None:
    found = histogram(draw(1, 0))
    assert found.best_range() == without_room(found)


@pytest.mark.parametrize("seed", range(3))
def test_ranges_follow_scale_and_sign(seed: int) -> None:
    images = bright(40, seed) - 0.4
    low, high = histogram(images).best_range()
    assert histogram(8 * images).best_range() == pytest.approx((8 * low, 8 * high), rel=1e-6)
    assert histogram(-images).best_range() == pytest.approx((-high, -low), rel=0.05)


@pytest.mark.parametrize("true", [0.1, 0.3])
def test_the_tail_s_index_is_hill_s(true: float) -> None:
    found = Tail()
    for rank in range(1, 2001):  # the quantiles of a Pareto distribution
        found.add(torch.ones(1), (rank / 2001) ** -true)
    assert found.index() == pytest.approx(true, rel=0.08)


def test_the_tail_s_index_is_limited() -> None:
    found = Tail()
    for peak in (1.0, 1e3, 1e6):
        found.add(torch.full((1,), peak), peak)
    assert found.index() == HEAVIEST
    dark = Tail()
    for peak in (0.0, 0.0, 5.0):
        dark.add(torch.full((1,), peak), peak)
    assert dark.index() == 0


def test_what_unseen_images_lose_is_the_expectation_over_brighter_ones() -> None:
    """Against Monte Carlo; of a light tail, whose mean does not rest on what is rare."""
    images = bright(100, 0, tail=0.05)
    found, rng = histogram(images).above, np.random.default_rng(0)
    brightest = images[images.amax(1).argmax()].double().numpy()
    limits = np.array([0.4, 0.6, 0.8, 0.9]) * brightest.max()

    def clipped(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([(np.maximum(values - limit, 0) ** 2).sum() for limit in limits])

    drawn = np.exp(rng.exponential(found.index(), 20_000))
    want = np.mean([clipped(times * brightest) for times in drawn], 0) - clipped(brightest)
    assert found.unseen(limits) == pytest.approx(want, rel=0.15)
    beyond = found.unseen(np.linspace(1, 3, 9) * brightest.max())
    assert beyond[0] > beyond[1] > 0
    assert (np.diff(beyond) <= 0).all()
