"""What the rules of `simplify` are handed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from shrinkc.passes.analysis.linear.linear_ops import LinearOps
from shrinkc.passes.analysis.ranges import Range
from shrinkc.passes.analysis.shapes import Shapes
from shrinkc.passes.rewrite import Rewriter


@dataclass(frozen=True, eq=False)
class SimplifyContext:
    """The graph being edited and what was known about it before. `doubled` are the shapes at
    twice the batch size, None where the graph runs at one batch size only."""

    rewriter: Rewriter
    shapes: Shapes
    doubled: Shapes | None
    ops: LinearOps
    ranges: dict[str, Range]

    def same_shape(self, a: fx.Node, b: fx.Node) -> bool:
        """At every batch size that the graph runs at."""
        same = self.shapes[a.name] == self.shapes[b.name]
        return same and (self.doubled is None or self.doubled[a.name] == self.doubled[b.name])
