"""Deep deterministic policy gradient for one action in [0, 1] (Lillicrap et al., 2016), as AMC
trains it: actor and critic with two hidden layers, targets that follow slowly, and a moving average
of rewards that is subtracted,

    y = r − b + γ(1 − end)·Q′(s′, μ′(s′)),   b ← b + α(mean r − b)

Noise is a normal distribution around the action, cut off at both ends. It is drawn from uniform
numbers that are handed in, so that an episode can be gone through again with the same luck.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TINY = 1e-15
_torch: Any = torch  # some of its functions have no types


@dataclass(frozen=True)
class Ddpg:
    """AMC's numbers; `averaging` is α of the rewards' average, `remembered` episodes."""

    hidden: int = 300
    actor_rate: float = 1e-4
    critic_rate: float = 1e-3
    discount: float = 1.0
    following: float = 0.01
    batch: int = 64
    remembered: int = 100
    averaging: float = 0.5


@dataclass(frozen=True, eq=False)
class Step:
    """The state, what was done, what came of the episode, the next state; `end`: there is none."""

    state: Tensor
    action: float
    reward: float
    after: Tensor
    end: bool


class Agent:
    """Everything that is random follows from `seed`."""

    def __init__(self, states: int, steps: int, options: Ddpg, seed: int) -> None:
        self.options = options
        with _seeded(seed):
            self.actor = nn.Sequential(*_layers(states, options.hidden), nn.Sigmoid())
            self.critic = nn.Sequential(*_layers(states + 1, options.hidden))
        self._slow_actor, self._slow_critic = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self._of_actor: Any = torch.optim.Adam(self.actor.parameters(), options.actor_rate)
        self._of_critic: Any = torch.optim.Adam(self.critic.parameters(), options.critic_rate)
        self._memory: deque[Step] = deque(maxlen=options.remembered * steps)
        self._random = np.random.default_rng(seed)
        self._average: float | None = None

    def act(self, state: Tensor) -> float:
        with torch.no_grad():
            return float(self.actor(state)[0])

    def remember(self, steps: Sequence[Step]) -> None:
        self._memory.extend(steps)

    def learn(self) -> None:
        """One update from a batch of what is remembered."""
        picked = self._random.integers(len(self._memory), size=self.options.batch)
        some = [self._memory[int(i)] for i in picked]
        state, after = (torch.stack([getattr(s, n) for s in some]) for n in ("state", "after"))
        action = torch.tensor([[step.action] for step in some])
        reward = torch.tensor([[step.reward] for step in some])
        end = torch.tensor([[float(step.end)] for step in some])
        self._update_critic(state, action, self._advantage(reward), after, end)
        self._of_actor.zero_grad()
        wanted: Any = -self.critic(torch.cat((state, self.actor(state)), 1)).mean()
        wanted.backward()
        self._of_actor.step()
        for slow, fast in ((self._slow_actor, self.actor), (self._slow_critic, self.critic)):
            _follow(slow, fast, self.options.following)

    def _advantage(self, reward: Tensor) -> Tensor:
        """Above the moving average."""
        mean = float(reward.mean())
        before = mean if self._average is None else self._average
        self._average = before + self.options.averaging * (mean - before)
        return reward - self._average

    def _update_critic(
        self, state: Tensor, action: Tensor, reward: Tensor, after: Tensor, end: Tensor
    ) -> None:
        with torch.no_grad():
            following = self._slow_critic(torch.cat((after, self._slow_actor(after)), 1))
            wanted = reward + self.options.discount * (1 - end) * following
        self._of_critic.zero_grad()
        loss: Any = F.mse_loss(self.critic(torch.cat((state, action), 1)), wanted)
        loss.backward()
        self._of_critic.step()


def noisy(action: float, sigma: float, luck: float) -> float:
    """Drawn from a normal distribution around the action that is cut off at 0 and 1. `luck`: the
    share of draws that are lower."""
    if sigma <= 0:
        return action
    around = NormalDist(action, sigma)
    low, high = around.cdf(0.0), around.cdf(1.0)
    share = min(max(low + luck * (high - low), TINY), 1 - TINY)
    return min(max(around.inv_cdf(share), 0.0), 1.0)


def _layers(inputs: int, hidden: int) -> list[nn.Module]:
    first, second = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)
    return [first, nn.ReLU(), second, nn.ReLU(), nn.Linear(hidden, 1)]


@torch.no_grad()
def _follow(slow: nn.Module, fast: nn.Module, share: float) -> None:
    for one, other in zip(slow.parameters(), fast.parameters(), strict=True):
        one.lerp_(other, share)


@contextmanager
def _seeded(seed: int) -> Generator[None]:
    """torch's random state is left as it was."""
    with _torch.random.fork_rng(devices=[]):
        _torch.manual_seed(seed)
        yield
