"""From the inert records of `shrinkc.compiler.load.safe_pickle` to modules.

A module is made without calling its class and its attributes are set. What is checked, because a
module with hostile attributes runs them later, when it is traced or called:

* no attribute hides a method (`forward = …`) and none is a hook: code stays the library's;
* classes and functions as values (`norm_layer`) are only those of torch.nn, whose constructors
  make numbers, and the activations of `shrinkc.compiler.load.allowlist`;
* names of children, parameters and attributes are plain words, since `torch.fx` writes them into
  Python source;
* tensors are made anew from their numbers, without the Python attributes a file may give them;
* a configuration cannot choose an attention implementation that is fetched from a model hub.
"""

from __future__ import annotations

import functools
import inspect
import re
import reprlib
from collections import OrderedDict
from typing import Any, cast

import torch
from torch import Tensor, nn

from shrinkc.compiler.load.allowlist import Allowed
from shrinkc.compiler.load.plain_dict import items_of
from shrinkc.compiler.load.safe_pickle import StandIn

_PLAIN_TYPES = (
    *(type(None), bool, int, float, complex, str, bytes),
    *(torch.dtype, torch.device, torch.Size),
)
_CHILD = re.compile(r"[\w-]{1,200}", re.ASCII)  # torchvision has "block1-0"
_ATTRIBUTE = re.compile(r"[A-Za-z_]\w{0,200}", re.ASCII)
_ATTENTION = (None, "eager", "sdpa")


class RefusedError(Exception):
    """The reason, with the place in the model."""


class Rebuilder:
    """Rebuilds values; the same record gives the same object, so what is shared stays shared.

    `tensors` are all that it made.
    """

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self._made: dict[int, Any] = {}
        self._alive: list[Any] = []  # an id is only good while its object lives

    def build(self, value: Any, where: str = "") -> Any:
        """`value` with every record in it made real. Raises RefusedError."""
        if type(value) in _PLAIN_TYPES:
            return value
        if isinstance(value, type):
            return _named(value, where)
        if id(value) not in self._made:
            self._alive.append(value)
            made = self._make(value, where)
            self._made[id(value)] = made
        return self._made[id(value)]

    def _make(self, value: Any, where: str) -> Any:
        if isinstance(value, StandIn):
            return self._from_record(value, where)
        kind: Any = cast(Any, type(value))
        if kind in (Tensor, nn.Parameter):
            return self._tensor(value, where)
        if kind is tuple:
            return tuple(self.build(item, where) for item in value)
        if kind not in (list, set, dict, OrderedDict):
            raise RefusedError(f"a value of type {kind.__name__} in {_place(where)}")
        made = cast(Any, kind())
        self._made[id(value)] = made  # before its items: it may hold itself
        if kind is list:
            made.extend(self.build(item, where) for item in value)
        elif kind is set:
            made.update(self.build(item, where) for item in value)
        else:
            for key, item in items_of(value):
                made[self.build(key, where)] = self.build(item, _join(where, key))
        return made

    def _tensor(self, value: Tensor, where: str) -> Tensor:
        if value.layout is not torch.strided or value.device.type != "cpu":
            raise RefusedError(f"a sparse or empty tensor in {_place(where)}")
        made = Tensor.detach(value)  # not value.detach: the file may have set that attribute
        if isinstance(value, nn.Parameter):
            made = nn.Parameter(made, requires_grad=value.requires_grad)
        self.tensors.append(made)
        return made

    def _from_record(self, record: StandIn, where: str) -> Any:
        allowed = record.allowed
        if allowed is None or allowed.kind == "function":
            raise RefusedError(f"a {record.name} in {_place(where)}")
        if allowed.kind == "enum":
            members: dict[Any, Any] = allowed.value._value2member_map_
            if record.called and len(record.args) == 1 and record.args[0] in members:
                return members[record.args[0]]
        elif allowed.kind == "tuple":
            args = [self.build(item, where) for item in record.args]
            if not record.called and len(args) == len(allowed.value._fields):
                return cast(Any, tuple).__new__(allowed.value, args)
        elif allowed.kind == "partial":
            return self._partial(record, where)
        elif not record.called and not record.args and type(record.state) is dict:
            return self._object(record, allowed, where)
        raise RefusedError(f"{record.name} in {_place(where)} is not made the way pickle makes it")

    def _partial(self, record: StandIn, where: str) -> Any:
        state = record.state
        if type(state) is not tuple or len(cast(tuple[Any, ...], state)) != 4:
            raise RefusedError(f"a damaged functools.partial in {_place(where)}")
        function, args, kwargs, _ = (self.build(item, where) for item in cast(Any, state))
        plain = type(args) is tuple and type(kwargs) is dict
        if not plain or not isinstance(cast(Any, state)[0], type):
            raise RefusedError(f"a damaged functools.partial in {_place(where)}")
        return functools.partial(function, *args, **kwargs)

    def _object(self, record: StandIn, allowed: Allowed, where: str) -> Any:
        cls: type[Any] = allowed.value
        made: Any = object.__new__(cls)
        self._made[id(record)] = made
        state = {
            _checked_name(cls, name, where): self.build(value, _join(where, name))
            for name, value in cast(dict[Any, Any], record.state).items()
        }
        if issubclass(cls, nn.Module):
            _check_module(cls, state, where)
            made.__setstate__(state)
        else:
            _check_attention(state, where)
            cast(dict[str, Any], vars(made)).update(state)
        return made


