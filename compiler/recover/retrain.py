"""Train a shrunk network whose batch norms were folded: they come back for as long as it takes.

Without them only small learning rates are safe. On CIFAR-10 at 1.5× (benchmarks.cifar_depth), three
epochs from 78.7%: 80.6% with batch norms, 80.2% without.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.pipeline.run import node_values, run_exact_passes
from shrinkc.compiler.recover.chains.over_parameterised import fine_tuned
from shrinkc.compiler.recover.layer_problems import Sample
from shrinkc.compiler.recover.recipe import Recipe, trainer_for
from shrinkc.compiler.support.journal import digest_of
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task
from shrinkc.passes.base import copy_graph
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm
from shrinkc.passes.ir import module_of
from shrinkc.passes.layers.insert_batch_norms import InsertBatchNorms

IMAGES = 500  # that the statistics are taken from


def retrain(
    shrunk: fx.GraphModule,
    original: fx.GraphModule,
    images: Images,
    recipe: Recipe,
    folder: Path | None,
    progress: Progress,
    *,
    task: Task = CLASSIFICATION,
) -> fx.GraphModule:
    """`recipe.epochs` of self-distillation from the original, with labels where there are any.

    folder  keeps checkpoints: a run that was stopped goes on there
    """
    run = digest_of(shrunk, f"{recipe} {images.digest}")[:12]
    teacher = copy_graph(original).eval()
    trainer = trainer_for(images, teacher, recipe, folder, run, progress, task=task)
    sample = Sample.of(images, original, IMAGES)
    student = run_exact_passes(shrunk, (InsertBatchNorms(statistics(shrunk, sample)),))[0].float()
    for parameter in student.parameters():
        parameter.requires_grad_()
    trained, _ = fine_tuned(trainer, student.train(), original)
    return run_exact_passes(trained.eval(), (FoldBatchNorm(),))[0].float()


def statistics(graph: fx.GraphModule, sample: Sample) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance of every channel behind each convolution, by node name."""
    names = {n.name for n in graph.graph.nodes if isinstance(module_of(graph, n), nn.Conv2d)}
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    count = 0
    for x, rows in sample.batches():
        count += len(rows)
        for name, value in node_values(graph, x, names):
            moments = [torch.mean(m.double(), (2, 3)).sum(0) for m in (value, value.square())]
            first, second = sums.get(name, (torch.zeros(()), torch.zeros(())))
            sums[name] = first + moments[0], second + moments[1]
    means = {name: (first / count, second / count) for name, (first, second) in sums.items()}
    return {n: (m, (square - m.square()).clamp(min=0)) for n, (m, square) in means.items()}
