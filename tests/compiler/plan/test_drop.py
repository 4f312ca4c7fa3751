"""What a plan promises, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from shrinkc.compiler.plan.drop import promise_of
from shrinkc.compiler.tasks.tally import interval

SCORES = torch.tensor([[0.0, math.log(3), -40.0], [math.log(9), 0.0, -40.0]])  # ¼ ¾, 0.9 0.1
OTHER = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])


def original(x: tuple[Tensor, ...]) -> tuple[Tensor]:
    return (SCORES[x[0].long()],)


def changed(x: tuple[Tensor, ...]) -> tuple[Tensor]:
    return (OTHER[x[0].long()],)


def test_expected_by_the_originals_confidence() -> None:
    promise = promise_of(original, changed, [((torch.tensor([0, 1]),), None)])
    assert promise.images == 2
    assert promise.agreement == 0.5
    assert promise.drop == pytest.approx((0.75 - 0.25) / 2)
    assert not promise.labelled


def test_counted_with_labels() -> None:
    batches = [
        ((torch.tensor([0]),), torch.tensor([1])),
        ((torch.tensor([1]),), torch.tensor([0])),
    ]
    assert promise_of(original, changed, batches).drop == 0.5
    better = [((torch.tensor([0, 1]),), torch.tensor([0, 0]))]
    assert promise_of(original, changed, better).drop == -0.5


def test_the_expectation_is_that_of_labels_drawn_by_the_original() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(4000, 5, generator=generator) * 2
    noisy = scores + torch.randn(4000, 5, generator=generator)
    labels = torch.multinomial(scores.softmax(1), 1, generator=generator)[:, 0]
    rows = torch.arange(4000)
    expected = promise_of(lambda x: (scores[x[0]],), lambda x: (noisy[x[0]],), [((rows,), None)])
    counted = promise_of(lambda x: (scores[x[0]],), lambda x: (noisy[x[0]],), [((rows,), labels)])
    assert counted.labelled
    assert expected.drop == pytest.approx(counted.drop, abs=0.02)
    assert 1 - expected.agreement > 2 * expected.drop


def test_the_interval_by_hand() -> None:
    """Of 98 images 3 are lost and 1 is won: Agresti and Min's formula."""
    lost = torch.tensor([1.0, 1.0, 1.0, -1.0] + [0.0] * 94)
    width = 1.96 * (0.05 - 0.02**2) ** 0.5 / 10
    assert interval(lost) == pytest.approx((0.02 - width, 0.02 + width))


def test_few_images_without_a_change_prove_little() -> None:
    low, high = interval(torch.zeros(10))
    assert high == -low > 0.1
    assert interval(torch.zeros(10_000))[1] < 1e-3
    assert interval(torch.zeros(0))[1] > 0.9


def test_the_interval_holds_the_drop_of_all_images() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(500, 200, generator=generator)
    lost = (draws < 0.08).double() - (draws > 0.97).double()
    inside = sum(low <= 0.05 <= high for low, high in map(interval, lost))
    assert 0.93 < inside / 500 < 0.98
