"""A pruned network drawn to the original by gradient, on images without labels.

Least squares fits one layer after another, and what a layer cannot make up for stays; steps over
all layers (`recover/distil.py`) win back some of it.
"""

from __future__ import annotations

from dataclasses import replace

from shrinkc.compiler.images.decoded import Samples
from shrinkc.compiler.recover.distil import Tuning, tune
from shrinkc.compiler.recover.layer_problems import Sample
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.width.prune import Pruned


def distilled(
    pruned: Pruned,
    images: Samples,
    options: Tuning,
    progress: Progress | None = None,
    *,
    task: Task = CLASSIFICATION,
) -> Pruned:
    """With a deployed network whose weights have moved; `trainable` stays as it was."""
    if options.steps == 0:
        return pruned
    sample = Sample.of(images, pruned.original)
    given = (pruned.graph_module, pruned.original, sample, options, progress or Silent())
    tuned = tune(*given, task=task)
    return replace(pruned, graph_module=tuned.graph_module)
