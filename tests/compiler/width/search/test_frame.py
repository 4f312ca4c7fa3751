"""Candidates: brought within the goal, judged once, refused where judging them would mislead."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from by_macs import ByMacs
from prune_doubles import Steps
from searches import Chain, asked_for, batches, in_memory, judge, samples, searched, trained
from torch import Tensor, fx, nn

import shrinkc
from shrinkc import Goal
from shrinkc.compiler.api.steps.network import subject_of
from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.budget import predicted_ms
from shrinkc.compiler.recover.recipe import Recipe
from shrinkc.compiler.support.apart.pickled import pickled
from shrinkc.compiler.support.reading.checked_lines import read_lines
from shrinkc.compiler.width.allocation import Allocation
from shrinkc.compiler.width.prune import Pruning, Stages, prune
from shrinkc.compiler.width.search.fitness import Fitness, SpentError
from shrinkc.compiler.width.search.judge import fitness_of
from shrinkc.compiler.width.search.methods import Search
from shrinkc.compiler.width.search.recalibrate import norms, recalibrate
from shrinkc.compiler.width.search.within import Choose, Within, within_of
from shrinkc.errors import InputError, UnreachableGoalError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.base import copy_graph
from shrinkc.passes.criteria.magnitude import FilterNorm
from shrinkc.passes.criteria.shared.data import Batch

HALF = Goal.macs(0.5)
NAMES = ("0", "3", "6")


@pytest.fixture(scope="module")
def graph() -> fx.GraphModule:
    return trained()


def keep(*widths: int) -> dict[str, Any]:
    return {n: np.arange(16) < w for n, w in zip(NAMES, widths, strict=True)}


# --- the goal -------------------------------------------------------------------------------------


class Only:
    """A search that tries one code word, and tells what became of it."""

    def __init__(self, *shares: float) -> None:
        self.shares = dict(zip(NAMES, shares, strict=True))
        self.seen: dict[str, int] = {}
        self.price: Any = None

    def __call__(self, graph: fx.GraphModule, within: Within) -> Choose:
        self.price = within.problem.price
        self.seen = within.bring(partial(within.scaled, self.shares))
        return partial(within.at_most, self.seen)


@pytest.mark.parametrize(
    "goal", [HALF, Goal.params(0.4), Goal.speedup(1.6), Goal.budget_ms(0.2), Goal.channels(0.6)]
)
@pytest.mark.parametrize("shares", [(0.1, 0.9, 0.5), (0.9, 0.9, 0.9), (0.3, 0.1, 0.1)])
def test_every_code_word_meets_every_goal(
    goal: Goal, shares: tuple[float, float, float], graph: fx.GraphModule
) -> None:
    search = Only(*shares)
    result = searched(graph, search, goal)
    assert {w.group: w.after for w in result.widths} == search.seen
    one, before = result.graph_module, result.original
    if goal.unit == "ms":
        assert result.after_ms is not None
        assert result.before_ms is not None
        assert result.after_ms <= goal.budget(result.before_ms)
    elif goal.unit == "params":
        counts = [sum(p.numel() for p in g.parameters()) for g in (one, before)]
        assert counts[0] <= 0.4 * counts[1]
    elif goal.unit == "channels":
        assert sum(search.seen.values()) <= 0.6 * 48 + 1
    # its proportions, as near as whole channels come, where no group is at an end
    inner = [n for n in NAMES if 2 < search.seen[n] < 16]
    factors = [search.seen[n] / search.shares[n] for n in inner]
    assert not factors or max(factors) / min(factors) < 1.5


def test_with_a_table_that_has_cliffs(graph: fx.GraphModule) -> None:
    search, table = Only(0.5, 0.7, 0.6), Steps()
    given = (graph, table, "fp32", FilterNorm(1), Goal.speedup(1.5))
    options = Pruning(Allocation(multiple=1))
    result = prune(*given, options=options, stages=Stages(search=search))
    assert result.after_ms == predicted_ms(result.graph_module, table, "fp32")
    assert result.after_ms <= result.before_ms / 1.5
    price = search.price
    for name, width in search.seen.items():  # nothing is slower than something wider
        assert min(price.changes(search.seen, name, range(width + 1, 17)), default=1.0) > 0


def test_a_code_word_that_misses_the_goal_is_asked_for_less() -> None:
    asked: list[float] = []

    def met(goal: Goal, choose: Choose, by_table: bool = False) -> dict[str, int]:
        asked.append(choose(100.0)["0"])
        if asked[-1] > 95:
            raise InputError("a budget is missed")
        return {"0": 3}

    space: Any = SimpleNamespace(problem=lambda price: price)
    within = within_of(HALF, space, None, met)  # pyright: ignore
    assert within.bring(lambda budget: {"0": round(budget)}) == {"0": 3}
    assert asked == [100, 98, 95]


def test_the_closest_is_named_where_no_code_word_meets_the_goal(graph: fx.GraphModule) -> None:
    with pytest.raises(UnreachableGoalError, match=r"0.001 of the multiply.*closest: 0\.0\d\d"):
        searched(graph, Only(0.5, 0.5, 0.5), Goal.macs(0.001))


def test_a_measured_device_corrects_what_was_found(graph: fx.GraphModule) -> None:
    def measured(one: fx.GraphModule) -> float:
        return 1.0 + 2 * predicted_ms(one, ByMacs())

    given = (graph, ByMacs(), "fp32", FilterNorm(1), Goal.speedup(1.15))
    options, search = Pruning(Allocation(multiple=1)), Only(0.5, 0.5, 0.5)
    result = prune(*given, options=options, stages=Stages(search=search), measured_ms=measured)
    assert measured(result.graph_module) <= measured(result.original) / 1.15
    narrow = {w.group: w.after for w in result.widths}
    assert sum(narrow.values()) < sum(search.seen.values())


# --- fitness --------------------------------------------------------------------------------------


def test_the_fitness_is_the_share_of_right_answers(graph: fx.GraphModule) -> None:
    fitness = in_memory(graph, 9)
    x, labels = samples(128, 2)
    right = (graph(x)[0].argmax(1) == labels).double().mean()
    assert fitness.original() == pytest.approx(float(right))
    unlabelled = Fitness(judge(graph, labelled=False), 9)
    assert unlabelled.original() == 1.0
    network = unlabelled.judge.network(keep(8, 16, 16))
    agree = (network(x)[0].argmax(1) == graph(x)[0].argmax(1)).double().mean()
    assert unlabelled.of([keep(8, 16, 16)]) == [pytest.approx(float(agree))]


def test_what_was_judged_is_not_judged_again(
    graph: fx.GraphModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = in_memory(graph, 9, tmp_path)
    found = first.of([keep(8, 16, 16), keep(4, 8, 16), keep(8, 16, 16)])
    assert first.count == 2
    assert found[0] == found[2]
    monkeypatch.setattr(type(first.judge), "network", None)
    assert in_memory(graph, 9, tmp_path).of([keep(8, 16, 16), keep(4, 8, 16)]) == found[:2]
    other = in_memory(trained_once_more(graph), 9, tmp_path)
    with pytest.raises(Exception, match="NoneType"):
        other.of([keep(8, 16, 16)])


def trained_once_more(graph: fx.GraphModule) -> fx.GraphModule:
    other = copy_graph(graph)
    with torch.no_grad():
        next(other.parameters()).mul_(1.01)
    return other


def test_enough_is_enough(graph: fx.GraphModule) -> None:
    fitness = in_memory(graph, 2)
    with pytest.raises(SpentError):
        fitness.of([keep(8, 16, 16), keep(8, 16, 16), keep(4, 8, 16), keep(4, 4, 4)])
    assert fitness.count == 2
    assert fitness.of([keep(4, 8, 16)])[0] <= fitness.best().fitness


def test_side_by_side_the_same(graph: fx.GraphModule) -> None:
    candidates = [keep(n, 16, n) for n in (4, 8, 12)]
    there = Fitness(judge(graph), 9, parallel=2)
    assert there.of(candidates) == in_memory(graph, 9).of(candidates)


class Averaged(nn.Module):
    """Written with functions that torch.fx traces into."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.norm(self.conv(x)).chunk(2, 1)
        return self.head(torch.cat((second, first), 1).mean((2, 3)))


