"""What a model returned, around what its graph returns: a graph's outputs are a flat tuple."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, fx, nn

from shrinkc.compiler.capture.names import word
from shrinkc.compiler.reference.reference import Reference, leaves
from shrinkc.errors import ModelRunError


@dataclass(frozen=True)
class _Place:
    """Of a tensor: its index among the graph's outputs."""

    index: int


@dataclass(frozen=True, eq=False)
class Structure:
    """Of a model's return value: a tensor, or nested tuples, lists and dictionaries of tensors.

    template  that value, a `_Place` where a tensor was; what is no tensor stays as it was
    """

    template: Any

    def restore(self, tensors: Sequence[Tensor]) -> Any:
        """The model's return value with `tensors` in the places of its own."""
        return _mapped(
            self.template, lambda leaf: tensors[leaf.index] if isinstance(leaf, _Place) else leaf
        )

    def names(self, count: int) -> tuple[str, ...]:
        """Of the graph's `count` outputs, in order: the keys of dictionaries and the fields of
        named tuples on the way to each, as one word; empty for one that has none."""
        found = dict(reversed([*_paths(self.template, ())]))  # the first of several wins
        return tuple(_word_of(found.get(index, ())) for index in range(count))


def structure_of(model: nn.Module, inputs: tuple[Tensor, ...]) -> Structure:
    """Run `model` once; it is as before afterwards. Raises ModelRunError with its own error."""
    reference = Reference(model)
    with reference.preserved():
        outputs: Any = reference.returned(inputs)
    found = [x for x in leaves(outputs) if isinstance(x, Tensor)]  # in the order of the graph's
    if not found:
        raise ModelRunError(
            f"the model returns no tensor but a {type(outputs).__name__}",
            "give a `model` that returns tensors, or tuples, lists and dictionaries of them",
        )
    if all(x.ndim == 0 for x in found):
        raise ModelRunError(
            "the model returns a single number, such as a loss, where (N, …) is needed",
            "give a `model` that returns what it is deployed for",
        )
    places = {id(x): _Place(index) for index, x in reversed([*enumerate(found)])}
    return Structure(_mapped(outputs, lambda leaf: places.get(id(leaf), leaf)))


def _paths(value: Any, above: tuple[object, ...]) -> Iterator[tuple[int, tuple[object, ...]]]:
    """Index of each tensor, with the keys and places that lead to it."""
    if isinstance(value, _Place):
        yield value.index, above
    elif isinstance(value, dict):
        for key, item in cast(dict[Any, Any], value).items():
            yield from _paths(item, (*above, key))
    elif isinstance(value, tuple | list):
        items = cast(Sequence[Any], value)
        for key, item in zip(getattr(items, "_fields", range(len(items))), items, strict=True):
            yield from _paths(item, (*above, key))


def _word_of(path: tuple[object, ...]) -> str:
    """Numbers alone are no name: places in tuples, and the keys of some backbones."""
    if all(str(part).isdecimal() for part in path):
        return ""
    return word("_".join(map(str, path)))


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with its leaves changed; every container keeps its type."""
    if isinstance(value, dict):
        entries = cast(dict[Any, Any], value)
        filled = copy.copy(entries)
        for key, item in entries.items():
            filled[key] = _mapped(item, change)
        return filled
    if isinstance(value, tuple | list):
        known = cast(Sequence[Any], value)
        items, make = [_mapped(item, change) for item in known], cast(Any, type(known))
        return make(*items) if hasattr(make, "_fields") else make(items)
    return change(value)


class Restored(nn.Module):
    """A graph that returns what the model returned. It trains, and is saved, like any module.

    graph_module  the canonical graph; it returns a tuple of tensors
    """

    def __init__(self, graph_module: fx.GraphModule, structure: Structure) -> None:
        super().__init__()
        self.graph_module = graph_module
        self.structure = structure
        self.eval()

    def forward(self, *inputs: Tensor) -> Any:
        return self.structure.restore(self.graph_module(*inputs))

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.parameters())
        layers = sum(1 for _ in self.graph_module.children())
        return f"{type(self).__name__}({layers} layers, {count:,} parameters)"
