"""The weights in what a trainer saved: bare, or in the dictionaries that are put around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import Tensor, nn

from shrinkc.compiler.load.plain_dict import entry, items_of

# Running averages of the weights over the steps of training; what is deployed where it is there.
AVERAGES = (
    *("model_ema", "ema_state_dict", "state_dict_ema", "model_ema_state_dict", "params_ema"),
    *("ema_model", "ema", "g_ema", "shadow"),
)
WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "net", "network", "params", "generator"),
    *("module", "weights"),
)
_LIST = "shadow_params"  # of averages that know the order of the parameters and no names
_DEEPEST = 3  # {"ema": {"module": {"state_dict": …}}}


@dataclass(frozen=True)
class Weights:
    """tensors   by name
    averaged  averages of the parameters without names, in the order of `nn.Module.parameters`
    notes     which of several are taken
    """

    tensors: dict[str, Tensor]
    averaged: tuple[Tensor, ...] = ()
    notes: tuple[str, ...] = ()


def find_weights(loaded: Any) -> Weights | None:
    """The weights in what a checkpoint held: itself, or under the keys of AVERAGES and WRAPPERS,
    one within the other. None where there are none."""
    found = _find(loaded, "", set())
    return None if found is None else found[1]


def find_module(loaded: Any, is_module: Callable[[Any], bool]) -> tuple[Any, tuple[str, ...]]:
    """The network that was saved whole, itself or under one of the same keys, and which is taken
    of several; otherwise `loaded`."""
    found = _modules(loaded, is_module)
    if not found:
        return loaded, ()
    (name, module), *others = found
    if name in AVERAGES and others:
        return module, (_preferred(name, others[0][0]),)
    return module, ()


def _modules(loaded: Any, is_module: Callable[[Any], bool]) -> list[tuple[str, Any]]:
    if not isinstance(loaded, dict):
        return []
    entries = ((name, entry(loaded, name)) for name in (*AVERAGES, *WRAPPERS))
    return [(name, value) for name, value in entries if is_module(value)]


def _preferred(average: str, other: str) -> str:
    return f"the averaged weights under '{average}' are taken, not those under '{other}'"


def _find(value: Any, path: str, seen: set[int]) -> tuple[str, Weights] | None:
    """Its own path, for the note, and the weights. `seen`: dictionaries may hold themselves."""
    if not isinstance(value, dict) or id(cast(Any, value)) in seen:
        return None
    seen.add(id(cast(Any, value)))
    bare = _bare(value)
    if bare is not None:
        return path, Weights(bare)
    if path.count(".") == _DEEPEST:
        return None
    average, plain = (_under(value, path, names, seen) for names in (AVERAGES, WRAPPERS))
    listed = _listed(value)
    if listed is not None:
        below = Weights({}) if plain is None else plain[1]
        return f"{path}.{_LIST}", replace(below, averaged=listed)
    if average is None or plain is None:
        return average or plain
    return _averaged(average, plain)


def _under(
    value: Any, path: str, names: tuple[str, ...], seen: set[int]
) -> tuple[str, Weights] | None:
    entries = (_find(entry(value, name), f"{path}.{name}", seen) for name in names)
    return next((found for found in entries if found is not None), None)


def _averaged(average: tuple[str, Weights], plain: tuple[str, Weights]) -> tuple[str, Weights]:
    """The average, with the buffers that it may lack."""
    (where, taken), (other, last) = average, plain
    lacks = not taken.tensors.keys() - last.tensors.keys()
    tensors = {**last.tensors, **taken.tensors} if lacks else taken.tensors
    note = _preferred(where[1:], other[1:])
    return where, Weights(tensors, taken.averaged, (note, *taken.notes))


def _bare(value: Any) -> dict[str, Tensor] | None:
    """Of a state dict; `_extra_state` is what a module keeps beside its tensors."""
    items = [i for i in items_of(value) if not str(i[0]).endswith("_extra_state")]
    if items and all(type(k) is str and _is_tensor(v) for k, v in items):
        return {k: Tensor.detach(v) for k, v in items}
    return None


def _listed(value: Any) -> tuple[Tensor, ...] | None:
    listed: Any = entry(value, _LIST)
    if type(listed) is list and listed and all(map(_is_tensor, cast(Any, listed))):
        return tuple(Tensor.detach(x) for x in cast("list[Tensor]", listed))
    return None


def _is_tensor(value: Any) -> bool:
    return type(value) in (Tensor, nn.Parameter)
