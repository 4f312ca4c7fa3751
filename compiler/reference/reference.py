"""The user's model as the function that everything made from it is compared with."""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from shrinkc.compiler.reference.state import State
from shrinkc.compiler.support.quiet import quiet
from shrinkc.compiler.support.text import one_line
from shrinkc.errors import ModelRunError


def translate(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Run a network that its first input translates (TorchScript) once, before its state counts."""
    if getattr(model, "first_input_translates", False):
        Reference(model).run(inputs)


class Reference:
    """A model that can be run again and again: it gets copies of the inputs, and what it changes of
    itself (buffers, caches, counters, random numbers drawn) is put back behind every run.

    model  in eval mode; must not be changed from outside meanwhile
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._state = State(model)

    def __call__(self, inputs: tuple[Tensor, ...], seed: int = 0) -> tuple[Tensor, ...]:
        """The tensors that it returns, in the order of the graph's outputs. `seed`: of the random
        numbers that it draws.

        Raises ModelRunError with the model's own error.
        """
        with self.preserved():
            return self.run(inputs, seed)

    def run(self, inputs: tuple[Tensor, ...], seed: int = 0) -> tuple[Tensor, ...]:
        """The same without putting anything back: what the model has changed is there for the
        next run."""
        return tensors_of(self.returned(inputs, seed))

    def returned(self, inputs: tuple[Tensor, ...], seed: int = 0) -> Any:
        """All that it returns, as it does; nothing is put back."""
        try:
            random: Any = torch.random  # whose functions say nothing of types
            with torch.no_grad(), quiet(), random.fork_rng(devices=[]):
                random.manual_seed(seed)
                return self.model(*(x.clone() for x in inputs))
        except Exception as error:  # the model's own Python may raise anything
            shapes = ", ".join("×".join(map(str, x.shape)) for x in inputs)
            raise ModelRunError(
                f"the model does not run on inputs of {shapes}: {one_line(error, 300)}",
                "give the right shape with `inputs`",
            ) from error

    def precise(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The same by a copy of the model in float64, for inputs in float64. Raises ModelRunError
        where its own code knows float32 alone."""
        return self._wide(inputs)

    @cached_property
    def _wide(self) -> Reference:
        return Reference(copy.deepcopy(self.model).double())

    @contextmanager
    def preserved(self) -> Generator[None]:
        """Whatever happens to the model inside, it is as before afterwards."""
        try:
            yield
        finally:
            self._state.restore()

    def restore(self, but: str | None = None) -> None:
        """Put back what `run` has changed, except what lies at one path."""
        self._state.restore(but)

    def changed(self) -> tuple[str, ...]:
        """Paths of what `run` has changed of the model and nobody has put back."""
        return self._state.changed()


def leaves(outputs: Any) -> list[Any]:
    """What a model returns, nested containers undone."""
    tree: Any = torch.utils
    return tree._pytree.tree_leaves(outputs)


def tensors_of(returned: Any) -> tuple[Tensor, ...]:
    """The tensors in what a model returned, in the order of a graph's outputs; copies, since a
    model may return what it holds and change it later."""
    return tuple(x.detach().clone() for x in leaves(returned) if isinstance(x, Tensor))
