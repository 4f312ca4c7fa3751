"""From `GraphEntry` and tensors back to a canonical graph. The entry may come from anyone."""

from __future__ import annotations

import math
from collections import OrderedDict
from functools import cache
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
from shrinkc.passes.analysis.shapes import check_shapes
from shrinkc.passes.signatures import wrong_arguments, wrong_field

_LONG = 20_000  # nodes
_MAX_VALUE = 2**28  # numbers of one input or other value: 1 GiB of float32
_ARGUMENTS = {"placeholder": 0, "get_attr": 0, "output": 1}
_CONTAINERS = (dict, OrderedDict, set)
_COUNTS = "num_batches_tracked"  # the one tensor of the closed set that holds integers
_MODULES = {kind.__name__: (kind, fields) for kind, fields in ir.MODULES.items()}


def decode(entry: GraphEntry, tensors: dict[str, Tensor]) -> fx.GraphModule:
    """The graph, in eval mode. Raises ValueError or IllegalGraphError where parts do not fit."""
    graph_module = fx.GraphModule(nn.Module(), fx.Graph())
    shelf, kinds = _Shelf(entry, tensors), _Kinds()
    modules: dict[str, nn.Module] = {}
    for path, item in entry.modules.items():
        if isinstance(item, ModuleEntry):
            modules[path] = kinds.module(path, item, shelf)
        elif item.same_as in modules:
            modules[path] = modules[item.same_as]
        else:
            raise ValueError(f"no module '{item.same_as}'")
        vars(_place(graph_module, path))["_modules"][_name(path)] = modules[path]
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
        if not shape or min(shape) < 1 or math.prod(shape) > _MAX_VALUE:
            raise ValueError(f"input '{name}' of shape {shape}")
    graph_module.meta.update(entry.meta)
    graph_module.meta["input_shapes"] = dict(entry.inputs)
    graph_module.training = False  # all parts were made so
    try:
        _set_graph(graph_module, _graph(entry))
        ir.check_legal(graph_module)
        _check_types(graph_module)
        check_shapes(graph_module, _MAX_VALUE)
    except (RuntimeError, SyntaxError, IndexError) as error:  # torch's own checks
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


class _Kinds:
    """Modules without memory of their own, made once for each kind and its fields: constructors
    take longer than all the rest of a layer."""

    def __init__(self) -> None:
        self._made: dict[str, _Kind] = {}

    def module(self, path: str, entry: ModuleEntry, shelf: _Shelf) -> nn.Module:
        """One of the entry's kind, with tensors of exactly its shapes."""
        name = f"{entry.kind} {entry.fields}"
        if name not in self._made:
            self._made[name] = _Kind(_without_memory(path, entry))
        kind = self._made[name]
        if kind.shapes.keys() != entry.tensors.keys():
            needed = ", ".join(kind.shapes) or "none"
            raise ValueError(f"{entry.kind} '{path}' needs the tensors {needed}")
        module = kind.twin()
        for name, key in entry.tensors.items():
            parameter = name in kind.parameters
            tensor = shelf.parameter(key) if parameter else shelf.buffer(key)
            if tensor.shape != kind.shapes[name]:
                given, wanted = tuple(tensor.shape), tuple(kind.shapes[name])
                raise ValueError(f"{entry.kind} '{path}' needs a {name} of {wanted}, not {given}")
            vars(module)["_parameters" if parameter else "_buffers"][name] = tensor
        return module


class _Kind:
    """A module without memory, and what makes others of it."""

    def __init__(self, made: nn.Module) -> None:
        parameters = dict(made.named_parameters(recurse=False))
        all_ = {**parameters, **dict(made.named_buffers(recurse=False))}
        self.shapes = {name: tensor.shape for name, tensor in all_.items()}
        self.parameters = frozenset(parameters)
        self._type, self._state = type(made), vars(made)
        self._changing = [
            (name, value.copy) for name, value in self._state.items() if type(value) in _CONTAINERS
        ]

    def twin(self) -> nn.Module:
        """Another one that shares nothing which can change."""
        state = self._state.copy()
        for name, copied in self._changing:
            state[name] = copied()
        twin: nn.Module = object.__new__(self._type)
        object.__setattr__(twin, "__dict__", state)
        return twin


