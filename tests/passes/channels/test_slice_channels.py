"""Sliced equals masked, whatever is sliced; what cannot be sliced is declined with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from channel_networks import NETWORKS, captured, conv, graph_of, head
from hand_built import Net, modules_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_checks import random_inputs
from random_channels import channel_graphs
from slice_checks import check_sliced, largest_error, random_selection, slicing_error
from torch import fx, nn

from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.export.onnx import write_onnx
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.formats.onnx import OnnxRunner
from shrinkc.compiler.formats.tflite import TFLITE
from shrinkc.compiler.model_file.file import load_model_file, save_model
from shrinkc.compiler.verify.files import artefact
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.channels import channel_cuts
from shrinkc.passes.channels.mask_channels import mask_channels
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.base import uniform
from shrinkc.passes.criteria.magnitude import RandomScores


@settings(max_examples=50, deadline=None)
@given(channel_graphs(), st.integers(0, 999), st.booleans(), st.booleans())
def test_random_graphs(graph: fx.GraphModule, seed: int, whole: bool, outputs: bool) -> None:
    groups = channel_groups(graph, whole, outputs)
    result = check_sliced(graph, SliceChannels(random_selection(groups, seed), whole, outputs))
    assert not result.skipped


def test_channels_that_padding_made_have_no_parameters() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1, groups=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.pad(self.conv(x), (0, 0, 0, 0, 0, 2))

    graph = captured(Padded(), (1, 2, 4, 4))
    selection = Selection({"pad": np.array([True, False])})
    result = check_sliced(graph, SliceChannels(selection, outputs=True))
    assert [change.node for change in result.changes] == ["pad"]
    assert result.graph_module(torch.zeros(1, 2, 4, 4, dtype=torch.float64))[0].shape[1] == 3


def test_a_shuffle_behind_padding_is_reshaped() -> None:
    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1, groups=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = nn.functional.pad(self.conv(x), (0, 0, 0, 0, 0, 2))
            y = torch.cat((y, x), 1).reshape(-1, 1, 6, 4, 4)
            return y.permute(0, 2, 1, 3, 4).reshape(-1, 6, 4, 4)

    graph = captured(Shuffled(), (1, 2, 4, 4))
    selection = Selection({"pad": np.array([True, False])})
    result = check_sliced(graph, SliceChannels(selection, True, outputs=True))
    assert "pad" in {change.node for change in result.changes}
    assert result.graph_module(torch.zeros(1, 2, 4, 4, dtype=torch.float64))[0].shape[1] == 5


@pytest.mark.parametrize("outputs", [False, True])
@pytest.mark.parametrize(
    ("name", "whole"),
    [(name, False) for name in NETWORKS]
    + [(name, True) for name in ("grouped", "transposed", "group_shuffle")],
)
def test_networks(name: str, whole: bool, outputs: bool) -> None:
    graph = graph_of(name)
    groups = channel_groups(graph, whole, outputs)
    for seed in range(2):
        selection = random_selection(groups, seed)
        result = check_sliced(graph, SliceChannels(selection, whole, outputs))
        assert not result.skipped
        assert result.modified == bool(selection.keep)


def keep(size: int, *channels: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.isin(np.arange(size), channels)


def test_sizes_of_a_bottleneck() -> None:
    """Four groups of four: one channel of each goes from the input, two from the output."""
    inputs = keep(16, 0, 1, 2, 5, 6, 7, 8, 10, 11, 13, 14, 15)
    outputs = keep(16, 0, 1, 4, 7, 8, 9, 14, 15)
    selection = Selection({"b.0": inputs, "c.0": outputs, "a.0": keep(8, 1, 2, 3)})
    result = check_sliced(graph_of("grouped"), SliceChannels(selection))
    a, b, c, d = modules_of(result.graph_module, nn.Conv2d)
    sizes = [(m.in_channels, m.out_channels, m.groups, tuple(m.weight.shape)) for m in (a, b, c, d)]
    assert sizes == [
        (3, 3, 1, (3, 3, 3, 3)),
        (3, 12, 1, (12, 3, 1, 1)),
        (12, 8, 4, (8, 3, 3, 3)),
        (8, 3, 1, (3, 8, 1, 1)),
    ]
    old = graph_of("grouped").get_submodule("c.0").weight
    assert torch.equal(c.weight[2], old[4][[1, 2, 3]])
    details = {change.node: change.detail for change in result.changes}
    assert details["c_0"] == "out_channels 16 → 8, in_channels 16 → 12"


def test_whole_convolution_groups_and_depthwise_lose_groups() -> None:
    result = check_sliced(
        graph_of("grouped"), SliceChannels(Selection({"b.0": keep(4, 0, 3)}), True)
    )
    assert result.graph_module.get_submodule("c.0").groups == 2
    depthwise = check_sliced(
        graph_of("depthwise_multiplier"), SliceChannels(Selection({"0.0": keep(5, 1, 2, 4)}))
    )
    layer = depthwise.graph_module.get_submodule("1.0")
    assert (layer.in_channels, layer.out_channels, layer.groups) == (3, 9, 3)


def test_what_is_shared_stays_shared() -> None:
    result = check_sliced(graph_of("shared_weight"), SliceChannels(Selection({"b": keep(4, 0, 2)})))
    b, c = (result.graph_module.get_submodule(n) for n in "bc")
    assert b.weight is c.weight
    assert b.weight.shape == (2, 6, 1, 1)
    assert b.bias.shape == c.bias.shape == (2,)


def test_training_flags_and_data_types_stay() -> None:
    graph = graph_of("residual").half()
    for parameter in graph.get_submodule("b.0").parameters():
        parameter.requires_grad_(False)
    sliced = SliceChannels(Selection({"b.0": keep(6, 1)}))(graph).graph_module
    assert {p.dtype for p in sliced.parameters()} == {torch.float16}
    frozen = {n for n, p in sliced.named_parameters() if not p.requires_grad}
    assert frozen == {"b.0.weight", "b.0.bias"}


# --- declined ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "group", "mask", "reason"),
    [
        ("residual", "fc", keep(8, 1), "there is no such channel group"),
        ("residual", "a.0", keep(6, 1), "a mask of 6 for 8 channels"),
        ("residual", "a.0", keep(8), "all its channels would go"),
        ("grouped", "b.0", keep(16, *range(12)), "a cell of it would vanish"),
        ("grouped", "b.0", ~keep(16, 3), "from 0 to 1 channels would go from its 4 cells"),
    ],
)
def test_declined_with_a_reason(name: str, group: str, mask: object, reason: str) -> None:
    """And what can be done is."""
    graph = graph_of(name)
    other = "b.0" if name == "residual" else "a.0"
    mask_of_other = keep(6 if name == "residual" else 8, 0)
    selection = Selection({group: mask, other: mask_of_other})  # pyright: ignore
    result = check_sliced(graph, SliceChannels(selection))
    assert [(s.node, s.reason) for s in result.skipped] == [(group, reason)]
    assert result.modified


def test_new_weights() -> None:
    graph = graph_of("residual")
    new = torch.full((8, 6, 1, 1), 0.25, dtype=torch.float64)
    selection = Selection(
        {"b.0": keep(6, 1, 2)},
        {"c.weight": new, "c.bias": torch.zeros(9), "d.weight": new},
    )
    result = check_sliced(graph, SliceChannels(selection))
    assert torch.equal(result.graph_module.get_submodule("c").weight, new[:, :2])
    assert [(s.node, s.reason) for s in result.skipped] == [
        ("c.bias", "its new weights are (9,), not (8,)"),
        ("d.weight", "there is no such parameter"),
    ]
    only = check_sliced(graph, SliceChannels(Selection({}, {"c.weight": new})))
    assert [change.node for change in only.changes] == ["c"]


# --- the check has teeth -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["residual", "group_shuffle", "flatten", "layer_norm"])
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns of readers cut at the neighbours of the right positions."""
    graph = graph_of(name)
    groups = channel_groups(graph)
    selection = random_selection(groups, 1)
    right = channel_cuts.parameter_cuts

    def shifted(*args: object) -> channel_cuts.Cuts:
        cuts = dict(right(*args))  # pyright: ignore
        path = next(p for p, c in cuts.items() if 1 in c.kept)
        kept = cuts[path].kept
        size = dict(channel_cuts.tensors(graph))[path].shape[1] * cuts[path].groups
        left = np.sort((kept[1] + 1) % size)
        return {**cuts, path: channel_cuts.Cut({**kept, 1: left}, cuts[path].groups)}

    slicing = SliceChannels(selection)
    assert slicing_error(graph, slicing, slicing(graph).graph_module) < 1e-12
    monkeypatch.setattr("shrinkc.passes.channels.slice_channels.parameter_cuts", shifted)
    try:
        error = slicing_error(graph, slicing, slicing(graph).graph_module)
    except ValueError:  # convolution groups of different sizes cannot even be built
        return
    assert error > 1e-6


