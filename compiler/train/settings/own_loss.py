"""A loss of the user's own: the network and a batch → a scalar."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from shrinkc.compiler.images.labels import is_boxes
from shrinkc.compiler.support.text import named
from shrinkc.compiler.tasks.detection.boxes import as_dicts
from shrinkc.compiler.train.settings.losses import answer_of
from shrinkc.errors import InputError, TrainingError

Restore = Callable[[list[Tensor]], Any]
Loss = Callable[[nn.Module, Any], Any] | object  # or one with `training_step(batch, index)`


class Restoring(nn.Module):
    """A network that returns what the user's did, and remembers its outputs of the last call."""

    def __init__(self, network: nn.Module, restore: Restore) -> None:
        super().__init__()
        self.network, self.restore = network, restore
        self.last: tuple[Tensor, ...] = ()

    def forward(self, *inputs: Tensor) -> Any:
        self.last = answer_of(self.network(*inputs))
        return self.restore(list(self.last))


@dataclass(frozen=True)
class OwnLoss:
    """A loss of the user's own.

    function  the network, which returns what the user's did, a batch (inputs, labels), boxes being
              a list of dictionaries, and its number → a scalar to descend on
    called    its name, and what tells it from others of that name
    restore   tensors → what the user's network returned
    """

    function: Callable[[nn.Module, Any, int], Any] = field(repr=False)
    called: str
    restore: Restore = field(repr=False, compare=False)

    def __call__(
        self, network: Restoring, inputs: Tensor, labels: Tensor | None, at: int
    ) -> Tensor:
        """Raises TrainingError where the function fails or returns no scalar that can be descended
        on."""
        wanted: Any = labels
        if labels is not None and is_boxes(labels):
            wanted = as_dicts(labels)
        network.last = ()
        try:
            found = self.function(network, (inputs, wanted), at)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the user's own code may raise anything
            raise TrainingError(f"`loss` {self.called} fails: {named(error)}") from error
        if isinstance(found, Mapping) and "loss" in found:  # as Lightning allows
            found = cast("Mapping[str, Any]", found)["loss"]
        if not isinstance(found, Tensor) or found.numel() != 1:
            kind = type(cast(object, found)).__name__
            raise TrainingError(f"`loss` {self.called} returned a {kind}; give a scalar tensor")
        if not network.last or (torch.is_grad_enabled() and not found.requires_grad):
            raise TrainingError(
                f"`loss` {self.called} does not depend on the network it was given; call that"
            )
        return found.reshape(())


def own_loss(loss: Loss, model: object, restore: Restore) -> OwnLoss:
    """Of what a user gives, whose network is `model`. Raises InputError for what is no loss."""
    step: Any = getattr(loss, "training_step", None)
    if isinstance(loss, type):
        raise InputError(f"`loss` is the class {loss.__name__}; give an instance of it")
    if callable(step):
        return OwnLoss(_of_steps(loss, step, model), _told(step, type(loss).__name__), restore)
    if not callable(loss) or isinstance(loss, nn.Module):
        raise InputError(
            f"`loss` is a {type(loss).__name__}; give a function of the network and a batch that "
            "returns a scalar, or an object with a training_step(batch, index)"
        )
    function: Any = loss
    name = getattr(loss, "__name__", type(loss).__name__)
    return OwnLoss(lambda network, batch, _: function(network, batch), _told(loss, name), restore)


def _told(function: Any, name: str) -> str:
    """A name that another function under the same name has not, in another process either."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if code is None:
        return name
    constants = [one for one in code.co_consts if isinstance(one, str | int | float | None)]
    return f"{name} {zlib.crc32(code.co_code + repr(constants).encode()):08x}"


def _of_steps(owner: Any, step: Callable[..., Any], model: object) -> Callable[..., Any]:
    """Steps of an object, in which `model` is replaced while one runs. Raises InputError where it
    is no part of the object."""
    places = [] if owner is model else list(_places(owner, model))
    if owner is not model and not places:
        raise InputError(
            f"`loss` is a {type(owner).__name__} with a training_step; `model` is no part of it",
            "give the network that it holds as `model`, or a function of the network and a batch",
        )

    def run(network: nn.Module, batch: Any, index: int) -> Any:
        with _forward(owner, network) if owner is model else _replaced(places, network):
            return step(batch, index)

    return run


def _places(owner: Any, model: object) -> Iterator[tuple[Any, str]]:
    """(object, attribute) where it is."""
    holders = list(owner.modules()) if isinstance(owner, nn.Module) else [owner]
    for one in holders:
        children: dict[str, Any] = dict(getattr(one, "_modules", {}))
        for name, value in (vars(one) | children).items():
            if value is model:
                yield one, name


@contextmanager
def _replaced(places: list[tuple[Any, str]], network: nn.Module) -> Generator[None]:
    before = [(one, name, getattr(one, name)) for one, name in places]
    try:
        for one, name in places:
            setattr(one, name, network)
        yield
    finally:
        for one, name, value in before:
            setattr(one, name, value)


@contextmanager
def _forward(owner: Any, network: nn.Module) -> Generator[None]:
    """Calling `owner` calls the network."""
    had = "forward" in vars(owner)
    before = owner.forward

    def forward(*inputs: Tensor) -> Any:
        return network(*inputs)

    object.__setattr__(owner, "forward", forward)
    try:
        yield
    finally:
        if had:
            object.__setattr__(owner, "forward", before)
        else:
            object.__delattr__(owner, "forward")
