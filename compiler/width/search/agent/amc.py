"""AMC and CACP: an agent that learns, episode after episode, how wide each layer becomes.

AMC (He et al., AutoML for Model Compression and Acceleration on Mobile Devices, ECCV 2018): the
actions of an episode, one for every layer, are bounded so that the goal is met (`walk`); readers of
what went are reconstructed by least squares, and the reward of all actions is the accuracy on
images held out of the training set. First come episodes of random actions, an eighth of them, then
the agent's own with noise that starts at σ = 0.5 and decays by 0.95 an episode (of 800; with fewer
it ends as low). After each of these the agent learns as often as there are layers. The best network
of all episodes is taken.

CACP (Liu et al., Conditional Automated Channel Pruning, arXiv 2009.09724, 2020; IEEE Signal
Processing Letters): the same agent is told the rate that is to be met, episodes take turns at
several rates, and the actions are bounded by that rate's goal. One search gives a network for every
rate; its last episodes are the agent's own, without noise.

What differs: an action is for a group of coupled channels, in the order of execution, not for the
input of one layer; the goal may be time by a table. Of CACP only the abstract was at
hand: how rates take turns, and that the agent is AMC's, is this module's reading.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from shrinkc.compiler.width.search.agent.ddpg import Agent, Ddpg, Step, noisy
from shrinkc.compiler.width.search.agent.walk import Act, Layers, Walk
from shrinkc.compiler.width.search.task import SearchTask
from shrinkc.compiler.width.search.within import Within

EVALUATIONS = 800  # episodes
WARM = 1 / 8  # of them with random actions
DECAYING = 700  # episodes of noise as published


@dataclass(frozen=True)
class LayerAgent:
    """`sigma`, `decay`: of the noise. `conditional`: the agent is told which of several rates to
    meet."""

    conditional: bool = False
    sigma: float = 0.5
    decay: float = 0.95
    ddpg: Ddpg = field(default_factory=Ddpg)

    def search(self, task: SearchTask) -> None:
        goals = {rate: task.within.of(rate) for rate in (*task.rates, task.within.goal.value)}
        places = [self._layers(task, within) for within in goals.values()]
        names = [task.named(rate) if self.conditional else "" for rate in goals]
        agent = Agent(places[0].size, len(task.names), self.ddpg, task.seed)
        random, episodes = np.random.default_rng(task.seed), task.fitness.most
        warm, last = max(1, round(WARM * episodes)), len(places) if self.conditional else 0
        for episode in range(episodes):
            turn = episode % len(places)
            luck = random.random(len(task.names)).tolist()
            sigma = self.noise(episode - warm, episodes - warm)
            quiet = episode >= max(warm, episodes - last)
            act = _act(agent, luck, None if episode < warm else 0.0 if quiet else sigma)
            walk, reward = _episode(places[turn], act, task, names[turn])
            agent.remember(steps_of(walk, reward))
            if episode >= warm:
                for _ in task.names:
                    agent.learn()

    def noise(self, episode: int, episodes: int) -> float:
        """Behind the random ones; it ends as low however many there are."""
        return self.sigma * self.decay ** (episode * DECAYING / max(episodes, 1))

    def _layers(self, task: SearchTask, within: Within) -> Layers:
        value = within.goal.value
        told = (value if value <= 1 else 1 / value,) if self.conditional else ()
        return Layers.of(task.graph, within, task.names, told)


def _act(agent: Agent, luck: list[float], sigma: float | None) -> Act:
    """`sigma` None: at random."""
    if sigma is None:
        return lambda number, state: luck[number]
    return lambda number, state: noisy(agent.act(state), sigma, luck[number])


def _episode(layers: Layers, act: Act, task: SearchTask, goal: str) -> tuple[Walk, float]:
    """The last walk is the one that meets the goal."""
    walks: list[Walk] = []

    def choose(asked: float) -> dict[str, int]:
        walks.append(layers.walk(act, asked))
        return dict(walks[-1].widths)

    keep = layers.within.keep(choose)
    return walks[-1], task.fitness.one(keep, goal)


def steps_of(walk: Walk, reward: float) -> list[Step]:
    """The reward of the episode is that of every action; the last state has none after it."""
    after = [*walk.states[1:], walk.states[-1]]
    count = len(walk.actions)
    return [
        Step(walk.states[i], walk.actions[i], reward, after[i], i == count - 1)
        for i in range(count)
    ]
