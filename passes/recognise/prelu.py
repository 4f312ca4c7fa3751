"""PReLU written out: relu(x) − a·relu(−x), with trained slopes a."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, fx, nn

from shrinkc.passes.analysis.shapes import Shape
from shrinkc.passes.analysis.usage import attribute
from shrinkc.passes.recognise.activations import is_activation, is_elementwise
from shrinkc.passes.recognise.region import Numbers, Region, regions

_TRIED = (0.1, 0.37, 1.5, -0.6)  # a leaky ReLU of each of these slopes is one of any slope


def prelus(
    graph_module: fx.GraphModule, sink: fx.Node, numbers: Numbers, order: dict[fx.Node, int]
) -> Iterator[tuple[Region, fx.Node]]:
    """Regions that are a leaky ReLU of their source, whatever the one constant in them is; and
    that constant."""

    def standing_for(slope: float) -> Numbers:
        def number(node: fx.Node) -> float | None:
            own = numbers(node)
            return slope if own is None and node.op == "get_attr" else own

        return number

    belongs: Callable[[fx.Node], bool] = lambda node: is_elementwise(graph_module, node)  # noqa: E731
    for region in regions(sink, belongs, standing_for(0.0), order):
        read = {x for node in region.nodes for x in node.all_input_nodes if x.op == "get_attr"}
        slopes = [x for x in read if numbers(x) is None]
        if len({x.target for x in slopes}) == 1 and all(
            is_activation(graph_module, region, standing_for(a), nn.LeakyReLU(a)) for a in _TRIED
        ):
            yield region, slopes[0]


def slopes_of(graph_module: fx.GraphModule, constant: fx.Node, shape: Shape) -> Tensor | None:
    """As PReLU has them, (1,) or one per channel of dimension 1; None where they vary otherwise."""
    value = attribute(graph_module, constant)
    if value.numel() == 1:
        return value.reshape(1)
    if value.ndim > len(shape):
        return None
    full = (1,) * (len(shape) - value.ndim) + tuple(value.shape)
    along_channels = all(n == 1 for dim, n in enumerate(full) if dim != 1)
    return value.reshape(-1) if along_channels and full[1] == shape[1] else None