def test_a_judge_that_was_sent_finds_the_same() -> None:
    torch.manual_seed(0)
    one = judge(capture(Averaged().eval(), (samples(1)[0],)))
    sent = pickle.loads(pickled(one))
    keeps = [{g.name: np.arange(g.size) > 0} for g in channel_groups(one.graph).groups]
    assert [fitness_of(sent, keep) for keep in keeps] == [fitness_of(one, keep) for keep in keeps]


def test_nan_is_the_worst_there_is_and_never_the_best(
    graph: fx.GraphModule, tmp_path: Path
) -> None:
    fitness = in_memory(graph, 9, tmp_path)
    network = type(fitness.judge).network

    def sick(judge: Any, one: Any) -> fx.GraphModule:
        found = network(judge, one)
        if one["0"].sum() == 8:
            found.get_parameter("11.weight").data.fill_(torch.nan)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(fitness.judge), "network", sick)
        bad, good = fitness.of([keep(8, 16, 16), keep(9, 16, 16)])
    assert bad == 0.0 < good
    assert fitness.best().keep["0"].sum() == 9
    assert in_memory(graph, 9, tmp_path).of([keep(8, 16, 16)]) == [0.0]  # known, too
    alone = in_memory(graph, 9, tmp_path)
    alone.of([keep(8, 16, 16)])
    with pytest.raises(InputError, match="answers of all 1 candidates are not finite"):
        alone.best()


