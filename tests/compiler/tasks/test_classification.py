"""Classes: ties, NaN, shapes, and where divergence and expectation come from."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from shrinkc.compiler.tasks.classification import CLASSIFICATION, Classification

TASK = Classification()
NAN = float("nan")


def scores(*rows: tuple[float, ...]) -> tuple[Tensor]:
    return (torch.tensor(rows, dtype=torch.float32),)


def noise(seed: int, count: int = 8, classes: int = 5) -> tuple[Tensor]:
    return (torch.randn(count, classes, generator=torch.Generator().manual_seed(seed)),)


def test_it_says_what_it_is() -> None:
    assert (TASK.name, TASK.metric, TASK.unit) == ("classification", "top-1", "points of top-1")
    assert repr(TASK) == "Classification(outputs=(), weights=())"
    assert Classification() == TASK


def test_one_score_an_image() -> None:
    one, other = noise(0), noise(1)
    labels = torch.arange(8) % 5
    for found in (TASK.agree(one, other), TASK.correct(one, labels)):
        assert found.shape == (8,)
        assert set(found.tolist()) <= {0.0, 1.0}
    wanted = one[0].argmax(1) == other[0].argmax(1)
    assert TASK.agree(one, other).tolist() == wanted.double().tolist()
    assert TASK.agree(one, other).equal(TASK.agree(other, one))
    assert TASK.agree(one, one).equal(torch.ones(8).double())
    assert TASK.correct(one, one[0].argmax(1)).equal(torch.ones(8).double())


def test_of_equal_scores_the_first_counts() -> None:
    tied = scores((1, 3, 3), (2, 2, 2))
    assert TASK.correct(tied, torch.tensor([1, 0])).tolist() == [1, 1]
    assert TASK.correct(tied, torch.tensor([2, 1])).tolist() == [0, 0]
    assert TASK.agree(tied, scores((0, 1, 0), (1, 0, 0))).tolist() == [1, 1]


def test_nan_is_no_answer() -> None:
    broken = scores((NAN, 0, 1), (0, NAN, 1), (NAN, NAN, NAN), (0, 1, math.inf))
    assert TASK.agree(broken, broken).tolist() == [0, 0, 0, 1]
    for label in (0, 1, 2, -1):
        right = TASK.correct(broken, torch.full((4,), label))
        assert right.tolist() == [0, 0, 0, label == 2]
    assert TASK.labels(broken) is not None
    assert TASK.labels(broken).tolist() == [-1, -1, -1, 2]


def test_what_nan_is_expected_to_lose() -> None:
    sure = scores((0, math.log(3)))
    assert TASK.expected_drop(scores((NAN, 0)), sure).tolist() == pytest.approx([0.75])
    assert TASK.expected_drop(sure, scores((NAN, 0))).tolist() == [0]  # nothing was there


def test_expected_by_the_references_confidence() -> None:
    sure = scores((0, math.log(3)))
    assert TASK.expected_drop(scores((1, 0)), sure).tolist() == pytest.approx([0.5])
    assert TASK.expected_drop(scores((0, 1)), sure).tolist() == [0]


def test_a_batch_of_one() -> None:
    one = noise(0, count=1)
    assert TASK.agree(one, one).tolist() == [1]
    assert TASK.divergence(one, one).tolist() == [0]
    assert TASK.expected_drop(one, one).tolist() == [0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_divergence_is_of_kullback_and_leibler(dtype: torch.dtype) -> None:
    got, want = ((answer[0].to(dtype),) for answer in (noise(0), noise(1)))
    p, q = want[0].softmax(1), got[0].softmax(1)
    wanted = (p * (p / q).log()).sum(1)
    found = TASK.divergence(got, want)
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted)
    assert TASK.divergence(got, got).equal(torch.zeros(8, dtype=dtype))
    assert TASK.divergence((got[0] + 3,), got).abs().max() < 1e-6  # a softmax does not see it


def test_divergence_is_what_distillation_descends_on() -> None:
    got, want = noise(0)[0].requires_grad_(), noise(1)
    (slope,) = torch.autograd.grad(TASK.divergence((got,), want).mean(), got)
    torch.testing.assert_close(slope, (got.softmax(1) - want[0].softmax(1)) / 8)


def test_a_pooled_map_is_scores_too() -> None:
    flat, other = noise(0), noise(1)
    pooled = (flat[0][:, :, None, None],)
    assert TASK.agree(pooled, other).equal(TASK.agree(flat, other))
    assert TASK.divergence(pooled, other).equal(TASK.divergence(flat, other))
    assert TASK.classes(pooled) == TASK.classes(flat) == 5


def test_other_outputs_are_compared_by_error_over_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    want = torch.randn(4, 3, 6, 6, generator=generator)
    task = TASK.scaled((want,), 4)
    got = want.clone()
    got[1] += 2 * want.std((0, 2, 3), correction=0)[:, None, None]
    assert task.divergence((got,), (want,)).tolist() == pytest.approx([0, 4, 0, 0], rel=1e-4)
    assert not task.judges((want,))
    assert task.labels((want,)) is None
    number = torch.randn(4, 1, generator=generator)
    assert TASK.divergence((number,), (number,)).tolist() == [0] * 4


def test_further_outputs_count_too() -> None:
    one, other = noise(0), noise(1)
    assert TASK.agree((*one, *other), (*one, *one)).sum() == 8
    assert TASK.divergence((*one, *one), (*one, *one)).sum() == 0
    apart = TASK.divergence((*one, *other), (*one, *one))
    wanted = ((other[0] - one[0]) ** 2 / one[0].var(0, correction=0)).mean(1)
    torch.testing.assert_close(apart, wanted, rtol=1e-4, atol=0)


def test_probabilities_are_scores_behind_a_softmax() -> None:
    one, other = noise(0), noise(1)
    soft, changed = (one[0].softmax(1),), (other[0].softmax(1),)
    for found, wanted in (
        (TASK.divergence(changed, soft), TASK.divergence(other, one)),
        (TASK.expected_drop(changed, soft), TASK.expected_drop(other, one)),
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_integers_are_answers_that_are_the_same_or_not() -> None:
    """A network that ends in an argmax, over classes or at every pixel."""
    for shape in ((4,), (4, 2, 2)):
        got, want = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
        want[1] = 7
        same = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
        assert torch.equal(CLASSIFICATION.agree((got,), (want,)), same)
        apart = CLASSIFICATION.divergence((got,), (want,))
        assert (apart > 0).tolist() == [False, True, False, False]
        assert torch.equal(CLASSIFICATION.expected_drop((got,), (want,)), 1 - same)
        assert CLASSIFICATION.labels((got,)) is None
    truth = torch.tensor([[True, False]])
    assert not CLASSIFICATION.judges((truth,))
    assert CLASSIFICATION.divergence((truth,), (~truth,)).tolist() == [4.0]  # over a half, twice
