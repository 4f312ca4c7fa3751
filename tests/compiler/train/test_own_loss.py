"""Training by a loss of one's own, and by the task's divergence from a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_examples import FAST, net

from shrinkc.compiler.images.decoded import Data, Images
from shrinkc.compiler.images.labels import boxes_of
from shrinkc.compiler.tasks.dense import Dense
from shrinkc.compiler.tasks.outputs import Output
from shrinkc.compiler.tasks.regression import Regression
from shrinkc.compiler.train.settings.config import Keeping, Training
from shrinkc.compiler.train.settings.losses import Distillation
from shrinkc.compiler.train.settings.optimisers import Sgd
from shrinkc.compiler.train.settings.own_loss import own_loss
from shrinkc.compiler.train.train import train
from shrinkc.errors import InputError, TrainingError


class Flat(nn.Module):
    """(n, 4) out of 3×12×12, in a tuple as a captured graph's."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Linear(432, 4)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.layer(x.flatten(1)),)


def data(labels: Tensor | None) -> Data:
    generator = torch.Generator().manual_seed(0)
    return Data(Images(torch.rand(32, 12, 12, 3, generator=generator), labels))


SLOW = Sgd(lr=0.005)
TARGETS = torch.linspace(-1, 1, 128).reshape(32, 4)


