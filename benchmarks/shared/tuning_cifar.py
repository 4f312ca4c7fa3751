"""Fine-tuning on CIFAR-10, the same for all networks that are compared.

Every network gets one epoch of 10,000 training images, labels and self-distillation from the
original, once at each of two learning rates: those left with their weights want a gentle one,
others do not. 2,000 other training images choose between the two; the 10,000 test images judge
once. Runs on a GPU where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import fx

from benchmarks.shared import cifar
from benchmarks.shared.common import replace_json
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.model_file.file import load_model_file
from shrinkc.compiler.recover.recipe import Recipe, trainer_for
from shrinkc.compiler.support.progress import Silent
from shrinkc.compiler.train.evaluate import evaluate
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm

RATES = (0.02, 0.005)
BATCH, LEARNT, HELD_OUT = 64, 10_000, 2000


@dataclass(frozen=True)
class Tuning:
    """`network` and `teacher` are shrinkc's own files; the result goes to `result`."""

    network: Path
    teacher: Path
    result: Path
    seed: int


@cache
def split(data: Path) -> tuple[Images, Images, Images]:
    """To learn from, to choose with, to judge on."""
    seen, test = cifar.images(data)
    order = torch.randperm(len(seen), generator=torch.Generator().manual_seed(0))
    return seen.part(order[HELD_OUT:]), seen.part(order[:HELD_OUT]), test


def tune(data: Path, tuning: Tuning) -> dict[str, Any]:
    """What is in the result's file."""
    learn, choose, _ = split(data)
    order = torch.randperm(len(learn), generator=torch.Generator().manual_seed(tuning.seed))
    learn = learn.part(order[:LEARNT])
    teacher, _ = load_model_file(tuning.teacher)
    found: list[tuple[float, float, fx.GraphModule]] = []
    for rate in RATES:
        graph, _ = load_model_file(tuning.network)
        recipe = Recipe(epochs=1, batch=BATCH, learning_rate=rate, seed=tuning.seed)
        trainer = trainer_for(learn, teacher.eval(), recipe, None, "", Silent())
        trainer.fit(graph.train(), "fine-tuning", 1)
        found.append((top1(graph, choose), rate, graph))
    held_out, rate, graph = max(found, key=lambda one: one[0])
    row = {"held_out_top1": held_out, "learning_rate": rate, "top1": judged(data, graph)}
    replace_json(tuning.result, row)
    return row


def judged(data: Path, graph: fx.GraphModule) -> float:
    """Top-1 on the test images as it is deployed, batch norms folded."""
    return top1(deployed(graph.eval()), split(data)[2])


def deployed(graph: fx.GraphModule) -> fx.GraphModule:
    return FoldBatchNorm()(graph).graph_module.float()


def top1(graph: fx.GraphModule, images: Images) -> float:
    found = evaluate(graph.eval(), images).top1
    assert found is not None
    return found
