"""Hu et al.'s masks: the error by hand, operators that keep their promises, and a small network."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from searches import Chain, batches, in_memory, samples, trained
from torch import Tensor, fx, nn

import shrinkc
from shrinkc import Goal
from shrinkc.compiler.capture import capture
from shrinkc.compiler.recover.recipe import Recipe
from shrinkc.compiler.width.allocation import Allocation
from shrinkc.compiler.width.prune import Pruning
from shrinkc.compiler.width.search.genetic import (
    Genetic,
    child,
    error_of,
    fittest,
    swapped,
)
from shrinkc.compiler.width.search.methods import Search
from shrinkc.passes.analysis.channels.channel_groups import ChannelGroup, channel_groups
from shrinkc.passes.channels.selection import Selection

QUICK = Genetic(population=12, generations=8, judged=3)


def group(cells: list[int]) -> ChannelGroup:
    return ChannelGroup("g", len(cells), np.array(cells), (), (), ())


def random() -> np.random.Generator:
    return np.random.default_rng(0)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 3, 1, bias=False)
        self.b = nn.Conv2d(3, 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


def test_the_error_of_a_mask_by_hand() -> None:
    """Channels compute 1, 2, −1 of x; their readers add (1, 0), (1, 1), (0, 2) times that."""
    net = Two()
    with torch.no_grad():
        net.a.weight.copy_(torch.tensor([1.0, 2.0, -1.0]).reshape(3, 1, 1, 1))
        net.b.weight.copy_(torch.tensor([[1.0, 1, 0], [0, 1, 2]]).reshape(2, 3, 1, 1))
    x = torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1)
    graph = capture(net.eval(), (x,))
    quadratic = error_of(graph, {}, "a", [((x,), None)])
    assert quadratic is not None
    # for x = 1 the outputs are (1 + 2, 2 − 2) = (3, 0): energy 9; contributions (1, 0), (2, 2),
    # (0, −2); for another x all of them that many times larger
    parts = np.array([[1.0, 0], [2, 2], [0, -2]])
    assert quadratic == pytest.approx(parts @ parts.T / 9)
    for gone in ([0], [1, 2], [0, 2]):
        z = np.isin(np.arange(3), gone).astype(float)
        keep = torch.tensor(z == 0).reshape(3, 1, 1)
        lost = net.b(net.a(x)) - net.b(net.a(x) * keep)
        assert z @ quadratic @ z == pytest.approx(
            float(((lost**2).sum() / (net(x) ** 2).sum()).detach())
        )


def test_a_child_keeps_what_both_keep_and_as_many() -> None:
    a, b = (np.array(m, bool) for m in ([1, 1, 0, 0, 1, 0], [1, 0, 1, 0, 1, 0]))
    for seed in range(9):
        found = child(a, b, group([0] * 6), np.random.default_rng(seed))
        assert found.sum() == 3
        assert found[0]
        assert found[4]
        assert found[1] != found[2]


def test_cells_lose_equally_many() -> None:
    cells = group([0, 0, 0, 1, 1, 1])
    a, b = (np.array(m, bool) for m in ([1, 1, 0, 0, 1, 1], [0, 1, 1, 1, 1, 0]))
    for seed in range(9):
        one = np.random.default_rng(seed)
        for found in (child(a, b, cells, one), swapped(a, cells, one)):
            assert found[:3].sum() == found[3:].sum() == 2
        assert (swapped(a, cells, one) != a).sum() == 2


def test_the_least_error_never_rises_and_is_the_least_there_is() -> None:
    parts = np.random.default_rng(3).normal(size=(12, 3))  # channels make up for others
    quadratic, members = parts @ parts.T, group([0] * 12)

    def error(gone: Any) -> float:
        z = np.asarray(gone, float)
        return float(z @ quadratic @ z)

    best: list[float] = []
    for generations in (0, 1, 2, 4, 8, 40):
        found = Genetic(12, generations).evolved(quadratic, np.arange(12) < 6, members, random())
        best.append(error(~found[0]))
        assert len({mask.tobytes() for mask in found}) == len(found) <= 12
        assert all(mask.sum() == 6 for mask in found)
    assert best == sorted(best, reverse=True)
    every = (error(np.isin(np.arange(12), gone)) for gone in combinations(range(12), 6))
    assert best[-1] == pytest.approx(min(every))
    assert best[0] > 20 * best[-1]


def test_fittest_first_and_none_twice() -> None:
    masks = [np.array(m, bool) for m in ([0, 1, 1], [1, 0, 1], [0, 1, 1])]
    found = fittest(masks, np.diag([3.0, 1.0, 2.0]))
    assert [m.tolist() for m in found] == [[True, False, True], [False, True, True]]


# --- on a network --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graph() -> fx.GraphModule:
    return trained()


def start(graph: fx.GraphModule) -> Selection:
    """Bad masks: the first half of each group's channels."""
    return Selection({g.name: np.arange(g.size) < 8 for g in channel_groups(graph).groups})


