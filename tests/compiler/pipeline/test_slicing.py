"""Slicing as the compiler runs it: verified, or refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from channel_networks import graph_of
from torch import fx

from shrinkc.compiler.pipeline.slicing import run_slicing
from shrinkc.errors import VerificationError
from shrinkc.passes.base import PassResult
from shrinkc.passes.channels import slice_channels
from shrinkc.passes.channels.channel_cuts import Cuts
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels

HALF = SliceChannels(Selection({"b.0": np.arange(6) % 2 == 0, "nobody": np.ones(2, bool)}))


def test_verified() -> None:
    graph = graph_of("residual").float()
    sliced, step = run_slicing(graph, HALF)
    assert sliced.get_submodule("b.0").weight.shape == (3, 8, 3, 3)
    assert sliced.get_submodule("b.0").weight.dtype == torch.float32
    assert step.name == "slice-channels"
    assert 0 <= step.max_error <= 1e-12
    assert [s.reason for s in step.skipped] == ["there is no such channel group"]
    assert graph.get_submodule("b.0").weight.dtype == torch.float32


def test_a_wrong_slice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = slice_channels.parameter_cuts

    def wrong(*args: object) -> Cuts:
        cuts = dict(right(*args))  # pyright: ignore
        cuts["c.weight"] = replace(cuts["c.weight"], kept={1: np.array([0, 2, 5])})
        return cuts

    monkeypatch.setattr(slice_channels, "parameter_cuts", wrong)
    with pytest.raises(VerificationError, match="output 0 differs from the masked network's by"):
        run_slicing(graph_of("residual"), HALF)


def test_an_unreported_change_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(self: SliceChannels, graph: fx.GraphModule) -> PassResult:
        return replace(result(self, graph), changes=())

    result = SliceChannels.__call__
    monkeypatch.setattr(SliceChannels, "__call__", silent)
    with pytest.raises(VerificationError, match="changed node 'b_0' without reporting it"):
        run_slicing(graph_of("residual"), HALF)


def test_a_touched_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def rough(self: SliceChannels, graph: fx.GraphModule) -> PassResult:
        graph.get_submodule("c").weight.data.zero_()
        return result(self, graph)

    result = SliceChannels.__call__
    monkeypatch.setattr(SliceChannels, "__call__", rough)
    with pytest.raises(VerificationError, match="changed its input graph"):
        run_slicing(graph_of("residual"), HALF)
