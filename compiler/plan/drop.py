"""What a changed network loses, on pictures that it was not fitted to.

Without labels the original's own confidence stands in for them: where the changed network answers
class s and the original t, the loss of top-1 to be expected is p(t) − p(s), p the original's
probabilities. It is unbiased where those are calibrated. Counting disagreements instead would
overstate the loss several times: most pictures that change their class were unsure before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, fx

from ..export.lower import lower
from ..runtimes import TfliteRunner
from ..verify import Artefact
from .plan_file import Promise

Labelled = Iterable[tuple[Tensor, Tensor | None]]
Answer = Callable[[Tensor], Tensor]


def promise_of(original: Answer, changed: Answer, batches: Labelled) -> Promise:
    """`original` and `changed`: inputs (n, …) → class scores (n, classes)."""
    pictures = same = 0
    counted = expected = 0.0
    labelled = True
    for x, labels in batches:
        scores, new = original(x), changed(x).argmax(1)
        old, sure = scores.argmax(1), scores.double().softmax(1)
        pictures += len(x)
        same += int((old == new).sum())
        rows = torch.arange(len(x))
        expected += float((sure[rows, old] - sure[rows, new]).sum())
        labelled = labelled and labels is not None
        if labels is not None:
            counted += int((old == labels).sum()) - int((new == labels).sum())
    drop = (counted if labelled else expected) / max(pictures, 1)
    return Promise(
        pictures=pictures,
        drop=drop,
        agreement=same / max(pictures, 1),
        labelled=labelled and pictures > 0,
    )


def answers(graph: fx.GraphModule) -> Answer:
    """Of the network in PyTorch."""

    @torch.no_grad()
    def run(x: Tensor) -> Tensor:
        return graph(x)[0].flatten(1)

    return run


def answers_of_file(model: bytes, graph: fx.GraphModule, threads: int) -> Answer:
    """Of its TFLite file."""
    artefact = Artefact("tflite", model, lower(graph), TfliteRunner(model, threads))

    def run(x: Tensor) -> Tensor:
        return torch.as_tensor(artefact.run((x,))[0]).flatten(1)

    return run
