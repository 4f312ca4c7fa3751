"""The moving parts of one training: one step, and everything a resume needs."""

from __future__ import annotations

import copy
import time
import zlib
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from shrinkc.compiler.images.decoded import Data
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Answer, Task
from shrinkc.compiler.train.batches import Batch, Batches, mix
from shrinkc.compiler.train.compute import ranks_of
from shrinkc.compiler.train.log import Meter, Row, Tally
from shrinkc.compiler.train.onednn import safe_gradients
from shrinkc.compiler.train.settings.average import Average
from shrinkc.compiler.train.settings.config import Moment, Training
from shrinkc.compiler.train.settings.losses import Objective, answer_of, logits, tapped
from shrinkc.compiler.train.settings.optimisers import build, set_lr
from shrinkc.compiler.train.settings.own_loss import Restoring
from shrinkc.errors import TrainingError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Run:
    """`model` is trained in place; `stack` takes what must be undone at the end."""

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        training: Training,
        fabric: Fabric,
        stack: ExitStack,
        *,
        task: Task = CLASSIFICATION,
    ) -> None:
        self.model, self.training, self.fabric, self.task = model, training, fabric, task
        self.ranks = ranks_of(fabric)
        self.meter = Meter(self.ranks)
        self.batches = Batches(data, training.batch, training.seed, fabric.device, self.ranks)
        self.teacher = self._copied_teacher()
        self.settings = _settings(model, data, training)
        if training.compute.channels_last:
            _to(model, torch.channels_last)
            stack.callback(_to, model, torch.contiguous_format)
        if fabric.device.type == "cpu":
            stack.enter_context(safe_gradients(model))
        stack.callback(model.zero_grad)
        self.wrapped, self.optimiser = fabric.setup(model, build(training.optimiser, model))
        self.average = None if training.ema is None else Average(model, training.ema)
        self.objective = self._objective(stack)
        self.step, self.epochs = 0, 0  # finished
        self.best: float | None = None
        self.history: list[Row] = []
        self._seconds, self._started = 0.0, time.perf_counter()

    @property
    def steps(self) -> int:
        return self.training.epochs * self.batches.steps_per_epoch

    @property
    def seconds(self) -> float:
        """Spent on this training, in earlier processes too."""
        return self._seconds + time.perf_counter() - self._started

    @property
    def told(self) -> tuple[bool, bool]:
        """Whether steps tell how many answers are right, and how many agree with the teacher's."""
        if self.training.by_task:
            return False, False
        return self.batches.labelled, self.teacher is not None

    @property
    def judged(self) -> nn.Module:
        return self.model if self.average is None else self.average.model

    @property
    def lr(self) -> float:
        """Of the last finished step."""
        return self._lr(self.step - 1)

    def _lr(self, step: int) -> float:
        per_epoch = self.batches.steps_per_epoch
        factor = self.training.schedule.factor(step, self.steps, per_epoch)
        return self.training.optimiser.lr * factor

    def autocast(self) -> AbstractContextManager[object]:
        """The precision that the model's forward pass has in training."""
        return cast(Any, self.fabric).autocast()

    def take(self, batch: Batch) -> None:
        """One step of the optimiser."""
        training, hooks = self.training, self.training.hooks
        epoch = self.step // self.batches.steps_per_epoch
        moment = Moment(self.step, self.steps, epoch, training.epochs)
        _seed(mix(training.seed, self.step, self.ranks.rank, -1))  # dropout
        set_lr(self.optimiser, self._lr(self.step))
        self.optimiser.zero_grad()
        measured = self._by_task(batch) if training.by_task else self._by_labels(batch)
        loss = measured.loss
        if hooks.penalty is not None:
            loss = loss + hooks.penalty(self.model, moment)
        self.fabric.backward(loss)
        if training.clip_norm is not None:
            self.fabric.clip_gradients(
                self.wrapped, self.optimiser, max_norm=training.clip_norm, error_if_nonfinite=False
            )
        self.optimiser.step()
        if hooks.after_step is not None:
            with torch.no_grad():
                hooks.after_step(self.model, moment)
        if self.average is not None:
            self.average.update(self.step)
        self.meter.add(replace(measured, loss=loss).sums(self.task))
        self.step += 1

    def _by_labels(self, batch: Batch) -> _Measured:
        outputs, taught = logits(self.wrapped(batch.inputs)), self._taught(batch.inputs)
        loss = self.objective(outputs, batch.labels, taught)
        teacher = None if taught is None else (taught,)
        return _Measured(loss, (outputs,), batch.labels, teacher)

    def _by_task(self, batch: Batch) -> _Measured:
        """The user's own loss, and the task's divergence from the teacher."""
        training, distillation = self.training, self.training.distillation
        if training.loss is None:
            answer = answer_of(self.wrapped(batch.inputs))
            loss = answer[0].new_zeros(())
        else:
            network = Restoring(self.wrapped, training.loss.restore)
            loss = training.loss(network, batch.inputs, batch.labels, self.step)
            answer = network.last
        if self.teacher is not None and distillation is not None and distillation.weight:
            with torch.no_grad(), self.autocast():
                taught = tuple(one.float() for one in answer_of(self.teacher(batch.inputs)))
            loss = loss + distillation.weight * self.task.divergence(answer, taught).mean()
        return _Measured(loss, answer, None, None)

    def state(self) -> dict[str, Any]:
        """Raises TrainingError where a weight is not finite: such a state is worth nothing."""
        model = self.model.state_dict()
        for name, tensor in model.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise TrainingError(
                    f"'{name}' is not finite after step {self.step}: lower the learning rate, "
                    "warm up longer or clip gradients"
                )
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        hooks = self.training.hooks.state
        return {
            "settings": self.settings,
            "step": self.step,
            "epochs": self.epochs,
            "model": model,
            "optimiser": self.optimiser.state_dict(),
            "average": None if self.average is None else self.average.model.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "hooks": None if hooks is None else hooks.state_dict(),
            "window": asdict(self.meter.window),
            "epoch": asdict(self.meter.epoch),
            "seconds": self.seconds,
            "best": self.best,
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.epochs = state["step"], state["epochs"]
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.model.load_state_dict(state["average"])
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        if scaler is not None:
            scaler.load_state_dict(state["scaler"])
        if self.training.hooks.state is not None:
            self.training.hooks.state.load_state_dict(state["hooks"])
        self.meter.window, self.meter.epoch = Tally(**state["window"]), Tally(**state["epoch"])
        self._seconds, self._started = state["seconds"], time.perf_counter()
        self.best, self.history = state["best"], state["history"]

    def _copied_teacher(self) -> nn.Module | None:
        if self.training.distillation is None:
            return None
        teacher = copy.deepcopy(self.training.distillation.teacher).requires_grad_(False).eval()
        if self.training.compute.channels_last:
            _to(teacher, torch.channels_last)
        return teacher.to(self.fabric.device)

    def _objective(self, stack: ExitStack) -> Objective:
        distillation = self.training.distillation
        features = () if distillation is None else distillation.features
        student = stack.enter_context(tapped(self.model, [f.layer for f in features]))
        names = [f.teacher_layer or f.layer for f in features]
        taught = {} if self.teacher is None else stack.enter_context(tapped(self.teacher, names))
        return Objective(self.training.labels, distillation, student, taught)

    def _taught(self, inputs: Tensor) -> Tensor | None:
        if self.teacher is None:
            return None
        with torch.no_grad(), self.autocast():
            return logits(self.teacher(inputs)).float()


@dataclass(frozen=True, eq=False)
class _Measured:
    """Of one step: the loss, and what tells how right the answers are."""

    loss: Tensor
    answer: Answer
    labels: Tensor | None
    taught: Answer | None

    def sums(self, task: Task) -> Tensor:
        """Loss, correct and agreeing images, left on the device."""
        with torch.no_grad():
            nothing = self.loss.new_zeros(())
            labels, taught = self.labels, self.taught
            correct = nothing if labels is None else task.correct(self.answer, labels).sum()
            agreeing = nothing if taught is None else task.agree(self.answer, taught).sum()
            return torch.stack((self.loss.detach().double(), correct.double(), agreeing.double()))


def _settings(model: nn.Module, data: Data, training: Training) -> dict[str, Any]:
    """What must be the same for a resume to be the same training; the number of ranks need not."""
    distillation = training.distillation
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return {
        "network": f"of {len(shapes)} tensors ({zlib.crc32(repr(shapes).encode()):08x})",
        "images": data.images.digest,
        "augmentation": repr(data.augmentation),
        "input_size": str(data.input_size),
        "epochs": training.epochs,
        "batch": training.batch,
        "optimiser": repr(training.optimiser),
        "schedule": repr(training.schedule),
        "labels": repr(training.labels),
        "loss": repr(training.loss),
        "by_task": training.by_task,
        "distillation": distillation
        and repr((distillation.weight, distillation.temperature, distillation.features)),
        "ema": repr(training.ema),
        "clip_norm": training.clip_norm,
        "compute": repr(replace(training.compute, accelerator="auto")),
        "seed": training.seed,
    }


def _seed(seed: int) -> None:
    """As `torch.manual_seed`, which without an accelerator notes for each that there could be where
    it was called from: that takes longer than a step of a tiny network."""
    random = torch if torch.accelerator.is_available() else torch.default_generator
    cast(Any, random).manual_seed(seed)


def _to(model: nn.Module, memory_format: torch.memory_format) -> None:
    model.to(memory_format=memory_format)  # pyright: ignore
