"""A training's folder: lock, resume, log, checkpoints, the best so far."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import torch

from shrinkc.compiler.support.disk.lock import alone_in
from shrinkc.compiler.support.text import named
from shrinkc.compiler.train.log import Log, Row
from shrinkc.compiler.train.run import Run
from shrinkc.compiler.train.settings.config import Keeping
from shrinkc.compiler.train.state import (
    BEST,
    LAST,
    check_same,
    damaged,
    load_whole,
    save,
)
from shrinkc.compiler.train.stopping import TrainingStopped
from shrinkc.errors import InputError, TrainingError


class Keeper:
    """Writes on rank 0 only; without `keeping` nowhere."""

    def __init__(self, keeping: Keeping | None, run: Run) -> None:
        self._keeping = keeping if run.ranks.rank == 0 else None
        self._every_steps = None if keeping is None else keeping.every_steps
        self._run = run
        self._saved, self._saved_at = 0, time.monotonic()
        self.log = Log(None if self._keeping is None else self._keeping.folder / "log.jsonl")

    def resume(self, keeping: Keeping) -> None:
        """Go on from `last.pt` where there is one."""
        path = keeping.folder / LAST
        if path.exists():
            state = load_whole(path)
            check_same(path, state["settings"], self._run.settings)
            try:
                self._run.restore(state)
            except Exception as error:  # torch's loaders check in many ways
                raise damaged(path, named(error)) from error
            self._saved = self._run.step
        self._check_ranks()
        self.log.start(self._run.step, self._run.epochs)

    def _check_ranks(self) -> None:
        """Raises TrainingError where machines do not share the folder: they would wait for ever."""
        ranks, step = self._run.ranks, float(self._run.step)
        together = ranks.total(torch.tensor(step, device=self._run.fabric.device))
        if float(together) != step * ranks.count:
            raise TrainingError(
                f"the ranks find checkpoints of different steps, this one of step {step:.0f}; give "
                "a folder that all machines share"
            )

    def at_step(self, step: int) -> bool:
        """Whether a checkpoint is wanted after this step, on every rank alike."""
        return self._every_steps is not None and step % self._every_steps == 0

    def due(self) -> bool:
        if self._keeping is None:
            return False
        late = time.monotonic() - self._saved_at >= 60 * self._keeping.every_minutes
        return late or self.at_step(self._run.step)

    def save(self) -> None:
        if self._keeping is not None:
            save(self._keeping.folder / LAST, self._run.state())
            self._saved, self._saved_at = self._run.step, time.monotonic()

    def save_best(self, row: Row) -> None:
        if self._keeping is not None:
            weights = {"model": self._run.judged.state_dict(), "row": row}
            save(self._keeping.folder / BEST, weights)

    def stop(self) -> None:
        """Save and raise TrainingStopped."""
        self.save()
        folder = "" if self._keeping is None else f"; run the same again to go on from {self.where}"
        raise TrainingStopped(f"stopped after step {self._run.step} of {self._run.steps}{folder}")

    def fail(self, step: int) -> None:
        """Raise TrainingError for a loss that is not finite; what is saved stays."""
        kept = f"; {self.where} holds step {self._saved}" if self._saved else ""
        raise TrainingError(
            f"the loss of step {step} of {self._run.steps} is not finite: lower the learning rate, "
            f"warm up longer or clip gradients{kept}"
        )

    @property
    def where(self) -> str:
        return "nowhere" if self._keeping is None else str(self._keeping.folder / LAST)


@contextmanager
def kept(keeping: Keeping | None, run: Run) -> Generator[Keeper]:
    """Open the folder, alone, and resume what it holds. Raises TrainingError."""
    keeper = Keeper(keeping, run)
    if keeping is None:
        yield keeper
        return
    with ExitStack() as stack:
        if run.ranks.rank == 0:
            stack.enter_context(_locked(keeping))
        keeper.resume(keeping)
        yield keeper


@contextmanager
def _locked(keeping: Keeping) -> Generator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(alone_in(keeping.folder))
        except InputError as error:
            raise TrainingError(error.message, error.hint) from error
        yield
