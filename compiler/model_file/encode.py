"""A canonical graph as JSON (`shrinkc.compiler.model_schema.GraphEntry`) and tensors by key."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.model_file.schema import VERSION
from shrinkc.passes import ir

Json = Any
_FUNCTION_NAMES = {function: name for name, function in ir.FUNCTIONS.items()}


def encode(
    graph_module: fx.GraphModule, extra: dict[str, Any]
) -> tuple[dict[str, Json], dict[str, Tensor]]:
    """Everything but the numbers, and the numbers. Raises ValueError for what has no encoding."""
    store = _Store()
    modules: dict[str, Json] = {}
    seen: dict[int, str] = {}
    for path, module in _called_modules(graph_module):
        first = seen.setdefault(id(module), path)
        if first != path:
            modules[path] = {"same_as": first}
            continue
        modules[path] = {
            "kind": type(module).__name__,
            "fields": _fields(module),
            "tensors": {k: store.key(t, f"{path}.{k}") for k, t in _own_tensors(module)},
        }
    attributes = _attributes(graph_module, modules.keys(), store)
    shapes = ir.input_shapes(graph_module).items()
    notes = graph_module.meta.items()
    return {
        "version": VERSION,
        "inputs": {name: [int(size) for size in shape] for name, shape in shapes},
        "nodes": [_node(node) for node in graph_module.graph.nodes],
        "modules": modules,
        "attributes": attributes,
        "frozen": store.frozen,
        "layouts": store.layouts,
        "meta": {k: v for k, v in notes if type(v) in (bool, int, float, str)},
        "extra": extra,
    }, store.tensors


class _Store:
    """Tensors by key, each object once."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.frozen: list[str] = []
        self.layouts: dict[str, list[int]] = {}
        self._keys: dict[int, str] = {}

    def key(self, tensor: Tensor, key: str) -> str:
        if id(tensor) in self._keys:
            return self._keys[id(tensor)]
        self._keys[id(tensor)] = key
        self.tensors[key] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        if isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
            self.frozen.append(key)
        if tensor.stride() != self.tensors[key].stride():
            # channels-last weights choose other kernels, whose last bits differ
            strides = tensor.stride()
            self.layouts[key] = sorted(range(tensor.ndim), key=lambda dim: -strides[dim])
        return key


def _called_modules(graph_module: fx.GraphModule) -> list[tuple[str, nn.Module]]:
    """In the module tree's order, so that the state dict keeps its order."""
    targets = {node.target for node in graph_module.graph.nodes if node.op == "call_module"}
    modules: Iterable[tuple[str, nn.Module]] = cast(
        Any, graph_module.named_modules(remove_duplicate=False)
    )
    return [(path, module) for path, module in modules if path in targets]


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    yield from module.named_buffers(recurse=False, remove_duplicate=False)


def _attributes(
    graph_module: fx.GraphModule, module_paths: Collection[str], store: _Store
) -> dict[str, Json]:
    """What `get_attr` reads, unless one of the called modules owns it."""
    found: dict[str, Json] = {}
    for node in graph_module.graph.nodes:
        if node.op != "get_attr":
            continue
        path = cast(str, node.target)
        parent, _, name = path.rpartition(".")
        if path in found or parent in module_paths:
            continue
        owner = graph_module.get_submodule(parent)
        parameters = dict(owner.named_parameters(recurse=False, remove_duplicate=False))
        buffers = dict(owner.named_buffers(recurse=False, remove_duplicate=False))
        if name in parameters:
            kind = "parameter"
        elif name in buffers:
            kind = "buffer" if name in owner.state_dict() else "transient buffer"
        else:
            kind = "plain"
        found[path] = {"tensor": store.key(getattr(owner, name), path), "kind": kind}
    return found


def _node(node: fx.Node) -> Json:
    target: Any = node.target
    return {
        "op": node.op,
        "name": node.name,
        "target": _FUNCTION_NAMES[target] if node.op == "call_function" else target,
        "args": [_argument(node, argument) for argument in node.args],
    }


def _argument(node: fx.Node, value: Any) -> Json:
    if isinstance(value, list):
        return {"list": [_item(node, item) for item in cast(list[Any], value)]}
    if isinstance(value, tuple):
        return [_item(node, item) for item in cast(tuple[Any, ...], value)]
    return _item(node, value)


def _item(node: fx.Node, value: Any) -> Json:
    if isinstance(value, fx.Node):
        return {"node": value.name}
    return _scalar(f"node '{node.name}'", value)


def _fields(module: nn.Module) -> dict[str, Json]:
    """The constructor arguments, as `ir.MODULES` lists them."""
    found: dict[str, Json] = {}
    for field in ir.MODULES[type(module)]:
        value: Any = getattr(module, field)
        place = f"{type(module).__name__}.{field}"
        if field == "bias":
            value = value is not None
        if isinstance(value, tuple | list):
            found[field] = [_scalar(place, item) for item in cast(list[Any], value)]
        else:
            found[field] = _scalar(place, value)
    return found


def _scalar(place: str, value: Any) -> Json:
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is not None and type(value) not in (bool, int, float, str):
        raise ValueError(f"{place} holds a {type(value).__name__}")
    return value
