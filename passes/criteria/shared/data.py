"""What criteria are given to look at, and how a graph is run for them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from shrinkc.errors import InputError

Batch = tuple[tuple[Tensor, ...], Tensor | None]  # the network's inputs (n, …); labels (n,) or None
Batches = Iterable[Batch]  # one that can be gone through again: a list, an object that reads files
Loss = Callable[[tuple[Tensor, ...], Tensor], Tensor]  # outputs, labels → the sum over the batch


def each_batch(graph_module: fx.GraphModule, batches: Batches) -> Iterator[Batch]:
    """The batches, on the graph's device and in its data type.

    Raises InputError where there are none, or where they could be gone through only once.
    """
    if isinstance(batches, Iterator):
        raise InputError("batches that can be read only once; give a list, or an object that opens")
    first = next(graph_module.parameters(), torch.empty(0))
    empty = True
    for inputs, labels in batches:
        empty = False
        yield (
            tuple(x.to(first) if x.is_floating_point() else x.to(first.device) for x in inputs),
            None if labels is None else labels.to(first.device),
        )
    if empty:
        raise InputError("no images to look at; give at least one batch")


def labelled(method: str, labels: Tensor | None) -> Tensor:
    """Raises InputError where there are no labels."""
    if labels is None:
        raise InputError(f"{method} needs labels; give labelled images or another criterion")
    return labels


def cross_entropy(outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """Of the first output, (n, classes), summed."""
    return F.cross_entropy(outputs[0], labels, reduction="sum")


class Observed(fx.Interpreter):
    """A run of a graph. `seen` is called with each value; `read` may change what a node reads of
    another. Values are freed once nothing reads them."""

    def __init__(
        self,
        graph_module: fx.GraphModule,
        seen: Callable[[fx.Node, Tensor], None] | None = None,
        read: Callable[[fx.Node, fx.Node, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(graph_module)
        self._seen, self._read = seen, read

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        read = self._read
        if read is None or n.op == "output":
            return super().fetch_args_kwargs_from_env(n)
        args = map_arg(n.args, lambda source: read(n, source, self.env[source]))
        return cast("tuple[Any, ...]", args), {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if self._seen is not None and n.op != "output":
            self._seen(n, value)
        return value


@contextmanager
def evaluating(module: nn.Module) -> Generator[None]:
    """Inference mode, and back to the mode of each module."""
    modes = {part: part.training for part in module.modules()}
    for part in modes:
        part.training = False
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
