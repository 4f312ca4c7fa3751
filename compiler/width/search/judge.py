"""One candidate: sliced, repaired cheaply, judged on images that nothing was fitted to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx

from shrinkc.compiler.images.decoded import Data, Images
from shrinkc.compiler.recover.compensate import compensate
from shrinkc.compiler.recover.recipe import Recipe, Trainer
from shrinkc.compiler.support.progress import Silent
from shrinkc.compiler.tasks.task import Answer, Task
from shrinkc.compiler.train.train import train
from shrinkc.compiler.width.search.recalibrate import norms, recalibrate
from shrinkc.errors import TrainingError
from shrinkc.passes.analysis.channels.channel_groups import Keep
from shrinkc.passes.base import copy_graph
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.shared.data import Batch

Repair = Literal["norms", "least squares", "training"]
NOTHING = (0.0, 0.0)  # the fitness of a network whose answers are not finite


@dataclass(frozen=True, eq=False)
class Lesson:
    """What each candidate is trained on before it is judged, and for how many epochs."""

    data: Data
    judged: Images
    teacher: fx.GraphModule
    recipe: Recipe
    epochs: int


@dataclass(frozen=True, eq=False)
class Judge:
    """Everything that a candidate's fitness depends on; sent to every process once.

    graph   the network that candidates are cut from, batch norms as they are
    fit     batches that repairs look at, held: others, that judge
    wanted  the original's answers to those
    repair  norms          batch norms recalibrated on `fit`; least squares where there are
                        none, or images come one by one, unless weights are made
            least squares  what reads a pruned group is compensated
            training       as `lesson` says, by labels and by the original's answers
    weights what stays → the state of `graph`, made for it; None: as it is
    """

    graph: fx.GraphModule
    fit: Sequence[Batch]
    held: Sequence[Batch]
    wanted: Sequence[Answer]
    task: Task
    repair: Repair = "norms"
    lesson: Lesson | None = None
    weights: Callable[[Keep], Mapping[str, Tensor]] | None = None

    def network(self, keep: Keep) -> fx.GraphModule:
        """Sliced and repaired, in inference mode."""
        selection, alone = Selection(keep), len(self.fit[0][0][0]) == 1
        if self.weights is not None:
            made = copy_graph(self.graph)
            made.load_state_dict(self.weights(keep))
            sliced = SliceChannels(selection)(made).graph_module.eval()
            if not alone:  # of one image a norm tells no spread
                recalibrate(sliced, [inputs for inputs, _ in self.fit])
            return sliced
        fits = self.repair == "least squares" or alone or not norms(self.graph)
        if fits and self.repair != "training":
            selection = compensate(self.graph, SliceChannels(selection), self.fit).selection
            return SliceChannels(selection)(self.graph).graph_module.eval()
        sliced = SliceChannels(selection)(self.graph).graph_module.eval()
        if self.lesson is not None:
            taught = self.lesson
            trainer = Trainer(
                *(taught.data, taught.data, taught.judged, taught.teacher, taught.recipe),
                *(None, "", Silent(), self.task),
            )
            train(sliced.train(), taught.data, trainer.training(taught.epochs), task=self.task)
            return sliced.eval()
        recalibrate(sliced, [inputs for inputs, _ in self.fit])
        return sliced


def fitness_of(judge: Judge, keep: Keep) -> tuple[float, float]:
    """The fitness of one candidate, and whether its answers are finite (1 or 0). A training that
    diverges is a candidate that is no good, no end of the search."""
    try:
        return judged(judge, judge.network(keep))
    except TrainingError as error:
        if "not finite" in str(error):
            return NOTHING
        raise


@torch.no_grad()
def judged(judge: Judge, network: fx.GraphModule) -> tuple[float, float]:
    """The task's score where the held-out images have labels; otherwise how much the answers agree
    with the original's; exp(−divergence) where such answers are not scored."""
    task, evidence, apart, count = judge.task, list[Any](), 0.0, 0
    kind = "apart"
    for (inputs, labels), want in zip(judge.held, judge.wanted, strict=True):
        answer: Answer = network(*inputs)
        if not all(_finite(one) for one in answer):
            return NOTHING
        if labels is not None and task.counts(answer, labels):
            kind = "score"
            evidence += list(task.evidence(answer, labels))
        elif task.judges(want):
            kind = "likeness"
            evidence += list(task.alike(answer, want))
        else:
            apart += float(task.divergence(answer, want).double().sum())
            count += len(inputs[0])
    match kind:
        case "score":
            found = float(task.score(evidence))
        case "likeness":
            found = float(task.likeness_of(evidence))
        case _:
            found = float(torch.exp(torch.tensor(-apart / max(count, 1))))
    return (found, 1.0) if found == found else NOTHING


def judge_for(
    graph: fx.GraphModule,
    fit: Sequence[Batch],
    held: Sequence[Batch],
    task: Task,
    repair: Repair,
    lesson: Lesson | None = None,
) -> Judge:
    """On a copy of the graph, in inference mode."""
    graph = copy_graph(graph).eval()
    with torch.no_grad():
        wanted = [graph(*inputs) for inputs, _ in held]
    return Judge(graph, fit, held, wanted, task, repair, lesson)


def _finite(output: Tensor) -> bool:
    return not output.is_floating_point() or bool(output.isfinite().all())