def squared(network: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return F.mse_loss(network(x)["numbers"], y)


def restore(tensors: list[Tensor]) -> dict[str, Tensor]:
    return {"numbers": tensors[0]}


def training(loss: Any, model: Any = None, epochs: int = 30, **given: Any) -> Training:
    own = None if loss is None else own_loss(loss, model, restore)
    options: dict[str, Any] = {"labels": None, "loss": own, "by_task": True}
    return Training(epochs, 8, **(options | {"optimiser": SLOW, "clip_norm": 1.0} | given))


def error(model: nn.Module, images: Data) -> float:
    x = images.images.inputs(images.images.pixels)
    return float(F.mse_loss(model(x)[0], TARGETS).detach())


def test_labels_of_any_kind_are_learnt(tmp_path: Path) -> None:
    model, images = Flat(), data(TARGETS)
    before = error(model, images)
    result = train(model, images, training(squared), task=Regression())
    assert error(model, images) < 0.2 * before
    assert "accuracy" not in result.history[0]


def test_a_stopped_training_goes_on_with_the_same_losses(tmp_path: Path) -> None:
    images, whole = data(TARGETS), Flat()
    train(whole, images, training(squared, epochs=4), task=Regression())
    calls = 0

    def stopping(network: nn.Module, batch: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 11:  # the first is the trial before anything is trained
            raise KeyError("stopped")
        return squared(network, batch)

    parts = Flat()
    keeping = Keeping(tmp_path, every_steps=1)
    asked = training(stopping, epochs=4)
    with pytest.raises(TrainingError, match=r"`loss` stopping .* fails: KeyError: 'stopped'"):
        train(parts, images, asked, keeping=keeping, task=Regression())
    again = Flat()
    train(again, images, asked, keeping=keeping, task=Regression())
    assert all(map(torch.equal, whole.state_dict().values(), again.state_dict().values()))
    other = training(lambda network, batch: squared(network, batch), epochs=4)
    with pytest.raises(TrainingError, match="loss"):
        train(Flat(), images, other, keeping=keeping, task=Regression())


def test_without_labels_the_teachers_answers_are_learnt() -> None:
    teacher, student, images = Flat(1), Flat(2), data(None)
    x = images.images.inputs(images.images.pixels)
    task = Regression().scaled((teacher(x)[0].detach(),), 32)
    before = task.divergence(student(x), teacher(x)).mean().item()
    train(student, images, training(None, distillation=Distillation(teacher)), task=task)
    assert task.divergence(student(x), teacher(x)).mean().item() < 0.1 * before


def test_both_count() -> None:
    """Half of each: between the labels and the teacher."""
    teacher, images = Flat(1), data(TARGETS)
    with torch.no_grad():
        teacher.layer.bias += 10
    model = Flat(2)
    asked = training(squared, distillation=Distillation(teacher, 4.0), epochs=200)
    x = images.images.inputs(images.images.pixels)
    spread = Output(None, (4.0,))  # the teacher counts as much as the labels
    train(model, images, asked, task=Regression(outputs=(spread,)))
    assert 4 < model(x)[0].mean().item() < 6


def test_boxes_are_handed_over_as_they_were_given() -> None:
    seen: list[Any] = []

    def watching(network: nn.Module, batch: Any) -> Tensor:
        x, wanted = batch
        seen.append(wanted)
        return network(x)["numbers"].square().mean()

    boxes = boxes_of([torch.tensor([[1.0, 0, 0, 4, 4, 0]])] * 31 + [torch.zeros(0, 6)])
    train(Flat(), data(boxes), training(watching, epochs=1), task=Regression())
    assert [len(batch) for batch in seen] == [2, 8, 8, 8, 8]
    whole = [one for batch in seen[1:] for one in batch]
    assert sum(len(one["boxes"]) for one in whole) == 31
    assert {int(one["labels"][0]) for one in whole if len(one["labels"])} == {1}


class Lightning(nn.Module):
    """As LightningModules are: the network is a part of it, or it is the network itself."""

    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(432, 4)
        if model is not None:
            self.model = model

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"numbers": self.layer(x.flatten(1))}

    def training_step(self, batch: Any, index: int) -> dict[str, Tensor]:
        x, y = batch
        network = getattr(self, "model", self)
        return {"loss": F.mse_loss(network(x)["numbers"], y)}


@pytest.mark.parametrize("itself", [True, False])
def test_a_training_step_trains_the_network_that_is_given(itself: bool) -> None:
    users = Lightning()
    owner = users if itself else Lightning(users)
    before = {name: x.clone() for name, x in owner.state_dict().items()}
    model, images = Flat(), data(TARGETS)
    start = error(model, images)
    train(model, images, training(owner, users), task=Regression())
    assert error(model, images) < 0.2 * start
    assert all(torch.equal(x, before[name]) for name, x in owner.state_dict().items())
    assert "forward" not in vars(users)  # everything is as it was
    if not itself:
        assert owner.model is users


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda network, batch: 0.5, "returned a float; give a scalar tensor"),
        (lambda network, batch: network(batch[0])["numbers"], "returned a Tensor; give a scalar"),
        (lambda network, batch: torch.zeros(()), "does not depend on the network it was given"),
        (lambda network, batch: network(batch[0])["boxes"], "fails: KeyError: 'boxes'"),
    ],
)
def test_what_cannot_be_descended_on_is_told_before_training(loss: Any, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        train(Flat(), data(TARGETS), training(loss), task=Regression())


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (3, "`loss` is a int; give a function of the network and a batch"),
        (nn.MSELoss(), "`loss` is a MSELoss; give a function of the network and a batch"),
        (nn.MSELoss, "`loss` is the class MSELoss; give an instance of it"),
        (Lightning(), "`loss` is a Lightning with a training_step; `model` is no part of it"),
    ],
)
def test_what_is_no_loss_is_refused(loss: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        own_loss(loss, Flat(), restore)


def test_classes_are_trained_as_ever() -> None:
    """A loss of one's own is cross-entropy, if it says so: the same weights."""
    labels = torch.arange(32) % 4
    images = data(labels)
    plain, own = net(), net()

    def entropy(network: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(network(batch[0])["numbers"], batch[1])

    train(plain, images, Training(3, 8, FAST))
    train(own, images, training(entropy, epochs=3, optimiser=FAST, clip_norm=None))
    assert all(map(torch.equal, plain.state_dict().values(), own.state_dict().values()))


def test_maps_are_drawn_to_the_teachers() -> None:
    teacher, student = (nn.Conv2d(3, 1, 3, padding=1) for _ in range(2))
    images = data(None)
    x = images.images.inputs(images.images.pixels)
    task = Dense().scaled((teacher(x).detach(),), 32)
    before = task.divergence((student(x),), (teacher(x),)).mean().item()
    train(student, images, training(None, distillation=Distillation(teacher)), task=task)
    assert task.divergence((student(x),), (teacher(x),)).mean().item() < 0.2 * before
