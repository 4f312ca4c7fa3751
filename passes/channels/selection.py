"""Which channels stay, and the weights that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from shrinkc.passes.analysis.channels.channel_groups import Keep


@dataclass(frozen=True, eq=False)
class Selection:
    """What stays, and new weights.

    keep     site → (size,) True for what stays; sites without an entry stay whole
    weights  parameter path → its new values, in its old shape: where a method compensates
    """

    keep: Keep
    weights: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
