"""From a module to a raw `torch.fx` graph: symbolic trace, or `torch.export` where it fails."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.capture.module_rules import MODULE_RULES
from shrinkc.compiler.support.quiet import quiet
from shrinkc.passes import ir


class _Tracer(fx.Tracer):
    """Leaves are exactly what the rules know; everything else is traced through."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        hooked = any(m.__dict__[kind] for kind in ("_forward_hooks", "_forward_pre_hooks"))
        return not hooked and (type(m) in ir.MODULES or type(m) in MODULE_RULES)


def symbolic_trace(model: nn.Module, inputs: int) -> fx.GraphModule:
    """Trace the first `inputs` parameters of `forward`, the rest at their defaults.

    Raises whatever the model's own Python raises on symbolic values.
    """
    tracer = _Tracer()
    names = _forward_names(model)
    rest: dict[str, Any] = dict(names[inputs:])
    graph = tracer.trace(model, concrete_args=rest or None)
    graph_module = fx.GraphModule(tracer.root, graph)
    # concrete_args stay as unused placeholders
    for node in _placeholders(graph_module)[inputs:]:
        if not node.users:
            graph.erase_node(node)
    return graph_module


def _forward_names(model: nn.Module) -> list[tuple[str, Any]]:
    parameters = inspect.signature(model.forward).parameters.values()
    return [
        (p.name, None if p.default is p.empty else p.default)
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)
    ]


def export(model: nn.Module, inputs: tuple[Tensor, ...], dynamic_batch: bool) -> fx.GraphModule:
    """`torch.export`, its ATen nodes reading parameters through `get_attr`.

    Raises whatever `torch.export` raises.
    """
    batch = {0: torch.export.Dim.AUTO} if dynamic_batch else None
    with quiet():
        program: Any = torch.export.export(
            model, inputs, dynamic_shapes=tuple(batch for _ in inputs), strict=False
        )
        graph_module = _inlined(program.module(check_guards=False))
        if not _writes_into_parts(graph_module):
            return graph_module
        # the same operators, without writes: what was written becomes `slice_scatter` and such
        return _inlined(program.run_decompositions({}).module(check_guards=False))


def _writes_into_parts(graph_module: fx.GraphModule) -> bool:
    """`x[:, 1:] += y`: whoever reads `x` afterwards must see it."""
    return any(_is_write(n) and _is_part(n.args[0]) for n in graph_module.graph.nodes)


def _schema(node: Any) -> Any:
    return getattr(node.target, "_schema", None)


def _is_write(node: fx.Node) -> bool:
    schema = _schema(node)
    return schema is not None and schema.is_mutable


def _is_part(node: Any) -> bool:
    """The result of a view: it shares its numbers with another node."""
    arguments: list[Any] = getattr(_schema(node), "arguments", [])
    return any(a.alias_info is not None and not a.alias_info.is_write for a in arguments)


def _inlined(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Regions under autocast or set_grad_enabled, put back in line: inference in float32."""
    for node in list(graph_module.graph.nodes):
        name = getattr(node.target, "__name__", str(node.target))
        if node.op != "call_function" or name not in _REGIONS:
            continue
        at = next(i for i, a in enumerate(node.args) if isinstance(a, fx.Node))
        body: Any = getattr(graph_module, node.args[at].target)
        inside = _inlined(body)
        inner = dict(zip(_placeholders(inside), node.args[at + 1 :], strict=True))
        for constant in (n for n in inside.graph.nodes if n.op == "get_attr"):
            setattr(graph_module, constant.target, getattr(inside, constant.target))
        with graph_module.graph.inserting_before(node):
            results: Any = graph_module.graph.graph_copy(inside.graph, inner)
        for user in list(node.users):  # a region returns a tuple
            user.replace_all_uses_with(results[user.args[1]])
            graph_module.graph.erase_node(user)
        graph_module.graph.erase_node(node)
    return graph_module


_REGIONS = ("wrap_with_autocast", "wrap_with_set_grad_enabled")


def _placeholders(graph_module: fx.GraphModule) -> list[fx.Node]:
    return [n for n in graph_module.graph.nodes if n.op == "placeholder"]
