"""The same network for images of another size: whether it is that."""

from __future__ import annotations

import torch
from torch import fx

from shrinkc.compiler.capture.names import returned_nodes
from shrinkc.errors import CaptureError
from shrinkc.passes.analysis.shapes import shapes


def require_same_network(captured: fx.GraphModule, other: fx.GraphModule) -> None:
    """Two captures of one model, for images of different sizes. Raise CaptureError, with the reason
    alone, where layers have other weights, outputs other shapes, or only one of them is free in
    its batch. Constants that stand in no layer may come from the size, such as a grid."""
    mine, theirs = captured.state_dict(), other.state_dict()
    weights = {name for one in (captured, other) for name, _ in one.named_parameters()}
    weights |= {name for name in mine.keys() | theirs.keys() if "." in name}
    for name in sorted(weights):
        known = name in mine and name in theirs
        if not known or not torch.equal(mine[name], theirs[name]):
            raise CaptureError(f"the weights '{name}' depend on the size of the image")
    before, after = _outputs(captured), _outputs(other)
    if before != after:
        raise CaptureError(f"it returns {_said(after)} there instead of {_said(before)}")
    if captured.meta.get("dynamic_batch") != other.meta.get("dynamic_batch"):
        raise CaptureError("it takes other batches there")


def _outputs(graph: fx.GraphModule) -> list[tuple[int, ...]]:
    known = shapes(graph)
    return [known[node.name] for node in returned_nodes(graph)]


def _said(outputs: list[tuple[int, ...]]) -> str:
    return ", ".join("×".join(map(str, one)) for one in outputs)