def _named(value: type, where: str) -> Any:
    """A class or function as a value."""
    if not issubclass(value, StandIn) or value.allowed is None:
        raise RefusedError(f"a {value.__name__} in {_place(where)}")
    kind, target = value.allowed
    if kind == "function" or (kind == "module" and target.__module__.startswith("torch.nn.")):
        return target
    raise RefusedError(f"the class {value.name} itself in {_place(where)}")


def _checked_name(cls: type, name: Any, where: str) -> str:
    if type(name) is not str or not _ATTRIBUTE.fullmatch(name) or name.startswith("__"):
        raise RefusedError(f"an attribute named {_told(name)} in {_place(where)}")
    hidden: object = inspect.getattr_static(cls, name, None)
    method = callable(hidden) or (hasattr(hidden, "__get__") and not hasattr(hidden, "__set__"))
    if method and not isinstance(hidden, functools.cached_property):
        raise RefusedError(f"an attribute that hides {cls.__name__}.{name} in {_place(where)}")
    return name


def _check_module(cls: type[Any], state: dict[str, Any], where: str) -> None:
    for group, kind in (
        ("_parameters", nn.Parameter),
        ("_buffers", Tensor),
        ("_modules", nn.Module),
    ):
        members: Any = state.get(group)
        if not isinstance(members, dict):
            raise RefusedError(f"{_place(where)} is no module: it has no {group}")
        for name, member in cast(dict[Any, Any], members).items():
            if type(name) is not str or not _CHILD.fullmatch(name):
                raise RefusedError(f"a child named {_told(name)} in {_place(where)}")
            if member is not None and not isinstance(member, kind):
                raise RefusedError(f"{name} in {_place(where)} is no {kind.__name__}")
    for name, value in state.items():
        empty = value is None or (type(value) in (dict, OrderedDict, list, set) and not value)
        if "hook" in name and not empty and not isinstance(value, bool):
            raise RefusedError(f"hooks ({name}) in {_place(where)}")
    layers = state.get("num_layers", 0)  # of recurrent networks, which count them when restored
    known = type(layers) is int and layers <= len(cast(dict[Any, Any], state["_parameters"]))
    if issubclass(cls, nn.RNNBase) and not known:
        raise RefusedError(f"{_told(layers)} layers without weights in {_place(where)}")
    if state.get("_compiled_call_impl") is not None:
        raise RefusedError(f"a compiled call in {_place(where)}")


def _check_attention(state: dict[str, Any], where: str) -> None:
    for name, value in state.items():
        if "implementation" not in name:
            continue
        nested = isinstance(value, dict)
        chosen: list[Any] = list(cast(Any, value).values()) if nested else [value]
        if any(not isinstance(c, bool) and c not in _ATTENTION for c in chosen):
            raise RefusedError(f"{name} = {_told(value)} in {_place(where)}")


def _join(where: str, name: Any) -> str:
    text = name if type(name) is str and _CHILD.fullmatch(name) else "?"
    return (
        where if text in ("_modules", "_parameters", "_buffers") else f"{where}.{text}".strip(".")
    )


def _told(value: Any) -> str:
    """A few words on a value of any size."""
    return reprlib.repr(value)[:60] if value.__class__ is not str else ascii(value)[:60]


def _place(where: str) -> str:
    return f"'{where}'" if where else "the model itself"
