"""A training with chains beside changed convolutions: what comes out is what was trained."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import depth_cases
import pytest
import torch
from depth_cases import SIZE, ByWork, images
from prune_doubles import Steps
from torch import Tensor, fx, nn

from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.depth.methods import METHODS, method_of
from shrinkc.compiler.depth.trained import (
    DEPTHSHRINKER,
    LAYER_PRUNING,
    LAYERMERGE,
    TWO_STAGE_DP,
    Trained,
    TrainedMethod,
    shrink_trained,
)
from shrinkc.compiler.pipeline.deployed import network
from shrinkc.compiler.recover.chains import over_parameterised
from shrinkc.compiler.recover.chains.over_parameterised import (
    chainable,
    fine_tuned,
    fit_over_parameterised,
    with_chains,
)
from shrinkc.compiler.recover.recipe import Recipe, Trainer, trainer_for
from shrinkc.compiler.recover.retrain import retrain
from shrinkc.compiler.support.progress import Silent
from shrinkc.compiler.train.train import Result
from shrinkc.compiler.width.allocation import Allocation
from shrinkc.compiler.width.prune import Pruned, Pruning, prune
from shrinkc.errors import InputError
from shrinkc.passes.criteria.magnitude import FilterNorm
from shrinkc.passes.ir import module_of

WIDE = Recipe(epochs=2, steps=2, batch=16, chain_ratio=1.5)
PLAIN = replace(WIDE, chain_ratio=0.0)


captured = partial(depth_cases.captured, blocks=2)


def trainer(graph: fx.GraphModule, folder: Path | None = None, recipe: Recipe = WIDE) -> Trainer:
    return trainer_for(images(), graph, recipe, folder, "run", Silent())


def answers(graph: nn.Module) -> Tensor:
    x = torch.randn(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return graph.eval()(x)[0]


def layers_of(graph: fx.GraphModule) -> list[str]:
    found = [(n.name, module_of(graph, n)) for n in graph.graph.nodes]
    return [f"{name} {m.weight.shape}" for name, m in found if isinstance(m, nn.Conv2d)]


def test_what_comes_out_is_what_was_trained(tmp_path: Path) -> None:
    graph = network(captured()).graph
    seen: list[nn.Module] = []
    given = trainer(graph, tmp_path)

    def fit(wide: fx.GraphModule) -> Result:
        assert torch.equal(answers(wide), answers(graph))
        result = given.fit(wide, "fine-tuning", 2)
        seen.append(wide)
        return result

    chosen = chainable(graph, [])[1:3]
    trained, _ = fit_over_parameterised(given, graph, chosen, fit)
    (wide,) = seen
    for name in chosen:  # the chains learned
        scales = wide.get_submodule(f"{name}_project_norm").weight
        assert isinstance(scales, Tensor)
        assert scales.detach().abs().max() > 0
    assert layers_of(trained) == layers_of(graph)
    assert not torch.allclose(answers(trained), answers(graph), atol=1e-3)
    assert torch.allclose(answers(trained), answers(wide), atol=1e-5)
    again, rows = fit_over_parameterised(given, graph, chosen, fit)  # everything is loaded
    assert torch.equal(answers(again), answers(trained))
    assert len(rows.history) == 2


def test_statistics_of_chains_begin_with_those_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: without that, a network that was trained for a step computes something else
    in inference."""
    graph = network(captured()).graph
    given = trainer(graph)
    spread: list[float] = []

    def fit(wide: fx.GraphModule) -> Result:
        (x,) = given.train.images.taken(torch.arange(16), (SIZE, SIZE))
        norm = next(m for n, m in wide.named_modules() if n.endswith("expand_norm"))
        with torch.no_grad():
            values: list[Tensor] = []
            handle = norm.register_forward_hook(lambda _, __, y: values.append(y))
            wide.eval()(x)
            handle.remove()
        spread.append(float(values[0].var((0, 2, 3)).sub(1).abs().max()))
        return Result(wide, (), 0, 0.0)

    fit_over_parameterised(given, graph, [], fit)
    assert spread[0] < 0.01
    monkeypatch.setattr(over_parameterised, "_settle", lambda *_: None)
    fit_over_parameterised(given, graph, [], fit)
    assert spread[1] > 0.1


def test_without_the_option_nothing_is_put_beside() -> None:
    graph = network(captured()).graph
    given = trainer(graph, recipe=PLAIN)

    def fit(model: fx.GraphModule) -> Result:
        assert model is graph
        return Result(model, (), 0, 0.0)

    assert fit_over_parameterised(given, graph, [], fit)[0] is graph