def _without_memory(path: str, entry: ModuleEntry) -> nn.Module:
    kind, fields = _MODULES.get(entry.kind, (None, ()))
    if kind is None:
        raise ValueError(f"module '{path}' is of unknown kind {entry.kind}")
    if entry.fields.keys() != set(fields):
        raise ValueError(f"{entry.kind} '{path}' needs the fields {', '.join(fields) or 'none'}")
    arguments: dict[str, Any] = {k: _value(v) for k, v in entry.fields.items()}
    wrong = wrong_field(kind, arguments)
    if wrong is not None:
        raise ValueError(f"{entry.kind} '{path}' cannot have the {wrong} {arguments[wrong]!r}")
    try:
        with torch.device("meta"):
            return kind(**arguments).eval()
    except Exception as error:  # constructors check in many ways
        raise ValueError(f"{entry.kind} '{path}': {error}") from error


def _set_graph(graph_module: fx.GraphModule, graph: fx.Graph) -> None:
    """Python compiles the code of a long graph for as long as all the rest takes, and passes make
    graphs of their own: that waits until it is called, or its code is asked for. No file makes
    code that does not compile: every name in it was checked."""
    if len(graph.nodes) <= _LONG:
        graph_module.graph = graph
        return
    own: Any = type(graph_module)  # of this graph module alone; `recompile` puts `forward` there

    def forward(self: Any, *args: Any) -> Any:
        self.recompile()
        return self.forward(*args)

    def code(self: Any) -> str:
        self.recompile()
        return self._code

    def reduced(self: Any) -> Any:  # a pickle holds the code that is known when it is asked for
        self.recompile()
        return fx.GraphModule.__reduce__(self)

    own.forward, own.code, own.__reduce__ = forward, property(code), reduced
    cast(Any, graph_module)._graph = graph
    graph.owning_module = graph_module


def _graph(entry: GraphEntry) -> fx.Graph:
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    inputs = [item.target for item in entry.nodes if item.op == "placeholder"]
    if len(set(inputs)) < len(inputs):
        raise ValueError("two inputs have the same name")
    for item in entry.nodes:
        target = _target(item)
        args = tuple(_argument(value, nodes) for value in item.args)
        if item.op == "call_function" and (wrong := wrong_arguments(item.target, args)):
            raise ValueError(f"node '{item.name}': {wrong}")
        if len(args) != _ARGUMENTS.get(item.op, len(args)):
            raise ValueError(f"node '{item.name}': {item.op} takes {_ARGUMENTS[item.op]} arguments")
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


def _check_types(graph_module: fx.GraphModule) -> None:
    """Raise ValueError unless all numbers of the graph are floats of one type."""
    state = {**dict(graph_module.named_parameters()), **dict(graph_module.named_buffers())}
    read = [node.target for node in graph_module.graph.nodes if node.op == "get_attr"]
    state |= {name: _attribute(graph_module, name) for name in read}
    kinds: dict[torch.dtype, str] = {}
    for name, tensor in state.items():
        if not _is_count(name, tensor):
            kinds.setdefault(tensor.dtype, name)
    if len(kinds) > 1 or not all(kind.is_floating_point for kind in kinds):
        told = " and ".join(f"'{name}' of {kind}" for kind, name in list(kinds.items())[:2])
        raise ValueError(f"tensor {told}, not floats of one type")


def _is_count(name: str, tensor: Tensor) -> bool:
    return _name(name) == _COUNTS and tensor.dtype == torch.int64


def _attribute(graph_module: fx.GraphModule, path: str) -> Tensor:
    owner, _, name = path.rpartition(".")
    return getattr(graph_module.get_submodule(owner), name)


def _place(root: nn.Module, path: str) -> nn.Module:
    """The container of `path`, made where it is missing; the last name in it must be free."""
    *parents, name = path.split(".")
    owner = root
    for part in parents:
        child = vars(owner)["_modules"].get(part)
        if child is None:
            _require_free(owner, part, path)
            child = vars(owner)["_modules"][part] = nn.Module().eval()
        if type(child) is not nn.Module:
            raise ValueError(f"'{path}' lies inside something that is no container")
        owner = child
    _require_free(owner, name, path)
    return owner


def _require_free(owner: nn.Module, name: str, path: str) -> None:
    """As `hasattr`, which takes long for what is not there."""
    own = vars(owner)
    taken = name in own["_modules"] or name in own["_parameters"] or name in own["_buffers"]
    if taken or name in own or name in _names_of(type(owner)):
        raise ValueError(f"'{path}' is taken")


@cache
def _names_of(kind: type) -> frozenset[str]:
    """Of everything that its instances have from it."""
    return frozenset(name for one in kind.__mro__ for name in vars(one))


def _name(path: str) -> str:
    return path.rpartition(".")[2]
