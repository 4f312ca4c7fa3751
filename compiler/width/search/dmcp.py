"""DMCP: differentiable Markov channel pruning (Guo et al., CVPR 2020, arXiv 2005.03354).

A group's width is a Markov chain over steps of a tenth: with p_k = σ(α_k) the probability that
step k stays if the one before it does,

    m_k = Π_{i≤k} p_i                 (marginal; their equation 4)
    E[w] = w_0 + Σ_k m_k·(w_k − w_{k−1})                                     (expected width)

In every step of training the weights come first, by the sandwich rule: the whole network learns
from labels, the narrowest and two random ones from its answers (distillation in place, T = 1).
Random widths are uniform at first and drawn from the chain more and more. Then α: the channels of
step k are multiplied by m_k, and α descends on

    CE(y, labels) + λ·log|E[C] − T|,   λ = 0.1, nothing where 0.95·T ≤ E[C] < T

with E[C] the cost at the expected widths, T the goal; above T the distance is from 0.95·T, as in
the authors' code. Its learning rate falls from 0.5 to 0.1. In the end the expected widths are
taken, or the best of them and of a few that are drawn from the chain, as this module judges them.

What differs: C may be any goal's cost, so its slope is taken from the price at the nearest widths
(a table has no derivative); the weights start from those that were trained, with the most important
channels first; α is learned from the first step on, and starts where the expected cost is the goal
instead of at 0, from where a short training does not come back. What is kept is fine-tuned with
`--epochs`; the paper trains the final widths from scratch, as `--initial` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shrinkc.compiler.recover.recipe import Trainer
from shrinkc.compiler.support.journal import digest_of
from shrinkc.compiler.train.batches import mix
from shrinkc.compiler.train.settings.config import Hooks, Keeping, Moment, Training
from shrinkc.compiler.train.settings.optimisers import Sgd
from shrinkc.compiler.train.settings.own_loss import OwnLoss
from shrinkc.compiler.train.train import train
from shrinkc.compiler.width.allocation import nearest
from shrinkc.compiler.width.price import Price
from shrinkc.compiler.width.search.slimmable import Gates, Levels, slimmable
from shrinkc.compiler.width.search.task import SearchTask
from shrinkc.compiler.width.search.within import Within

STEPS = 10  # of a group's width
SAMPLES = 5  # widths drawn from the chain that are judged beside the expected ones
EVALUATIONS = 1 + SAMPLES
EPOCHS = 40  # as published
WEIGHT, LOW, ENOUGH = 0.1, 0.95, 1e-6  # λ; the share of the goal that is near enough; of it
ALPHAS, HALVINGS = (-8.0, 16.0), 30
RATES, MOMENTUM = (0.5, 0.1), 0.9  # of α, first and last

Widths = Mapping[str, float]


class Markov:
    """The chains of all groups; `alpha` is all that is learned."""

    def __init__(self, levels: Mapping[str, Levels]) -> None:
        self.levels = dict(levels)
        counts = [len(one.widths) - 1 for one in self.levels.values()]
        self.alpha = torch.zeros(sum(counts), requires_grad=True)
        self._parts = dict(zip(self.levels, np.cumsum([0, *counts]).tolist(), strict=False))

    def marginal(self, name: str) -> Tensor:
        """(steps,) That step k stays."""
        start, count = self._parts[name], len(self.levels[name].widths) - 1
        return torch.cumprod(torch.sigmoid(self.alpha[start : start + count]), 0)

    def expected(self, name: str) -> Tensor:
        widths = torch.tensor(self.levels[name].widths, dtype=torch.float32)
        return widths[0] + (self.marginal(name) * widths.diff()).sum()

    def gates(self) -> dict[str, Tensor]:
        """What each channel is multiplied by while α learns."""
        found: dict[str, Tensor] = {}
        for name, one in self.levels.items():
            found[name] = torch.cat((torch.ones(1), self.marginal(name)))[one.of]
        return found

    def drawn(self, random: np.random.Generator) -> dict[str, int]:
        """Level of each group, by its chain: steps stay until the first that does not."""
        found: dict[str, int] = {}
        for name, start in self._parts.items():
            count = len(self.levels[name].widths) - 1
            stays = torch.sigmoid(self.alpha.detach()[start : start + count]).numpy()
            gone = np.flatnonzero(random.random(count) >= stays)
            found[name] = int(gone[0]) if len(gone) else count
        return found

    def widths(self, levels: Mapping[str, int]) -> dict[str, int]:
        return {name: self.levels[name].widths[level] for name, level in levels.items()}


def start(chains: Markov, within: Within, goal: float) -> None:
    """α, the same for all steps, where the expected cost is the goal, as near as α goes."""
    low, high = ALPHAS
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        with torch.no_grad():
            chains.alpha.fill_(middle)
            cost = expected_cost(chains, within)
        low, high = (middle, high) if float(cost) < goal else (low, middle)


def expected_cost(chains: Markov, within: Within) -> Tensor:
    at = {name: chains.expected(name) for name in chains.levels}
    return cost_of(within.problem.price, within.space.candidates, at)


def cost_of(
    price: Price, candidates: Mapping[str, tuple[int, ...]], at: Mapping[str, Tensor]
) -> Tensor:
    """The price at widths between candidates, by its slopes at the nearest ones."""
    near = {name: nearest(candidates[name], float(one.detach())) for name, one in at.items()}
    total: Tensor = torch.tensor(price.total(near))
    for name, one in at.items():
        below, above = _around(candidates[name], near[name])
        low, high = price.changes(near, name, (below, above))
        total = total + (high - low) / (above - below) * (one - near[name])
    return total


def _around(candidates: tuple[int, ...], width: int) -> tuple[int, int]:
    place = candidates.index(width)
    return candidates[max(place - 1, 0)], candidates[min(place + 1, len(candidates) - 1)]


def penalty_of(cost: Tensor, goal: float) -> Tensor:
    """λ·log of the distance from the goal."""
    if LOW * goal <= float(cost.detach()) < goal:
        return cost * 0
    nearest_to = goal if float(cost.detach()) < goal else LOW * goal
    return WEIGHT * torch.log((cost - nearest_to).abs() / goal + ENOUGH)


@dataclass(eq=False)
class Learning:
    """Weights by the sandwich rule, and α behind every step of them."""

    gates: Gates
    chains: Markov
    within: Within
    goal: float
    steps: int
    seed: int
    smoothing: float
    momentum: Tensor | None = None
    batch: tuple[Tensor, Tensor] | None = None

    def loss(self, network: nn.Module, batch: Any, number: int) -> Tensor:
        """Of one step for the weights."""
        inputs, labels = batch
        self.batch = inputs, labels
        self.gates.set({})
        answer = network(inputs)
        total = F.cross_entropy(answer, labels, label_smoothing=self.smoothing)
        taught = answer.detach().softmax(1)
        for levels in self.sandwich(number):
            self.open(levels)
            total = total + F.kl_div(network(inputs).log_softmax(1), taught, reduction="batchmean")
        return total

    def sandwich(self, number: int) -> list[dict[str, int]]:
        """Levels of the networks that learn from the whole one: the narrowest, and two random."""
        random = np.random.default_rng(mix(self.seed, number))
        found = [dict.fromkeys(self.chains.levels, 0)]
        for _ in range(2):
            if random.random() < number / self.steps:
                found.append(self.chains.drawn(random))
            else:
                levels = self.chains.levels.items()
                found.append({n: int(random.integers(len(one.widths))) for n, one in levels})
        return found

    def open(self, levels: Mapping[str, int]) -> None:
        chains = self.chains.levels
        self.gates.set({name: chains[name].open(level) for name, level in levels.items()})

    def after_step(self, model: nn.Module, moment: Moment) -> None:
        """One step for α, on the same images."""
        assert self.batch is not None
        inputs, labels = self.batch
        with torch.enable_grad():
            self.gates.set(self.chains.gates())
            answer = cast("tuple[Tensor, ...]", model(inputs))[0]
            loss = F.cross_entropy(answer, labels, label_smoothing=self.smoothing) + self.penalty()
            (slope,) = torch.autograd.grad(loss, self.chains.alpha)
        first, last = RATES
        rate = first + (last - first) * moment.step / max(self.steps - 1, 1)
        self.momentum = slope if self.momentum is None else MOMENTUM * self.momentum + slope
        self.chains.alpha.sub_(rate * self.momentum)

    def penalty(self) -> Tensor:
        return penalty_of(expected_cost(self.chains, self.within), self.goal)

    def state_dict(self) -> dict[str, Any]:
        return {"alpha": self.chains.alpha.detach().clone(), "momentum": self.momentum}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        with torch.no_grad():
            self.chains.alpha.copy_(state["alpha"])
        self.momentum = state["momentum"]


def learned(task: SearchTask, trainer: Trainer, epochs: int) -> Markov:
    """The chains after so many epochs; goes on where an earlier run stopped."""
    within, recipe = task.within, trainer.recipe
    model, gates = slimmable(task.graph, task.names)
    chains = Markov({n: Levels.of_group(within, n, _tenths(within, n)) for n in task.names})
    batch = recipe.batch_of(len(trainer.train.images))
    goal = within.budget()
    start(chains, within, goal)
    steps = epochs * max(len(trainer.train.images) // batch, 1)
    learning = Learning(gates, chains, within, goal, steps, task.seed, recipe.smoothing)
    training = Training(
        *(epochs, batch, Sgd(recipe.learning_rate, weight_decay=recipe.weight_decay)),
        labels=None,
        loss=OwnLoss(learning.loss, "dmcp", lambda outputs: outputs[0]),
        by_task=True,
        hooks=Hooks(after_step=learning.after_step, state=learning),
        seed=task.seed,
    )
    name = f"dmcp-{digest_of(task.graph, f'{within.goal} {task.names} {chains.levels}')[:12]}"
    keeping = None if trainer.folder is None else Keeping(trainer.folder / name)
    given = (model.train(), trainer.train, training)
    train(*given, keeping=keeping, progress=trainer.progress, task=trainer.task)
    return chains


def search(task: SearchTask) -> None:
    """The expected widths, and a few that are drawn."""
    assert task.trainer is not None
    chains = learned(task, task.trainer, task.epochs or EPOCHS)
    random = np.random.default_rng(task.seed)
    expected = {name: float(chains.expected(name).detach()) for name in task.names}
    task.fitness.one(_candidate(task, expected))
    for _ in range(task.fitness.most - 1):
        task.fitness.one(_candidate(task, chains.widths(chains.drawn(random))))


def _candidate(task: SearchTask, widths: Widths) -> Any:
    """In these proportions, where the goal is met."""
    whole = task.within.problem.price.sizes
    return task.candidate({name: width / whole[name] for name, width in widths.items()})


def _tenths(within: Within, name: str) -> tuple[int, ...]:
    """The candidates nearest to tenths of the group."""
    candidates = within.space.candidates[name]
    whole = candidates[-1]
    return tuple(sorted({nearest(candidates, k * whole / STEPS) for k in range(1, STEPS + 1)}))
