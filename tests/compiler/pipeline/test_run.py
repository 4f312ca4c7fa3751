"""The verifier must catch what a wrong pass does; each test plants one bug."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.pipeline.run import run_exact_passes, worst_error
from shrinkc.errors import IllegalGraphError, VerificationError
from shrinkc.passes.base import Change, PassResult, copy_graph
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.act = nn.ReLU()
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.bn(self.conv(x))))


@pytest.fixture
def graph() -> fx.GraphModule:
    torch.manual_seed(0)
    net = Net().eval()
    assert net.bn.running_mean is not None
    assert net.bn.running_var is not None
    net.bn.running_mean.normal_()
    net.bn.running_var.uniform_(0.5, 2)
    return capture(net, (torch.randn(1, 3, 8, 8),))


@dataclass(frozen=True)
class Planted:
    """Folds correctly, then does something wrong."""

    sabotage: Callable[[fx.GraphModule], None]
    before: Callable[[fx.GraphModule], None] | None = None
    name: ClassVar[str] = "planted"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        if self.before:
            self.before(graph_module)
        result = FoldBatchNorm()(graph_module)
        self.sabotage(result.graph_module)
        return result


def nothing(graph: fx.GraphModule) -> None:
    """No sabotage."""


def conv_of(graph: fx.GraphModule) -> nn.Conv2d:
    conv = graph.get_submodule("conv")
    assert isinstance(conv, nn.Conv2d)
    return conv


def test_a_right_pass_is_exact(graph: fx.GraphModule) -> None:
    folded, (step,) = run_exact_passes(graph, (Planted(nothing),))
    assert step.max_error < 1e-13
    assert len(step.changes) == 1
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert conv_of(folded).weight.dtype == torch.float64


def forget_eps(graph: fx.GraphModule) -> None:
    # var + eps against var: the smallest mistake people make
    conv_of(graph).weight.data *= (1 + 1e-5) ** 0.5


def shift_mean(graph: fx.GraphModule) -> None:
    bias = conv_of(graph).bias
    assert bias is not None
    bias.data += 1e-3 * bias.data.abs().max()


def drop_border(graph: fx.GraphModule) -> None:
    conv = conv_of(graph)
    node = next(n for n in graph.graph.nodes if n.target == "conv")
    graph.add_submodule("cut", nn.Upsample((8, 8), mode="nearest"))
    conv.padding = (0, 0)
    with graph.graph.inserting_after(node):
        resized = graph.graph.call_module("cut", (node,))
    node.replace_all_uses_with(resized, delete_user_cb=lambda user: user is not resized)
    graph.recompile()


@pytest.mark.parametrize("sabotage", [forget_eps, shift_mean])
def test_wrong_numbers_are_caught_at_their_node(
    graph: fx.GraphModule, sabotage: Callable[[fx.GraphModule], None]
) -> None:
    with pytest.raises(VerificationError, match=r"'planted' changed the result at node"):
        run_exact_passes(graph, (Planted(sabotage),))


def test_a_node_that_was_slipped_in_is_caught(graph: fx.GraphModule) -> None:
    with pytest.raises(VerificationError, match="changed node 'cut' without reporting"):
        run_exact_passes(graph, (Planted(drop_border),))


def touch_head(graph: fx.GraphModule) -> None:
    head = graph.get_submodule("head")
    assert isinstance(head, nn.Conv2d)
    head.weight.data[0, 0] += 1e-12  # far below any tolerance, still not reported


def test_an_unreported_change_is_caught_however_small(graph: fx.GraphModule) -> None:
    with pytest.raises(VerificationError, match="changed node 'head' without reporting"):
        run_exact_passes(graph, (Planted(touch_head),))


def touch_input(graph: fx.GraphModule) -> None:
    conv_of(graph).weight.data.mul_(2)


def test_a_pass_that_touches_its_input_is_caught(graph: fx.GraphModule) -> None:
    with pytest.raises(VerificationError, match="changed its input graph"):
        run_exact_passes(graph, (Planted(nothing, before=touch_input),))


def make_illegal(graph: fx.GraphModule) -> None:
    node = next(n for n in graph.graph.nodes if n.target == "act")
    with graph.graph.inserting_after(node):
        gamma = graph.graph.call_function(torch.lgamma, (node,))
    node.replace_all_uses_with(gamma, delete_user_cb=lambda user: user is not gamma)
    graph.recompile()


def test_an_illegal_graph_is_caught(graph: fx.GraphModule) -> None:
    with pytest.raises(IllegalGraphError, match="lgamma"):
        run_exact_passes(graph, (Planted(make_illegal),))


@dataclass(frozen=True)
class Removes:
    """Takes a node out and says nothing."""

    name: ClassVar[str] = "removes"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        copy = copy_graph(graph_module)
        node = next(n for n in copy.graph.nodes if n.target == "act")
        node.replace_all_uses_with(node.args[0])
        copy.graph.erase_node(node)
        copy.recompile()
        return PassResult(copy, (Change("conv", ("conv",), "nothing"),))


def test_a_removed_node_is_caught(graph: fx.GraphModule) -> None:
    with pytest.raises(VerificationError, match="without reporting"):
        run_exact_passes(graph, (Removes(),))


def test_borders_are_judged_on_their_own() -> None:
    want = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    want[..., 2, 2] = 1e6  # a large interior must not hide the border
    want[..., 0, 1] = 1.0
    got = want.clone()
    got[..., 0, 0] += 1e-3
    error, where = worst_error(got, want)
    assert where == "at the border"
    assert error == pytest.approx(1e-3)


def test_nan_is_an_error() -> None:
    want = torch.ones(2, 3)
    assert worst_error(want * float("nan"), want)[0] == float("inf")
