"""All exact passes in sequence on random graphs, planted mistakes, and cost on a deep network."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hand_built import Net, operations
from hypothesis import HealthCheck, given, settings
from pass_checks import run_exact
from random_graphs import conv_graphs
from torch import Tensor, fx, nn

from shrinkc.errors import VerificationError
from shrinkc.passes.algebra import affine_map
from shrinkc.passes.algebra.channel_affine import batch_norm_affine
from shrinkc.passes.base import Pass
from shrinkc.passes.fold import fold_batch_norm
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm
from shrinkc.passes.merge import merge_region
from shrinkc.passes.merge.merge_linear import MergeLinear
from shrinkc.passes.simplify.simplify import Simplify

PASSES: tuple[Pass, ...] = (Simplify(), FoldBatchNorm(), MergeLinear())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(conv_graphs())
def test_random_graphs_compute_the_same(graph_module: fx.GraphModule) -> None:
    for exact_pass in PASSES:
        graph_module = run_exact(exact_pass, graph_module).graph_module


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(conv_graphs())
def test_merging_alone_computes_the_same(graph_module: fx.GraphModule) -> None:
    """Batch norms, constants, pads and dropouts are still there to be merged along."""
    run_exact(MergeLinear(), graph_module)


# --- planted mistakes ----------------------------------------------------------------------------

Affine = Callable[[nn.BatchNorm2d], tuple[Tensor, Tensor]]


def without_eps(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    norm.eps = 0.0
    return batch_norm_affine(norm)


def mean_off_by_a_percent(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    norm.running_mean *= 1.01
    return batch_norm_affine(norm)


@pytest.mark.parametrize("mistake", [without_eps, mean_off_by_a_percent])
def test_mistakes_in_batch_norm_are_caught(
    monkeypatch: pytest.MonkeyPatch, mistake: Affine
) -> None:
    net = Net(2, 4, 6, 6)
    graph_module = net.build(net.call(nn.BatchNorm2d(8), net.conv(net.x, 4, 8, 3)))
    run_exact(FoldBatchNorm(), graph_module)
    monkeypatch.setattr(fold_batch_norm, "batch_norm_affine", mistake)
    with pytest.raises(VerificationError):
        run_exact(FoldBatchNorm(), graph_module)


def test_a_dropped_border_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(2, 4, 9, 9)
    graph_module = net.build(net.conv(net.conv(net.x, 4, 8, 1), 8, 4, 3, padding=1))
    run_exact(MergeLinear(price=lambda spec: float(spec.op == "conv2d")), graph_module)
    exact = merge_region.affine_map

    def borderless(*args):
        merged = exact(*args)
        assert not merged.uniform
        return replace(merged, constant=merged.constant[:, 4:5, 4:5])

    monkeypatch.setattr(merge_region, "affine_map", borderless)
    with pytest.raises(VerificationError, match="at the border"):
        run_exact(MergeLinear(), graph_module)


def strided_then_dilated(groups: int) -> fx.GraphModule:
    net = Net(2, 4, 13, 13)
    y = net.conv(net.x, 4, 4, 2, stride=2, groups=groups)
    return net.build(net.conv(y, 4, 4, 2, dilation=2))


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("forgotten", ["stride", "dilation"])
def test_mistakes_in_the_composition_are_caught(
    monkeypatch: pytest.MonkeyPatch, forgotten: str, groups: int
) -> None:
    """The window is right, the taps are where they would be without the stride or dilation."""
    graph_module = strided_then_dilated(groups)
    run_exact(MergeLinear(), graph_module)
    exact = affine_map.compose_weights

    def misplaced(first, inner, second, outer):
        kernel = exact(first, inner, second, outer)
        if second.kernel == (1, 1) or first.kernel == (1, 1):
            return kernel
        where = first if forgotten == "stride" else second
        axes = tuple(replace(axis, **{forgotten: 1}) for axis in where.axes)
        wrong = replace(where, axes=axes)
        pair = (wrong, second) if forgotten == "stride" else (first, wrong)
        small = exact(pair[0], inner, pair[1], outer)
        moved = torch.zeros_like(kernel)
        moved[:, :, : small.shape[2], : small.shape[3]] = small
        return moved

    monkeypatch.setattr(affine_map, "compose_weights", misplaced)
    with pytest.raises(VerificationError):
        run_exact(MergeLinear(), graph_module)


def test_padding_that_cuts_into_the_linear_part_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from shrinkc.passes.analysis.linear import region_map

    net = Net(2, 4, 9, 9)
    y = net.conv(net.x, 4, 4, 3, padding=1, bias=False)
    graph_module = net.build(net.conv(y, 4, 4, 3, padding=1, bias=False))
    assert not run_exact(MergeLinear(), graph_module).modified
    monkeypatch.setattr(region_map, "reads_beyond_padding", lambda *args: False)
    with pytest.raises(VerificationError, match="at the border"):
        run_exact(MergeLinear(), graph_module)


# --- cost ----------------------------------------------------------------------------------------


def deep(blocks: int) -> fx.GraphModule:
    """A residual network: two convolutions with batch norm in a block, RepVGG branches in the
    first, so that every pass has work everywhere."""
    net = Net(1, 4, 8, 8)
    x = net.x
    for _ in range(blocks):
        y = net.call(nn.BatchNorm2d(4), net.conv(x, 4, 4, 3, padding=1, bias=False))
        y = net.add(net.call(nn.Identity(), y), x)
        y = net.call(nn.ReLU(), y)
        y = net.call(nn.BatchNorm2d(4), net.conv(y, 4, 4, 1, bias=False))
        x = net.call(nn.ReLU(), net.add(x, y))
    return net.build(x)


def seconds(graph_module: fx.GraphModule) -> float:
    """Processor time of all passes."""
    started = time.process_time()
    for exact_pass in PASSES:
        graph_module = exact_pass(graph_module).graph_module
    spent = time.process_time() - started
    assert set(operations(graph_module)) == {"Conv2d", "ReLU", "add"}
    return spent


def test_a_thousand_convolutions_take_seconds_and_time_grows_linearly() -> None:
    small, large = seconds(deep(100)), seconds(deep(500))
    assert large < 20
    assert large < 12 * small  # five times the network
