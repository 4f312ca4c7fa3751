"""What calibration told, kept: int8 files without images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.pipeline.run import sample_inputs
from shrinkc.compiler.quantise.prepare import Prepared, notes_of
from shrinkc.compiler.quantise.ranges import Range
from shrinkc.compiler.quantise.simulate import Quantisation
from shrinkc.passes.base import copy_graph

FEW_BATCHES = 8


def inner_inputs(graph_module: fx.GraphModule) -> list[tuple[Tensor, ...]]:
    """What ranges of a file's own tensors are found on, of which calibration knows nothing: the
    same with images at hand and without them, so that a plan's file is that which was judged."""
    return [sample_inputs(graph_module, torch.float32, seed) for seed in range(FEW_BATCHES)]


@dataclass(frozen=True, eq=False)
class StoredCalibration:
    """`ranges` of activations by the value's name; `numbers`: parameters that differ in int8;
    `keep_fp32`: operators that stay fp32."""

    ranges: Mapping[str, Range]
    numbers: Mapping[str, Tensor]
    keep_fp32: frozenset[str] = frozenset()

    def prepared(self, graph_module: fx.GraphModule) -> Prepared:
        """As `prepare` left it then."""
        made = copy_graph(graph_module)
        for path, tensor in self.numbers.items():
            module, _, name = path.rpartition(".")
            setattr(made.get_submodule(module), name, nn.Parameter(tensor, requires_grad=False))
        quantisation = Quantisation(lower(made), dict(self.ranges), self.keep_fp32)
        return Prepared(made, quantisation, graph_module, notes=notes_of(quantisation))
