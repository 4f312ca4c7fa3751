"""What a pass must leave alone: its input, and everything it does not report."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from shrinkc.errors import VerificationError
from shrinkc.passes import ir
from shrinkc.passes.analysis.usage import attribute
from shrinkc.passes.base import Change


def fingerprint(graph_module: fx.GraphModule) -> tuple[Any, ...]:
    """Changes when the graph's code or any number in it changes."""
    tensors = (*graph_module.named_parameters(), *graph_module.named_buffers())
    return str(graph_module.graph), tuple((n, _hash(t)) for n, t in tensors)


def _hash(tensor: Tensor) -> int:
    if not tensor.numel():
        return 0
    return int(torch.hash_tensor(tensor.detach().contiguous()).view(torch.int64))


def check_reported(
    name: str, old: fx.GraphModule, new: fx.GraphModule, changes: tuple[Change, ...]
) -> None:
    """Raise VerificationError when a node differs, or is gone, that no change accounts for."""
    before = {n.name: n for n in old.graph.nodes}
    after = {n.name: n for n in new.graph.nodes}
    replaced = {r for c in changes for r in c.replaces}
    touched = {c.node for c in changes} | {a for c in changes for a in c.added}
    renamed = {c.replaces[-1]: c.node for c in changes if c.replaces}
    for node in new.graph.nodes:
        if node.name in touched or node.op == "output":
            continue
        original = before.get(node.name)
        if original is None or not _same_node(old, original, new, node, renamed):
            raise VerificationError(
                f"pass '{name}' changed node '{node.name}' without reporting it"
            )
    gone: set[str] = set()
    for node in reversed(old.graph.nodes):
        if node.name in after or node.name in replaced:
            continue
        if any(u.name not in replaced and u.name not in gone for u in node.users):
            raise VerificationError(
                f"pass '{name}' removed node '{node.name}' without reporting it"
            )
        gone.add(node.name)


def _same_node(
    old: fx.GraphModule, a: fx.Node, new: fx.GraphModule, b: fx.Node, renamed: dict[str, str]
) -> bool:
    if a.op != b.op or (a.target != b.target and a.op != "call_module"):
        return False
    # node names as strings, marked so that no literal string equals one
    names = map_arg(a.args, lambda n: f"%{_final(n.name, renamed)}")
    if names != map_arg(b.args, lambda n: f"%{n.name}"):
        return False
    if a.op == "call_module":
        return _same_module(ir.module_of(old, a), ir.module_of(new, b))
    if a.op == "get_attr":
        return torch.equal(attribute(old, a), attribute(new, b))
    return True


def _final(name: str, renamed: dict[str, str]) -> str:
    seen = {name}
    while name in renamed and renamed[name] not in seen:
        name = renamed[name]
        seen.add(name)
    return name


def _same_module(a: Any, b: Any) -> bool:
    if type(a) is not type(b) or a.extra_repr() != b.extra_repr():
        return False
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)
