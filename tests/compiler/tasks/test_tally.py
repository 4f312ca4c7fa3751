"""What is counted, and whether its intervals hold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from shrinkc.compiler.tasks.classification import Classification
from shrinkc.compiler.tasks.regression import Regression
from shrinkc.compiler.tasks.tally import MOST_ROWS, Judgement, Tally
from shrinkc.errors import InputError


def answers(count: int, seed: int, spread: float = 0.3) -> tuple[Tensor, Tensor]:
    """(what is wanted, what is got): errors differ much from image to image."""
    generator = torch.Generator().manual_seed(seed)
    want = torch.randn(count, 3, generator=generator) * torch.tensor([1.0, 50.0, 0.1])
    own = (0.4 * torch.randn(count, 1, generator=generator)).exp()
    off = spread * own * torch.randn(count, 3, generator=generator)
    return want, want + off * torch.tensor([1.0, 50.0, 0.1])


def judged(want: Tensor, got: Tensor, batch: int = 10) -> Judgement:
    tally = Tally(Regression().scaled((want,), len(want)))
    for w, g in zip(want.split(batch), got.split(batch), strict=True):
        tally.add((g,), (w,), None, len(w))
    return tally.judgement()


def test_error_over_variance_by_hand() -> None:
    want, got = answers(40, 0)
    found = judged(want, got)
    off = (got - want) ** 2
    assert found.images == 40
    assert found.errors[0].value == pytest.approx(float(off.mean() / want.var(correction=0)), 1e-5)
    columns = off.mean(0) / want.var(0, correction=0)
    assert found.errors[0].worst.value == pytest.approx(float(columns.max()), 1e-5)
    assert (found.agreement, found.score, found.drop) == (None, None, None)
    assert judged(want, got, 40).errors[0].value == pytest.approx(found.errors[0].value)


@pytest.mark.parametrize("count", [12, 40, 150])
def test_the_interval_holds_what_is_found_on_as_many_others(count: int) -> None:
    inside = {"whole": 0, "worst": 0}
    for seed in range(200):
        promised = judged(*answers(count, 2 * seed)).errors[0]
        others = judged(*answers(count, 2 * seed + 1)).errors[0]
        for name, one, other in (
            ("whole", promised, others),
            ("worst", promised.worst, others.worst),
        ):
            low, high = one.ends or (0, 0)
            inside[name] += low <= other.value <= high
    assert min(inside.values()) / 200 >= 0.92  # 95 of 100, but for two standard errors of 200


def test_a_large_column_does_not_hide_a_small_one() -> None:
    want, _ = answers(40, 0)
    got = want.clone()
    got[:, 2] = want[:, 2].mean()
    error = judged(want, got).errors[0]
    assert error.value < 1e-4
    assert error.worst.value == pytest.approx(1.0)


def test_equal_answers_promise_equal_answers() -> None:
    want, _ = answers(20, 0)
    (error,) = judged(want, want).errors
    assert error.value == 0
    assert error.ends is not None
    assert error.ends[0] == 0 < error.ends[1] < 1e-6


def test_one_image_tells_nothing_of_others() -> None:
    assert judged(*answers(1, 0)).errors[0].ends is None


def test_what_is_not_finite_is_as_bad_as_can_be() -> None:
    want, got = answers(20, 0)
    got[3, 0] = float("nan")
    assert judged(want, got).errors[0].value == 1e9


def test_where_the_original_has_no_number_none_is_judged() -> None:
    want, got = answers(40, 0)
    plain = judged(want, got).errors[0]
    want[3, 0], got[3, 0] = float("nan"), 7.0
    want[5, 1] = got[5, 1] = float("inf")
    found = judged(want, got).errors[0]
    assert found.value == pytest.approx(plain.value, rel=0.3)
    assert found.ends is not None
    assert 0 < found.ends[0] < found.value < found.ends[1] < 1


def test_overflowing_answers_have_an_interval() -> None:
    want, got = answers(20, 0)
    want[4] *= 1e30
    found = judged(want, got).errors[0]
    for one in (found, found.worst):
        assert one.ends is not None
        assert 0 <= one.ends[0] <= one.value <= one.ends[1] <= 1e9


def test_of_many_images_some_tell_how_they_vary() -> None:
    want, got = answers(3 * MOST_ROWS, 0)
    found = judged(want, got, 64).errors[0]
    wanted = ((got - want) ** 2).mean() / want.var(correction=0)
    assert found.value == pytest.approx(float(wanted), rel=1e-5)
    whole = judged(want[:MOST_ROWS], got[:MOST_ROWS], 64).errors[0]
    assert found.ends is not None
    assert whole.ends is not None
    assert found.ends[1] / found.ends[0] < whole.ends[1] / whole.ends[0]


def test_classes_are_scored_and_measured() -> None:
    want, got = answers(40, 0)
    labels = want.argmax(1)
    tally = Tally(Classification().scaled((want,), 40))
    tally.add((got,), (want,), labels, 40)
    found = tally.judgement()
    same = float((want.argmax(1) == got.argmax(1)).double().mean())
    assert (found.agreement, found.score, found.original_score) == (same, same, 1.0)
    assert found.drop is not None
    assert found.drop.value == pytest.approx(1 - same)
    assert found.labelled
    assert len(found.errors) == 1


def test_clips_of_frames_are_compared_without_classes() -> None:
    want, got = answers(10, 0)
    tally = Tally(Classification())
    tally.add((got,), (want,), None, 40)
    assert tally.judgement().agreement is None


def test_scores_that_are_not_of_each_image_are_refused() -> None:
    want, got = answers(40, 0)
    with pytest.raises(InputError, match=r"shape \(40,\) for 20 samples"):
        Tally(Classification()).add((got,), (want,), None, 20)
