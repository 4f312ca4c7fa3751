"""Compensation against plain regressions, layer by layer, and on whole networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from channel_networks import graph_of
from hand_built import Net
from slice_checks import check_sliced, random_selection
from torch import Tensor, fx, nn

from shrinkc.compiler.recover import fit_layer
from shrinkc.compiler.recover.compensate import Compensation, compensate
from shrinkc.compiler.recover.fit_layer import LeastSquares
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.base import copy_graph
from shrinkc.passes.channels.mask_channels import mask_channels
from shrinkc.passes.channels.new_weights import set_weights
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.shared.data import Batch

Numbers = npt.NDArray[np.float64]
EXACT = LeastSquares(ridge=0.0, positions=1000)


def images(*shape: int, batches: int = 2, seed: int = 1) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    return [
        ((torch.randn(shape, generator=generator, dtype=torch.float64),), None)
        for _ in range(batches)
    ]


def removing(**channels: tuple[int, int]) -> SliceChannels:
    """Of each group (size, the channel that goes)."""
    keep = {n.replace("_", "."): np.arange(size) != gone for n, (size, gone) in channels.items()}
    return SliceChannels(Selection(keep))


def values(graph: fx.GraphModule, batches: list[Batch], name: str) -> Tensor:
    found: list[Tensor] = []
    for (x,), _ in batches:
        interpreter = fx.Interpreter(graph, garbage_collect_values=False)
        with torch.no_grad():
            interpreter.run(x)
        found.append(next(v for n, v in interpreter.env.items() if n.name == name))
    return torch.cat(found)


def regression(x: Tensor, y: Tensor, bias: bool = True) -> tuple[Numbers, Numbers]:
    """(weight (out, in), bias) of numpy's least squares."""
    ones = [np.ones((len(x), 1))] if bias else []
    found = np.linalg.lstsq(np.hstack([x.numpy(), *ones]), y.numpy(), rcond=None)[0]
    return found[: x.shape[1]].T, found[-1] if bias else np.zeros(y.shape[1])


def check_close(got: Tensor, weight: Numbers, x: Tensor) -> None:
    """Where the inputs are not constant: dead ones may have any weight, and keep theirs."""
    alive = x.std(0) > 1e-9
    assert alive.any()
    np.testing.assert_allclose(got[:, alive].numpy(), weight[:, alive.numpy()], atol=1e-6)


def patches(x: Tensor, kernel: int, **options: int) -> Tensor:
    return nn.functional.unfold(x, kernel, **options).transpose(1, 2).flatten(0, 1)


def rows(y: Tensor) -> Tensor:
    return y.flatten(2).transpose(1, 2).flatten(0, 1)


def chain(bias: bool = True, norm: bool = False) -> fx.GraphModule:
    net = Net(1, 2, 6, 6)
    x = net.call(nn.ReLU(), net.conv(net.x, 2, 5, 3, name="made"), "act")
    x = net.conv(x, 5, 3, 3, stride=2, padding=1, name="read", bias=bias)
    x = net.call(nn.BatchNorm2d(3), x, "norm") if norm else x
    return net.build(net.conv(net.call(nn.ReLU(), x), 3, 4, 1, name="last"))


@pytest.mark.parametrize(("bias", "norm"), [(True, False), (False, False), (False, True)])
def test_equals_a_plain_regression(bias: bool, norm: bool) -> None:
    graph, batches = chain(bias, norm), images(8, 2, 6, 6)
    found = compensate(graph, removing(made=(5, 2)), batches, EXACT)
    hidden = values(graph, batches, "act")[:, [0, 1, 3, 4]]
    target = rows(values(graph, batches, "read"))
    x = patches(hidden, 3, padding=1, stride=2)
    weight, shift = regression(x, target, bias or norm)
    new = found.selection.weights
    got = new["read.weight"]
    assert not got[:, 2].any()
    np.testing.assert_allclose(got[:, [0, 1, 3, 4]].flatten(1).numpy(), weight, atol=1e-7)
    if bias:
        np.testing.assert_allclose(new["read.bias"].numpy(), shift, atol=1e-7)
    elif norm:
        mean = graph.get_buffer("norm.running_mean").numpy()
        np.testing.assert_allclose(new["norm.running_mean"].numpy(), mean - shift, atol=1e-7)
    assert set(new) == {"read.weight", *(["read.bias"] if bias else ["norm.running_mean"] * norm)}
    (fit,) = found.fits
    rest = target.numpy() - x.numpy() @ weight.T - shift
    middle = target.mean(0) if bias or norm else 0
    spread = float(((target - middle) ** 2).sum())
    assert fit.after == pytest.approx((rest**2).sum() / spread, rel=1e-6)
    assert fit.before > fit.after
    assert not check_sliced(graph, SliceChannels(found.selection)).skipped


