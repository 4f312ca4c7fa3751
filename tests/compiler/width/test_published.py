"""Allocations that look at the network: CaP's search, widths from sensitivity curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from channel_networks import graph_of
from small_networks import CifarBasic, conv
from torch import Tensor, nn

import shrinkc
from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.recover.recipe import Recipe, Trainer
from shrinkc.compiler.train.train import Result
from shrinkc.compiler.width.allocation import Allocation, Space, UnreachableError, space_of
from shrinkc.compiler.width.prune import Pruning
from shrinkc.compiler.width.published.branches import without_branches
from shrinkc.compiler.width.published.by_sensitivity import by_sensitivity, widths_within
from shrinkc.compiler.width.sensitivity import SensitivityCurve
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import Groups, channel_groups
from shrinkc.passes.criteria.base import Scores
from shrinkc.passes.criteria.cap import structural_search
from shrinkc.passes.criteria.magnitude import EqualScores

X = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 4


@dataclass
class Channels:
    """A price: how many channels are left."""

    def total(self, widths: Mapping[str, int]) -> float:
        return float(sum(widths.values()))


def residual() -> tuple[Groups, Space]:
    """Groups a.0 of eight channels and b.0 of six."""
    graph = graph_of("residual")
    groups = channel_groups(graph)
    scores = EqualScores().scores(graph, groups)
    return groups, space_of(groups, scores, Allocation(floor=0.0, candidates=8), 1)


def test_every_group_goes_as_far_as_the_same_drop_allows() -> None:
    """a.0 loses 0.1 with every quarter that goes, b.0 nothing up to a half and 0.4 from there on:
    of 14 channels 9 may stay, so 0.1 is allowed, which takes two channels and three."""
    _, space = residual()
    curves = {
        "a.0": SensitivityCurve("a.0", (0.0, 0.25, 0.5, 0.75), (0.9, 0.8, 0.7, 0.6)),
        "b.0": SensitivityCurve("b.0", (0.0, 0.5, 2 / 3), (0.9, 0.9, 0.5)),
    }
    price = Channels()
    assert widths_within(space, curves, price, 9.0) == {"a.0": 6, "b.0": 3}  # pyright: ignore
    # what is free goes first
    assert widths_within(space, curves, price, 11.0) == {"a.0": 8, "b.0": 3}  # pyright: ignore
    with pytest.raises(UnreachableError):
        widths_within(space, curves, price, 1.0)  # pyright: ignore


def test_a_curve_that_rises_again_allows_no_more() -> None:
    """Half of a.0 costs 0.3; that three quarters cost 0.1 on these images is luck."""
    _, space = residual()
    curves = {
        "a.0": SensitivityCurve("a.0", (0.0, 0.5, 0.75), (0.9, 0.6, 0.8)),
        "b.0": SensitivityCurve("b.0", (0.0, 5 / 6), (0.9, 0.9)),
    }
    found = widths_within(space, curves, Channels(), 9.0)  # pyright: ignore
    assert found == {"a.0": 8, "b.0": 1}


def test_curves_are_measured_once() -> None:
    groups, space = residual()
    graph, judged = graph_of("residual"), list[object]()

    def judge(_: object) -> float:
        judged.append(None)
        return 1.0 / len(judged)

    choose = by_sensitivity(lambda _: judge)
    for budget in (12.0, 10.0):
        keep = choose(graph, groups, space, Channels(), budget, 1).keep  # pyright: ignore
        gone = sum(int((~mask).sum()) for mask in keep.values())
        assert 14 - gone <= budget
    assert len(judged) == 1 + 7 + 5  # the network, every narrower width of each group


def test_the_search_takes_a_share_at_a_time_and_keeps_the_floor() -> None:
    """Scores rise with the channel, b.0's are all larger: a.0 goes first, by two of its eight
    channels a round, and never below a half."""
    groups, _ = residual()
    rounds: list[dict[str, int]] = []

    def judge(selection: object) -> Scores:
        keep = selection.keep  # pyright: ignore
        whole = {g.name: np.ones(g.size, bool) for g in groups.groups}
        rounds.append({n: int(m.sum()) for n, m in (whole | dict(keep)).items()})
        return {"a.0": np.arange(8.0) + 1, "b.0": np.arange(6.0) + 20}

    found = structural_search(
        groups, judge, lambda widths: sum(widths.values()), 8, step=0.25, floor=0.5
    )
    assert rounds[0] == {"a.0": 8, "b.0": 6}
    for before, after in pairwise(rounds):
        assert before["a.0"] - after["a.0"] <= 2
        assert before["b.0"] - after["b.0"] <= 1
    assert found.keep["a.0"].tolist() == [False] * 4 + [True] * 4
    assert int(found.keep["b.0"].sum()) == 4
    with pytest.raises(InputError, match="cannot be met; the closest is 7"):
        structural_search(
            groups, judge, lambda widths: sum(widths.values()), 5, step=0.25, floor=0.5
        )


def network() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 16), (16, 16)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()


@pytest.mark.parametrize(("criterion", "kind"), [("cap", "search"), ("l1", "sensitivity")])
def test_a_command_reaches_them(criterion: str, kind: str) -> None:
    options = Pruning(Allocation(kind, multiple=1))  # pyright: ignore[reportArgumentType]
    given = network(), X[:1]
    more: dict[str, Any] = {"images": (X, LABELS), "options": options, "steps": 0}
    found = shrinkc.prune(*given, goal=Goal.macs(0.6), criterion=criterion, **more)
    first, second, third = (w.after for w in found.widths)
    left = 27 * first + 9 * first * second + 9 * second * third
    assert left <= 0.6 * (27 * 16 + 2 * 9 * 16 * 16) + 1
    assert all(0.1 * w.before <= w.after <= w.before for w in found.widths)
    with pytest.raises(InputError, match=f"`allocation` {kind} looks at images"):
        shrinkc.prune(*given, goal=Goal.macs(0.6), criterion="l1", options=options)


# --- branches that go as a whole -----------------------------------------------------------------


class TwoBranches(nn.Module):
    """A stream of eight channels and two residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.first, self.second = conv(3, 8, 3), CifarBasic(8, 8), CifarBasic(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(self.stem(x))).mean((2, 3)))


