"""How closely a network for smaller images looks at them.

Made smaller, an image shows the same things in fewer pixels, and a network has learnt what they
look like in one size. The middle of an image that is made less small shows them nearer to that
size, and loses what lies around (Touvron et al., FixRes, NeurIPS 2019). Which of the two is better
depends on the network and on the size, so images tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import fx

from shrinkc.compiler.images.decoded import Samples
from shrinkc.compiler.plan.judging import COMPARED, Judge
from shrinkc.compiler.recover.layer_problems import size_of
from shrinkc.compiler.support.progress import Progress

CLOSER = (1.0, 1.05, 1.1, 1.15)  # times as large as what shows as much of an image


def closest(
    judge: Judge,
    small: fx.GraphModule,
    images: Callable[[float], Samples],
    progress: Progress,
    among: Sequence[float] = CLOSER,
) -> float:
    """Of `among`, how many times closer to look for the answers that are nearest to the original's
    at its own size; on images that fits see.

    judge   of the network at its own size
    small   the network for smaller images
    images  as that reads them, so many times closer
    """
    theirs = judge.sample.at_most(COMPARED)
    lost: dict[float, float] = {}
    with progress.task("Choosing the crop", len(among)) as done:
        for closer in among:
            mine = replace(theirs, images=images(closer), size=size_of(small))
            lost[closer] = judge.loss_on(small, mine, theirs)
            done()
    return min(lost, key=lambda closer: lost[closer])