def test_layers_are_fitted_to_what_the_pruned_network_gives_them() -> None:
    """The second layer reads what the first, compensated, computes, and answers as the original."""
    net = Net(1, 2, 4, 4)
    x = net.call(nn.ReLU(), net.conv(net.x, 2, 5, 1, name="a"), "act_a")
    x = net.call(nn.ReLU(), net.conv(x, 5, 6, 1, name="b"), "act_b")
    graph, batches = net.build(net.conv(x, 6, 3, 1, name="c")), images(20, 2, 4, 4)
    found = compensate(graph, removing(a=(5, 0), b=(6, 1)), batches, EXACT)
    assert [f.layer for f in found.fits] == ["b", "c"]
    student = copy_graph(graph)
    set_weights(student, {n: w for n, w in found.selection.weights.items() if n[0] == "b"})
    inputs = rows(values(student, batches, "act_b"))[:, [0, 2, 3, 4, 5]]
    weight, shift = regression(inputs, rows(values(graph, batches, "c")))
    new = found.selection.weights
    check_close(new["c.weight"][:, [0, 2, 3, 4, 5], 0, 0], weight, inputs)
    np.testing.assert_allclose(new["c.bias"].numpy(), shift, atol=1e-6)
    # what is pruned itself is not fitted
    assert torch.equal(new["b.bias"][1], graph.get_parameter("b.bias")[1])


def test_convolution_groups_are_fitted_alone() -> None:
    graph, batches = graph_of("grouped"), images(16, 3, 8, 8)
    keep = np.arange(16) % 4 != 1
    found = compensate(graph, SliceChannels(Selection({"b.0": keep})), batches, EXACT)
    reads = next(n.all_input_nodes[0].name for n in graph.graph.nodes if n.target == "c.0")
    name = next(n.name for n in graph.graph.nodes if n.target == "c.0")
    hidden, target = values(graph, batches, reads), values(graph, batches, name)
    for group in range(4):
        own = slice(4 * group, 4 * group + 4)
        x = patches(hidden[:, own][:, [0, 2, 3]], 3, padding=1)
        weight, _ = regression(x, rows(target[:, own]))
        got = found.selection.weights["c.0.weight"][own][:, [0, 2, 3]].flatten(1)
        check_close(got, weight, x)


def test_whole_convolution_groups_leave_nothing_to_fit() -> None:
    keep = {"b.0": np.arange(4) != 1}
    slicing = SliceChannels(Selection(keep), whole_conv_groups=True)
    found = compensate(graph_of("grouped"), slicing, images(4, 3, 8, 8))
    assert [fit.layer for fit in found.fits] == ["d"]


