"""Numbers as labels: R², structural similarity, peak signal-to-noise ratio, cosines."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from shrinkc.compiler.tasks.by_outputs import task_of
from shrinkc.compiler.tasks.dense import Dense, ssim
from shrinkc.compiler.tasks.embedding import Embedding
from shrinkc.compiler.tasks.regression import Regression
from shrinkc.compiler.tasks.tally import Tally
from shrinkc.errors import InputError


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- regression ---


def test_r_squared_by_hand() -> None:
    want, got = (
        torch.tensor([[1.0], [2.0], [3.0], [6.0]]),
        torch.tensor([[1.0], [3.0], [3.0], [5.0]]),
    )
    task = Regression()
    evidence = task.evidence((got,), want)
    assert task.score(evidence) == pytest.approx(1 - 2 / 14)  # squared errors 2, around the mean 14
    assert task.details(evidence) == {"mean absolute error": pytest.approx(0.5)}
    assert task.score(task.evidence((want,), want[:, 0])) == 1.0  # (n,) for (n, 1)


def test_every_column_counts_alike() -> None:
    want = drawn(50, 2) * torch.tensor([1.0, 1000.0])
    got = want.clone()
    got[:, 0] = want[:, 0].mean()
    task = Regression().scaled((want,), 50)
    assert task.score(task.evidence((got,), want)) == pytest.approx(0.5)


def test_labels_tell_what_a_regression_loses() -> None:
    labels = drawn(60, 3)
    before, after = labels + 0.1 * drawn(60, 3, seed=1), labels + 0.3 * drawn(60, 3, seed=2)
    tally = Tally(Regression().scaled((before,), 60))
    for rows in torch.arange(60).split(7):
        tally.add((after[rows],), (before[rows],), labels[rows], len(rows))
    found = tally.judgement()
    assert found.agreement is None
    assert found.labelled
    assert found.original_score == pytest.approx(0.99, abs=0.01)
    assert found.score == pytest.approx(0.91, abs=0.04)
    assert found.drop is not None
    assert found.drop.ends is not None
    low, high = found.drop.ends
    assert low <= 0.08 <= high


def test_labels_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match="labels of shape 3; the network's first output is 2 for"):
        Regression().check_labels((drawn(4, 2),), drawn(4, 3), "images")
    with pytest.raises(InputError, match="`task` classification if they are its classes"):
        Regression().check_labels((drawn(4, 2),), torch.arange(4), "images")


# --- dense ---


def test_ssim_of_equal_and_of_opposite_maps() -> None:
    x = drawn(2, 3, 16, 16).double()
    assert ssim(x, x, 1.0).tolist() == pytest.approx([1, 1])
    assert float(ssim(9 + x, 9 - x, 1.0).max()) < -0.9
    assert ssim(x[..., :3], x[..., :3], 1.0).tolist() == pytest.approx([1, 1])  # a small map


def test_ssim_by_hand() -> None:
    """Maps of one value each have no variance: only luminance is compared."""
    one, other = torch.full((1, 1, 11, 11), 0.5).double(), torch.full((1, 1, 11, 11), 0.25).double()
    c1 = 0.01**2
    wanted = (2 * 0.125 + c1) / (0.25 + 0.0625 + c1)
    assert ssim(one, other, 1.0).tolist() == pytest.approx([wanted])


def test_peak_signal_to_noise_by_hand() -> None:
    want = torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    task = Dense("psnr", peak=1.0).scaled((want,), 3)
    assert task.score(task.evidence((want + 0.1,), want)) == pytest.approx(20.0, abs=1e-4)
    assert (task.metric, task.unit, task.points, task.style) == ("PSNR", "dB of PSNR", 1.0, "dB")
    assert task.score(task.evidence((want,), want)) == 100.0
    structural = Dense(peak=1.0)
    details = structural.details(structural.evidence((want + 0.1,), want))
    assert details == {"PSNR, dB": pytest.approx(20.0, abs=1e-4)}


def test_the_peak_is_the_originals_range() -> None:
    want = drawn(3, 1, 12, 12)
    found = Dense().scaled((want,), 3)
    assert found.peak == pytest.approx(float(want.max() - want.min()), rel=1e-5)
    with pytest.raises(InputError, match="`task` dense: the first output is 3×4 of float32"):
        Dense().scaled((drawn(3, 4),), 3)
    with pytest.raises(InputError, match="labels of 1×6×6; the network's maps are 1×12×12"):
        found.check_labels((want,), want[..., ::2, ::2], "images")


def test_without_labels_similarity_to_the_original_is_told() -> None:
    want = drawn(12, 1, 12, 12)
    tally = Tally(Dense().scaled((want,), 12))
    tally.add((want + 0.1 * drawn(12, 1, 12, 12, seed=1),), (want,), None, 12)
    found = tally.judgement()
    assert found.agreement is not None
    assert 0.9 < found.agreement < 1
    assert found.drop is not None
    assert found.drop.value == pytest.approx(1 - found.agreement)
    decibels = Tally(Dense("psnr").scaled((want,), 12))
    decibels.add((want,), (want,), None, 12)
    assert (decibels.judgement().agreement, decibels.judgement().drop) == (None, None)


# --- embedding ---


def test_cosines() -> None:
    one = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [1.0, 0.0]])
    other = torch.tensor([[2.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    task = Embedding().scaled((one,), 4)
    assert task.agree((one,), (other,)).tolist() == pytest.approx([1, 0, 0.5**0.5, 0])
    assert task.divergence((one,), (other,)).tolist() == pytest.approx([0, 1, 1 - 0.5**0.5, 2])
    assert task.divergence((one,), (one,)).tolist() == [0, 0, 0, 0]
    assert task.correct((one,), other).tolist() == task.agree((one,), (other,)).tolist()
    broken = one.clone()
    broken[0, 0] = float("nan")
    assert float(task.agree((broken,), (one,))[0]) == 0
    with pytest.raises(InputError, match="`task` embedding: the first output is 4; a vector for"):
        Embedding().scaled((drawn(4),), 4)


# --- what is told by labels and outputs ---


@pytest.mark.parametrize(
    ("labels", "output", "wanted"),
    [
        ("masks", drawn(4, 3, 8, 8), "segmentation"),
        ("numbers", drawn(4, 3, 8, 8), "dense"),
        ("numbers", drawn(4, 3), "regression"),
        (None, F.normalize(drawn(40, 16)), "embedding"),
        (None, drawn(4, 3, 8, 8).softmax(1), "segmentation"),
        (None, drawn(4, 3, 8, 8), "regression"),
    ],
)
def test_what_a_network_is_taken_for(labels, output: Tensor, wanted: str) -> None:  # pyright: ignore
    found = task_of((output,), len(output), labels=labels)
    assert found.name == wanted
    assert bool(found.notes) == (wanted != "regression")


# --- weights ---


@pytest.mark.parametrize("kind", [Regression, Embedding])
def test_outputs_have_weights(kind: type[Regression | Embedding]) -> None:
    want, got = (drawn(6, 8), drawn(6, 8, seed=1)), (drawn(6, 8, seed=2), drawn(6, 8, seed=3))

    def apart(*weights: float) -> Tensor:
        task = kind(weights=weights).scaled(want, 6)
        return task.divergence(got, want)

    first, second = apart(1, 0), apart(0, 1)
    torch.testing.assert_close(apart(1, 0.5), first + 0.5 * second)
    torch.testing.assert_close(apart(), first + second)
    with pytest.raises(InputError, match="`output_weights` has 3 numbers for 2 outputs"):
        apart(1, 2, 3)
    for weights in ((0.0, 0.0), (-1.0, 1.0), (float("nan"), 1.0)):
        with pytest.raises(InputError, match=r"`output_weights` .*: give finite numbers from 0"):
            kind(weights=weights)
