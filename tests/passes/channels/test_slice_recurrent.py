"""What a recurrent layer reads may go, its states stay."""

from __future__ import annotations

from pathlib import Path

import torch
from slice_checks import check_sliced, random_selection
from torch import Tensor, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.model_file.file import load_model_file, save_model
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.recurrent import Recurrent


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv1d(4, 9, 3), nn.Linear(10, 3)
        self.rnn = nn.LSTM(9, 5, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(self.conv(x).relu().transpose(1, 2))[0])


def test_inputs_are_sliced_as_they_are_masked() -> None:
    torch.manual_seed(0)
    graph = capture(Reader().eval(), (torch.randn(2, 4, 8),)).double()
    groups = channel_groups(graph)
    assert [group.size for group in groups.groups] == [9]
    assert {p.reason for p in groups.protected} >= {"the states of a recurrent layer"}
    for seed in range(4):
        result = check_sliced(graph, SliceChannels(random_selection(groups, seed)))
        layers = [m for m in result.graph_module.modules() if isinstance(m, Recurrent)]
        left = {m.input_size for m in layers}
        assert len(layers) == 2
        assert left == {m.weight_ih.shape[1] for m in layers}
        assert {m.hidden_size for m in layers} == {5}


def test_a_saved_graph_comes_back(tmp_path: Path) -> None:
    x = torch.randn(2, 4, 8)
    graph = capture(Reader().eval(), (x,))
    save_model(graph, tmp_path / "reader.safetensors", {})
    again, _ = load_model_file(tmp_path / "reader.safetensors")
    assert torch.equal(again(x)[0], graph(x)[0])
