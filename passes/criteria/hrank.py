"""HRank (Lin et al., Filter Pruning using High-Rank Feature Map, CVPR 2020).

The importance of a channel is the rank of its feature map, averaged over a few images. The map is
the layer's, behind norm and activation, as in the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, fx

from shrinkc.passes.analysis.channels.channel_groups import Groups
from shrinkc.passes.criteria.base import Scores
from shrinkc.passes.criteria.shared.data import Batches
from shrinkc.passes.criteria.shared.feature_maps import mean_of_maps
from shrinkc.passes.criteria.spec import CriterionSpec

_linalg: Any = torch.linalg


@dataclass(frozen=True, eq=False)
class HRank:
    """Needs images, no labels; the paper takes 500. A channel that several layers make has the
    mean of its maps' ranks. Time: a singular value decomposition of every map."""

    batches: Batches
    name: ClassVar[str] = "hrank"

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Scores:
        return mean_of_maps(graph_module, groups, self.batches, ranks)


def ranks(maps: Tensor) -> Tensor:
    """(n, channels, h, w) → (n, channels) ranks. What has no height or width has rank 0 or 1."""
    if maps.ndim != 4:
        return (maps.flatten(2) if maps.ndim > 2 else maps[..., None]).any(2).to(maps.dtype)
    return _linalg.matrix_rank(maps).to(maps.dtype)


HRANK = CriterionSpec("hrank", HRank, lambda given: HRank(given.batches), "images")
