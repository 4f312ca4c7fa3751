"""Least squares from sums equals least squares on the rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from shrinkc.compiler.recover import least_squares as least_squares_module
from shrinkc.compiler.recover.least_squares import Normal, best, elimination_order, solve


def rows(count: int, size: int = 6, targets: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated rows far from zero, noisy targets."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=torch.Generator().manual_seed(9))
    x = torch.randn(count, size, generator=generator) @ mixing + 5
    true = torch.randn(size, targets, generator=torch.Generator().manual_seed(8))
    return x, x @ true + 2 + 0.1 * torch.randn(count, targets, generator=generator)


def summed(x: Tensor, y: Tensor, batch: int = 17) -> Normal:
    normal = Normal(x.shape[1], y.shape[1])
    for few_x, few_y in zip(x.split(batch), y.split(batch), strict=True):
        normal.add(few_x, few_y)
    return normal


def least_squares(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(weight, bias) in float64."""
    ones = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    found = torch.linalg.lstsq(ones, y.double()).solution
    return found[:-1].T, found[-1]


def test_without_ridge_it_is_least_squares() -> None:
    x, y = rows(400)
    weight, bias = least_squares(x, y)
    found = solve(summed(x, y), 0.0)
    assert torch.allclose(found.weight, weight, atol=1e-5)
    assert torch.allclose(found.bias, bias, atol=1e-4)


def test_batches_do_not_matter() -> None:
    x, y = rows(300)
    one, many = summed(x, y, 300), summed(x, y, 11)
    assert torch.allclose(solve(one, 0.01).weight, solve(many, 0.01).weight, atol=1e-5)
    assert one.gram.shape == many.gram.shape == (7, 7)


def test_the_error_is_that_of_the_rows() -> None:
    x, y = rows(200)
    normal, other = summed(x, y), rows(50, seed=3)
    held = Normal(6, 3)
    held.centred_at(normal.x0, normal.y0)
    held.add(*other)
    found = solve(normal, 0.1)
    residual = other[1].double() - other[0].double() @ found.weight.T - found.bias
    assert held.error(found) == pytest.approx(float((residual**2).sum()), rel=1e-4)
    spread = other[1].double() - other[1].double().mean(0)
    assert held.spread() == pytest.approx(float((spread**2).sum()), rel=1e-4)


def test_a_strong_ridge_gives_the_prior_and_the_right_mean() -> None:
    x, y = rows(200)
    prior = torch.randn(3, 6, dtype=torch.float64)
    found = solve(summed(x, y), 1e9, prior)
    assert torch.allclose(found.weight, prior, atol=1e-5)
    mean = x.double().mean(0) @ found.weight.T + found.bias
    assert torch.allclose(mean, y.double().mean(0), atol=1e-4)


def test_held_out_images_choose_the_better_prior() -> None:
    """With fewer rows than numbers only the right prior generalises."""
    x, y = rows(300, size=40)
    truth, _ = least_squares(x, y)
    fit = summed(x[:20], y[:20])
    held = Normal(40, 3)
    held.centred_at(fit.x0, fit.y0)
    held.add(x[200:], y[200:])
    _, alone = best(fit, held, [None])
    found, helped = best(fit, held, [None, truth])
    assert helped < 0.5 * alone
    assert torch.allclose(found.weight, truth, atol=0.3)


def test_a_part_of_the_numbers() -> None:
    x, y = rows(200)
    some = torch.tensor([0, 2, 5])
    whole, part = summed(x, y).part(some), summed(x[:, some], y)
    assert torch.allclose(solve(whole, 0.01).weight, solve(part, 0.01).weight, atol=1e-5)


@pytest.mark.parametrize("lazy", [1, 3, 64])
@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_each_step_removes_what_is_missed_least(
    group: int, seed: int, lazy: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(least_squares_module, "LAZY", lazy)
    x, y = rows(500, size=6, seed=seed)
    channels = 6 // group
    alive = list(range(channels))

    def error(kept: list[int]) -> float:
        index = [c * group + i for c in kept for i in range(group)]
        weight, bias = least_squares(x[:, index], y)
        return float(((y.double() - x[:, index].double() @ weight.T - bias) ** 2).sum())

    for gone in elimination_order(*summed(x, y).centred(), group, 1):
        errors = {c: error([a for a in alive if a != c]) for c in alive}
        assert errors[gone] <= min(errors.values()) * (1 + 1e-3)
        alive.remove(gone)
    assert len(alive) == 1


def test_the_order_stops_in_time() -> None:
    order = elimination_order(*summed(*rows(100)).centred(), 1, 4)
    assert len(order) == len(set(order)) == 2
