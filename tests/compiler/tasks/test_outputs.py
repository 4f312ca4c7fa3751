"""How outputs are measured, and what a network is taken to be for."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shrinkc.compiler.tasks.by_outputs import holds_scores, task_of
from shrinkc.compiler.tasks.classification import Classification
from shrinkc.compiler.tasks.embedding import Embedding
from shrinkc.compiler.tasks.outputs import output_of
from shrinkc.compiler.tasks.regression import Regression
from shrinkc.compiler.tasks.segmentation import Segmentation


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_column_by_its_own_variance() -> None:
    want = drawn(50, 2) * torch.tensor([1000.0, 0.01])
    got = want.clone()
    got[:, 1] = want[:, 1].mean()  # nothing is left of the small one
    found = output_of(want, 50).divergence(got, want)
    assert float(found.mean()) == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((20, 3, 9, 9), 1), ((20, 9, 9, 3), 3), ((20, 9, 3), 2), ((20, 3, 9), 1), ((20, 4), 1)],
)
def test_columns_are_what_has_a_unit(shape: tuple[int, ...], axis: int) -> None:
    sizes = torch.tensor([1.0, 100.0, 0.01, 7.0])[: shape[axis]]
    placed = sizes.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    found = output_of(drawn(*shape) * placed, 20)
    assert found.axis == axis
    assert found.variances == pytest.approx((sizes**2).tolist(), rel=0.8)


def test_channels_like_each_other_are_channels_still() -> None:
    assert output_of(drawn(20, 3, 16, 16), 20).axis == 1
    assert output_of(drawn(20, 3, 16, 16).softmax(1), 20).axis is None


def test_a_column_that_never_moves_is_measured_by_its_size() -> None:
    want = torch.cat((torch.full((9, 1), 5.0), drawn(9, 1)), 1)
    one = output_of(want, 9)
    assert one.variances[0] == pytest.approx(0.05**2)
    assert one.divergence(want, want).tolist() == [0] * 9
    nothing = output_of(torch.zeros(9, 2), 9)
    assert nothing.divergence(torch.zeros(9, 2), torch.zeros(9, 2)).tolist() == [0] * 9


def test_integers_are_told_by_how_many_differ() -> None:
    want = torch.arange(10) % 2
    got = want.clone()
    got[0] = 1 - got[0]
    found = output_of(want, 10).divergence(got, want)
    assert found.tolist() == [4.0] + [0.0] * 9  # 2 over an impurity of a half
    assert float(found.mean()) == pytest.approx(0.4)


def test_what_has_no_batch_is_compared_whole() -> None:
    anchors = drawn(7, 4)
    one = output_of(anchors, 20)
    assert not one.batched
    assert one.divergence(anchors + 1, anchors).shape == (1,)
    task = Regression().scaled((anchors, drawn(20, 3)), 20)
    apart = task.divergence((anchors + 1, drawn(20, 3)), (anchors, drawn(20, 3)))
    assert apart.shape == (20,)
    assert float(apart.min()) > 0


def test_an_output_as_long_as_the_batch_has_other_lengths_too() -> None:
    turned = drawn(3, 20)  # (columns, images)
    one = output_of(turned, 20)
    found = one.divergence(drawn(3, 5), drawn(3, 5) + 1)
    assert math.isfinite(float(found))


# --- what a network is for -----------------------------------------------------------------------


def trained(classes: int, steps: int = 150) -> Tensor:
    """The scores for 40 images of a classifier that was trained by cross-entropy."""
    torch.manual_seed(0)
    centres, net = 2 * torch.randn(classes, 8), nn.Sequential(*_layers(classes))
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    labels = torch.arange(400) % classes
    x = centres[labels] + torch.randn(400, 8)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(net(x), labels).backward()
        optimiser.step()
    with torch.no_grad():
        return net(x[:40])


def _layers(outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, outputs)


@pytest.mark.parametrize("classes", [2, 4, 10, 60])
def test_scores_are_known_by_what_cross_entropy_leaves(classes: int) -> None:
    scores = trained(classes)
    for one in (scores, scores[:, :, None, None], scores.softmax(1), scores.log_softmax(1)):
        assert isinstance(task_of((one,), 40), Classification)


NO_SCORES = {
    "numbers": drawn(40, 4),
    "numbers in large units": 300 * drawn(40, 4),
    "boxes in pixels": 100 + 60 * drawn(40, 4).cumsum(1).abs(),
    "landmarks": 100 * torch.rand(20) + 20 * drawn(40, 1) + 5 * drawn(40, 20),
    "coordinates": torch.rand(40, 2, generator=torch.Generator().manual_seed(1)),
    "an embedding": F.normalize(drawn(40, 128)),
    "an embedding of large numbers": 3 * drawn(40, 128),
    "features behind a ReLU": 4 * drawn(40, 64).relu(),
    "independent shares": drawn(40, 6).sigmoid(),
    "one number": drawn(40, 1),
    "numbers without columns": drawn(40),
    "a map": drawn(40, 3, 8, 8),
    "a map of probabilities": drawn(40, 3, 8, 8).softmax(1),
    "integers": torch.arange(40),
    "NaN": torch.full((40, 4), float("nan")),
}


@pytest.mark.parametrize("name", NO_SCORES)
def test_other_numbers_are_not_taken_for_classes(name: str) -> None:
    told = {"an embedding": Embedding, "a map of probabilities": Segmentation}
    found = task_of((NO_SCORES[name],), 40)
    assert isinstance(found, told.get(name, Regression))
    assert bool(found.notes) == (name in told)  # what was guessed is said


def test_labels_say_what_numbers_do_not() -> None:
    assert isinstance(task_of((NO_SCORES["numbers"],), 40, said=True), Classification)
    assert isinstance(task_of((NO_SCORES["a map"],), 40, said=True), Regression)
    several = (NO_SCORES["numbers"], NO_SCORES["a map"])
    assert isinstance(task_of(several, 40, said=True), Regression)


def test_few_images_tell_nothing() -> None:
    scores = trained(4)
    assert holds_scores(scores)
    assert not holds_scores(scores[:5])


def test_several_outputs_each_by_its_own_kind() -> None:
    scores, depth = trained(4), drawn(40, 1, 6, 6)
    task = task_of((scores, depth), 40)
    assert isinstance(task, Regression)
    assert task.scores == (True, False)
    other = (scores + 3, depth + depth.std())  # a softmax does not see the first
    found = task.divergence(other, (scores, depth))
    assert found.tolist() == pytest.approx([1.0] * 40, rel=0.02)
    assert not task.judges((scores, depth))
    assert task.agree(other, (scores, depth)).shape == (40,)
    assert task.agree((scores, depth), (scores, depth)).tolist() == [1.0] * 40