def test_one_class_only_is_refused(graph: fx.GraphModule) -> None:
    held: Sequence[Batch] = [(x, torch.full((32,), 2)) for x, _ in batches(2, 3)]
    one = judge(graph)
    with pytest.raises(InputError, match=r"labels of the images .* are class 2: they tell no"):
        Fitness(replace(one, held=held), 9)
    wanted = [(torch.eye(4)[torch.ones(32, dtype=torch.int64)],)] * 2
    held = batches(2, 3, labelled=False)
    with pytest.raises(InputError, match=r"answers of the network .* are class 1"):
        Fitness(replace(one, held=held, wanted=wanted), 9)


# --- batch norms ----------------------------------------------------------------------------------


def test_recalibrated_norms_have_the_statistics_of_the_images(graph: fx.GraphModule) -> None:
    changed = copy_graph(graph).eval()
    changed.get_parameter("0.weight").data.mul_(3)
    inputs = [inputs for inputs, _ in batches(2, 4)]
    recalibrate(changed, inputs)
    first = norms(changed)[0]
    values = [changed.get_submodule("0")(x).transpose(0, 1).flatten(1) for (x,) in inputs]
    torch.testing.assert_close(first.running_mean, sum(v.mean(1) for v in values) / 2)
    torch.testing.assert_close(first.running_var, sum(v.var(1) for v in values) / 2)
    assert not first.training
    assert first.momentum == 0.1
    x = inputs[0][0]  # the scale is out again, behind the norm
    torch.testing.assert_close(changed(x)[0], regular(graph, inputs)(x)[0], rtol=1e-3, atol=1e-3)


def regular(graph: fx.GraphModule, inputs: Sequence[tuple[Tensor, ...]]) -> fx.GraphModule:
    same = copy_graph(graph).eval()
    recalibrate(same, inputs)
    return same


# --- asked for ------------------------------------------------------------------------------------

X, Y = samples(32, 5)


def asked(**options: Any) -> object:
    given = {"goal": HALF, "images": X, "method": "abc"}
    return shrinkc.prune(chain(), X[:1], **{**given, **options})


def chain() -> nn.Module:
    torch.manual_seed(0)
    return Chain().eval()


