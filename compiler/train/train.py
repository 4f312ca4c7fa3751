"""Training from the first step to the last: epochs, judging, checkpoints, resume."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from shrinkc.compiler.images.decoded import Data
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.train.batches import Batch, ahead
from shrinkc.compiler.train.checks import check, check_images
from shrinkc.compiler.train.compute import start
from shrinkc.compiler.train.evaluate import evaluate
from shrinkc.compiler.train.keeper import Keeper, kept
from shrinkc.compiler.train.log import Row, Tally
from shrinkc.compiler.train.run import Run
from shrinkc.compiler.train.settings.config import Keeping, Training, Validation
from shrinkc.compiler.train.stopping import Stop, stop_on_signal
from shrinkc.errors import TrainingError


@dataclass(frozen=True)
class Result:
    """What came out: the model (the one given, trained in place) and a row of the log per epoch."""

    model: nn.Module
    history: tuple[Row, ...]
    steps: int
    seconds: float


def train(
    model: nn.Module,
    data: Data,
    training: Training,
    *,
    validation: Validation | None = None,
    keeping: Keeping | None = None,
    progress: Progress | None = None,
    task: Task = CLASSIFICATION,
) -> Result:
    """Train `model` in place; it ends in eval mode where it was, averaged if asked for. `task` says
    how often it is right, in the log and where the best epoch is kept.

    With `keeping` a training that was killed goes on where its last checkpoint is, with the same
    losses as if it had never stopped (on a CPU bit for bit); a finished one is only loaded. Under
    `torchrun` all ranks call this with the same arguments. torch's random state is left as it was.

    Raises DataError (labels missing or out of range, images of the wrong size), TrainingError
    (the network does not run, a loss that is not finite, settings that differ from those in the
    folder), TrainingStopped after Ctrl-C when everything is saved.
    """
    with ExitStack() as stack:
        stack.enter_context(_random_state_kept())
        stack.callback(model.to, next(model.parameters(), torch.empty(0)).device)
        fabric = start(training.compute)
        run = Run(model, data, training, fabric, stack, task=task)
        trying = run.batches[0], run.objective, run.autocast
        own = training.loss if training.by_task else None
        classes = check(model, run.teacher, *trying, task=task, by_task=training.by_task, loss=own)
        check_images(training, data.images, validation, classes)
        keeper = stack.enter_context(kept(keeping, run))
        if progress is None or run.ranks.rank > 0:
            progress = Silent()
        _all_epochs(run, validation, keeper, progress, keeping is not None)
        if run.average is not None:
            model.load_state_dict(run.average.model.state_dict())
        model.eval()
        return Result(model, tuple(run.history), run.step, run.seconds)


def _all_epochs(
    run: Run, validation: Validation | None, keeper: Keeper, progress: Progress, stoppable: bool
) -> None:
    per_epoch, epochs = run.batches.steps_per_epoch, run.training.epochs
    if run.epochs == epochs:
        return
    stopping = stop_on_signal() if stoppable else nullcontext(Stop())
    with (
        stopping as stop,
        progress.task("Training", run.steps - run.step) as advance,
        _batches(run) as batches,
    ):
        for epoch in range(run.epochs, epochs):
            run.training.hooks.mode(run.model)
            while run.step < (epoch + 1) * per_epoch:
                _take(run, batches)
                if _settles(run, keeper):
                    _settle(run, keeper, stop)
                advance(_note(run, epoch))
            _finish(run, epoch, validation, keeper)
    keeper.save()


def _batches(run: Run) -> AbstractContextManager[Iterator[Batch]]:
    steps = range(run.step, run.steps)
    if run.fabric.device.type == "cpu":  # a thread would only take cores from the step
        return nullcontext(run.batches[step] for step in steps)
    return ahead(run.batches, steps)


def _take(run: Run, batches: Iterator[Batch]) -> None:
    try:
        run.take(next(batches))
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"a batch of {run.batches.size} does not fit into the memory of {run.fabric.device}; "
            "give a smaller one"
        ) from error


def _settles(run: Run, keeper: Keeper) -> bool:
    """A GPU is asked for losses seldom, since asking waits for it; all ranks ask together."""
    often = run.fabric.device.type == "cpu"
    return (
        often
        or run.step % run.training.log_steps == 0
        or run.step % run.batches.steps_per_epoch == 0
        or keeper.at_step(run.step)
    )


def _settle(run: Run, keeper: Keeper, stop: Stop) -> None:
    bad, stopping = run.meter.settle(run.batches.size, stop.requested)
    if bad is not None:
        keeper.fail(run.step - bad)
    if run.step % run.training.log_steps == 0:
        keeper.log.write({"event": "step", **_row(run, run.meter.window)})
        run.meter.window = Tally(since=run.seconds)
    if stopping:
        keeper.stop()
    if keeper.due():
        keeper.save()


def _finish(run: Run, epoch: int, validation: Validation | None, keeper: Keeper) -> None:
    """Judge and log an epoch whose steps are done."""
    row: Row = {"event": "epoch", **_row(run, run.meter.epoch)}
    last = epoch + 1 == run.training.epochs
    better = False
    if validation is not None and (last or (epoch + 1) % validation.every == 0):
        run.ranks.same(run.judged.buffers())  # each rank has its own running statistics
        with run.autocast():
            found = evaluate(
                run.judged,
                validation.images,
                teacher=run.teacher,
                batch=validation.batch,
                ranks=run.ranks,
                task=run.task,
            )
        row["validation"] = found.to_json()
        score = found.agreement if found.top1 is None else found.top1
        better = score is not None and (run.best is None or score > run.best)
        run.best = score if better else run.best
    run.history.append(row)
    run.epochs = epoch + 1
    run.meter.epoch = Tally(since=run.seconds)
    keeper.log.write(row)
    if better:
        keeper.save_best(row)


def _row(run: Run, tally: Tally) -> Row:
    labelled, taught = run.told
    place: Row = {"epoch": run.epochs, "step": run.step, "lr": run.lr}
    return {**place, **tally.row(labelled, taught, run.seconds)}


def _note(run: Run, epoch: int) -> str:
    loss, correct, agreeing = run.meter.last
    labelled, taught = run.told
    share = f", agreement {agreeing:.1%}" if taught else ""
    share = f", accuracy {correct:.1%}" if labelled else share
    return f"epoch {epoch + 1}/{run.training.epochs}, loss {loss:.3f}{share}"


def _random_state_kept() -> AbstractContextManager[None]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    return cast(Any, torch.random).fork_rng(list(devices))
