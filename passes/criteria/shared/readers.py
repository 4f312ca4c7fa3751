"""Layers that read channels, as least squares sees them: rows of numbers read, one target each.

A convolution's row is the patch that one output position reads, (channels · kh · kw); a linear
layer's is its input. Convolution groups are problems of their own (`Block`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from shrinkc.passes.analysis.channels.channel_groups import ChannelGroup
from shrinkc.passes.analysis.channels.channel_ids import Ids
from shrinkc.passes.channels.channel_cuts import indices
from shrinkc.passes.criteria.shared.data import Batches, Observed, each_batch, evaluating
from shrinkc.passes.ir import module_of

POSITIONS = 64  # of each image, at most: neighbours say the same
CHUNK = 1 << 30  # bytes of sums in one pass over the images

Layer = nn.Conv2d | nn.Linear


@dataclass(frozen=True, eq=False)
class Block:
    """One convolution group of the layer that node `node` calls, or all of a layer without.

    inputs   positions along the channels (features) that the layer reads
    outputs  likewise, that it makes
    """

    node: str
    source: str
    layer: Layer
    inputs: Ids
    outputs: Ids

    @property
    def kernel(self) -> int:
        """Numbers in a row for one input."""
        return self.layer.weight[0, 0].numel()

    def weight(self) -> Tensor:
        """(outputs, inputs · kernel), float64."""
        weight = self.layer.weight.detach().double()[indices(self.outputs)]
        each = self.layer.weight.shape[1]
        return weight[:, indices(self.inputs % each)].flatten(1)


def blocks(graph_module: fx.GraphModule, node: fx.Node) -> list[Block]:
    """All inputs and outputs of the layer that a node calls; none for another node."""
    layer = module_of(graph_module, node)
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        return []
    outs, each = layer.weight.shape[:2]
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    inputs = np.arange(each * groups).reshape(groups, -1)
    outputs = np.arange(outs).reshape(groups, -1)
    source = node.all_input_nodes[0].name
    return [Block(node.name, source, layer, i, o) for i, o in zip(inputs, outputs, strict=True)]


@dataclass(frozen=True, eq=False)
class Positions:
    """A random share of the positions of a map, the same in every image and for every layer."""

    most: int = POSITIONS
    seed: int = 0

    def of(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        at = torch.randperm(height * width, generator=generator)[: self.most]
        return at // width, at % width


def rows_read(block: Block, x: Tensor, positions: Positions) -> Tensor:
    """(rows, inputs · kernel) of the value `x` that the layer reads."""
    inputs = indices(block.inputs).to(x.device)
    if isinstance(block.layer, nn.Linear):
        return _few(x, positions).index_select(-1, inputs).flatten(0, -2)
    conv = block.layer
    (kh, kw), (sh, sw), (dh, dw), (ph, pw) = map(
        _pair, (conv.kernel_size, conv.stride, conv.dilation, conv.padding)
    )
    x = F.pad(x.index_select(1, inputs), (pw, pw, ph, ph))
    height = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1
    width = (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    i, j = positions.of(height, width)
    down = (i * sh)[:, None] + torch.arange(kh) * dh
    right = (j * sw)[:, None] + torch.arange(kw) * dw
    picked = x[:, :, down[:, :, None], right[:, None, :]]  # n, inputs, positions, kh, kw
    return picked.permute(0, 2, 1, 3, 4).reshape(-1, x.shape[1] * kh * kw)


def rows_made(block: Block, y: Tensor, positions: Positions) -> Tensor:
    """(rows, outputs) of what the layer computes, in the order of `rows_read`."""
    outputs = indices(block.outputs).to(y.device)
    if isinstance(block.layer, nn.Linear):
        return _few(y, positions).index_select(-1, outputs).flatten(0, -2)
    i, j = positions.of(y.shape[2], y.shape[3])
    return y.index_select(1, outputs)[:, :, i, j].permute(0, 2, 1).reshape(-1, len(outputs))


def _few(x: Tensor, positions: Positions) -> Tensor:
    """(n, positions, features): of a linear layer that is called at every position."""
    x = x.reshape(len(x), -1, x.shape[-1])
    return x[:, positions.of(1, x.shape[1])[1]]


@dataclass(eq=False)
class ReaderSums:
    """Σ xxᵀ, Σ x and the number of rows of one block, float64, and where a group is in them.

    channel  (inputs · kernel,) the group's channel that each number belongs to, −1: none
    """

    block: Block
    channel: Ids
    gram: Tensor
    total: Tensor
    count: int = 0

    def add(self, rows: Tensor) -> None:
        self.gram += (rows.T @ rows).double().cpu()
        self.total += rows.double().sum(0).cpu()
        self.count += len(rows)

    def covariance(self) -> Tensor:
        """Times the count."""
        return self.gram - torch.outer(self.total, self.total) / max(self.count, 1)


def reader_sums(
    graph_module: fx.GraphModule,
    groups: Sequence[ChannelGroup],
    batches: Batches,
    most: int = POSITIONS,
) -> Iterator[tuple[ChannelGroup, list[ReaderSums]]]:
    """Each group with the sums of the convolutions and linear layers that read it.

    Depthwise layers pass channels on, they mix none, and are left out. As many groups share a pass
    over the images as fit into a gigabyte; one group alone may take more.
    """
    waiting: list[tuple[ChannelGroup, list[ReaderSums]]] = []
    size = 0
    for group in groups:
        empty = _empty(graph_module, group)
        own = sum(s.gram.numel() * 8 for s in empty)
        if waiting and size + own > CHUNK:
            _fill(graph_module, waiting, batches, most)
            yield from waiting
            waiting, size = [], 0
        waiting.append((group, empty))
        size += own
    if waiting:
        _fill(graph_module, waiting, batches, most)
        yield from waiting


def _empty(graph_module: fx.GraphModule, group: ChannelGroup) -> list[ReaderSums]:
    nodes = {node.name: node for node in graph_module.graph.nodes}
    found: list[ReaderSums] = []
    for read in group.read:
        node = nodes[read.node]
        for block in blocks(graph_module, node):
            if len(block.inputs) == 1:
                continue
            channel = np.full(int(block.inputs.max()) + 1, -1)
            inside = read.positions <= block.inputs.max()
            channel[read.positions[inside]] = read.channels[inside]
            own = np.repeat(channel[block.inputs], block.kernel)
            if (own >= 0).any():
                gram = torch.zeros(len(own), len(own), dtype=torch.float64)
                found.append(ReaderSums(block, own, gram, gram[0].clone()))
    return found


def _fill(
    graph_module: fx.GraphModule,
    waiting: Sequence[tuple[ChannelGroup, list[ReaderSums]]],
    batches: Batches,
    most: int,
) -> None:
    """One pass over the images."""
    of_node: dict[str, list[ReaderSums]] = {}
    for _, some in waiting:
        for sums in some:
            of_node.setdefault(sums.block.node, []).append(sums)
    if not of_node:
        return

    def read(node: fx.Node, source: fx.Node, value: Tensor) -> Tensor:
        for sums in of_node.get(node.name, ()):
            sums.add(rows_read(sums.block, value, positions))
        return value

    with torch.no_grad(), evaluating(graph_module):
        for number, (inputs, _) in enumerate(each_batch(graph_module, batches)):
            positions = Positions(most, number)
            Observed(graph_module, read=read).run(*inputs)


def _pair(value: object) -> tuple[int, int]:
    return cast("tuple[int, int]", value)