def test_what_changed_gets_chains_and_where_nothing_did_everything() -> None:
    graph = network(captured()).graph
    every = chainable(graph, [])
    assert len(every) == len(layers_of(graph))
    assert chainable(graph, every[2:4]) == every[2:4]
    assert chainable(graph, ["no convolution"]) == every
    names: list[str] = []
    given = trainer(graph)

    def noted(wide: fx.GraphModule, name: str, epochs: int) -> Result:
        names.extend(n.name for n in wide.graph.nodes if n.name.endswith("_conv"))
        return Result(wide, (), 0, 0.0)

    object.__setattr__(given, "fit", noted)
    goal, options = Goal.macs(0.8), Pruning(Allocation(multiple=1))
    pruned = prune(captured(), Steps(), "fp32", FilterNorm(), goal, options=options).trainable
    fine_tuned(given, pruned, graph)
    before, after = layers_of(graph), layers_of(pruned)
    sliced = [new.split()[0] for old, new in zip(before, after, strict=True) if old != new]
    assert 0 < len(sliced) < len(before)
    assert names == [f"{name}_conv" for name in sliced]


@pytest.mark.parametrize(
    ("method", "anneal"),
    [
        *((DEPTHSHRINKER, 0.0), (DEPTHSHRINKER, 0.5), (TWO_STAGE_DP, 0.0), (LAYERMERGE, 0.5)),
        *((LAYER_PRUNING, 0.0), (LAYER_PRUNING, 0.5)),
    ],
)
def test_depth_methods_end_in_the_same_layers(
    method: TrainedMethod, anneal: float, tmp_path: Path
) -> None:
    """Within the budget as without, with other numbers. Options are tried without chains, so once
    for both."""
    given = captured(), images(), ByWork(), "fp32", method, Goal.speedup(1.3)
    wide, plain = (
        shrink_trained(*given, options=Trained(recipe, anneal=anneal), folder=tmp_path)
        for recipe in (WIDE, PLAIN)
    )
    assert wide.plan == plain.plan
    assert wide.after_ms == plain.after_ms <= wide.before_ms / 1.3
    assert [n.name for n in wide.graph_module.graph.nodes] == [
        n.name for n in plain.graph_module.graph.nodes
    ]
    assert not torch.allclose(answers(wide.graph_module), answers(plain.graph_module))


def test_pruning_ends_in_the_same_layers(tmp_path: Path) -> None:
    def run(recipe: Recipe) -> Pruned:
        options = Pruning(Allocation(multiple=1), 2, recipe)
        return prune(
            *(captured(), Steps(), "fp32", FilterNorm(), Goal.macs(0.6)),
            options=options,
            train=images(),
            folder=tmp_path,
        )

    wide, plain = run(WIDE), run(PLAIN)
    assert layers_of(wide.graph_module) == layers_of(plain.graph_module)
    assert layers_of(wide.trainable) == layers_of(plain.trainable)
    assert wide.after_ms == plain.after_ms
    assert not torch.allclose(answers(wide.graph_module), answers(plain.graph_module))
    assert torch.allclose(answers(wide.graph_module), answers(wide.trainable), atol=1e-5)
    assert torch.equal(answers(run(WIDE).graph_module), answers(wide.graph_module))  # loaded


def test_a_closed_form_network_is_trained_with_chains() -> None:
    graph = network(captured()).folded
    trained = [retrain(graph, graph, images(), recipe, None, Silent()) for recipe in (WIDE, PLAIN)]
    assert layers_of(trained[0]) == layers_of(graph)
    assert not torch.allclose(answers(trained[0]), answers(trained[1]))


def test_more_hidden_channels_are_more_parameters() -> None:
    graph = network(captured()).graph
    sizes = [
        sum(p.numel() for p in with_chains(graph, chainable(graph, []), ratio, 0).parameters())
        for ratio in (0.5, 1.0, 2.0)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] > sum(p.numel() for p in graph.parameters())


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(InputError, match="`chain_ratio` -1"):
        Recipe(chain_ratio=-1)
    (expand,) = (m for m in METHODS if not m.takes_goal)
    with pytest.raises(InputError, match="expand expands convolutions itself"):
        expand.check(None, Trained(WIDE))
    method_of("layermerge").check(Goal.speedup(2), Trained(WIDE))
