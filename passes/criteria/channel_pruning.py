"""Channel Pruning (He et al., Channel Pruning for Accelerating Very Deep Networks, ICCV 2017).

    argmin over β, W:  1/2N ‖Y − Σ_i β_i X_i W_iᵀ‖² + λ‖β‖₁

for what layers read: X_i is what channel i gives them, Y what they compute. First β, by LASSO with
W as it is: λ grows until few enough β_i are left. Then W, by least squares: `compensate` of
`shrinkc.compiler.prune`, with the paper's variant for residual branches.

A channel's score is the λ at which it goes for good, so that any number of channels to keep has
its λ. The layers that read a group decide together, each relative to Σ Y². Where a shortcut and its
branches share channels they go together; the paper's sampler in front of a branch, which leaves
the shortcut as it is, would save no memory traffic and has no counterpart here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from shrinkc.passes.analysis.channels.channel_groups import Groups
from shrinkc.passes.channels.channel_cuts import indices
from shrinkc.passes.criteria.base import Scores
from shrinkc.passes.criteria.shared.data import Batches
from shrinkc.passes.criteria.shared.lasso import lasso_path
from shrinkc.passes.criteria.shared.readers import POSITIONS, ReaderSums, reader_sums
from shrinkc.passes.criteria.spec import CriterionSpec


@dataclass(frozen=True, eq=False)
class ChannelPruning:
    """Needs images, no labels. `positions`: of each image, at most (the paper takes 10 of each
    of 5000). Groups that no convolution or linear layer reads are not judged."""

    batches: Batches
    positions: int = POSITIONS
    name: ClassVar[str] = "channel-pruning"

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Scores:
        found: dict[str, npt.NDArray[np.float64]] = {}
        for group, sums in reader_sums(graph_module, groups.groups, self.batches, self.positions):
            if sums:
                found[group.name] = scores_from(sums, group.size)
        return found


def scores_from(sums: Sequence[ReaderSums], size: int) -> npt.NDArray[np.float64]:
    """(size,) of a group, from the sums of the layers that read it."""
    gram = contributions(sums, size)
    return lasso_path(gram, gram.sum(1)).entries()


def contributions(sums: Sequence[ReaderSums], size: int) -> npt.NDArray[np.float64]:
    """(size, size) inner products of what channels contribute: Σ ⟨X_i W_iᵀ, X_j W_jᵀ⟩ over readers,
    each divided by Σ‖Σ_i X_i W_iᵀ‖². With Y = Σ_i X_i W_iᵀ, the inner products with Y are its row
    sums."""
    total = torch.zeros(size, size, dtype=torch.float64)
    for one in sums:
        weight = one.block.weight()
        products = one.gram * (weight.T @ weight)
        own = torch.nonzero(indices(one.channel) >= 0)[:, 0]
        products = products[own][:, own]
        channels = indices(one.channel)[own]
        part = torch.zeros(size, len(own), dtype=torch.float64).index_add(0, channels, products)
        part = torch.zeros(size, size, dtype=torch.float64).index_add(0, channels, part.T)
        total += part / max(float(products.sum()), 1e-300)
    return total.numpy()


HE = CriterionSpec(
    "he",
    ChannelPruning,
    lambda given: ChannelPruning(given.batches),
    "images",
    compensates=True,
)
