"""Criteria that learn their scores: a training comes first, kept, with labels or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from searches import Chain, samples
from torch import nn

import shrinkc
from shrinkc import Goal
from shrinkc.compiler.recover.recipe import Recipe, Trainer
from shrinkc.compiler.width.allocation import Allocation
from shrinkc.compiler.width.prune import Pruning
from shrinkc.compiler.width.search.methods import Search

HALF = Goal.macs(0.5)
X, Y = samples(48, 5)


def asked(model: nn.Module | None = None, **options: Any) -> Any:
    torch.manual_seed(0)
    recipe = Recipe(epochs=1, search_epochs=options.pop("search_epochs", None), batch=8)
    widths = options.pop("allocation", Allocation(multiple=1))
    turns = {name: options.pop(name) for name in ("rounds", "one_by_one") if name in options}
    more = {
        "goal": HALF,
        "criterion": "mseb",
        "train": (X, Y),
        "options": Pruning(widths, recipe=recipe, **turns),
    }
    model = Chain() if model is None else model
    return shrinkc.prune(model.eval(), X[:1], **{**more, **options})


class Trainings:
    """Those that began, and how long they were; the real ones run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[tuple[str, int]] = []
        fit = Trainer.fit

        def watched(this: Trainer, model: Any, name: str, epochs: int, *more: Any) -> Any:
            self.names.append((name.partition("-")[0], epochs))
            return fit(this, model, name, epochs, *more)

        monkeypatch.setattr(Trainer, "fit", watched)


def work(a: int, b: int, c: int) -> int:
    """Multiply-accumulates of a chain: positions and kernels, and the head's four classes."""
    return 64 * 9 * (3 * a + a * b + b * c) + 16 * c


@pytest.mark.parametrize("goal", [HALF, Goal.params(0.5), Goal.channels(0.6)])
def test_scores_are_learned_and_the_goal_is_met(
    goal: Goal, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(monkeypatch)
    found = asked(goal=goal, search_epochs=2)
    assert trainings.names == [("mseb", 2), ("fine", 1)]
    assert found.notes[0] == "scored by mseb in a training of its own, 2 epochs"
    assert "excitation" not in str(found.graph_module.graph)
    left = [width.after for width in found.widths]
    assert sum(left) < 48
    if goal is HALF:
        assert work(*left) <= 0.5 * work(16, 16, 16)


def test_as_many_epochs_as_what_is_left_has(monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = Trainings(monkeypatch)
    asked()
    assert trainings.names == [("mseb", 1), ("fine", 1)]


def test_in_rounds_scores_are_learned_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = Trainings(monkeypatch)
    asked(rounds=2)
    assert [name for name, _ in trainings.names] == ["mseb", "round", "mseb", "fine"]


def test_they_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what they were learned from: the same command again trains nothing for them."""
    first = asked(folder=tmp_path)
    trainings = Trainings(monkeypatch)
    again = asked(folder=tmp_path)
    assert [(w.group, w.after) for w in first.widths] == [(w.group, w.after) for w in again.widths]
    assert "mseb" not in dict(trainings.names)
    asked(folder=tmp_path, search_epochs=2)
    assert ("mseb", 2) in trainings.names
    trainings.names.clear()
    asked(folder=tmp_path, train=samples(48, 6))
    assert ("mseb", 1) in trainings.names


def test_labelled_images_and_epochs_are_enough() -> None:
    found = asked(train=None, images=(X, Y), labels=True, epochs=1)
    assert sum(width.after for width in found.widths) < 48


def test_it_says_which_channels_stay_of_widths_that_are_searched_for() -> None:
    found = asked(images=(X, Y), method=Search("abc", 3))
    assert found.notes[0].startswith("widths by abc: 3 networks")


class Bare(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": None}, "`criterion` mseb learns its scores from labels"),
        ({"train": X}, "`criterion` mseb learns from class labels, and `train` has none"),
        ({"train": (X, Y * 0)}, "learns from class labels, and all of `train` are class 0"),
        ({"model": Bare()}, "mseb needs batch norms behind the convolutions to prune"),
        (
            {"images": X, "in_order": True},
            "mseb would be trained anew for every step of `in_order`",
        ),
        ({"one_by_one": True}, "mseb would be trained anew for every step of `one_by_one`"),
        (
            {"images": X, "allocation": Allocation(kind="search")},
            "mseb would be trained anew for every step of `allocation` search",
        ),
        ({"goal": Goal.macs(1e-4)}, "of the multiply-accumulates cannot be reached; closest"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*_: object) -> None:
        raise AssertionError("a training began")

    monkeypatch.setattr(Trainer, "fit", fit)
    with pytest.raises(shrinkc.ShrinkcError, match=message):
        asked(**options)


def test_where_nothing_is_trained_it_is_refused() -> None:
    with pytest.raises(shrinkc.ShrinkcError, match="mseb learns its scores, and nothing"):
        shrinkc.sensitivity(Chain().eval(), X[:1], images=X, criterion="mseb")


def test_it_is_not_named_among_criteria_that_need_nothing() -> None:
    with pytest.raises(shrinkc.ShrinkcError, match=r"none: l1, .*, ssl, group-sl$"):
        asked(criterion="hrank")