def test_a_branch_that_is_zero_goes_and_its_shortcut_stays() -> None:
    """The first block's last weights have a root mean square of 1e-4; without the block x stays,
    less what its last activation cuts off."""
    model = TwoBranches().eval()
    model.first.two[0].weight.data.fill_(1e-4)
    graph = capture(model, (X[:1],))
    assert str(without_branches(graph, 0.9e-4).graph) == str(graph.graph)
    found = without_branches(graph, 1.1e-4)
    left = {name for name, _ in found.named_parameters()}
    assert not any(name.startswith("first.") for name in left)
    assert any(name.startswith("second.") for name in left)
    with torch.no_grad():
        stream = model.second(model.stem(X[:2]).relu())
        want = model.head(stream.mean((2, 3)))
        assert torch.allclose(found(X[:2])[0], want, atol=1e-6)


def test_branches_go_behind_the_penalty() -> None:
    recipe = Recipe(epochs=1, batch=8)
    options = Pruning(Allocation(multiple=1), recipe=recipe)
    given = TwoBranches().eval(), X[:1]
    more: dict[str, Any] = {"criterion": "ssl", "train": (X, LABELS), "options": options}
    found = shrinkc.prune(*given, goal=Goal.channels(0.5), drop_below=100.0, **more)
    gone = {w.group for w in found.widths if w.after == 0}
    assert {name.partition(".")[0] for name in gone} == {"first", "second"}
    kept = shrinkc.prune(*given, goal=Goal.channels(0.5), drop_below=1e-9, **more)
    assert all(w.after > 0 for w in kept.widths)
    with pytest.raises(InputError, match=r"`drop_below` has no effect here: .* ssl, with"):
        shrinkc.prune(*given, goal=Goal.channels(0.5), drop_below=0.1, criterion="l1")


@pytest.mark.parametrize(("criterion", "decays"), [("group-sl", [0.0, 1e-4]), ("ssl", [1e-4] * 2)])
def test_the_growing_penalty_takes_the_place_of_weight_decay(
    criterion: str, decays: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, float]] = []

    def fit(trainer: Trainer, model: nn.Module, name: str, *_: Any) -> Result:
        seen.append((name.partition("-")[0], trainer.recipe.weight_decay))
        return Result(model, (), 1, 0.0)

    monkeypatch.setattr(Trainer, "fit", fit)
    options = Pruning(Allocation(multiple=1), recipe=Recipe(epochs=1, batch=8))
    given = TwoBranches().eval(), X[:1]
    more: dict[str, Any] = {"criterion": criterion, "train": (X, LABELS), "options": options}
    shrinkc.prune(*given, goal=Goal.macs(0.5), **more)
    assert [name for name, _ in seen] == ["penalty", "fine"]
    assert [decay for _, decay in seen] == decays
