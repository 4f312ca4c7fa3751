"""What is DepthShrinker's own beside its masks (Fu et al., 2022): losses, schedule, baselines.

The search learns from labels alone. Fine-tuning distils from the network as it was, at a
temperature of 1, with the labels as they are; labels are smoothed where nobody teaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import fx

from shrinkc.compiler.recover.recipe import Recipe
from shrinkc.compiler.support.choices import BlockSearch

TEMPERATURE = 1.0
PUBLISHED = Recipe(  # of MobileNetV2-1.4 on ImageNet
    epochs=180,
    search_epochs=180,
    batch=256,
    learning_rate=0.1,
    weight_decay=1e-5,
    distillation=0.7,
    temperature=TEMPERATURE,
    smoothing=0.1,
)


def searching(recipe: Recipe) -> Recipe:
    """Of the training that learns the masks."""
    return replace(recipe, distillation=0.0)


def tuning(recipe: Recipe) -> Recipe:
    """Of the training behind it."""
    smoothing = 0.0 if recipe.distillation else recipe.smoothing
    temperature = TEMPERATURE if recipe.temperature is None else recipe.temperature
    return replace(recipe, smoothing=smoothing, temperature=temperature)


def unlearned(
    graph: fx.GraphModule, units: Sequence[Sequence[str]], search: BlockSearch, seed: int
) -> list[float]:
    """Scores of units that nothing is learned for: random ones, or such that those that stay are
    spread evenly over the depth, however many they are."""
    if search == "random":
        generator = torch.Generator().manual_seed(seed)
        return [float(x) for x in torch.rand(len(units), generator=generator)]
    place = {node.name: i for i, node in enumerate(graph.graph.nodes)}
    order = sorted(range(len(units)), key=lambda unit: min(place[name] for name in units[unit]))
    scores = [0.0] * len(units)
    for rank, position in enumerate(_spread(len(units))):
        scores[order[position]] = 1 - rank / len(units)
    return scores


def _spread(count: int) -> list[int]:
    """All positions, each as far as can be from those before it: 0, the last, the middle, …"""
    chosen = [0]
    while len(chosen) < count:
        left = (i for i in range(count) if i not in chosen)
        chosen.append(max(left, key=lambda i: (min(abs(i - j) for j in chosen), -i)))
    return chosen
