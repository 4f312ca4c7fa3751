"""Importance by training: what is lost when one option alone is taken.

Every option is carried out on a copy of the network, which is trained for a few steps and judged on
other images (the importance tables of Kim et al., 2023 and 2024). The network as it is gets the
same steps; what it reaches is zero damage. Each result is kept at once: an interrupted run goes on
where it stopped.

accuracy  as published: A − A(i, j). Two-stage DP adds up A(i, j) − αĀ over all intervals, Ā that of
          the network as it is; an interval of n layers takes the place of n, so its damage is
          Ā − A(i, j) − (α − 1)·(n − 1)·Ā
loss      the rise of the cross-entropy, which tells more from few images; what falls counts as 0
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass

from torch import fx, nn

from shrinkc.compiler.depth.options import DepthOption
from shrinkc.compiler.depth.surgery import DepthPlan, prepare
from shrinkc.compiler.images.decoded import Data, Images
from shrinkc.compiler.pipeline.deployed import Network
from shrinkc.compiler.recover.recipe import Recipe, Trainer
from shrinkc.compiler.support.choices import Importance
from shrinkc.compiler.support.jobs import Job, finished
from shrinkc.compiler.support.journal import Journal, digest_of
from shrinkc.compiler.support.progress import Silent
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.train.evaluate import evaluate
from shrinkc.compiler.train.train import train

UNTRIED = ("epochs", "search_epochs", "chain_ratio", "parallel")  # of the recipe, in trials
AS_IT_IS = "the network as it is"


@dataclass(frozen=True)
class Tried:
    """What a network reached after its steps. `score`: the share of answers that are right."""

    loss: float
    score: float


def damage(
    importance: Importance, before: Tried, after: Tried, layers: int = 1, alpha: float = 1.0
) -> float:
    """Of an option of so many layers, from what the network reaches as it is and with it."""
    if importance == "loss":
        return max(0.0, after.loss - before.loss)
    return before.score - after.score - (alpha - 1) * (layers - 1) * before.score


def tried(
    net: Network, options: Sequence[DepthOption], trainer: Trainer, activation: nn.Module | None
) -> tuple[Tried, list[Tried]]:
    """What the network reaches as it is, and with each option. Without labels agreement with the
    teacher is the score, as the trainer's task has it."""
    recipe = trainer.recipe
    settings = {n: v for n, v in asdict(recipe).items() if n not in UNTRIED}
    seen = f"{settings} {trainer.task!r} {trainer.trial.images.digest} {trainer.judged.digest}"
    journal = Journal(trainer.folder, digest_of(net.graph, seen), count=2)
    plans = {AS_IT_IS: DepthPlan()} | {option.label: option.plan for option in options}
    left = [name for name in plans if name not in journal.entries]
    shared = (trainer.trial, trainer.judged, trainer.teacher, recipe, trainer.task)
    jobs = (Job(n, _trial, (prepare(net.graph, plans[n], activation).graph,)) for n in left)
    with (
        trainer.progress.task("Trying what each option costs", len(left)) as done,
        closing(finished(jobs, len(left), recipe.parallel, shared=shared)) as results,
    ):
        for index, result in results:
            journal.put(left[index], [result.loss, result.score])
            done()
    reached = {name: Tried(*numbers) for name, numbers in journal.entries.items()}
    return reached[AS_IT_IS], [reached[option.label] for option in options]


def _trial(
    data: Data,
    judged: Images,
    teacher: fx.GraphModule,
    recipe: Recipe,
    task: Task,
    model: fx.GraphModule,
) -> Tried:
    trainer = Trainer(data, data, judged, teacher, recipe, None, "", Silent(), task)
    train(model, data, trainer.training(1), task=task)
    taught = teacher if judged.labels is None else None
    found = evaluate(model, judged, teacher=taught, task=task)
    score = (found.agreement or 0.0) if found.top1 is None else found.top1
    return Tried(1.0 - score if found.loss is None else found.loss, score)
