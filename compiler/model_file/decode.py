"""From `GraphEntry` and tensors back to a canonical graph. The entry may come from anyone."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.model_file.schema import (
    GraphEntry,
    ListEntry,
    ModuleEntry,
    NodeEntry,
    Reference,
    Special,
)
from shrinkc.passes import ir

_MAX_INPUT = 2**28  # elements: 1 GiB of float32
_MODULES = {kind.__name__: (kind, fields) for kind, fields in ir.MODULES.items()}


def decode(entry: GraphEntry, tensors: dict[str, Tensor]) -> fx.GraphModule:
    """The graph, in eval mode. Raises ValueError or IllegalGraphError where parts do not fit."""
    graph_module = fx.GraphModule(nn.Module(), fx.Graph())
    shelf = _Shelf(entry, tensors)
    modules: dict[str, nn.Module] = {}
    for path, item in entry.modules.items():
        if isinstance(item, ModuleEntry):
            modules[path] = _module(path, item, shelf)
        elif item.same_as in modules:
            modules[path] = modules[item.same_as]
        else:
            raise ValueError(f"no module '{item.same_as}'")
        _place(graph_module, path).add_module(_name(path), modules[path])
    for path, attribute in entry.attributes.items():
        owner, name = _place(graph_module, path), _name(path)
        if attribute.kind == "parameter":
            owner.register_parameter(name, shelf.parameter(attribute.tensor))
        elif attribute.kind == "plain":
            setattr(owner, name, shelf.buffer(attribute.tensor))
        else:
            tensor = shelf.buffer(attribute.tensor)
            owner.register_buffer(name, tensor, persistent=attribute.kind == "buffer")
    shelf.require_all_used()
    for name, shape in entry.inputs.items():
        if not shape or min(shape) < 1 or math.prod(shape) > _MAX_INPUT:
            raise ValueError(f"input '{name}' of shape {shape}")
    graph_module.meta.update(entry.meta)
    graph_module.meta["input_shapes"] = dict(entry.inputs)
    graph_module.eval()
    try:
        graph_module.graph = _graph(entry)
        ir.check_legal(graph_module)
    except (RuntimeError, SyntaxError) as error:  # torch's own checks
        raise ValueError(str(error)) from error
    return graph_module


class _Shelf:
    """Tensors by key; one key is one object, however often it is asked for."""

    def __init__(self, entry: GraphEntry, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors
        self._frozen = frozenset(entry.frozen)
        self._layouts = entry.layouts
        self._made: dict[str, Tensor] = {}

    def parameter(self, key: str) -> nn.Parameter:
        if key not in self._made:
            tensor, trainable = self._raw(key), key not in self._frozen
            if trainable and not (tensor.is_floating_point() or tensor.is_complex()):
                raise ValueError(f"parameter '{key}' of {tensor.dtype} cannot be trainable")
            self._made[key] = nn.Parameter(tensor, requires_grad=trainable)
        made = self._made[key]
        if not isinstance(made, nn.Parameter):
            raise ValueError(f"'{key}' is a parameter and a buffer")
        return made

    def buffer(self, key: str) -> Tensor:
        made = self._made.setdefault(key, self._raw(key))
        if isinstance(made, nn.Parameter):
            raise ValueError(f"'{key}' is a parameter and a buffer")
        return made

    def require_all_used(self) -> None:
        unused = sorted(self._tensors.keys() - self._made.keys())
        if unused:
            raise ValueError(f"nothing uses tensor '{unused[0]}'")

    def _raw(self, key: str) -> Tensor:
        if key not in self._tensors:
            raise ValueError(f"no tensor '{key}'")
        tensor = self._tensors[key]
        order = self._layouts.get(key)
        if order is None:
            return tensor
        if sorted(order) != list(range(tensor.ndim)):
            raise ValueError(f"layout {order} of tensor '{key}'")
        inverse = sorted(range(tensor.ndim), key=order.__getitem__)
        return tensor.permute(order).contiguous().permute(inverse)


def _module(path: str, entry: ModuleEntry, shelf: _Shelf) -> nn.Module:
    """Built without memory of its own, then given tensors of exactly its shapes."""
    kind, fields = _MODULES.get(entry.kind, (None, ()))
    if kind is None:
        raise ValueError(f"module '{path}' is of unknown kind {entry.kind}")
    if entry.fields.keys() != set(fields):
        raise ValueError(f"{entry.kind} '{path}' needs the fields {', '.join(fields) or 'none'}")
    arguments: dict[str, Any] = {k: _value(v) for k, v in entry.fields.items()}
    try:
        with torch.device("meta"):
            module = kind(**arguments)
    except Exception as error:  # constructors check in many ways
        raise ValueError(f"{entry.kind} '{path}': {error}") from error
    parameters = dict(module.named_parameters(recurse=False))
    shapes = {k: v.shape for k, v in (*parameters.items(), *module.named_buffers(recurse=False))}
    if shapes.keys() != entry.tensors.keys():
        raise ValueError(f"{entry.kind} '{path}' needs the tensors {', '.join(shapes) or 'none'}")
    for name, key in entry.tensors.items():
        tensor = shelf.parameter(key) if name in parameters else shelf.buffer(key)
        if tensor.shape != shapes[name]:
            given, needed = tuple(tensor.shape), tuple(shapes[name])
            raise ValueError(f"{entry.kind} '{path}' needs a {name} of {needed}, not {given}")
        setattr(module, name, tensor)
    return module


def _graph(entry: GraphEntry) -> fx.Graph:
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for item in entry.nodes:
        target = _target(item)
        args = tuple(_argument(value, nodes) for value in item.args)
        node = graph.create_node(item.op, target, args, {}, name=item.name)
        if node.name != item.name:
            raise ValueError(f"node name '{item.name}' is taken, or reserved")
        nodes[item.name] = node
    return graph


def _target(item: NodeEntry) -> Any:
    if item.op == "call_function":
        if item.target not in ir.FUNCTIONS:
            raise ValueError(f"node '{item.name}': no function {item.target}")
        return ir.FUNCTIONS[item.target]
    if item.op == "placeholder" and not item.target.isidentifier():
        raise ValueError(f"node '{item.name}': '{item.target}' is no input name")
    return item.target


def _argument(value: Any, nodes: dict[str, fx.Node]) -> Any:
    if isinstance(value, Reference):
        if value.node not in nodes:
            raise ValueError(f"no node '{value.node}' before its use")
        return nodes[value.node]
    if isinstance(value, ListEntry):
        return [_argument(item, nodes) for item in value.list]
    if isinstance(value, tuple):
        return tuple(_argument(item, nodes) for item in cast(tuple[Any, ...], value))
    return _value(value)


def _value(value: Any) -> Any:
    if isinstance(value, Special):
        return float(value.float)
    return tuple(map(_value, cast(Any, value))) if isinstance(value, tuple) else value


def _place(root: nn.Module, path: str) -> nn.Module:
    """The container of `path`, made where it is missing; the last name in it must be free."""
    *parents, name = path.split(".")
    owner = root
    for part in parents:
        child: object = getattr(owner, part, None)
        if child is None:
            child = nn.Module()
            owner.add_module(part, child)
        if type(child) is not nn.Module:
            raise ValueError(f"'{path}' lies inside something that is no container")
        owner = child
    if hasattr(owner, name):
        raise ValueError(f"'{path}' is taken")
    return owner


def _name(path: str) -> str:
    return path.rpartition(".")[2]
