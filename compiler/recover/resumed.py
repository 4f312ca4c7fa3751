"""A network's values on the same images again and again, while its layers change one by one.

What lies before the layer that changes next is settled: its last values are kept, as far as memory
allows, and the network goes on from there instead of from the images. So a pass over all layers
costs about as much as a few runs, not as one run for every layer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

MEMORY = 256 << 20  # bytes of kept values, of one network on all images


@dataclass(eq=False)
class _Kept:
    """Values that nodes from `position` on read, by name."""

    position: int = 0
    values: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    @property
    def size(self) -> int:
        """Bytes."""
        return _bytes(self.values)


class Resumed:
    """Of one graph in inference mode; batches go by their number."""

    def __init__(self, graph_module: fx.GraphModule, memory: int = MEMORY) -> None:
        self.graph_module, self._memory = graph_module, memory
        self._nodes = list(graph_module.graph.nodes)
        self._places = {node.name: i for i, node in enumerate(self._nodes)}
        self._last: dict[fx.Node, int] = {}
        for place, node in enumerate(self._nodes):
            for source in node.all_input_nodes:
                self._last[source] = place
        self._kept: dict[int, _Kept] = {}  # by batch
        self._settled = 0

    def moved(self, graph_module: fx.GraphModule) -> Resumed:
        """For a graph that differs only behind what is settled, with what is kept of this one."""
        other = Resumed(graph_module, self._memory)
        settled = [node.name for node in self._nodes[: self._settled]]
        if settled == [node.name for node in other._nodes[: self._settled]]:
            other._kept, other._settled = self._kept, self._settled
        return other

    def settle(self, name: str) -> None:
        """Nothing that is computed before this node will change any more."""
        self._settled = max(self._settled, self._places[name])

    def values(
        self, number: int, inputs: tuple[Tensor, ...], names: Collection[str]
    ) -> dict[str, Tensor]:
        """Of the nodes named; nothing behind the last of them is computed."""
        return self._run(number, inputs, names)[0]

    def alive(self, number: int, inputs: tuple[Tensor, ...], name: str) -> dict[str, Tensor]:
        """What nodes behind this one read, of all that is computed up to it."""
        _, env = self._run(number, inputs, [name])
        return {node.name: value for node, value in env.items()}

    def _run(
        self, number: int, inputs: tuple[Tensor, ...], names: Collection[str]
    ) -> tuple[dict[str, Tensor], dict[fx.Node, Tensor]]:
        """(values of the nodes named, what is alive behind the last of them)."""
        kept = self._kept.get(number, _Kept())
        missing = {n for n in names if self._places[n] < kept.position}
        if not missing <= kept.values.keys():
            kept = _Kept()
        interpreter = fx.Interpreter(self.graph_module, garbage_collect_values=False)
        env = interpreter.env
        env.update({self._nodes[self._places[name]]: x for name, x in kept.values.items()})
        found = {name: value for name, value in kept.values.items() if name in names}
        feed = iter(inputs)
        for place, node in enumerate(self._nodes):
            if node.op == "placeholder":
                value = next(feed)
                if place >= kept.position:
                    env[node] = value
            elif len(found) == len(set(names)):
                break
            elif place >= kept.position:
                with torch.no_grad():
                    env[node] = interpreter.run_node(node)
            if place < kept.position:
                continue
            if node.name in names:
                found[node.name] = env[node]
            self._pass(number, place + 1, env)
        return found, env

    def _pass(self, number: int, position: int, env: dict[fx.Node, Tensor]) -> None:
        """Drop what nothing reads from here on; keep the rest where everything is settled, if it
        finds room beside what is kept of other batches: else an earlier place stays."""
        for node in [n for n in env if self._last.get(n, 0) < position]:
            del env[node]
        if position == self._settled:
            here = _Kept(position, {node.name: x for node, x in env.items()})
            others = sum(kept.size for n, kept in self._kept.items() if n != number)
            if here.size + others <= self._memory:
                self._kept[number] = here


class Remembered(Resumed):
    """Of a graph that does not change, asked again and again from its start on: the values of the
    nodes `names` on all images, computed once as far as memory allows."""

    def __init__(
        self, graph_module: fx.GraphModule, names: Collection[str], memory: int = MEMORY
    ) -> None:
        super().__init__(graph_module, memory)
        self._names, self._room = frozenset(names), memory
        self._found: dict[int, dict[str, Tensor]] = {}  # batch → values; none: too large

    def values(
        self, number: int, inputs: tuple[Tensor, ...], names: Collection[str]
    ) -> dict[str, Tensor]:
        if number not in self._found and self._names.issuperset(names):
            found = super().values(number, inputs, self._names)
            size = _bytes(found)
            self._found[number] = found if size <= self._room else {}
            self._room -= size if size <= self._room else 0
        known = self._found.get(number, {})
        if known.keys() >= set(names):
            return {name: known[name] for name in names}
        return super().values(number, inputs, names)


def _bytes(values: Mapping[str, Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in values.values())
