"""What a network writes out becomes the operator it is.

    x · relu6(x + 3) / 6           →  Hardswish        exp(x) / Σ exp(x)           →  Softmax
    x · σ(x)                       →  SiLU             (x − μ) / √(σ² + ε) · γ + β →  LayerNorm
    x/2 · (1 + erf(x/√2)), …       →  GELU             min(max(x, 0), 6)           →  ReLU6

Nothing is matched by its spelling: what a part of the graph computes from a single value is
compared with what the operators compute (`activations`, `normalisations`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx, nn

from shrinkc.passes import ir
from shrinkc.passes.analysis.shapes import Shapes, shapes
from shrinkc.passes.analysis.usage import attribute
from shrinkc.passes.base import PassResult
from shrinkc.passes.recognise.activations import activation, is_elementwise
from shrinkc.passes.recognise.norm_affine import absorb_into_norm
from shrinkc.passes.recognise.normalisations import REDUCTIONS, Norm, normalisation
from shrinkc.passes.recognise.prelu import prelus, slopes_of
from shrinkc.passes.recognise.region import Region, regions
from shrinkc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class Recognise:
    """Replace the largest part that is one operator, from the inputs to the outputs: activations of
    every kind in `ir.MODULES`, softmax, layer norm over the last dimensions or over channels. exp/Σ
    without its maximum is the same function, and overflows where Softmax does not.

    Declined with a reason: a part with inner values that others read.
    """

    name: ClassVar[str] = "recognise"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        walk = _Walk(rewriter, shapes(rewriter.graph_module))
        with torch.no_grad():
            for node in rewriter.nodes:
                if rewriter.alive(node):
                    walk.run(node)
        return rewriter.finish()


class _Walk:
    def __init__(self, rewriter: Rewriter, known: Shapes) -> None:
        self.rewriter, self.graph_module, self.shapes = rewriter, rewriter.graph_module, known
        self.order = {node: i for i, node in enumerate(rewriter.nodes)}
        self._numbers: dict[fx.Node, float | None] = {}

    def run(self, node: fx.Node) -> None:
        if not self._belongs(node) or absorb_into_norm(self.rewriter, node):
            return
        if self._limits_nothing(node):  # ranges of int8 know the value by its first name
            title = type(self._module(node)).__name__
            self.rewriter.bypass(node, ir.input_of(node), f"{title} limits nothing")
            return
        found = self._largest(node) or self._prelu(node)
        if found is None:
            return
        region, norm = found
        outside = region.read_outside()
        if outside:
            inner, reader = outside
            reason = f"'{reader.name}' reads '{inner.name}', which is inside of it"
            self.rewriter.skip(node, f"it is {_title(norm)} written out, but {reason}")
            return
        self._replace(region, norm)

    def _largest(self, node: fx.Node) -> tuple[Region, Norm] | None:
        """The largest region that ends here and is one operator."""
        best = None
        for region in regions(node, self._belongs, self._number, self.order):
            source = region.source
            shape = self.shapes[source.name]
            if source.op == "get_attr" or shape != self.shapes[node.name]:
                continue
            given = self.graph_module, region, self._number
            if any(n.target in REDUCTIONS for n in region.nodes):
                norm = normalisation(*given, shape)
            elif any(n.target is torch.reshape for n in region.nodes):
                norm = None  # an activation has none, and is tried on numbers of another shape
            else:
                module = activation(*given) if self._may_be_simpler(region) else None
                norm = module and Norm(module)
            if norm is not None and self._is_simpler(region, norm):
                best = region, norm
        return best

    def _prelu(self, node: fx.Node) -> tuple[Region, Norm] | None:
        for region, constant in prelus(self.graph_module, node, self._number, self.order):
            shape = self.shapes[region.source.name]
            slopes = slopes_of(self.graph_module, constant, shape)
            fits = shape == self.shapes[node.name] and _owns(region, constant)
            if fits and slopes is not None:
                module = nn.PReLU(slopes.numel()).to(slopes.dtype)
                module.weight = nn.Parameter(slopes.detach().clone(), slopes.requires_grad)
                return region, Norm(module)
        return None

    def _belongs(self, node: fx.Node) -> bool:
        if node.target is torch.reshape:  # a dimension put back behind a reduction
            return self.shapes[ir.input_of(node).name][:1] == self.shapes[node.name][:1]
        return node.target in REDUCTIONS or is_elementwise(self.graph_module, node)

    def _number(self, node: fx.Node) -> float | None:
        """A constant that is the same everywhere and is not trained."""
        if node.op != "get_attr":
            return None
        if node not in self._numbers:
            tensor = attribute(self.graph_module, node)
            plain = not isinstance(tensor, nn.Parameter) and tensor.is_floating_point()
            same = plain and tensor.numel() > 0 and bool((tensor == tensor.flatten()[0]).all())
            self._numbers[node] = float(tensor.flatten()[0]) if same else None
        return self._numbers[node]

    def _may_be_simpler(self, region: Region) -> bool:
        """One operator alone is simpler as a module where runtimes fuse that."""
        working = [n for n in region.nodes if not self._is_identity(n)]
        sink = region.sink
        alone = sink.target in _LIMITS or type(self._module(sink)) is nn.Hardtanh
        return len(working) > 1 or (len(working) == 1 and alone)

    def _is_simpler(self, region: Region, norm: Norm) -> bool:
        working = [n for n in region.nodes if not self._is_identity(n)]
        return len(working) > 1 or isinstance(norm.module, nn.ReLU | nn.ReLU6)

    def _is_identity(self, node: fx.Node) -> bool:
        return isinstance(self._module(node), nn.Identity)

    def _limits_nothing(self, node: fx.Node) -> bool:
        """Behind a limit as narrow, as where a block that stood between is left out."""
        module = self._module(node)
        if not isinstance(module, nn.ReLU | nn.ReLU6):
            return False
        before = self._module(ir.input_of(node))
        return isinstance(before, nn.ReLU6) or type(before) is type(module) is nn.ReLU

    def _module(self, node: fx.Node) -> nn.Module | None:
        return ir.module_of(self.graph_module, node)

    def _replace(self, region: Region, norm: Norm) -> None:
        sink, rewriter = region.sink, self.rewriter
        path = rewriter.new_name(f"{sink.name}_{type(norm.module).__name__.lower()}")
        rewriter.set_module(path, copy.deepcopy(norm.module).eval())
        made: list[fx.Node] = []
        if norm.moved is None:
            sink.op, sink.target, sink.args = "call_module", path, (region.source,)
        else:
            there, back = norm.orders(len(self.shapes[sink.name]))
            with sink.graph.inserting_before(sink):
                made.append(sink.graph.call_function(torch.permute, (region.source, there)))
                made.append(sink.graph.create_node("call_module", path, (made[0],), name=path))
            sink.op, sink.target, sink.args = "call_function", torch.permute, (made[1], back)
        rewriter.absorb_input(sink, region.nodes[1:], f"{_title(norm)} that was written out")
        for node in made:
            rewriter.helper(sink, node)


def _owns(region: Region, constant: fx.Node) -> bool:
    """Nothing outside reads the constant, as another activation with the same slopes would."""
    twins = [n for n in constant.graph.nodes if n.op == "get_attr" and n.target == constant.target]
    return all(user in region.nodes for twin in twins for user in twin.users)


_LIMITS = (ir.clamp, torch.maximum, torch.minimum)


def _title(norm: Norm) -> str:
    return type(norm.module).__name__
