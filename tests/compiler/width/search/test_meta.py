"""MetaPruning: weights by hand, the evolution's steps, and a small network."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from channel_networks import NETWORKS, graph_of
from prune_doubles import Steps
from searches import (
    Recorder,
    Tabulated,
    asked,
    in_memory,
    judge,
    kept,
    samples,
    searched,
    trained,
    within_of,
)
from torch import Tensor, fx, nn

import shrinkc
from shrinkc import Goal
from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.keys import macs
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.images.decoded import Data, Images
from shrinkc.compiler.recover.recipe import Recipe, Trainer, trainer_for
from shrinkc.compiler.support.progress import Silent
from shrinkc.compiler.train.settings.config import Keeping
from shrinkc.compiler.width.allocation import Allocation
from shrinkc.compiler.width.prune import Pruning, Stages, prune
from shrinkc.compiler.width.search.fitness import Fitness
from shrinkc.compiler.width.search.judge import fitness_of
from shrinkc.compiler.width.search.meta import metapruning
from shrinkc.compiler.width.search.meta.evolution import (
    EVALUATIONS,
    SCALES,
    Evolution,
    Line,
    crossed,
    moved,
)
from shrinkc.compiler.width.search.meta.metapruning import Learning, learned, scaled
from shrinkc.compiler.width.search.meta.pruning_net import PruningNet
from shrinkc.compiler.width.search.recalibrate import recalibrate
from shrinkc.compiler.width.search.task import SearchTask
from shrinkc.compiler.width.search.within import Within
from shrinkc.errors import InputError, TrainingError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.base import most_important, widths
from shrinkc.passes.criteria.magnitude import FilterNorm

HALF = Goal.macs(0.5)
NAMES = ("0", "3", "6")
NORMED = {"layer_norm", "group_norm", "attention", "order"}  # over channels: refused


@pytest.fixture(scope="module")
def graph() -> fx.GraphModule:
    return trained()


@pytest.fixture(scope="module")
def within(graph: fx.GraphModule) -> Within:
    return within_of(graph, HALF, NAMES)


# --- weights --------------------------------------------------------------------------------------


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


def test_weights_of_a_width_by_hand() -> None:
    """Of two channels the first stays: c = 0.5, and each layer makes its weights of that."""
    graph = capture(Two(), (torch.ones(1, 1, 1, 1),))
    net = PruningNet(graph, ("a",))
    with torch.no_grad():
        for maker in net.makers:
            maker.hidden.weight.zero_()
            maker.hidden.bias.zero_()
        a, b = net.makers
        a.hidden.weight[0], a.hidden.weight[1] = 2.0, -2.0  # relu: 2c and 0
        a.out.weight[:, :2] = torch.tensor([[3.0, 9.0], [5.0, 9.0]])
        a.out.bias.copy_(torch.tensor([1.0, -1.0]))  # W(c) = 6c + 1 and 10c − 1
        b.hidden.weight[0], b.hidden.bias[0] = 1.0, 1.0  # c + 1
        b.out.weight[:, 0] = torch.tensor([2.0, 7.0])
        b.out.bias.zero_()  # W(c) = 2(c + 1) and 7(c + 1)
    x = torch.full((1, 1, 1, 1), 10.0)
    assert net(x)[0].item() == pytest.approx(10 * (7 * 4 + 9 * 14))  # whole: c = 1
    half = {"a": np.array([True, False])}
    net.set(half)
    assert net(x)[0].item() == pytest.approx(10 * 4 * 3)  # (6·0.5 + 1)·2·1.5: no second channel
    state = net.state(half)
    assert state["a.weight"].flatten().tolist() == pytest.approx([4.0, 4.0])
    assert state["b.weight"].flatten().tolist() == pytest.approx([3.0, 10.5])


def test_it_starts_as_the_trained_network_at_any_width(
    graph: fx.GraphModule, within: Within
) -> None:
    net, x = PruningNet(graph, NAMES).eval(), samples(4)[0]
    assert {*dict(net.network.named_parameters())}.isdisjoint({"0.weight", "3.weight", "6.weight"})
    for some in ({}, {"0": 5, "3": 16, "6": 9}):
        keep = within.space.selection({**dict.fromkeys(NAMES, 16), **some}).keep
        net.set(keep)
        sliced = SliceChannels(Selection(keep))(graph).graph_module
        torch.testing.assert_close(net(x)[0], sliced(x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - NORMED))
def test_any_network_is_made_as_it_is_sliced(name: str) -> None:
    graph, random = graph_of(name).double(), np.random.default_rng(0)
    groups, keep = channel_groups(graph).groups, dict[str, Any]()
    for group in groups:
        if len(some := widths(group)) > 1:
            width = int(random.choice(some[:-1]))
            keep[group.name] = most_important(group, random.random(group.size), width)
    net = PruningNet(graph, tuple(keep)).eval()
    net.set(keep)
    sliced = SliceChannels(Selection(keep))(graph).graph_module
    inputs = [torch.randn(shape).double() for shape in graph.meta["input_shapes"].values()]
    for made, wanted in zip(net(*inputs), sliced(*inputs), strict=True):
        torch.testing.assert_close(made, wanted, rtol=1e-10, atol=1e-10)
    graph.load_state_dict(net.state(keep))  # of every parameter and buffer


def shaken(graph: fx.GraphModule) -> PruningNet:
    """One whose weights depend on widths."""
    net = PruningNet(graph, NAMES)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for maker in net.makers:
            noise = torch.randn(maker.out.weight.shape, generator=generator)
            maker.out.weight.copy_(0.1 * noise)
    return net.requires_grad_(False)


def test_candidates_are_judged_with_the_weights_that_are_made_for_them(
    graph: fx.GraphModule, within: Within
) -> None:
    """Cropped, recalibrated, and what the PruningNet computes itself at these widths."""
    net, one = shaken(graph), judge(graph)
    keep = within.space.selection({"0": 9, "3": 12, "6": 5}).keep
    fitness = Fitness(one, 9)
    fitness.weigh(net.state, "shaken")
    found = fitness.judge.network(keep)
    net.set(keep)
    twin = net.network
    twin.load_state_dict({n: t for n, t in net.state(keep).items() if n in twin.state_dict()})
    recalibrate_net(net, [inputs for inputs, _ in one.fit])
    x = samples(8, 3)[0]
    with torch.no_grad():
        torch.testing.assert_close(found(x)[0], net.eval()(x)[0], rtol=1e-4, atol=1e-4)
    (value,) = fitness.of([keep])
    assert value == fitness_of(fitness.judge, keep)[0] != fitness_of(one, keep)[0]


def recalibrate_net(net: PruningNet, inputs: list[tuple[Tensor, ...]]) -> None:
    recalibrate(net, inputs)  # pyright: ignore[reportArgumentType]


def test_what_was_judged_with_other_weights_is_judged_anew(
    graph: fx.GraphModule, within: Within, tmp_path: Path
) -> None:
    keep = within.space.selection({"0": 9, "3": 12, "6": 5}).keep
    plain = in_memory(graph, 3, tmp_path)
    first = plain.one(keep)
    made = in_memory(graph, 3, tmp_path)
    made.weigh(shaken(graph).state, "shaken")
    assert made.one(keep) != first
    assert len({*tmp_path.glob("*.jsonl")}) == 2


class Linears(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.norm(self.a(x))).mean((2, 3))


@pytest.mark.parametrize(
    ("model", "shape", "group", "message"),
    [
        (Linears(), (1, 3, 2, 2), "1", "no convolution makes or reads channels that can go"),
        (Normed(), (1, 3, 4, 4), "a", "node 'norm' normalises or averages over the channels"),
    ],
)
def test_networks_without_weights_to_make_are_refused(
    model: nn.Module, shape: tuple[int, ...], group: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        PruningNet(capture(model.eval(), (torch.zeros(shape),)), (group,))


# --- evolution ------------------------------------------------------------------------------------


def test_the_scales_and_numbers_of_the_paper() -> None:
    assert len(SCALES) == 31
    assert (SCALES[0], SCALES[1], SCALES[-1]) == (0.1, 0.13, 1.0)
    assert EVALUATIONS == 1000
    assert [SCALES[place] for place in Evolution().drawn] == [0.46, 0.79]


def test_children_by_hand() -> None:
    assert moved((5, 30, 0), [0, 1, 30]) == (5, 0, 30)
    assert crossed((1, 2, 3), (7, 8, 9), [True, False, True]) == (1, 8, 3)


class Codes(SearchTask):
    def candidate(self, shares: Any) -> Any:
        return shares


class Noted:
    """The fitness of code words: `value` of their shares."""

    most = 1000

    def __init__(self, value: Any) -> None:
        self.value, self.asked = value, list[dict[str, float]]()

    def of(self, candidates: list[dict[str, float]]) -> list[float]:
        self.asked += candidates
        return [self.value(one) for one in candidates]


def line(value: Any, names: tuple[str, ...] = ("a", "b", "c", "d")) -> tuple[Line, Noted]:
    fitness = Noted(value)
    return Line(Evolution(), Codes(None, names, None, fitness)), fitness  # pyright: ignore


def test_a_generation_comes_from_the_ten_best() -> None:
    one, noted = line(lambda shares: shares["a"])
    assert one.generation()
    low, high = 0.46, 0.79
    assert all(low <= share <= high for shares in noted.asked for share in shares.values())
    assert len(noted.asked) == 50
    best = [code for _, code in one.judged[:10]]
    assert [fit for fit, _ in one.judged] == sorted((fit for fit, _ in one.judged), reverse=True)
    children = one.next()
    assert len(children) == 50 == len({*children})
    for child in children[25:50]:  # every gene is one of a parent's
        assert all(any(p[place] == gene for p in best) for place, gene in enumerate(child))
    same = [np.mean(np.array(child) == np.array(best), axis=1).max() for child in children[:25]]
    assert min(same) >= 0.5  # one gene of four is another, seldom two
    assert not {*children} & {code for _, code in one.judged}


def test_genes_become_every_other_scale() -> None:
    one, _ = line(lambda shares: 0.0)
    one.judged = [(0.0, (4, 4, 4, 4)), (0.0, (4, 4, 4, 4))]
    genes = [gene for _ in range(4000) for gene in one._mutated()]
    changed = [gene for gene in genes if gene != 4]
    assert len(changed) / len(genes) == pytest.approx(0.1, abs=0.01)
    assert {*changed} == {*range(31)} - {4}


def test_it_ends_where_nothing_new_is_found() -> None:
    """One group has 31 code words."""
    one, noted = line(lambda shares: -abs(shares["a"] - 1.0), names=("a",))
    while one.generation():
        assert len(noted.asked) <= 31
    assert 12 <= len(noted.asked) == len({shares["a"] for shares in noted.asked}) <= 31
    assert one.judged[0][1] == (30,)


# --- learning -------------------------------------------------------------------------------------


def images(count: int, seed: int) -> Images:
    x, labels = samples(count, seed)
    return Images(x.permute(0, 2, 3, 1).contiguous(), labels)


def trainer(graph: fx.GraphModule, folder: Path | None = None) -> Trainer:
    recipe = Recipe(batch=16, learning_rate=0.01)
    return trainer_for(images(160, 7), graph, recipe, folder, "", Silent())


def given(graph: fx.GraphModule, within: Within, folder: Path | None = None) -> Any:
    return SearchTask(graph, NAMES, within, in_memory(graph, 6), trainer=trainer(graph, folder))


def test_what_stays_at_each_scale(within: Within) -> None:
    masks = scaled(within, "3")
    widths = [int(mask.sum()) for mask in masks]
    assert len(widths) == 31
    assert (widths[0], widths[10], widths[-1]) == (2, 6, 16)  # 1.6, 6.4, 16
    assert widths == sorted(widths)
    assert all((narrow <= wide).all() for narrow, wide in pairwise(masks))


def test_every_step_has_widths_of_its_own(graph: fx.GraphModule, within: Within) -> None:
    """The loss is that of labels, at the widths of its number; all scales are as likely."""
    net = shaken(graph).eval()
    learning = Learning(net, {name: scaled(within, name) for name in NAMES}, 3, 0.1)
    x, labels = samples(16)
    loss = learning.loss(lambda x: net(x)[0], (x, labels), 5)  # pyright: ignore
    net.set(learning.drawn(5))
    wanted = nn.functional.cross_entropy(net(x)[0], labels, label_smoothing=0.1)
    torch.testing.assert_close(loss, wanted)
    assert kept(learning.drawn(5)) == kept(learning.drawn(5)) != kept(learning.drawn(6))
    drawn = [kept(learning.drawn(number))["0"] for number in range(2000)]
    shares = [sum(mask.sum() == width for mask in learning.masks["0"]) for width in (2, 8, 16)]
    found = [np.mean(np.array(drawn) == width) for width in (2, 8, 16)]
    assert found == pytest.approx([share / 31 for share in shares], abs=0.02)


def test_weights_are_learned_for_widths(graph: fx.GraphModule, within: Within) -> None:
    """Narrow networks answer better with the weights that are made for them."""
    before = {n: p.clone() for n, p in graph.named_parameters()}
    taught = replace(trainer(graph), train=Data(images(640, 7)))  # a mirrored one is of other class
    net = learned(given(graph, within), taught, 4)
    assert all(torch.equal(before[n], p) for n, p in graph.named_parameters())
    one, made = judge(graph), in_memory(graph, 9)
    made.weigh(net.state, "")
    narrow = [{"0": 4, "3": 5, "6": 4}, {"0": 3, "3": 4, "6": 8}, {"0": 6, "3": 3, "6": 3}]
    keeps = [within.space.selection(widths).keep for widths in narrow]
    plain = [fitness_of(one, keep)[0] for keep in keeps]
    assert all(found > before + 0.02 for found, before in zip(made.of(keeps), plain, strict=True))
    weights = [net.state(keep)["3.weight"] for keep in keeps]
    assert not torch.equal(weights[0], weights[1])


def test_stopped_and_resumed_it_learns_the_same(
    graph: fx.GraphModule, within: Within, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    whole = given(graph, within)
    wanted = learned(whole, whole.trainer, 2).state_dict()
    monkeypatch.setattr(metapruning, "Keeping", lambda folder: Keeping(folder, every_steps=3))
    drawn = Learning.drawn
    steps: list[int] = []

    def until(self: Learning, number: int) -> Any:
        steps.append(number)
        if number == 8 and stops:
            raise KilledError
        return drawn(self, number)

    monkeypatch.setattr(Learning, "drawn", until)
    stops, task = True, given(graph, within, tmp_path)
    with pytest.raises(TrainingError, match="KilledError"):
        learned(task, task.trainer, 2)
    stops = False
    steps.clear()
    found = learned(task, task.trainer, 2).state_dict()
    assert min(steps[1:]) == 6  # the first is a trial before the training
    assert all(torch.equal(tensor, found[name]) for name, tensor in wanted.items())


def test_another_number_of_epochs_is_another_training(
    graph: fx.GraphModule, within: Within, tmp_path: Path
) -> None:
    task = given(graph, within, tmp_path)
    for epochs in (1, 2):
        learned(task, task.trainer, epochs)
    assert len([*tmp_path.glob("meta-*")]) == 2


# --- the search -----------------------------------------------------------------------------------


def test_the_best_never_falls_and_every_candidate_meets_the_goal(
    graph: fx.GraphModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitness, costs = in_memory(graph, 60), list[float]()
    network = type(fitness.judge).network

    def counted(judge: Any, keep: Any) -> fx.GraphModule:
        found = network(judge, keep)
        costs.append(macs(lower(found)))
        return found

    monkeypatch.setattr(type(fitness.judge), "network", counted)
    search = Recorder(metapruning.search, fitness, trainer=trainer(graph), epochs=1)
    result = searched(graph, search, HALF)
    whole = macs(lower(graph))
    assert fitness.count == len(search.best) == len(costs) == 60  # the same widths: once
    assert search.best == sorted(search.best)
    assert 0.35 * whole < min(costs) <= max(costs) <= 0.5 * whole
    assert macs(lower(result.graph_module)) <= 0.5 * whole


def test_it_finds_what_is_fit(graph: fx.GraphModule) -> None:
    """Where the middle group alone counts, the fittest after ten generations is wide there."""

    def value(keep: Any) -> float:
        return kept(keep).get("3", 16) / 16

    fitness = Tabulated(value, 500)
    result = searched(graph, Recorder(Evolution().search, fitness), HALF)
    first = max(value(keep) for keep in fitness.asked[:50])
    widths = {w.group: w.after for w in result.widths}
    assert widths["3"] / 16 >= first
    assert widths["3"] >= 14


def test_killed_and_resumed_it_ends_alike(graph: fx.GraphModule, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def run(stop: int | None, folder: Path) -> tuple[object, int]:
        fitness = in_memory(graph, 12, folder)
        search = Recorder(metapruning.search, fitness, trainer=trainer(graph, folder), epochs=1)
        judged, opened = 0, fitness._kept

        def counting(about: str) -> Any:
            journal = opened(about)
            put = journal.put

            def one(label: str, numbers: list[float]) -> None:
                nonlocal judged
                if judged == stop:
                    raise KilledError
                judged += 1
                put(label, numbers)

            journal.put = one  # pyright: ignore
            return journal

        fitness._kept = counting  # pyright: ignore
        return searched(graph, search, HALF).widths, judged

    whole, count = run(None, tmp_path / "whole")
    assert count == 12
    with pytest.raises(KilledError):
        run(5, tmp_path / "killed")
    assert run(None, tmp_path / "killed") == (whole, 7)


def test_side_by_side_as_one_after_the_other(graph: fx.GraphModule) -> None:
    results = []
    for parallel in (1, 2):
        fitness = Fitness(judge(graph), 5, parallel)
        search = Recorder(metapruning.search, fitness, trainer=trainer(graph), epochs=1)
        results.append((searched(graph, search, HALF).widths, search.best))
    assert results[0] == results[1]


def test_with_a_table(graph: fx.GraphModule) -> None:
    search = Recorder(metapruning.search, in_memory(graph, 3), trainer=trainer(graph), epochs=1)
    options, stages = Pruning(Allocation(multiple=1)), Stages(search=search)
    one = prune(
        *(graph, Steps(), "fp32", FilterNorm(1), Goal.speedup(1.5)), options=options, stages=stages
    )
    assert one.before_ms is not None
    assert one.after_ms is not None
    assert one.after_ms <= one.before_ms / 1.5


# --- asked for ------------------------------------------------------------------------------------

X, Y = samples(32, 5)


@pytest.mark.parametrize("goal", [HALF, Goal.params(0.5), Goal.channels(0.6)])
def test_asked_for(goal: Goal) -> None:
    found = asked("meta", goal=goal)
    assert found.notes[0].startswith("widths by meta: 3 networks judged on 8 images held out")
    assert sum(w.after for w in found.widths) < 48


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": None, "options": None}, "`method` meta learns from `train`, with labels, and"),
        ({"train": X}, "`method` meta learns from class labels, and `train` has none"),
        ({"images": None}, "`method` meta judges candidates on images"),
        ({"images": (X, Y * 0)}, "all labels of the images that judge candidates are class 0"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(shrinkc.ShrinkcError, match=message):
        asked("meta", **options)


def test_a_goal_out_of_reach_is_refused_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(metapruning, "train", fails)
    with pytest.raises(shrinkc.ShrinkcError, match=r"0\.0001 of the multiply-acc.* cannot be"):
        asked("meta", goal=Goal.macs(1e-4))


def test_images_of_one_class_teach_nothing() -> None:
    x, labels = samples(40, 6)
    for method in ("meta", "dmcp"):
        message = f"`method` {method} learns from class labels, and all of `train` are class 0"
        with pytest.raises(shrinkc.ShrinkcError, match=message):
            asked(method, train=(x, labels * 0))
