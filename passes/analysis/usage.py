"""Who calls which module and who owns which parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, fx, nn

from shrinkc.passes.ir import module_of


@dataclass(frozen=True, eq=False)
class Usage:
    """How often each module is called, and by how many each parameter is held.

    Keys are identities. The objects themselves are kept, so that no key is reused while a pass
    replaces modules.
    """

    _calls: dict[int, int]
    _owners: dict[int, list[str]]
    _alive: tuple[object, ...]

    def calls(self, module: nn.Module) -> int:
        return self._calls.get(id(module), 1)

    def why_shared(self, module: nn.Module) -> str | None:
        """Why this module must not be changed; None: nobody else would notice."""
        calls = self.calls(module)
        if calls > 1:
            return f"the module is called {calls} times"
        for name, parameter in module.named_parameters(recurse=False):
            owners = self._owners.get(id(parameter), [])
            if len(owners) > 1:
                return f"its {name} is shared: {' and '.join(owners)}"
        return None


def usage(graph_module: fx.GraphModule) -> Usage:
    """Count calls and owners; linear in the size of the graph."""
    calls: dict[int, int] = {}
    owners: dict[int, list[str]] = {}
    alive: list[object] = []
    for node in graph_module.graph.nodes:
        module = module_of(graph_module, node)
        if module is not None:
            calls[id(module)] = calls.get(id(module), 0) + 1
            if calls[id(module)] == 1:
                alive.append(module)
                for name, parameter in module.named_parameters(recurse=False):
                    owners.setdefault(id(parameter), []).append(f"{node.target}.{name}")
        elif node.op == "get_attr":
            value = attribute(graph_module, node)
            names = owners.setdefault(id(value), [])
            if node.target not in names:
                names.append(cast(str, node.target))
            alive.append(value)
    return Usage(calls, owners, tuple(alive))


def attribute(graph_module: fx.GraphModule, node: fx.Node) -> Tensor:
    """The tensor that a `get_attr` node reads."""
    path, _, name = cast(str, node.target).rpartition(".")
    return getattr(graph_module.get_submodule(path), name)
