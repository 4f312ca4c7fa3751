"""A training with more parameters than the network has, which are merged back behind it:

    network → linear chains beside its layers (exact) → train → merge them back (exact)

A chain of linear layers computes what one layer can, and gradient descent takes another way to it
(Qian et al., LOP, 2022, for pruned networks; Equivalent Pruning, arXiv 2508.05521, puts a fusable
autoencoder in the place of pruned channels). There a chain takes the place of the layer; here the
layer stays and the chain beside it starts at zero, so that the network computes at the start
exactly what it computed. Expanding and merging are verified in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import fx, nn

from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.recover.recipe import Trainer
from shrinkc.compiler.train.log import Row
from shrinkc.compiler.train.train import Result
from shrinkc.passes.analysis.usage import usage
from shrinkc.passes.ir import module_of
from shrinkc.passes.layers.chain_convs import ChainConvs, why_no_chain
from shrinkc.passes.merge.merge_spans import MergeSpans

Fit = Callable[[fx.GraphModule], Result]

FIRST = 16  # images that the statistics of a chain's batch norms begin with


def fine_tuned(
    trainer: Trainer, graph: fx.GraphModule, original: fx.GraphModule, name: str = "fine-tuning"
) -> tuple[fx.GraphModule, tuple[Row, ...]]:
    """`recipe.epochs` of training a network that was made of the original: with chains beside what
    is of another shape there, if asked for. The network, and the log."""

    def fit(model: fx.GraphModule) -> Result:
        return trainer.fit(model, name, trainer.recipe.epochs)

    changed = changed_convs(original, graph)
    trained, result = fit_over_parameterised(trainer, graph, changed, fit)
    return trained, result.history


def fit_over_parameterised(
    trainer: Trainer, graph: fx.GraphModule, layers: Sequence[str], fit: Fit
) -> tuple[fx.GraphModule, Result]:
    """The trained network, in eval mode, and what `fit` said, which trains in place.

    With chains beside `layers`, or beside all convolutions where there is none among them, if the
    trainer's recipe asks for it; otherwise `graph` itself is trained. Raises VerificationError
    where the network with chains, or the merged one, computes anything else.
    """
    recipe = trainer.recipe
    if not recipe.chain_ratio:
        return graph, fit(graph)
    chained = chainable(graph, layers)
    wide = with_chains(graph, chained, recipe.chain_ratio, recipe.seed)
    _settle(wide, graph, trainer)
    result = fit(wide.train())
    return merged_back(wide, chained), result


def chainable(graph: fx.GraphModule, layers: Sequence[str]) -> tuple[str, ...]:
    """Those of `layers` that can have a chain; of all layers, where none of them can."""
    used, wanted = usage(graph), set(layers)
    able = [n.name for n in graph.graph.nodes if why_no_chain(graph, n, used) is None]
    return tuple(n for n in able if n in wanted) or tuple(able)


def changed_convs(before: fx.GraphModule, after: fx.GraphModule) -> tuple[str, ...]:
    """Convolutions of `after` that were none in `before`, or of another shape."""
    known = _conv_shapes(before)
    return tuple(n for n, shape in _conv_shapes(after).items() if known.get(n) != shape)


def _conv_shapes(graph: fx.GraphModule) -> dict[str, torch.Size]:
    found = {node.name: module_of(graph, node) for node in graph.graph.nodes}
    return {name: m.weight.shape for name, m in found.items() if isinstance(m, nn.Conv2d)}


def with_chains(
    graph: fx.GraphModule, layers: Sequence[str], ratio: float, seed: int
) -> fx.GraphModule:
    """In float32 and eval mode; `layers` are `chainable`."""
    chains = ChainConvs(tuple(layers), ratio, seed)
    return run_exact_passes(graph.eval(), (chains,))[0].float()


def merged_back(wide: fx.GraphModule, layers: Sequence[str]) -> fx.GraphModule:
    """Of a trained network with chains: the network without them, its batch norms as they are."""
    nodes = {node.name: node for node in wide.graph.nodes}
    pairs = tuple((nodes[f"{name}_conv"].all_input_nodes[0].name, name) for name in layers)
    return run_exact_passes(wide.eval(), (MergeSpans(pairs),))[0].float()


def _settle(wide: fx.GraphModule, graph: fx.GraphModule, trainer: Trainer) -> None:
    """Batch norms of the chains begin with the statistics of a few images: a short training would
    end before running averages have left those of no images."""
    old, data = {node.name for node in graph.graph.nodes}, trainer.train
    added = [module_of(wide, node) for node in wide.graph.nodes if node.name not in old]
    fresh = [module for module in added if isinstance(module, nn.BatchNorm2d)]
    for norm in fresh:
        norm.train().momentum = 1.0
    with torch.no_grad():
        wide(*data.images.taken(torch.arange(min(FIRST, len(data.images))), data.input_size))
    for norm in fresh:
        norm.momentum = 0.1
