"""From a module to a raw `torch.fx` graph: symbolic trace, or `torch.export` where it fails."""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.capture.module_rules import MODULE_RULES
from shrinkc.compiler.capture.rules.sequence import recurrent
from shrinkc.compiler.support.quiet import quiet
from shrinkc.errors import CaptureError
from shrinkc.passes import ir


class _Proxy(fx.Proxy):
    """Keeps what Python's statements write: `view -= 1` and `x[:, 0] = y`, which fx takes for new
    values or refuses."""

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})

    def __getattr__(self, k: str) -> Any:
        if k == "data":
            return self.tracer.create_proxy("call_function", getattr, (self, k), {})
        return super().__getattr__(k)

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "data":
            super().__setattr__(name, value)
        elif self.node.op != "get_attr" and not _writes_data_of(self.node, value):
            # parameters have settled before they are traced
            raise CaptureError("the model assigns to the `data` of a tensor that it computes")


def _writes_data_of(node: fx.Node, value: Any) -> bool:
    """`x.data -= 1`: the write is done before its result is assigned."""
    written = value.node.args[:1] if isinstance(value, _Proxy) else ()
    data = written[0] if written and value.node.target in _WRITING.values() else None
    return isinstance(data, fx.Node) and data.target is getattr and data.args == (node, "data")


def _writing(function: Any) -> Any:
    def method(self: _Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


_NAMES = "iadd isub imul itruediv ifloordiv imod ipow iand ior ixor imatmul ilshift irshift"
_WRITING: dict[str, Any] = {f"__{name}__": getattr(operator, name) for name in _NAMES.split()}
for _name, _function in _WRITING.items():
    setattr(_Proxy, _name, _writing(_function))


LEAVES = frozenset((*ir.MODULES, *MODULE_RULES, *recurrent.MODULES))


class _Tracer(fx.Tracer):
    """Leaves are exactly what the rules know; everything else is traced through."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        hooked = any(m.__dict__[kind] for kind in ("_forward_hooks", "_forward_pre_hooks"))
        return not hooked and type(m) in LEAVES


def symbolic_trace(model: nn.Module, inputs: int) -> fx.GraphModule:
    """Trace the first `inputs` parameters of `forward`, the rest at their defaults.

    Raises whatever the model's own Python raises on symbolic values.
    """
    model = _with_free_names(model)
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


# What a GraphModule has of its own, beside what every module has.
_TAKEN = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph()))) - frozenset(dir(nn.Module()))
_REGISTERED = ("_modules", "_parameters", "_buffers")


def _with_free_names(model: nn.Module) -> nn.Module:
    """The model; where a layer has a name that a GraphModule needs for itself ("meta", "code"), a
    twin that holds it under another one, and finds it by the old one as before."""
    registered: dict[str, dict[str, Any]] = {kind: vars(model)[kind] for kind in _REGISTERED}
    names = {name for entries in registered.values() for name in entries}
    new = {name: _free(name, names) for name in names & _TAKEN}
    if not new:
        return model
    kind: Any = type(model)

    class Renamed(kind):
        def __getattr__(self, name: str) -> Any:
            return kind.__getattr__(self, new.get(name, name))

    twin = copy.copy(model)
    twin.__dict__ = dict(vars(model))
    for where, entries in registered.items():
        twin.__dict__[where] = {new.get(name, name): value for name, value in entries.items()}
    twin.__class__ = Renamed
    return twin


def _free(name: str, names: set[str]) -> str:
    while name in _TAKEN:
        name += "_"
        while name in names:
            name += "_"
    return name


def _forward_names(model: nn.Module) -> list[tuple[str, Any]]:
    parameters = inspect.signature(model.forward).parameters.values()
    return [
        (p.name, None if p.default is p.empty else p.default)
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)
    ]


def export(
    model: nn.Module, inputs: tuple[Tensor, ...], dynamic_batch: bool
) -> Iterator[fx.GraphModule]:
    """`torch.export`, its ATen nodes reading parameters through `get_attr`: first as the model
    calls them, then the same without writes: what was written becomes `slice_scatter` and such.

    Raises whatever `torch.export` raises, and CaptureError where a decision of the model's Python
    holds for some batch sizes only.
    """
    model = _with_free_names(model)
    batch = {0: torch.export.Dim.AUTO} if dynamic_batch else None
    with quiet(), torch.no_grad():  # as it is run
        program: Any = torch.export.export(
            model, inputs, dynamic_shapes=tuple(batch for _ in inputs), strict=False
        )
    if dynamic_batch:
        _require_free(program)
    yield _inlined(program.module(check_guards=False))
    with quiet(), torch.no_grad():
        program = program.run_decompositions({})
    yield _inlined(program.module(check_guards=False))


def _require_free(program: Any) -> None:
    """What the export took for granted must hold at every batch size from 2 on."""
    for symbol, allowed in program.range_constraints.items():
        if allowed.lower > 2 or allowed.upper < MANY:
            raise CaptureError(f"the model decides by its batch size ({symbol} is in {allowed})")
    for node in program.graph_module.graph.nodes:
        value = node.meta.get("val") if node.op == "placeholder" else None
        for size in getattr(value, "shape", ()):
            environment: Any = getattr(getattr(size, "node", None), "shape_env", None)
            for guard in getattr(environment, "guards", ()):
                _require_always(guard.expr)


MANY = 1 << 20  # images in one batch


def _require_always(expression: Any) -> None:
    symbols = expression.free_symbols
    for n in (*range(2, 18), 33, 100, 1000):
        if expression.subs(dict.fromkeys(symbols, n)) == False:  # noqa: E712  # sympy's own
            raise CaptureError(f"the model decides by its batch size ({expression})")


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
