"""DMCP: its chain by hand, expected widths against drawn ones, gates, and a small network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prune_doubles import Steps
from searches import Recorder, asked, in_memory, samples, searched, trained, within_of
from torch import Tensor, fx, nn

import shrinkc
from shrinkc import Goal
from shrinkc.compiler.capture import capture
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.recover.recipe import Recipe, trainer_for
from shrinkc.compiler.support.progress import Silent
from shrinkc.compiler.train.settings.config import Keeping
from shrinkc.compiler.width.allocation import Allocation
from shrinkc.compiler.width.prune import Pruning, Stages, prune
from shrinkc.compiler.width.search import dmcp
from shrinkc.compiler.width.search.dmcp import Learning, Markov, cost_of, learned, penalty_of
from shrinkc.compiler.width.search.slimmable import Levels, slimmable
from shrinkc.compiler.width.search.task import SearchTask
from shrinkc.compiler.width.search.within import Within
from shrinkc.errors import InputError
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.base import most_important
from shrinkc.passes.criteria.magnitude import FilterNorm

HALF = Goal.macs(0.5)
NAMES = ("0", "3", "6")
AT = {"0": 7.0, "3": 9.3, "6": 4.8}


@pytest.fixture(scope="module")
def graph() -> fx.GraphModule:
    return trained()


@pytest.fixture(scope="module")
def within(graph: fx.GraphModule) -> Within:
    return within_of(graph, HALF, NAMES)


def chain(*widths: int) -> Markov:
    """Of one group; its channels in the order of their importance."""
    levels = [sum(channel >= width for width in widths) for channel in range(widths[-1])]
    return Markov({"g": Levels(widths, torch.tensor(levels))})


def set_to(one: Markov, *shares: float) -> None:
    with torch.no_grad():
        one.alpha.copy_(torch.logit(torch.tensor(shares)))


# --- the chain ------------------------------------------------------------------------------------


def test_marginals_and_the_expected_width_by_hand() -> None:
    one = chain(2, 4, 8)
    set_to(one, 0.5, 0.4)
    torch.testing.assert_close(one.marginal("g"), torch.tensor([0.5, 0.2]))
    assert one.expected("g").item() == pytest.approx(2 + 0.5 * 2 + 0.2 * 4)
    expected = torch.tensor([1, 1, 0.5, 0.5, 0.2, 0.2, 0.2, 0.2])
    torch.testing.assert_close(one.gates()["g"], expected)


def test_expected_widths_are_the_mean_of_drawn_ones() -> None:
    one = chain(2, 4, 8, 9)
    set_to(one, 0.7, 0.6, 0.3)
    random = np.random.default_rng(0)
    drawn = [one.widths(one.drawn(random))["g"] for _ in range(20_000)]
    assert set(drawn) == {2, 4, 8, 9}
    assert np.mean(drawn) == pytest.approx(one.expected("g").item(), abs=0.05)
    shares = [np.mean(np.array(drawn) >= width) for width in (4, 8, 9)]
    assert shares == pytest.approx(one.marginal("g").tolist(), abs=0.01)


def test_two_groups_have_chains_of_their_own() -> None:
    levels = {n: chain(*w).levels["g"] for n, w in (("a", (1, 2)), ("b", (2, 3, 4)))}
    one = Markov(levels)
    set_to(one, 0.9, 0.5, 0.2)
    assert one.expected("a").item() == pytest.approx(1.9)
    assert one.expected("b").item() == pytest.approx(2 + 0.5 + 0.1)


# --- the cost -------------------------------------------------------------------------------------


def test_the_expected_cost_and_its_slopes(within: Within) -> None:
    price, candidates = within.problem.price, within.space.candidates
    widths = {n: torch.tensor(w, requires_grad=True) for n, w in AT.items()}
    found = cost_of(price, candidates, widths)
    a, b, c = (float(w.detach()) for w in widths.values())
    exact = 64 * 9 * (3 * a + a * b + b * c) + 16 * c  # positions, kernels; the head's four classes
    assert float(found.detach()) == pytest.approx(exact, rel=0.01)
    slopes = torch.autograd.grad(found, list(widths.values()))
    wanted = [64 * 9 * (3 + 9), 64 * 9 * (7 + 5), 64 * 9 * 9 + 16]  # at 7, 9, 5
    assert [float(s) for s in slopes] == pytest.approx(wanted)


def test_the_penalty_by_hand() -> None:
    def slope(cost: float) -> float:
        x = torch.tensor(cost, requires_grad=True)
        (found,) = torch.autograd.grad(penalty_of(x, 100.0), x)
        return float(found)

    assert slope(97.0) == 0.0 == slope(95.0)
    assert slope(145.0) == pytest.approx(0.1 / 50, rel=1e-3)  # from 95, as in the authors' code
    assert slope(80.0) == pytest.approx(-0.1 / 20, rel=1e-3)


# --- gates ----------------------------------------------------------------------------------------


def test_open_gates_compute_the_sliced_network(graph: fx.GraphModule, within: Within) -> None:
    wide = graph.double()
    twin, gates = slimmable(wide, NAMES)
    x = samples(4)[0].double()
    torch.testing.assert_close(twin(x)[0], wide(x)[0], rtol=1e-12, atol=1e-12)
    levels = {n: Levels.of_group(within, n, (4, 8, 16)) for n in NAMES}
    for places in ((0, 1, 2), (1, 1, 0), (2, 0, 1)):
        some = dict(zip(NAMES, places, strict=True))
        gates.set({name: levels[name].open(level) for name, level in some.items()})
        keep = {
            n: most_important(within.space.groups[n], within.space.scores[n], (4, 8, 16)[level])
            for n, level in some.items()
        }
        sliced = SliceChannels(Selection(keep))(wide).graph_module
        torch.testing.assert_close(twin(x)[0], sliced(x)[0], rtol=1e-10, atol=1e-10)
    graph.float()


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.norm(self.a(x))).mean((2, 3))


def test_what_gates_cannot_leave_out_is_refused() -> None:
    graph = capture(Normed().eval(), (torch.randn(1, 3, 4, 4),))
    with pytest.raises(InputError, match="node 'norm' normalises or averages over the channels"):
        slimmable(graph, ("a",))


# --- learning -------------------------------------------------------------------------------------


def learning(graph: fx.GraphModule, within: Within, steps: int = 10) -> tuple[Learning, Any]:
    model, gates = slimmable(graph, NAMES)
    levels = {n: Levels.of_group(within, n, (4, 8, 16)) for n in NAMES}
    return Learning(gates, Markov(levels), within, within.budget(), steps, 0, 0.0), model


def test_one_step_is_a_sandwich(graph: fx.GraphModule, within: Within) -> None:
    """Labels teach the whole network, and its answers the narrowest and two random ones."""
    one, model = learning(graph, within)
    x, labels = samples(16)
    model.eval()
    seen: list[dict[str, int]] = []
    opened = one.open

    def noting(levels: Mapping[str, int]) -> None:
        seen.append(dict(levels))
        opened(levels)

    one.open = noting  # pyright: ignore
    total = one.loss(lambda x: model(x)[0], (x, labels), 3)  # pyright: ignore
    assert len(seen) == 3
    assert seen[0] == dict.fromkeys(NAMES, 0)
    one.gates.set({})
    answer = model(x)[0]
    wanted = nn.functional.cross_entropy(answer, labels)
    for levels in seen:
        opened(levels)
        soft = answer.detach().softmax(1)
        wanted = wanted + (soft * (soft.log() - model(x)[0].log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(total, wanted)


def test_random_widths_come_from_the_chain_more_and_more(
    graph: fx.GraphModule, within: Within
) -> None:
    one, _ = learning(graph, within, steps=1000)
    set_to(one.chains, *[1 - 1e-6] * 6)  # always the widest
    first, last = (
        [levels["0"] for n in numbers for levels in one.sandwich(n)[1:]]
        for numbers in (range(60), range(940, 1000))
    )
    assert np.mean([level == 2 for level in first]) < 0.5
    assert np.mean([level == 2 for level in last]) > 0.9
    assert one.sandwich(7) == one.sandwich(7)


def images(count: int, seed: int) -> Images:
    x, labels = samples(count, seed)
    return Images(x.permute(0, 2, 3, 1).contiguous(), labels)


def given(graph: fx.GraphModule, within: Within, folder: Path | None = None) -> Any:
    recipe = Recipe(batch=16, learning_rate=0.01)
    trainer = trainer_for(images(160, 7), graph, recipe, folder, "", Silent())
    return SearchTask(graph, NAMES, within, in_memory(graph, 6), trainer=trainer, epochs=3)


def expected(chains: Markov) -> list[float]:
    return [float(chains.expected(name).detach()) for name in NAMES]


def test_it_starts_where_the_expected_cost_is_the_goal(within: Within) -> None:
    chains = Markov({n: Levels.of_group(within, n, (2, 4, 8, 12, 16)) for n in NAMES})
    for share in (0.3, 0.7):
        goal = share * within.problem.price.total({})
        dmcp.start(chains, within, goal)
        assert float(dmcp.expected_cost(chains, within).detach()) == pytest.approx(goal, rel=0.02)


def test_the_expected_cost_stays_at_the_goal(graph: fx.GraphModule, within: Within) -> None:
    before = {n: p.clone() for n, p in graph.named_parameters()}
    task = given(graph, within)
    chains = learned(task, task.trainer, 12)
    at = {name: chains.expected(name).detach() for name in NAMES}
    cost = float(cost_of(within.problem.price, within.space.candidates, at))
    assert 0.85 <= cost / within.budget() <= 1.1
    assert all(torch.equal(before[n], p) for n, p in graph.named_parameters())


def test_stopped_and_resumed_it_learns_the_same(
    graph: fx.GraphModule, within: Within, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    whole = given(graph, within)
    wanted = expected(learned(whole, whole.trainer, 2))
    monkeypatch.setattr(dmcp, "Keeping", lambda folder: Keeping(folder, every_steps=3))
    step = Learning.after_step

    def killed(self: Learning, model: Any, moment: Any) -> None:
        if moment.step == 8:
            raise KilledError
        step(self, model, moment)

    task = given(graph, within, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Learning, "after_step", killed)
        with pytest.raises(KilledError):
            learned(task, task.trainer, 2)
    steps: list[int] = []

    def counted(self: Learning, model: Any, moment: Any) -> None:
        steps.append(moment.step)
        step(self, model, moment)

    monkeypatch.setattr(Learning, "after_step", counted)
    assert expected(learned(task, task.trainer, 2)) == wanted
    assert min(steps) == 6


def test_the_search_judges_the_expected_widths_and_a_few_that_are_drawn(
    graph: fx.GraphModule,
) -> None:
    fitness = in_memory(graph, 6)
    recipe = Recipe(batch=16, learning_rate=0.01)
    trainer = trainer_for(images(160, 7), graph, recipe, None, "", Silent())
    search = Recorder(dmcp.search, fitness, trainer=trainer, epochs=1)
    result = searched(graph, search, HALF)
    assert 1 < fitness.count <= 6
    assert search.best == sorted(search.best)
    cost = [w.after for w in result.widths]
    assert 3 * cost[0] + cost[0] * cost[1] + cost[1] * cost[2] <= 280


def test_with_a_table(graph: fx.GraphModule) -> None:
    recipe = Recipe(batch=16, learning_rate=0.01)
    trainer = trainer_for(images(160, 7), graph, recipe, None, "", Silent())
    search = Recorder(dmcp.search, in_memory(graph, 3), trainer=trainer, epochs=1)
    options, stages = Pruning(Allocation(multiple=1)), Stages(search=search)
    one = prune(
        *(graph, Steps(), "fp32", FilterNorm(1), Goal.speedup(1.5)), options=options, stages=stages
    )
    assert one.after_ms is not None
    assert one.before_ms is not None
    assert one.after_ms <= one.before_ms / 1.5


# --- asked for ------------------------------------------------------------------------------------

X, Y = samples(32, 5)


def test_asked_for() -> None:
    found = asked("dmcp")
    assert found.notes[0].startswith("widths by dmcp: ")
    assert sum(w.after for w in found.widths) < 48


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": None, "options": None}, "`method` dmcp learns from `train`, with labels, and"),
        ({"train": X}, "`method` dmcp learns from class labels, and `train` has none"),
        ({"images": None}, "`method` dmcp judges candidates on images"),
        ({"goal": Goal.macs(1e-4)}, "0.0001 of the multiply-accumulates cannot be reached"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(shrinkc.ShrinkcError, match=message):
        asked("dmcp", **options)