def test_linear_behind_flatten() -> None:
    graph, batches = graph_of("flatten"), images(150, 3, 8, 8, batches=1)
    found = compensate(graph, removing(**{"0_0": (6, 4)}), batches, EXACT)
    node = next(n for n in graph.graph.nodes if n.target == "3")
    kept = [i for i in range(96) if i // 16 != 4]
    x = values(graph, batches, node.all_input_nodes[0].name)[:, kept]
    weight, shift = regression(x, values(graph, batches, node.name))
    check_close(found.selection.weights["3.weight"][:, kept], weight, x)
    np.testing.assert_allclose(found.selection.weights["3.bias"].numpy(), shift, atol=1e-6)


# --- residual branches ---------------------------------------------------------------------------


def branch(norm: bool) -> fx.GraphModule:
    """A shortcut that is fitted first, and a branch whose last layer makes up for it."""
    net = Net(1, 2, 4, 4)
    x = net.call(nn.ReLU(), net.conv(net.x, 2, 6, 1, name="a"), "act")
    short = net.conv(x, 6, 4, 1, name="short")
    y = net.call(nn.ReLU(), net.conv(net.x, 2, 6, 3, padding=1, name="b"), "act_b")
    y = net.conv(y, 6, 4, 1, name="branch", bias=not norm)
    y = net.call(nn.BatchNorm2d(4), y, "norm") if norm else y
    return net.build(net.add(short, y))


def summed_error(found: Compensation, graph: fx.GraphModule, batches: list[Batch]) -> float:
    slicing = SliceChannels(found.selection)
    twin = mask_channels(graph, slicing)
    with torch.no_grad():
        return sum(float(((twin(x)[0] - graph(x)[0]) ** 2).sum()) for (x,), _ in batches)


@pytest.mark.parametrize("norm", [False, True])
def test_the_branch_makes_up_for_the_shortcut(norm: bool) -> None:
    graph, batches = branch(norm), images(40, 2, 4, 4)
    found = compensate(graph, removing(a=(6, 0), b=(6, 0)), batches, EXACT)
    errors = check_branch(found, graph, batches, norm)
    np.testing.assert_allclose(*errors, atol=1e-6)
    alone = LeastSquares(0.0, multi_branch=False, positions=1000)
    without = compensate(graph, removing(a=(6, 0), b=(6, 0)), batches, alone)
    assert summed_error(found, graph, batches) < 0.999 * summed_error(without, graph, batches)


def check_branch(
    found: Compensation, graph: fx.GraphModule, batches: list[Batch], norm: bool
) -> tuple[Numbers, Numbers]:
    """(the branch's weights, those of a regression to y₁ + y₂ − y₁′)."""
    student = copy_graph(graph)
    set_weights(student, {n: w for n, w in found.selection.weights.items() if "short" in n})
    lost = values(graph, batches, "short") - values(student, batches, "short")
    if norm:
        bn = graph.get_submodule("norm")
        scale = bn.weight.detach() / (bn.running_var + bn.eps).sqrt()
        lost = lost / scale[:, None, None]
    target = rows(values(graph, batches, "branch") + lost)
    weight, _ = regression(rows(values(graph, batches, "act_b"))[:, 1:], target)
    return found.selection.weights["branch.weight"][:, 1:, 0, 0].numpy(), weight


def test_a_planted_bug_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortcut's loss with the other sign."""
    right: Any = fit_layer._lost
    monkeypatch.setattr(fit_layer, "_lost", lambda *args: -right(*args))
    graph, batches = branch(False), images(40, 2, 4, 4)
    found = compensate(graph, removing(a=(6, 0), b=(6, 0)), batches, EXACT)
    got, expected = check_branch(found, graph, batches, False)
    assert np.abs(got - expected).max() > 1e-3


# --- whole networks ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["residual", "concat", "shuffle", "grouped", "flatten", "squeeze_excite", "layer_norm"]
)
def test_error_falls_and_sliced_equals_masked(name: str) -> None:
    graph, batches = graph_of(name), images(12, 3, 8, 8, batches=4)
    slicing = SliceChannels(random_selection(channel_groups(graph), 3))
    found = compensate(graph, slicing, batches)
    assert found.fits
    assert not found.skipped
    new = SliceChannels(found.selection)
    assert not check_sliced(graph, new).skipped
    unseen = images(64, 3, 8, 8, batches=1, seed=9)
    before, after = (output_error(graph, some, unseen) for some in (slicing, new))
    assert after < before


def output_error(graph: fx.GraphModule, slicing: SliceChannels, batches: list[Batch]) -> float:
    ((x,), _), twin = batches[0], mask_channels(graph, slicing)
    with torch.no_grad():
        return float(((twin(x)[0] - graph(x)[0]) ** 2).mean())


def test_weights_that_a_criterion_set_come_first() -> None:
    graph, batches = chain(), images(8, 2, 6, 6)
    keep = {"made": np.arange(5) != 2}
    own = {"made.weight": 2 * graph.get_parameter("made.weight").detach()}
    found = compensate(graph, SliceChannels(Selection(keep, own)), batches, EXACT)
    plain = compensate(graph, SliceChannels(Selection(keep)), batches, EXACT)
    assert torch.equal(found.selection.weights["made.weight"], own["made.weight"])
    assert not torch.equal(
        found.selection.weights["read.weight"], plain.selection.weights["read.weight"]
    )


def test_layers_that_are_not_fitted_are_named() -> None:
    twice = compensate(graph_of("called_twice"), removing(a_0=(6, 1)), images(2, 3, 8, 8))
    assert any("called 2 times" in s.reason for s in twice.skipped)
    up = compensate(graph_of("transposed"), removing(**{"0_0": (8, 1)}), images(2, 3, 8, 8))
    assert [s.reason for s in up.skipped] == ["least squares is not done for ConvTranspose2d"]
    unknown = compensate(chain(), removing(nothing=(3, 1)), images(2, 2, 6, 6))
    assert [s.node for s in unknown.skipped] == ["nothing"]
    assert not unknown.fits


def test_no_images_and_one() -> None:
    with pytest.raises(InputError, match="no images to look at"):
        compensate(chain(), removing(made=(5, 2)), [])
    one = compensate(chain(), removing(made=(5, 2)), images(1, 2, 6, 6, batches=1))
    assert all(torch.isfinite(w).all() for w in one.selection.weights.values())


def test_the_graph_is_left_alone() -> None:
    graph = chain().train()
    before = {n: t.clone() for n, t in graph.state_dict().items()}
    compensate(graph, removing(made=(5, 2)), images(4, 2, 6, 6))
    assert all(torch.equal(before[n], t) for n, t in graph.state_dict().items())
    assert graph.training
