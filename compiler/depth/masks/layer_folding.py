"""Layer Folding (Dror et al., BMVC 2022): activations that learn whether they are needed.

    σ_α(x) = α·x + (1 − α)·σ(x),   α from 0 on, never below,
    loss + λ Σ |1 − α²|,           λ = 0.25

are learned together with the weights, from labels alone. At α = 0 the penalty has no slope: an α
leaves 0 only where the labels pull, and is drawn to 1 from then on. Activations whose α passes 0.9
go, and the layers around them are merged; a budget sets the threshold in its place: the highest one
whose activations are enough.

What stays is σ again, and fine-tuned so. The authors keep σ_α, whose α is near 0 by then.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.depth.masks.annealing import rewired, take_weights
from shrinkc.compiler.depth.masks.gates import Search
from shrinkc.compiler.depth.select import select
from shrinkc.compiler.pipeline.deployed import Network
from shrinkc.compiler.recover.recipe import Recipe, Trainer
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.train.settings.config import Hooks, Moment
from shrinkc.errors import InputError, UnreachableGoalError
from shrinkc.passes.algebra.intervals import Interval, best_disjoint

LAMBDA, THRESHOLD = 0.25, 0.9  # of the authors' code
PUBLISHED = Recipe(  # of ResNet-20 and -56 on CIFAR-10: no teacher, no weight decay
    epochs=100,
    search_epochs=100,
    learning_rate=1e-3,
    weight_decay=0.0,
    distillation=0.0,
    smoothing=0.0,
)


class Folding(nn.Module):
    """An activation of which the share α is the identity; α is learned."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * x + (1 - self.alpha) * self.activation(x)


def foldable(net: Network, search: Search) -> tuple[fx.GraphModule, list[Folding]]:
    """A copy of the network to be trained, and its activations in the order of the units."""
    names = [name for (name,) in search.units]
    copy = rewired(net.graph, names, "folding", lambda _, activation: Folding(activation))
    found = [copy.get_submodule(f"folding_{name}") for name in names]
    return copy, [one for one in found if isinstance(one, Folding)]


def penalty(foldings: Sequence[Folding]) -> Tensor:
    """λ Σ |1 − α²|"""
    return LAMBDA * (1 - torch.stack([one.alpha for one in foldings]) ** 2).abs().sum()


def learn_alphas(net: Network, search: Search, trainer: Trainer, epochs: int) -> list[float]:
    """Train α and weights; `net.graph` gets the weights. `search`: every activation is a unit."""
    model, foldings = foldable(net, search)

    def pulled(_model: nn.Module, _moment: Moment) -> Tensor:
        return penalty(foldings)

    def not_negative(_model: nn.Module, _moment: Moment) -> None:
        for one in foldings:
            one.alpha.clamp_(min=0)

    hooks = Hooks(penalty=pulled, after_step=not_negative)
    trainer.fit(model, "folding", epochs, hooks)
    take_weights(net.graph, model)
    return [float(one.alpha.detach()) for one in foldings]


def within(search: Search, alphas: Sequence[float], saving_ms: float) -> list[int]:
    """Options that save enough, with the highest threshold whose activations can, the authors' at
    most; of those the set that is nearest to linear. Raises UnreachableGoalError, which names the
    most."""
    judged = search.priced([abs(1 - alpha) for alpha in alphas])
    for threshold in sorted({min(alpha, THRESHOLD) for alpha in alphas}, reverse=True):
        some = above(search, alphas, threshold)
        try:
            return [some[i] for i in select([judged[i] for i in some], saving_ms)]
        except UnreachableGoalError:
            continue
    return select(judged, saving_ms)


def past_threshold(search: Search, alphas: Sequence[float]) -> list[int]:
    """The options that save most, of activations that have passed the authors' threshold. Raises
    InputError where there is none."""
    some = above(search, alphas, THRESHOLD)
    options = [search.options[i] for i in some]
    chosen = best_disjoint([Interval(o.first, o.last, o.saving_ms) for o in options])
    if not chosen:
        count = sum(alpha >= THRESHOLD for alpha in alphas)
        raise InputError(
            f"nothing can be folded: α of {count} of {counted(len(alphas), 'activation')} passed "
            f"{THRESHOLD:g} (the largest: {max(alphas):.2g}), of no span that of all",
            "give more `search_epochs`, or a goal, which sets the threshold",
        )
    return [some[i] for i in chosen]


def above(search: Search, alphas: Sequence[float], threshold: float) -> list[int]:
    """The options all of whose activations have reached this."""
    return [
        i for i, units in enumerate(search.members) if all(alphas[u] >= threshold for u in units)
    ]
