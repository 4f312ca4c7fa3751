"""Rows of a table, numbered by the input or known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from shrinkc.compiler.capture.builder import Constant
from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.rules.shape import index_select
from shrinkc.passes import ir


def embedding(c: Context, *args: Any, **kwargs: Any) -> fx.Node:
    """(x, weight) of `F.embedding`, (weight, x) of ATen."""
    first = ("weight", "x") if c.aten else ("x", "weight")
    given = {**dict(zip((*first, "padding_idx", "max_norm"), args, strict=False)), **kwargs}
    if not c.aten and given.get("max_norm") is not None:
        raise c.unsupported("an embedding that renormalises its rows; take `max_norm` away")
    weight, x = c.tensor(given["weight"]), given["x"]
    if isinstance(x, Constant):
        return c.reshape_out(index_select(c, weight, 0, x))
    return c.b.call(ir.embedding, weight, c.tensor(x))


RULES: dict[str, Callable[..., Any]] = {"embedding": embedding}
