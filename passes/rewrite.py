"""Edits a copy of a graph and keeps the account that becomes the pass's `Change`s.

Three edits, each of which says which old values live on:

* `bypass(node, by)`             `by` already is what `node` computed: its users read `by`;
* `absorb_input(node, source)`   `node` computes the same, and does the work of `source` too;
* `absorb_output(node, user)`    `node` computes what its only user `user` computed.

Edits cost what they touch; dead code is removed and the code regenerated once, in `finish`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import Tensor, fx, nn

from shrinkc.passes.base import Change, PassResult, Skip, copy_graph
from shrinkc.passes.ir import module_of


class Rewriter:
    """One pass at work. Edit `graph_module` only through the methods."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.graph_module = copy_graph(graph_module)
        self._original = frozenset(n.name for n in graph_module.graph.nodes)
        # live node → old nodes whose work it does; the last one's value is its value
        self._work: dict[fx.Node, list[str]] = {}
        # live node → old nodes, now gone, that had the value it has: (their work, detail, added)
        self._aliases: dict[fx.Node, list[tuple[list[str], str, list[str]]]] = {}
        self._details: dict[fx.Node, list[str]] = {}
        self._added: dict[fx.Node, list[str]] = {}
        self._skipped: dict[Skip, None] = {}
        self._gone: set[fx.Node] = set()

    @property
    def nodes(self) -> list[fx.Node]:
        """A snapshot in execution order; check `alive` when earlier edits may erase later ones."""
        return list(self.graph_module.graph.nodes)

    def find(self, names: Iterable[str]) -> Iterator[fx.Node]:
        """The nodes of these names, each once; a name that is no node is a `Skip`."""
        known = {node.name: node for node in self.nodes}
        for name in dict.fromkeys(names):
            if name in known:
                yield known[name]
            else:
                self._skipped[Skip(name, "there is no such node")] = None

    def alive(self, node: fx.Node) -> bool:
        return node not in self._gone

    # --- edits -----------------------------------------------------------------------------------

    def bypass(self, node: fx.Node, by: fx.Node, detail: str) -> None:
        """`by` has the value of `node`, which goes."""
        node.replace_all_uses_with(by)
        aliases = self._aliases.setdefault(by, [])
        details, added = [*self._details.pop(node, []), detail], self._added.pop(node, [])
        aliases.append((self._work_of(node), "; ".join(details), added))
        aliases.extend(self._aliases.pop(node, []))
        self._erase(node)

    def absorb_input(self, node: fx.Node, sources: Iterable[fx.Node], detail: str) -> None:
        """`node`, its arguments already rewritten, does the work of `sources` too.

        Give users before what they read. Sources that are still read by others stay.
        """
        work: list[str] = []
        for source in sources:
            if not source.users:
                work = self._forget(source, node) + work
                self._erase(source)
        self._work[node] = work + self._work_of(node)
        self._details.setdefault(node, []).append(detail)

    def absorb_output(self, node: fx.Node, user: fx.Node, detail: str) -> None:
        """`node`, read by `user` alone, has been changed to compute what `user` computes."""
        constants = [n for n in user.all_input_nodes if n.op == "get_attr"]
        user.replace_all_uses_with(node)
        aliases = self._aliases.pop(user, [])
        self._work[node] = self._forget(node, node) + self._work_of(user)
        self._hand_over(user, node)
        self._details.setdefault(node, []).extend([*self._details.pop(user, []), detail])
        if aliases:
            self._aliases[node] = aliases
        self._erase(user)
        self.absorb_unread(node, constants)

    def absorb_unread(self, node: fx.Node, constants: Iterable[fx.Node]) -> None:
        """Constants that only the work taken over by `node` read."""
        for constant in constants:
            if self.alive(constant) and not constant.users:
                self._work[node] = self._forget(constant, node) + self._work_of(node)
                self._erase(constant)

    def rescaled(self, node: fx.Node, values: Iterable[fx.Node]) -> None:
        """`values`, which only `node` needs as they were, compute something else from now on."""
        for value in values:
            work = [name for name in self._forget(value, node) if name != value.name]
            self._work[node] = work + self._work_of(node)
            for touched in (value, *value.users) if work else (value,):  # their argument's name
                self.helper(node, touched)

    def helper(self, node: fx.Node, helper: fx.Node) -> fx.Node:
        """Report `helper` as a node that a rewrite put in front of `node`."""
        self._added.setdefault(node, []).append(helper.name)
        return helper

    def insert_behind(self, node: fx.Node, hint: str, module: nn.Module, detail: str) -> None:
        """All readers of `node` read it through `module`, which is named after node and `hint`."""
        users = list(node.users)
        path = self.new_name(f"{node.name}_{hint}")
        self.set_module(path, module)
        with node.graph.inserting_after(node):
            made = node.graph.create_node("call_module", path, (node,), name=path)
        for user in users:
            user.replace_input_with(node, made)
            self.absorb_input(user, [], detail)
        self.helper(users[0], made)

    def skip(self, node: fx.Node, reason: str) -> None:
        self._skipped[Skip(node.name, reason)] = None

    # --- attributes ------------------------------------------------------------------------------

    def module(self, node: fx.Node) -> nn.Module:
        return self.graph_module.get_submodule(cast(str, node.target))

    def set_module(self, path: str, module: nn.Module) -> None:
        owner, _, name = path.rpartition(".")
        setattr(self.graph_module.get_submodule(owner), name, module)

    def new_name(self, hint: str) -> str:
        """A top-level attribute name that nothing uses."""
        name, count = hint, 0
        while hasattr(self.graph_module, name):
            count += 1
            name = f"{hint}_{count}"
        return name

    def add_buffer(self, hint: str, tensor: Tensor) -> str:
        """Keep a constant; returns its path."""
        path = self.new_name(hint)
        self.graph_module.register_buffer(path, tensor)
        return path

    # --- the end ---------------------------------------------------------------------------------

    def finish(self) -> PassResult:
        """Remove what nothing reads, regenerate the code, and report.

        Code that was dead from the start is removed without a `Change`: no value is concerned.
        """
        for node in reversed(self.nodes):
            if not node.users and node.op not in ("placeholder", "output"):
                self._erase(node)
        _delete_unused_attributes(self.graph_module)
        self.graph_module.recompile()
        return PassResult(self.graph_module, self._changes(), tuple(self._skipped))

    def _changes(self) -> tuple[Change, ...]:
        changes: list[Change] = []
        for node in self.graph_module.graph.nodes:
            if node in self._work:
                detail = "; ".join(self._details.get(node, []))
                added = tuple(self._added.get(node, ()))
                changes.append(Change(node.name, self._known(self._work[node]), detail, added))
            for work, detail, added in self._aliases.get(node, ()):
                changes.append(Change(node.name, self._known(work), detail, tuple(added)))
        return tuple(changes)

    def _known(self, names: list[str]) -> tuple[str, ...]:
        return tuple(n for n in dict.fromkeys(names) if n in self._original)

    def _work_of(self, node: fx.Node) -> list[str]:
        return self._work.pop(node, None) or [node.name]

    def _forget(self, node: fx.Node, into: fx.Node) -> list[str]:
        """Everything that led to the value of `node`, which no node will have any more; helpers
        are from now on those of `into`."""
        aliases = self._aliases.pop(node, [])
        for _, _, added in aliases:
            self._added.setdefault(into, []).extend(added)
        self._hand_over(node, into)
        return [*(name for work, _, _ in aliases for name in work), *self._work_of(node)]

    def _hand_over(self, node: fx.Node, into: fx.Node) -> None:
        if node is not into and node in self._added:
            self._added.setdefault(into, []).extend(self._added.pop(node))

    def _erase(self, node: fx.Node) -> None:
        self.graph_module.graph.erase_node(node)
        self._gone.add(node)


def set_parameters(module: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """New parameters of the module's dtype; the old ones may have other owners."""
    old = cast(Tensor, module.weight)
    module.weight = nn.Parameter(weight.to(old.dtype), old.requires_grad)
    if bias is not None:
        module.bias = nn.Parameter(bias.to(old.dtype), old.requires_grad)


def float64(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float64)


def _delete_unused_attributes(graph_module: fx.GraphModule) -> None:
    """Modules that no node calls, tensors outside of called modules that no node reads."""
    graph_module.delete_all_unused_submodules()
    nodes = graph_module.graph.nodes
    called = {id(module_of(graph_module, n)) for n in nodes if n.op == "call_module"}
    read = {n.target for n in nodes if n.op == "get_attr"}
    for path, module in cast("Iterable[tuple[str, nn.Module]]", graph_module.named_modules()):
        if id(module) in called:
            continue
        own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        for name, _ in own:
            if (f"{path}.{name}" if path else name) not in read:
                delattr(module, name)