def test_masking_removes_what_slicing_removes_and_no_more() -> None:
    graph = graph_of("residual")
    inputs = random_inputs(graph)
    with torch.no_grad():
        whole = mask_channels(graph, SliceChannels(Selection({})))(*inputs)
        assert largest_error(whole, graph(*inputs)) == 0
        masked = mask_channels(graph, SliceChannels(Selection({"b.0": keep(6, 1)})))(*inputs)
    assert largest_error(masked, whole) > 1e-3


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shuffle", "grouped", "layer_norm", "two_inputs", "attention"])
def test_saved_loaded_and_exported(name: str, tmp_path: Path) -> None:
    graph = graph_of(name)
    groups = channel_groups(graph)
    selection = uniform(groups, RandomScores().scores(graph, groups), 0.6)
    sliced = SliceChannels(selection)(graph).graph_module.float()
    inputs = tuple(x.float() for x in random_inputs(graph))
    with torch.no_grad():
        want = sliced(*inputs)
        save_model(sliced, tmp_path / "sliced.safetensors", {})
        loaded, _ = load_model_file(tmp_path / "sliced.safetensors")
        assert all(torch.equal(a, b) for a, b in zip(loaded(*inputs), want, strict=True))
    assert sum(p.numel() for p in loaded.parameters()) < sum(p.numel() for p in graph.parameters())
    program = lower(loaded)
    onnx = OnnxRunner(write_onnx(program).SerializeToString()).run([x.numpy() for x in inputs])
    assert largest_error(tuple(map(torch.from_numpy, onnx)), want) < 1e-4
    lite = artefact(TFLITE, write_tflite(program), program)
    one = tuple(x[:1] for x in inputs)
    got = tuple(torch.from_numpy(array) for array in lite.run(one))
    assert largest_error(got, tuple(y[:1] for y in want)) < 1e-4


def test_a_file_made_of_a_sliced_network_can_be_sliced_again(tmp_path: Path) -> None:
    graph = captured(nn.Sequential(conv(3, 8), conv(8, 8), head(8)))
    once = check_sliced(graph, SliceChannels(random_selection(channel_groups(graph), 0)))
    save_model(once.graph_module, tmp_path / "once.safetensors", {})
    loaded, _ = load_model_file(tmp_path / "once.safetensors")
    groups = channel_groups(loaded)
    again = check_sliced(loaded, SliceChannels(random_selection(groups, 1)))
    assert again.modified


def test_a_constant_is_cut_with_its_channels() -> None:
    net = Net(2, 3, 5, 5)
    x = net.conv(net.x, 3, 6, 1, name="layer")
    x = net.add(x, net.constant(torch.randn(1, 6, 5, 5), "position"))
    graph = net.build(net.conv(x, 6, 2, 3))
    result = check_sliced(graph, SliceChannels(Selection({"layer": keep(6, 0, 4)})))
    assert result.graph_module.position.shape == (1, 2, 5, 5)
