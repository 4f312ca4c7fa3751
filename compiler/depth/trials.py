"""Importance by training: how much the loss rises when one option alone is taken.

Every option is carried out on a copy of the network, which is trained for a few steps and judged on
other images (the importance tables of Kim et al., 2023 and 2024, by loss instead of accuracy,
which tells more from few images). The network as it is gets the same steps; its loss is zero
damage. Each result is kept at once: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from torch import fx, nn

from shrinkc.compiler.depth.options import DepthOption
from shrinkc.compiler.depth.surgery import DepthPlan, prepare
from shrinkc.compiler.images.decoded import Data, Images
from shrinkc.compiler.pipeline.deployed import Network
from shrinkc.compiler.recover.recipe import Recipe, Trainer
from shrinkc.compiler.support.jobs import Job, run_jobs
from shrinkc.compiler.support.journal import Journal, digest_of
from shrinkc.compiler.support.progress import Silent
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.train.evaluate import evaluate
from shrinkc.compiler.train.train import train

WAITING = 4  # prepared networks in memory for every job that runs
AS_IT_IS = "the network as it is"


def damages(
    net: Network, options: Sequence[DepthOption], trainer: Trainer, activation: nn.Module | None
) -> list[float]:
    """The damage of each option, in nats of cross-entropy; without labels in lost agreement with
    the teacher, as the trainer's task has it."""
    recipe = trainer.recipe
    settings = {n: v for n, v in asdict(recipe).items() if n not in ("epochs", "search_epochs")}
    seen = f"{settings} {trainer.task!r} {trainer.trial.images.digest} {trainer.judged.digest}"
    journal = Journal(trainer.folder, digest_of(net.graph, seen), count=1)
    plans = {AS_IT_IS: DepthPlan()} | {option.label: option.plan for option in options}
    left = [name for name in plans if name not in journal.entries]
    width = WAITING * (recipe.parallel if isinstance(recipe.parallel, int) else 8)
    shared = (trainer.trial, trainer.judged, trainer.teacher, recipe, trainer.task)
    with trainer.progress.task("Trying what each option costs", len(left)) as done:
        for start in range(0, len(left), width):
            few = left[start : start + width]
            graphs = [prepare(net.graph, plans[name], activation).graph for name in few]
            jobs = [Job(n, _trial, (g,)) for n, g in zip(few, graphs, strict=True)]
            losses = run_jobs(jobs, recipe.parallel, shared=shared)
            for name, loss in zip(few, losses, strict=True):
                journal.put(name, [loss])
                done()
    (base,) = journal.entries[AS_IT_IS]
    return [journal.entries[option.label][0] - base for option in options]


def _trial(
    data: Data,
    judged: Images,
    teacher: fx.GraphModule,
    recipe: Recipe,
    task: Task,
    model: fx.GraphModule,
) -> float:
    trainer = Trainer(data, data, judged, teacher, recipe, None, "", Silent(), task)
    train(model, data, trainer.training(1), task=task)
    taught = teacher if judged.labels is None else None
    found = evaluate(model, judged, teacher=taught, task=task)
    return 1.0 - (found.agreement or 0.0) if found.loss is None else found.loss
