"""DepthShrinker: losses and schedule as in its code, activations that go little by little,
baselines."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from depth_cases import ByWork, captured, images
from torch import nn

from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.depth.masks.annealing import Annealed, annealed, annealing
from shrinkc.compiler.depth.masks.depthshrinker import PUBLISHED, searching, tuning, unlearned
from shrinkc.compiler.depth.surgery import DepthPlan, prepare
from shrinkc.compiler.depth.trained import DEPTHSHRINKER, TWO_STAGE_DP, Trained, shrink_trained
from shrinkc.compiler.pipeline.deployed import network
from shrinkc.compiler.recover.recipe import Recipe, trainer_for
from shrinkc.compiler.support.progress import Silent
from shrinkc.compiler.train.settings.config import Moment
from shrinkc.compiler.train.settings.losses import kd_loss
from shrinkc.errors import InputError
from shrinkc.passes.analysis.linear.spans import activations


def test_the_losses_of_search_and_fine_tuning() -> None:
    """0.7 · KL at a temperature of 1 + 0.3 · cross-entropy of labels as they are; no teacher in the
    search."""
    graph = network(captured()).graph
    given = graph, tuning(Recipe()), None, "", Silent()
    found = trainer_for(images(), *given).training(1)
    assert found.distillation is not None
    assert (found.distillation.weight, found.distillation.temperature) == (0.7, 1.0)
    assert found.labels is not None
    assert (found.labels.weight, found.labels.smoothing) == (pytest.approx(0.3), 0.0)
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    p, q = F.softmax(teacher, 1), F.softmax(student, 1)
    assert kd_loss(student, teacher, 1.0) == pytest.approx(float((p * (p / q).log()).sum()))
    search = trainer_for(images(), graph, searching(Recipe()), None, "", Silent()).training(1)
    assert search.distillation is None
    assert search.labels is not None
    assert (search.labels.weight, search.labels.smoothing) == (1.0, 0.1)
    assert tuning(Recipe(temperature=2.0)).temperature == 2.0


def test_the_published_schedule() -> None:
    recipe = PUBLISHED
    assert (recipe.epochs, recipe.search_epochs, recipe.batch) == (180, 180, 256)
    assert (recipe.learning_rate, recipe.weight_decay) == (0.1, 1e-5)
    assert (recipe.distillation, recipe.temperature, recipe.smoothing) == (0.7, 1.0, 0.1)


# --- activations that go little by little --------------------------------------------------------


def test_an_annealed_relu6_has_the_slopes_of_the_published_code() -> None:
    """s·x below 0 and x between, 6 + s·(x − 6) above."""
    one = Annealed(nn.ReLU6())
    one.gone.fill_(0.25)
    got = one(torch.tensor([-2.0, 3.0, 8.0]))
    assert got.tolist() == pytest.approx([-0.5, 3.0, 6.5])
    one.gone.fill_(1.0)
    assert torch.equal(one(torch.tensor([-2.0, 8.0])), torch.tensor([-2.0, 8.0]))


def test_slopes_rise_over_their_share_of_the_steps() -> None:
    model = nn.Sequential(Annealed(nn.ReLU()))
    step = annealing(0.5).after_step
    assert step is not None
    seen: list[float] = []
    for number in range(8):
        step(model, Moment(number, 8, 0, 1))
        seen.append(float(model[0].gone))  # pyright: ignore
    assert seen == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_nothing_is_left_of_an_annealed_activation() -> None:
    net = network(captured())
    removed = sorted(activations(net.graph))[:3]
    prepared = prepare(net.graph, DepthPlan(tuple(removed)), None).graph
    model = annealed(prepared, net.graph, removed)
    found = [m for m in model.modules() if isinstance(m, Annealed)]
    assert len(found) == 3
    x = torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        assert torch.allclose(model(x)[0], net.graph(x)[0], atol=1e-5)  # all are there
        for one in found:
            one.gone.fill_(1.0)
        assert torch.equal(model(x)[0], prepared(x)[0])


def test_a_method_anneals_and_merges_exactly(tmp_path: Path) -> None:
    options = Trained(Recipe(epochs=2, steps=2, batch=16), anneal=0.5)
    given = captured(blocks=2), images(), ByWork(), "fp32", TWO_STAGE_DP, Goal.speedup(1.2)
    found = shrink_trained(*given, options=options, folder=tmp_path)
    assert found.after_ms <= found.before_ms / 1.2
    again = shrink_trained(*given, options=options, folder=tmp_path)  # loaded
    at_once = shrink_trained(*given, options=Trained(options.recipe), folder=tmp_path)
    x = torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        assert torch.equal(again.graph_module(x)[0], found.graph_module(x)[0])
        assert not torch.equal(at_once.graph_module(x)[0], found.graph_module(x)[0])
    with pytest.raises(InputError, match="`anneal` 2: give a share"):
        Trained(anneal=2.0)


# --- baselines -----------------------------------------------------------------------------------


def test_uniform_blocks_are_spread_over_the_depth() -> None:
    graph = network(captured()).graph
    names = [n.name for n in graph.graph.nodes if n.name in activations(graph)][:7]
    units = [(name,) for name in reversed(names)]  # in any order
    scores = unlearned(graph, units, "uniform", 0)
    best = sorted(range(7), key=lambda i: -scores[i])
    kept = {names.index(units[i][0]) for i in best[:3]}
    assert kept == {0, 3, 6}
    assert len(set(scores)) == 7


def test_random_blocks_follow_the_seed() -> None:
    graph = network(captured()).graph
    units = [(name,) for name in sorted(activations(graph))]
    one, same, other = (unlearned(graph, units, "random", seed) for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize("search", ["random", "uniform"])
def test_baselines_keep_as_many_blocks_and_learn_no_masks(search: str, tmp_path: Path) -> None:
    options = Trained(Recipe(epochs=1, batch=16), keep_blocks=2, search=search)  # pyright: ignore
    given = captured(blocks=2), images(), ByWork(), "fp32", DEPTHSHRINKER, None
    found = shrink_trained(*given, options=options, folder=tmp_path)
    assert found.taken
    assert not list(tmp_path.rglob("search"))
