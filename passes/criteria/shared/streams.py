"""Which groups lie inside blocks, and which are the streams that shortcuts add to."""

from __future__ import annotations

from torch import fx, nn

from shrinkc.passes.analysis.channels.channel_groups import ChannelGroup
from shrinkc.passes.ir import module_of, mul


def is_stream(graph_module: fx.GraphModule, group: ChannelGroup) -> bool:
    """Whether several layers make its channels, and sums join them. A depthwise convolution passes
    on what another layer made; what only scales it, as the gate of squeeze-excite, makes none."""
    nodes = {node.name: node for node in graph_module.graph.nodes}
    made = [nodes[name] for name in {value.node for value in group.made}]
    return sum(not (_depthwise(graph_module, n) or _gate(graph_module, n)) for n in made) > 1


def _depthwise(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    module = module_of(graph_module, node)
    conv = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return conv and module.groups == module.in_channels > 1


def _gate(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Its only reader, behind norms and activations, is a product."""
    while len(node.users) == 1:
        node = next(iter(node.users))
        if node.target is mul:
            return True
        if isinstance(module_of(graph_module, node), nn.Conv2d | nn.Linear | None):
            return False
    return False
