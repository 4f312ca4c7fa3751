"""Does a captured graph compute what the model computes?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shrinkc.compiler.reference.differences import Differences
from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.reference.probes import probes
from shrinkc.errors import IllegalGraphError

# float32 against float32 of the same arithmetic in another order; of the range of a channel
TOLERANCE = 1e-4


def require_same(
    answer: Callable[..., Sequence[Tensor]],
    original: Original,
    inputs: tuple[Tensor, ...],
    batches: Sequence[int],
) -> None:
    """`answer`, a captured graph, on all probes at these batch sizes. Raises IllegalGraphError."""
    differences = Differences()
    for probe in probes(inputs, batches):
        want = original.on_probe(probe)
        if want is None:
            continue
        with torch.no_grad():
            got = [x.numpy() for x in answer(*probe.inputs)]
        if len(got) != len(want):
            raise IllegalGraphError(f"the graph returns {len(got)} tensors, the model {len(want)}")
        for index, (a, b) in enumerate(zip(got, want, strict=True)):
            if a.shape != b.shape:
                raise IllegalGraphError(
                    f"at a batch of {len(probe.inputs[0])} output {index} of the graph has shape "
                    f"{a.shape}, the model's {b.shape}"
                )
            if a.dtype != b.dtype:
                raise IllegalGraphError(f"output {index} holds {a.dtype}, not {b.dtype}")
        differences.add(probe.group, probe.inputs, got, want)
    excess = differences.excess(original, TOLERANCE)
    if excess is not None:
        raise IllegalGraphError(f"the graph differs by {excess}")
