"""Masks: mIoU by hand, what is ignored, sizes, and what no network can answer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from shrinkc.compiler.tasks.segmentation import Segmentation
from shrinkc.compiler.tasks.tally import Judgement, Tally
from shrinkc.errors import InputError

TASK = Segmentation()
MASK = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 2], [2, 2, 2, 2]]])
FOUND = torch.tensor([[[0, 0, 1, 1], [0, 1, 1, 1], [2, 2, 2, 2], [2, 2, 2, 0]]])
BY_HAND = (3 / 5 + 4 / 5 + 7 / 8) / 3  # intersections over unions of 0, 1 and 2


def scores(classes: Tensor, count: int = 3) -> tuple[Tensor]:
    """Whose highest are `classes` (n, H, W)."""
    return (5 * torch.nn.functional.one_hot(classes, count).movedim(3, 1).float(),)


def miou(answer: tuple[Tensor, ...], masks: Tensor, task: Segmentation = TASK) -> float:
    return task.score(task.evidence(answer, masks))


def test_by_hand() -> None:
    assert miou(scores(FOUND), MASK) == pytest.approx(BY_HAND)
    assert miou(scores(MASK), MASK) == 1.0
    assert TASK.details(TASK.evidence(scores(FOUND), MASK)) == {"pixel accuracy": 14 / 16}
    assert miou((FOUND,), MASK) == pytest.approx(BY_HAND)  # classes that the network names itself
    assert miou(scores(FOUND), MASK[:, None]) == pytest.approx(BY_HAND)


def test_over_all_images_together() -> None:
    """Not the mean of the images' own."""
    other = torch.zeros_like(MASK)
    masks, found = torch.cat((MASK, other)), torch.cat((FOUND, other))
    assert miou(scores(found), masks) == pytest.approx((19 / 21 + 4 / 5 + 7 / 8) / 3)


def test_what_is_ignored_does_not_count() -> None:
    ignored = torch.where(MASK == FOUND, MASK, 255)
    assert miou(scores(FOUND), ignored) == 1.0
    with pytest.raises(InputError, match="has the class 255; the network tells 3 classes apart"):
        Segmentation(ignore=254).check_labels(scores(FOUND), ignored, "images")
    with pytest.raises(InputError, match="no pixel of the masks counts: all are 255"):
        miou(scores(FOUND), torch.full_like(MASK, 255))


def test_a_class_off_by_one_is_seen() -> None:
    assert miou(scores(FOUND, 4), MASK + 1) < 0.3
    with pytest.raises(InputError, match="masks have the class 3; the network tells 3"):
        miou(scores(FOUND), MASK + 1)


def test_coarse_scores_are_enlarged_before_the_class_is_taken() -> None:
    coarse = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(coarse, size=(9, 9), mode="bilinear")
    assert miou((coarse,), fine.argmax(1)) == 1.0


def test_one_score_is_cut_at_zero_or_at_a_half() -> None:
    masks = torch.tensor([[[0, 1], [1, 1]]])
    logits = torch.tensor([[[[-2.0, 0.3], [0.2, 3.0]]]])
    assert miou((logits,), masks) == 1.0
    shares = TASK.scaled((logits.sigmoid(),), 1)
    assert miou((logits.sigmoid(),), masks, shares) == 1.0
    assert miou((logits.sigmoid(),), masks, TASK.scaled((logits,), 1)) == pytest.approx(3 / 8)


def test_nan_is_no_class() -> None:
    (broken,) = scores(MASK)
    broken[0, 1, 0, 0] = float("nan")
    assert miou((broken,), MASK) == pytest.approx((3 / 4 + 1 + 1) / 3)


def test_without_masks_the_originals_classes_are_the_truth() -> None:
    tally = Tally(TASK.scaled(scores(MASK), 1))
    for _ in range(8):
        tally.add(scores(FOUND), scores(MASK), None, 1)
    found = tally.judgement()
    assert found.agreement == pytest.approx(BY_HAND)
    assert found.score is None
    assert found.drop is not None
    assert found.drop.value == pytest.approx(1 - BY_HAND)
    assert not found.labelled


def judged(count: int, seed: int) -> Judgement:
    """Each image's answers are wrong on another share of its pixels."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 3, (count, 8, 8), generator=generator)
    wrong = torch.rand(count, 8, 8, generator=generator)
    wrong = wrong < 0.4 * torch.rand(count, 1, 1, generator=generator)
    found = torch.where(wrong, (masks + 1) % 3, masks)
    tally = Tally(TASK)
    tally.add(scores(found), scores(masks), masks, count)
    return tally.judgement()


def test_the_interval_of_a_drop_holds_the_truth() -> None:
    truth = judged(4000, 0).drop
    assert truth is not None
    inside = 0
    for seed in range(1, 101):
        drop = judged(25, seed).drop
        assert drop is not None
        low, high = drop.ends or (0, 0)
        inside += low <= truth.value <= high
    assert inside >= 90


def test_no_change_on_few_images_is_no_proof() -> None:
    tally = Tally(TASK)
    for _ in range(3):
        tally.add(scores(MASK), scores(MASK), MASK, 1)
    drop = tally.judgement().drop
    assert drop is not None
    assert drop.value == 0
    assert drop.ends is not None
    assert drop.ends[1] > 0.2


def test_divergence_is_of_kullback_and_leibler_over_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    want, got = (torch.randn(2, 3, 4, 4, generator=generator) for _ in range(2))
    p, q = want.softmax(1), got.softmax(1)
    wanted = (p * (p / q).log()).sum(1).mean((1, 2))
    torch.testing.assert_close(TASK.divergence((got,), (want,)), wanted)
    assert TASK.divergence((want,), (want,)).tolist() == [0, 0]
    shares = TASK.scaled((p,), 2)
    torch.testing.assert_close(shares.divergence((q,), (p,)), wanted)
    single, other = want[:, :1], got[:, :1].clone().requires_grad_()
    (slope,) = torch.autograd.grad(TASK.divergence((other,), (single,)).sum(), other)
    torch.testing.assert_close(slope, (other.sigmoid() - single.sigmoid()).detach() / 16)


def test_what_is_no_map_is_refused() -> None:
    with pytest.raises(InputError, match="`task` segmentation: the first output is 4×3; scores of"):
        TASK.scaled((torch.randn(4, 3),), 4)
    with pytest.raises(InputError, match="labels of float32, shape 1×4×4; segmentation needs"):
        TASK.check_labels(scores(FOUND), MASK.float(), "images")
