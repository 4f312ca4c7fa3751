"""What a module changes of itself while it runs: buffers, caches, counters."""

from __future__ import annotations

import copy
import operator
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

_CONTAINERS = (dict, list, set, deque)


class State:
    """Numbers and attributes of a module and of what it holds, as they were when this was made.

    Memory: one copy of every tensor.
    """

    def __init__(self, model: nn.Module) -> None:
        self._containers: dict[int, tuple[str, Any, Any]] = {}  # id → path, itself, shallow copy
        self._tensors: dict[int, tuple[str, Tensor, Tensor]] = {}
        self._remember("", vars(model))

    def changed(self) -> tuple[str, ...]:
        """Paths of what is different now, such as "encoder.buffer"."""
        numbers = [p for p, now, kept in self._tensors.values() if not _same(now, kept)]
        held = [
            path
            for where, now, kept in self._containers.values()
            if not _holds_the_same(now, kept)
            for path in _differing(where, now, kept)
        ]
        return tuple(dict.fromkeys((*held, *numbers)))

    def restore(self, but: str | None = None) -> None:
        """Put everything back, except what lies at one path."""
        for where, now, kept in self._containers.values():
            if _holds_the_same(now, kept):
                continue
            if set(_differing(where, now, kept)) - {but}:
                spared = {k: v for k, v in _items(now) if _joined(where, k) == but}
                now.clear()
                _fill(now, kept)
                if isinstance(now, dict):
                    cast("dict[Any, Any]", now).update(spared)
        for path, now, kept in self._tensors.values():
            if path != but and not _same(now, kept):
                now.data = kept.clone()

    def _remember(self, path: str, value: Any) -> None:
        if isinstance(value, Tensor):
            if id(value) not in self._tensors and not value.is_meta:
                self._tensors[id(value)] = path, value, value.detach().clone()
        elif isinstance(value, nn.Module):
            self._remember(path, vars(value))
        elif isinstance(value, _CONTAINERS):
            container = cast(Any, value)
            if id(container) not in self._containers:
                self._containers[id(container)] = path, container, copy.copy(container)
                for key, item in _items(container):
                    self._remember(_joined(path, key), item)
        elif isinstance(value, tuple):
            for key, item in enumerate(cast("tuple[Any, ...]", value)):
                self._remember(_joined(path, key), item)
        elif _is_own_object(value):
            self._remember(path, vars(value))


def _fill(container: Any, content: Any) -> None:
    kind = cast("type[Any]", type(container))
    (container.extend if issubclass(kind, list | deque) else container.update)(content)


def _is_own_object(value: Any) -> bool:
    """An instance of a class of the model's own, which may hold state as well."""
    package = str(cast(Any, type(value)).__module__).partition(".")[0]
    known = package in sys.stdlib_module_names or package in ("torch", "numpy")
    return not known and not isinstance(value, type) and hasattr(value, "__dict__")


def _items(container: Any) -> list[tuple[Any, Any]]:
    if isinstance(container, dict):
        return list(cast("dict[Any, Any]", container).items())
    return list(enumerate(cast("Iterable[Any]", container)))


_INTERNAL = ("_parameters", "_buffers", "_modules")  # of a module: say nothing to a user


def _joined(path: str, key: Any) -> str:
    if key in _INTERNAL:
        return path
    name = key if isinstance(key, str) else f"[{key}]"
    return name if not path else path + ("" if name.startswith("[") else ".") + name


def _holds_the_same(now: Any, kept: Any) -> bool:
    """The very same items: a quick look, since nearly all containers stay as they are."""
    kind = cast("type[Any]", type(now))
    if len(now) != len(kept) or issubclass(kind, set):
        return now == kept
    if not issubclass(kind, dict):
        return all(map(operator.is_, now, kept))
    return now.keys() == kept.keys() and all(map(operator.is_, now.values(), kept.values()))


def _differing(path: str, now: Any, kept: Any) -> Iterator[str]:
    """Paths of items that are other objects now, or gone, or new."""
    if isinstance(now, set):
        if now != kept:
            yield path
        return
    before, after = dict(_items(kept)), dict(_items(now))
    for key in dict.fromkeys((*before, *after)):
        if key not in before or key not in after or before[key] is not after[key]:
            yield _joined(path, key)


def _same(now: Tensor, kept: Tensor) -> bool:
    if now.shape != kept.shape or now.dtype != kept.dtype:
        return False
    if torch.equal(now, kept):
        return True
    return bool(((now == kept) | ((now != now) & (kept != kept))).all())  # NaN where it was NaN