def searched(graph: fx.GraphModule, most: int) -> tuple[Selection, Any]:
    fitness = in_memory(graph, most)
    fit = [batch for batch, _ in zip(batches(2, 1), "ab", strict=True)]
    return QUICK.search(channel_groups(graph), start(graph), fitness, fit, 0), fitness


def test_better_masks_of_the_same_widths(graph: fx.GraphModule) -> None:
    found, fitness = searched(graph, 100)
    assert {n: int(m.sum()) for n, m in found.keep.items()} == dict.fromkeys(("0", "3", "6"), 8)
    assert fitness.count <= QUICK.evaluations(3) == 12
    before, after = (fitness.one(one.keep) for one in (start(graph), found))
    assert after > before


def test_the_least_sensitive_group_is_pruned_first(graph: fx.GraphModule) -> None:
    fitness = in_memory(graph, 100)
    alone = {n: fitness.one({n: m}) for n, m in start(graph).keep.items()}
    asked: list[set[str]] = []
    of = fitness.of

    def noting(candidates: Any, goal: str = "") -> list[float]:
        asked.append(set(candidates[0]))
        return of(candidates, goal)

    fitness.of = noting  # pyright: ignore
    QUICK.search(channel_groups(graph), start(graph), fitness, batches(1, 1), 0)
    order = sorted(alone, key=lambda n: -alone[n])
    assert asked[3:] == [set(order[:1]), set(order[:2]), set(order)]


def test_with_few_evaluations_the_error_of_the_layers_has_to_do(graph: fx.GraphModule) -> None:
    found, fitness = searched(graph, 4)
    assert fitness.count == 4
    assert {n: int(m.sum()) for n, m in found.keep.items()} == dict.fromkeys(("0", "3", "6"), 8)
    assert any((m != start(graph).keep[n]).any() for n, m in found.keep.items())


X, Y = samples(48, 5)


def test_for_single_groups_and_with_a_teacher() -> None:
    torch.manual_seed(0)
    found = shrinkc.prune(
        *(Chain().eval(), X[:1]),
        keep={"0": 0.5},
        images=(X, Y),
        train=samples(40, 6),
        method=Search("ga", 4),
        options=Pruning(Allocation(multiple=1), recipe=Recipe(epochs=1, batch=8)),
    )
    assert {w.group: w.after for w in found.widths} == {"0": 8, "3": 16, "6": 16}
    assert found.notes[0].startswith("channels by ga: 4 networks judged on 12 images held out of")
    assert found.history[0]["agreement"] is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_order": True}, "`method` ga chooses channels, and so does `in_order`"),
        (
            {"options": Pruning(one_by_one=True), "train": X},
            "`method` ga chooses channels, and so does `one_by_one`",
        ),
        (
            {"options": Pruning(Allocation("search"))},
            "`method` ga chooses channels, and so does `allocation` search",
        ),
        ({"images": None}, "`method` ga judges candidates on images"),
        ({"goal": None}, "give exactly one of"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    given = {"goal": Goal.macs(0.5), "images": X, "method": "ga"}
    with pytest.raises(shrinkc.ShrinkcError, match=message):
        shrinkc.prune(Chain(), X[:1], **{**given, **options})
