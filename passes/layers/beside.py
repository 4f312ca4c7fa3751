"""Put layers beside a convolution, their output added to its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import fx, nn

from shrinkc.passes.ir import add
from shrinkc.passes.rewrite import Rewriter


def put_beside(
    rewriter: Rewriter,
    node: fx.Node,
    branch: Iterable[tuple[str, nn.Module]],
    detail: str,
    *,
    pad: tuple[int, int] = (0, 0),
) -> None:
    """`node`, a convolution, becomes its own value plus that of the layers of `branch`, named after
    node and kind, which read its input in a frame of `pad` zeros, vertically and horizontally.

    The convolution itself comes last: once all is merged, the result lies where it lay.
    """
    conv, graph = cast(nn.Conv2d, rewriter.module(node)), rewriter.graph_module.graph
    source, own = node.all_input_nodes[0], cast(str, node.target)
    with graph.inserting_before(node):
        x = source
        if any(pad):
            args = (x, (pad[1], pad[1], pad[0], pad[0]), "constant", 0.0)
            x = graph.create_node("call_function", F.pad, args, name=f"{node.name}_pad")
            rewriter.helper(node, x)
        for kind, layer in branch:
            path = rewriter.new_name(f"{node.name}_{kind}")
            rewriter.set_module(path, layer.to(conv.weight).train(conv.training))
            x = graph.create_node("call_module", path, (x,), name=path)
            rewriter.helper(node, x)
        kept = graph.create_node("call_module", own, (source,), name=f"{node.name}_conv")
        rewriter.helper(node, kept)
    node.op, node.target, node.args = "call_function", add, (kept, x)
    rewriter.absorb_input(node, [], detail)


def initialise(
    layer: nn.Module, generator: torch.Generator, behind: Literal["relu", "linear"] = "relu"
) -> None:
    """The weights of a convolution that reads what is `behind` one; other layers stay as they
    are."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, nonlinearity=behind, generator=generator)