EACH = Allocation(multiple=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "bees"}, "`method` bees: give one of abc"),
        ({"method": 3}, "`method` is a int; give a name or a Search"),
        ({"images": None}, "`method` abc judges candidates on images"),
        ({"images": X[:3]}, "3 images to search with: give 4 or more"),
        ({"goal": None, "keep": {"0": 0.5}}, "`method` abc searches widths for a goal"),
        ({"options": Pruning(Allocation("uniform"))}, "`allocation` has no effect here"),
        ({"options": Pruning(Allocation("search"))}, "`method` abc searches for them"),
        ({"options": Pruning(Allocation("sensitivity"))}, "`method` abc searches for them"),
        ({"options": Pruning(Allocation(search_step=0.2))}, "`search_step` has no effect here"),
        ({"options": Pruning(rounds=2)}, "`rounds` has no effect here"),
        ({"options": Pruning(rounds=2), "train": (X, Y)}, "`method` abc searches for them"),
        (
            {"options": Pruning(recipe=Recipe(search_epochs=2))},
            "trains candidates on `train`, and judges them on other `images`",
        ),
        ({"goal": Goal.macs(1e-4)}, "0.0001 of the multiply-accumulates .* closest: 0.272"),
        ({"images": (X, torch.zeros(32, dtype=torch.int64))}, "are class 0: they tell no"),
        ({"goal": Goal.speedup(2)}, "give `target`"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(shrinkc.ShrinkcError, match=message):
        asked(**options)


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_a_wrong_number_of_evaluations(count: Any) -> None:
    with pytest.raises(InputError, match=r"`evaluations` .*: give a whole number of 1 or more"):
        Search("abc", count)


def test_the_note_says_how_many_images_judged() -> None:
    found: Any = asked(method=Search("abc", 3), images=(X, Y), options=Pruning(EACH), steps=0)
    (note,) = [n for n in found.notes if n.startswith("widths by abc")]
    assert "3 networks judged on 8 images held out of `images`; the one taken has " in note
    assert "of top-1, the original " in note
    kept = sum(w.after for w in found.widths)
    assert kept < 48


def test_candidates_are_trained_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """`train` and `round_epochs`: each for two epochs, before it is judged on other images."""
    from shrinkc.compiler.width.search import judge as judging

    epochs: list[int] = []
    train = judging.train

    def counting(model: nn.Module, data: object, training: Any, **more: Any) -> object:
        epochs.append(training.epochs)
        return train(model, data, training, **more)  # pyright: ignore

    monkeypatch.setattr(judging, "train", counting)
    recipe = Recipe(epochs=1, search_epochs=2, batch=8)
    found: Any = asked(
        method=Search("abc", 3),
        images=(X, Y),
        train=samples(40, 6),
        options=Pruning(EACH, recipe=recipe),
    )
    assert epochs == [2, 2, 2]
    assert [row["epoch"] for row in found.history] == [0]


@pytest.mark.parametrize("way", ["one by one", "from scratch"])
def test_found_widths_are_trained_otherwise(way: str) -> None:
    """Group after group, or from weights before any training: as wide as the search said."""
    recipe = Recipe(epochs=1, batch=8)
    start = subject_of(chain(), X[:1]).graph if way == "from scratch" else None
    apart = Pruning(EACH, recipe=recipe, one_by_one=start is None, initial=start)
    given = {"method": Search("abc", 3), "images": (X, Y), "train": samples(40, 6)}
    plain: Any = asked(**given, options=Pruning(EACH, recipe=recipe))
    found: Any = asked(**given, options=apart)
    assert found.widths == plain.widths
    narrower = sum(width.after < width.before for width in found.widths)
    assert narrower
    assert len(found.history) == (1 if start is not None else len(found.widths))


class Single(nn.Module):
    """Takes one image at a time, and has a norm of what is one number for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.wide = nn.Conv2d(3, 16, 3), nn.Linear(16, 16)
        self.norm, self.head = nn.BatchNorm1d(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.body(x)).mean((2, 3)).reshape(1, 16)
        return self.head(torch.relu(self.norm(self.wide(y))))


def test_one_image_at_a_time() -> None:
    torch.manual_seed(0)
    found: Any = shrinkc.prune(
        *(Single().eval(), X[:1]),
        goal=Goal.params(0.7),
        images=(X, Y),
        method=Search("abc", 3),
        options=Pruning(EACH),
        compensate=False,
    )
    assert "3 networks judged on 8 images" in found.notes[0]


KILLED = """
import os, sys
from pathlib import Path
from searches import asked_for
from shrinkc.compiler.support.journal import Journal
put, left = Journal.put, 3
def kept(self, label, numbers):
    global left
    put(self, label, numbers)
    left -= len(numbers) == 2
    left or os.kill(os.getpid(), 9)
Journal.put = kept
asked_for("abc", Path(sys.argv[1]))
"""


def test_killed_like_any_process(tmp_path: Path) -> None:
    """kill -9 in the middle: what was judged is kept, and the next run ends as one that was not
    stopped."""
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "support")}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed")]
    assert subprocess.run(command, env=path, capture_output=True, check=False).returncode == -9

    def judged(folder: str) -> set[str]:
        files = (tmp_path / folder).glob("*.jsonl")
        return {line[0] for file in files for line in read_lines(file) if len(line) == 3}

    known = judged("killed")
    whole, resumed = (asked_for("abc", tmp_path / folder) for folder in ("whole", "killed"))
    assert resumed == whole
    assert len(known) == 3
    assert known < judged("killed") == judged("whole")
