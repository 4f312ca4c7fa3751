"""Channel Pruning and CaP: the LASSO's path, exact elimination, the structural search."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from channel_networks import graph_of
from hand_built import Net
from sklearn.linear_model import lars_path_gram
from torch import fx, nn

from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.criteria.base import Scores
from shrinkc.passes.criteria.cap import CaP, structural_search
from shrinkc.passes.criteria.channel_pruning import ChannelPruning, contributions
from shrinkc.passes.criteria.shared.data import Batch
from shrinkc.passes.criteria.shared.lasso import lasso_path
from shrinkc.passes.criteria.shared.readers import reader_sums

Numbers = npt.NDArray[np.float64]


def problem(seed: int, rows: int = 40, size: int = 8) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Correlated columns: x, y, and the sums of both."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, size)) @ generator.normal(size=(size, size))
    y = x @ generator.normal(size=size) + generator.normal(size=rows)
    return x, y, x.T @ x, x.T @ y


@pytest.mark.parametrize("seed", range(12))
def test_path_meets_the_conditions_of_the_optimum(seed: int) -> None:
    """|b − Aβ| is λ with β's sign where β is not 0, and no more than λ elsewhere."""
    _, _, gram, cross = problem(seed)
    path = lasso_path(gram, cross)
    middles = (path.penalties[1:] + path.penalties[:-1]) / 2
    between = (path.values[1:] + path.values[:-1]) / 2
    points = np.concatenate([path.values, between])
    for penalty, beta in zip((*path.penalties, *middles), points, strict=True):
        left, scale = cross - gram @ beta, np.abs(cross).max()
        nonzero = beta != 0
        np.testing.assert_allclose(
            left[nonzero], penalty * np.sign(beta[nonzero]), atol=1e-9 * scale
        )
        assert np.abs(left).max() <= penalty + 1e-9 * scale
    np.testing.assert_allclose(path.values[-1], np.linalg.solve(gram, cross), rtol=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_path_is_that_of_scikit_learn(seed: int) -> None:
    _, _, gram, cross = problem(seed)
    path = lasso_path(gram, cross)
    alphas, _, values = lars_path_gram(cross, gram, n_samples=1, method="lasso")
    np.testing.assert_allclose(path.penalties, alphas, atol=1e-8 * alphas[0])
    np.testing.assert_allclose(path.values, values.T, atol=1e-7)


def test_some_paths_let_coefficients_go() -> None:
    """The seeds above include knots at which one leaves again."""
    paths = [lasso_path(*problem(seed)[2:]).values != 0 for seed in range(12)]
    assert any((nonzero[:-1] & ~nonzero[1:]).any() for nonzero in paths)


def test_entries() -> None:
    path = lasso_path(np.eye(3), np.array([3.0, -1.0, 0.0]))
    assert path.entries().tolist() == [3.0, 1.0, 0.0]


def test_columns_that_depend_on_others_stay_out() -> None:
    x, y, _, _ = problem(0)
    x = np.column_stack([x, x[:, 0], np.zeros(len(x))])
    entries = lasso_path(x.T @ x, x.T @ y).entries()
    assert entries[-1] == 0
    assert min(entries[0], entries[-2]) == 0
    assert (entries[1:-2] > 0).all()


# --- on networks ---------------------------------------------------------------------------------


def images(graph: fx.GraphModule, count: int = 6, batches: int = 2) -> list[Batch]:
    generator = torch.Generator().manual_seed(5)
    shape = next(iter(graph.meta["input_shapes"].values()))
    sizes = count, *shape[1:]
    return [
        ((torch.randn(sizes, generator=generator, dtype=torch.float64),), None)
        for _ in range(batches)
    ]


def chain(kernel: int = 3, activation: bool = True) -> fx.GraphModule:
    net = Net(1, 2, 6, 6)
    x = net.conv(net.x, 2, 4, 3, name="made")
    x = net.call(nn.ReLU(), x, "act") if activation else x
    return net.build(net.conv(x, 4, 3, kernel, stride=2, padding=kernel // 2, name="read"))


def test_contributions_are_those_of_each_channel() -> None:
    graph = chain()
    group = channel_groups(graph)["made"]
    batches = images(graph)
    ((_, sums),) = reader_sums(graph, [group], batches)
    read = graph.get_submodule("read")
    parts: list[npt.NDArray[np.float64]] = []
    with torch.no_grad():
        hidden = torch.cat([torch.relu(graph.get_submodule("made")(x)) for (x,), _ in batches])
        for channel in range(4):
            alone = torch.zeros_like(hidden)
            alone[:, channel] = hidden[:, channel]
            parts.append((read(alone) - read.bias[:, None, None]).flatten().numpy())
    z = np.stack(parts)
    np.testing.assert_allclose(contributions(sums, 4), z @ z.T / (z.sum(0) ** 2).sum(), rtol=1e-9)
    scores = ChannelPruning(batches).scores(graph, channel_groups(graph))["made"]
    alphas, _, values = lars_path_gram(z @ z.sum(0), z @ z.T, n_samples=1, method="lasso")
    entered = [alphas[max(np.flatnonzero(row == 0), default=0)] for row in values]
    np.testing.assert_allclose(scores, np.array(entered) / (z.sum(0) ** 2).sum(), rtol=1e-6)


def test_a_channel_that_nobody_needs_goes_first() -> None:
    graph = chain()
    graph.get_submodule("read").weight.data[:, 2] = 0
    for criterion in (ChannelPruning(images(graph)), CaP(images(graph))):
        scores = criterion.scores(graph, channel_groups(graph))["made"]
        assert scores.argmin() == 2
        assert scores[2] < 1e-6


def test_cap_sees_what_can_be_made_up() -> None:
    """A copy of another channel is the first to go for CaP, however large its weights are."""
    graph = chain(1, False)
    made, read = graph.get_submodule("made"), graph.get_submodule("read")
    made.weight.data[3], made.bias.data[3] = 2 * made.weight.data[1], 2 * made.bias.data[1]
    read.weight.data[:, 3] = 10.0
    scores = CaP(images(graph)).scores(graph, channel_groups(graph))["made"]
    first, second = np.argsort(scores)[:2]
    assert first in (1, 3)
    assert scores[first] < 1e-4 < scores[second]


def regression_error(x: Numbers, y: Numbers, left: tuple[int, ...], kernel: int) -> float:
    """Relative to the variance of y, with a bias."""
    columns = [i * kernel + k for i in left for k in range(kernel)]
    design = np.column_stack([x[:, columns], np.ones(len(x))])
    rest = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return float((rest**2).sum() / ((y - y.mean(0)) ** 2).sum())


def test_cap_is_backward_elimination() -> None:
    """Each step the least error of all, by plain regressions."""
    graph = chain()
    batches = images(graph, 20)
    with torch.no_grad():
        hidden = torch.cat([torch.relu(graph.get_submodule("made")(x)) for (x,), _ in batches])
        x = nn.functional.unfold(hidden, 3, padding=1, stride=2).transpose(1, 2).reshape(-1, 36)
        y = x @ graph.get_submodule("read").weight.flatten(1).T
    scores = CaP(batches).scores(graph, channel_groups(graph))["made"]
    left: tuple[int, ...] = (0, 1, 2, 3)
    while len(left) > 1:
        errors = {
            some: regression_error(x.numpy(), y.numpy(), some, 9)
            for some in combinations(left, len(left) - 1)
        }
        best = min(errors, key=lambda some: errors[some])
        (gone,) = set(left) - set(best)
        assert scores[gone] == pytest.approx(errors[best], rel=1e-3)
        assert (scores[gone] < scores[list(best)]).all()
        left = best


@pytest.mark.parametrize(
    "name", ["concat", "grouped", "flatten", "residual", "pixel_shuffle", "attention"]
)
def test_every_way_of_reading(name: str) -> None:
    graph = graph_of(name)
    groups, batches = channel_groups(graph), images(graph)
    for criterion in (ChannelPruning(batches), CaP(batches)):
        scores = criterion.scores(graph, groups)
        assert scores
        assert all(np.isfinite(s).all() and len(s) == groups[n].size for n, s in scores.items())


# --- structural search ---------------------------------------------------------------------------


def two_layers() -> tuple[fx.GraphModule, Scores]:
    net = Net(1, 3, 4, 4)
    x = net.conv(net.conv(net.x, 3, 8, 1, name="a"), 8, 8, 1, name="b")
    return net.build(net.conv(x, 8, 2, 1)), {"a": np.arange(8.0), "b": 4 + np.arange(8.0)}


def channels(counts: Mapping[str, int]) -> float:
    return sum(counts.values())


def test_one_threshold_for_all_layers() -> None:
    graph, scores = two_layers()
    found = structural_search(channel_groups(graph), lambda _: scores, channels, 10, step=1.0)
    assert {n: int(m.sum()) for n, m in found.keep.items()} == {"a": 3, "b": 7}
    assert found.keep["a"].tolist() == [False] * 5 + [True] * 3


def test_the_step_limits_every_round() -> None:
    graph, scores = two_layers()
    seen: list[dict[str, int]] = []

    def judge(selection: Selection) -> Scores:
        seen.append({n: int(m.sum()) for n, m in selection.keep.items()})
        return scores

    found = structural_search(channel_groups(graph), judge, channels, 10, step=0.25)
    assert seen == [{}, {"a": 6, "b": 6}]
    assert sum(int(m.sum()) for m in found.keep.values()) == 10
    for bad in (0.0, 1.5):
        with pytest.raises(InputError, match="give a share above 0"):
            structural_search(channel_groups(graph), judge, channels, 10, step=bad)


def test_a_budget_that_cannot_be_met() -> None:
    graph, scores = two_layers()
    with pytest.raises(InputError, match="a budget of 1 cannot be met; the closest is 2"):
        structural_search(channel_groups(graph), lambda _: scores, channels, 1, step=0.5)
