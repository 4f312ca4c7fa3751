"""AMC's environment and agent by hand, and CACP's one search against AMC's three."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from searches import (
    Chain,
    Recorder,
    Tabulated,
    in_memory,
    kept,
    samples,
    searched,
    trained,
    within_of,
)
from torch import fx

import shrinkc
from shrinkc import Goal
from shrinkc.compiler.cost.keys import macs
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.width.allocation import Allocation, UnreachableError
from shrinkc.compiler.width.prune import Pruning
from shrinkc.compiler.width.search.agent.amc import EVALUATIONS, LayerAgent, steps_of
from shrinkc.compiler.width.search.agent.ddpg import Agent, Ddpg, Step, noisy
from shrinkc.compiler.width.search.agent.walk import Layers, Walk
from shrinkc.compiler.width.search.methods import Search
from shrinkc.compiler.width.search.within import Within
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import Keep

HALF = Goal.macs(0.5)
NAMES = ("0", "3", "6")
QUICK = Ddpg(hidden=48, actor_rate=2e-3, critic_rate=1e-2, following=0.05)


@pytest.fixture(scope="module")
def graph() -> fx.GraphModule:
    return trained()


@pytest.fixture(scope="module")
def within(graph: fx.GraphModule) -> Within:
    return within_of(graph, HALF, NAMES)


# --- the environment ------------------------------------------------------------------------------


def cost(first: int, second: int, third: int) -> int:
    """Multiply-accumulates of the chain: 8×8 positions of 3×3 kernels, then 2×2 into 4 classes."""
    return 64 * 9 * (3 * first + first * second + second * third) + 16 * third


def test_the_price_is_that_of_the_chain(within: Within) -> None:
    price = within.problem.price
    assert price.total({}) == cost(16, 16, 16)
    assert price.total(dict(zip(NAMES, (5, 9, 3), strict=True))) == cost(5, 9, 3)
    assert min(within.space.candidates["0"]) == 2  # a floor of a tenth


def test_an_action_is_bounded_so_that_the_goal_can_still_be_met(
    graph: fx.GraphModule, within: Within
) -> None:
    asked = cost(16, 16, 16) / 2
    found = Layers.of(graph, within, NAMES).walk(lambda number, state: 1.0, asked)
    first = max(n for n in range(2, 17) if cost(n, 2, 2) <= asked)
    second = max(n for n in range(2, 17) if cost(first, n, 2) <= asked)
    third = max(n for n in range(2, 17) if cost(first, second, n) <= asked)
    assert found.widths == dict(zip(NAMES, (first, second, third), strict=True))
    assert (first, second) == (16, 12)  # 3·16 + 16·n + n·2 ≤ 280 of 560
    assert found.actions == (1.0, 1.0, 1.0)  # as they were asked for
    free = Layers.of(graph, within, NAMES).walk(lambda n, s: (0.5, 0.25, 0.0)[n], asked)
    assert list(free.widths.values()) == [8, 4, 2]  # as it is where the goal allows it


def test_what_the_agent_sees_by_hand(graph: fx.GraphModule, within: Within) -> None:
    layers = Layers.of(graph, within, NAMES, told=(0.5,))
    whole = cost(16, 16, 16)
    found = layers.walk(lambda number, state: (0.5, 0.25, 1.0)[number], whole)
    costs = [cost(16, 16, 0), 64 * 9 * (16 * 16 + 16 * 16), 64 * 9 * 256 + 16 * 16]
    largest = max(costs)
    # t, n, c, h, w, stride, k, cost; reduced, rest, last action; the rate
    second = [0.5, 1, 1, 1, 1, 1, 1, costs[1] / largest]
    second += [1 - cost(8, 16, 16) / whole, costs[2] / whole, 0.5, 0.5]
    assert found.states[1].tolist() == pytest.approx(second)
    first = [0, 1, 3 / 16, 1, 1, 1, 1, costs[0] / largest]
    first += [0, (costs[1] + costs[2]) / whole, 1.0, 0.5]
    assert found.states[0].tolist() == pytest.approx(first)
    assert layers.size == 12 == found.states.shape[1]


def test_the_closest_is_named(graph: fx.GraphModule, within: Within) -> None:
    with pytest.raises(UnreachableError) as error:
        Layers.of(graph, within, NAMES).walk(lambda number, state: 1.0, cost(2, 2, 2) - 1)
    assert error.value.closest == cost(2, 2, 2)


# --- the agent ------------------------------------------------------------------------------------


def test_the_episodes_reward_is_that_of_all_its_actions() -> None:
    states = torch.arange(6.0).reshape(3, 2)
    steps = steps_of(Walk(states, (0.1, 0.2, 0.3), {}), 0.8)
    assert [(s.action, s.reward, s.end) for s in steps] == [
        (0.1, 0.8, False),
        (0.2, 0.8, False),
        (0.3, 0.8, True),
    ]
    assert [s.after.tolist() for s in steps[:2]] == states[1:].tolist()


def test_noise_is_cut_off_at_both_ends() -> None:
    assert noisy(0.3, 0.0, 0.9) == 0.3
    assert noisy(0.5, 0.1, 0.5) == pytest.approx(0.5)
    assert noisy(0.5, 1e4, 0.2) == pytest.approx(0.2, abs=1e-6)  # so wide that all are as likely
    assert noisy(0.0, 0.5, 0.5) == pytest.approx(0.5 * 0.6449, abs=2e-2)  # half of a half normal
    assert all(0 <= noisy(a, s, u) <= 1 for a in (0, 1) for s in (0.01, 2) for u in (0, 0.5, 1))


def test_the_noise_ends_as_low_however_few_episodes_there_are() -> None:
    agent = LayerAgent()
    assert agent.noise(0, 700) == 0.5
    assert agent.noise(1, 700) == pytest.approx(0.475)
    assert agent.noise(70, 70) == pytest.approx(agent.noise(700, 700)) == 0.5 * 0.95**700
    assert EVALUATIONS == 800


def test_rewards_are_counted_above_their_moving_average() -> None:
    agent = Agent(2, 1, QUICK, 0)
    assert agent._advantage(torch.tensor([[1.0], [3.0]])).tolist() == [[-1.0], [1.0]]
    # 2 + 0.5·(6 − 2) = 4
    assert agent._advantage(torch.tensor([[5.0], [7.0]])).tolist() == [[1.0], [3.0]]


def test_the_critics_target_by_hand() -> None:
    """One step: what is wanted is r − b where the episode ends, else that and what follows."""
    agent = Agent(1, 2, QUICK, 0)
    wanted: list[torch.Tensor] = []
    state, after = torch.zeros(2, 1), torch.ones(2, 1)
    slow = agent._slow_critic(torch.cat((after, agent._slow_actor(after)), 1)).detach()
    reward, end = torch.tensor([[0.3], [0.3]]), torch.tensor([[1.0], [0.0]])
    expected = torch.tensor([[0.3], [0.3 + float(slow[1])]])
    mse = torch.nn.functional.mse_loss

    def seen(found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        wanted.append(target)
        return mse(found, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.nn.functional.mse_loss", seen)
        agent._update_critic(state, torch.full((2, 1), 0.5), reward, after, end)
    torch.testing.assert_close(wanted[0], expected)


def test_it_learns_what_is_rewarded() -> None:
    """One action, best at 0.8 in one state and at 0.2 in another."""
    agent = Agent(1, 64, QUICK, 0)
    generator = torch.Generator().manual_seed(0)
    for index in range(512):
        state, action = torch.tensor([float(index % 2)]), float(torch.rand(1, generator=generator))
        best = 0.8 if index % 2 else 0.2
        agent.remember([Step(state, action, 1 - abs(action - best), state, True)])
    for _ in range(300):
        agent.learn()
    assert agent.act(torch.tensor([1.0])) == pytest.approx(0.8, abs=0.15)
    assert agent.act(torch.tensor([0.0])) == pytest.approx(0.2, abs=0.15)


# --- searches -------------------------------------------------------------------------------------


WORTH = {"0": 1.0, "3": 0.2, "6": 2.0}


def worth(keep: Keep) -> float:
    """What is known best: the more channels the better, those of some groups more than others."""
    widths = {**dict.fromkeys(NAMES, 16), **kept(keep)}
    parts = (WORTH[name] * (widths[name] / 16) ** 0.5 for name in NAMES)
    return sum(parts) / sum(WORTH.values())


class Told(Tabulated):
    def __init__(self, most: int) -> None:
        super().__init__(worth, most)
        self.of_goal: dict[str, list[float]] = {}

    def of(self, candidates: Any, goal: str = "") -> list[float]:
        found = super().of(candidates, goal)
        self.of_goal.setdefault(goal, []).extend(found)
        return found


def run(graph: fx.GraphModule, rate: float, *rates: float) -> dict[str, list[float]]:
    fitness, agent = Told(200), LayerAgent(bool(rates), ddpg=QUICK)
    searched(graph, Recorder(agent.search, fitness, rates=rates), Goal.macs(rate))
    assert fitness.count == 200
    return fitness.of_goal


def test_one_conditional_search_against_three(graph: fx.GraphModule) -> None:
    """As many episodes as one of them, for all rates together."""
    together = run(graph, 0.5, 0.3, 0.7)
    assert together.keys() == {"0.3", "0.5", "0.7"}
    for rate in (0.3, 0.5, 0.7):
        (alone,) = run(graph, rate).values()
        random, own = alone[:25], together[f"{rate:g}"]
        assert len(own) in (66, 67)
        assert alone[-1] > sum(random) / len(random) + 0.1  # it has learned something
        assert own[-1] > sum(random) / len(random) + 0.1
        assert max(own) > max(alone) - 0.05
    assert max(together["0.3"]) <= max(together["0.5"]) <= max(together["0.7"])


def test_it_meets_the_goal_and_is_resumed(graph: fx.GraphModule, tmp_path: Path) -> None:
    def once() -> tuple[Any, int, list[float]]:
        fitness = in_memory(graph, 10, tmp_path)
        before = len(fitness._journal.entries)
        search = Recorder(LayerAgent(ddpg=QUICK).search, fitness)
        result = searched(graph, search, HALF)
        assert macs(lower(result.graph_module)) <= 0.5 * macs(lower(result.original))
        return result.widths, before, search.best

    widths, before, best = once()
    assert before == 0
    assert best == sorted(best)
    again, known, told = once()
    assert (again, told) == (widths, best)
    assert known == len(best)


X, Y = samples(48, 5)


def test_one_run_gives_several_networks() -> None:
    torch.manual_seed(0)
    options = Pruning(Allocation(multiple=1))
    search = Search("cacp", 6, (0.3, 0.7))
    given = {"images": (X, Y), "options": options, "method": search, "steps": 0}
    found = shrinkc.prune(Chain().eval(), X[:1], goal=HALF, **given)
    assert found.others.keys() == {0.3, 0.7}
    for rate, one in ((0.5, found), *found.others.items()):
        widths = [w.after for w in one.widths]
        assert cost(*widths) <= rate * cost(16, 16, 16)
        assert one(X).shape == (48, 4)
        assert one.notes[0].startswith("widths by cacp: ")


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (("cacp", 6, ()), "`method` cacp meets several goals at once; give `rates`"),
        (("cacp", 2, (0.3, 0.7)), "`evaluations` 2: give one for each value of the goal, 3, or"),
        (("amc", 6, (0.3,)), "`rates` has no effect here: it is for `method` cacp"),
    ],
)
def test_wrong_searches(search: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Search(*search)


def test_a_rate_that_is_no_goal() -> None:
    with pytest.raises(InputError, match="`macs` 3: give the share to keep"):
        shrinkc.prune(Chain(), X[:1], goal=HALF, images=X, method=Search("cacp", 6, (3.0,)))
