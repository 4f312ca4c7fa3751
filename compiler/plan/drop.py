"""What a changed network loses, on images that it was not fitted to.

Without labels the original's own confidence stands in for them: where the changed network answers
class s and the original t, the loss of top-1 to be expected is p(t) − p(s), p the original's
probabilities. It is unbiased where those are calibrated. Counting disagreements instead would
overstate the loss several times: most images that change their class were unsure before.

Few images say little: the interval is where the loss on all images of the kind lies in 95 of
100 cases. Half an image more is counted in each of the four cells right or wrong, before and after
(Agresti and Min, 2005), so that no change on few images is no proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, fx

from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.formats.tflite import TfliteRunner
from shrinkc.compiler.plan.plan_file import Promise
from shrinkc.compiler.verify.files import Artefact

Labelled = Iterable[tuple[Tensor, Tensor | None]]
Answer = Callable[[Tensor], Tensor]
SURE = 1.96  # standard errors to either side: 95 of 100


def promise_of(original: Answer, changed: Answer, batches: Labelled) -> Promise:
    """`original` and `changed`: inputs (n, …) → class scores (n, classes)."""
    images = same = 0
    counted, expected = list[Tensor](), list[Tensor]()
    for x, labels in batches:
        scores, new = original(x), changed(x).argmax(1)
        old, sure = scores.argmax(1), scores.double().softmax(1)
        images += len(x)
        same += int((old == new).sum())
        rows = torch.arange(len(x))
        expected.append(sure[rows, old] - sure[rows, new])
        if labels is not None:
            counted.append((old == labels).double() - (new == labels).double())
    labelled = len(counted) == len(expected) > 0
    lost = torch.cat([*(counted if labelled else expected), torch.zeros(0)])
    return Promise(
        images=images,
        drop=float(lost.sum()) / max(images, 1),
        interval=interval(lost),
        agreement=same / max(images, 1),
        labelled=labelled,
    )


def interval(lost: Tensor) -> tuple[float, float]:
    """Of the mean of what single images lose, −1 to 1 each."""
    count = len(lost) + 2
    mean = float(lost.sum()) / count
    spread = (float(lost.square().sum()) + 1) / count - mean**2
    width = SURE * (spread / count) ** 0.5
    return max(-1.0, mean - width), min(1.0, mean + width)


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
