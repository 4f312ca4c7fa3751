"""What files are compared with: the user's model itself, or the changed network they hold."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, fx

from shrinkc.compiler.reference.equal_in_order import EqualInOrder
from shrinkc.compiler.reference.probes import Probe
from shrinkc.compiler.reference.reference import Reference
from shrinkc.compiler.reference.rounded import Rounded
from shrinkc.compiler.support.difference import Array, OutputError
from shrinkc.errors import ModelRunError
from shrinkc.passes.base import copy_graph

Answering = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]  # inputs → the outputs
KEPT_BYTES = 64 << 20  # of outputs
TINY = ((2.0**-22, 30.0), (2.0**-18, 1.0))  # relative changes of the input, how much they count
DRAWS = 4  # of what operators round, for each batch
EXACT_WEIGHT = 4.0  # of what float32 rounds: another order of the same sums rounds otherwise


class Original:
    """A network as a function, which remembers what it returned, up to KEPT_BYTES, for when it sees
    the same batch again.

    precise  the same for inputs in float64, where that is to be had
    example  inputs that it is known to run on
    """

    def __init__(
        self,
        answer: Answering,
        precise: Answering | None = None,
        example: tuple[Tensor, ...] | None = None,
    ) -> None:
        self.answer, self._precise, self.example = answer, precise, example
        self._kept: dict[Hashable, list[Array]] = {}
        self._bytes = 0

    @classmethod
    def of_graph(cls, graph_module: fx.GraphModule) -> Original:
        """A graph is run as it is."""

        @torch.no_grad()
        def answer(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return graph_module(*inputs)

        @cache
        def wide() -> Reference:
            return Reference(copy_graph(graph_module).double())

        return cls(answer, lambda inputs: wide().run(tuple(x.double() for x in inputs)))

    @classmethod
    def of_model(cls, reference: Reference, example: tuple[Tensor, ...] | None = None) -> Original:
        return cls(reference, reference.precise, example)

    def behind(self, change: Answering, example: tuple[Tensor, ...] | None) -> Original:
        """The same as a function of what `change` makes its inputs of; `example` of those."""
        precise = self._precise
        return Original(
            lambda inputs: self.answer(change(inputs)),
            None if precise is None else lambda inputs: precise(change(inputs)),
            example,
        )

    def outputs(self, key: Hashable, inputs: tuple[Tensor, ...]) -> list[Array]:
        """What it computes for the batch that `key` stands for."""
        known = self._kept.get(key)
        if known is None:
            known = self._arrays(inputs)
            self._bytes += sum(o.nbytes for o in known)
            if self._bytes < KEPT_BYTES:
                self._kept[key] = known
        return known

    def on_probe(self, probe: Probe) -> list[Array] | None:
        """What it computes for a probe; None where it refuses such numbers."""
        try:
            return self.outputs(probe.name, probe.inputs)
        except ModelRunError:
            return None

    def rounding(self, batches: Sequence[tuple[Tensor, ...]]) -> Iterator[list[OutputError]]:
        """How far each output moves when the inputs move by what float32 rounds, how far it is from
        the same where operators are off by what runtimes round, where equal numbers are sorted in
        another order, which PyTorch leaves open, and from the same in float64: no file can be
        closer to the network than that. The tally grows from one yield to the next, float64 last,
        so that one may stop when enough is known."""
        errors: list[OutputError] = []
        wanted = [self._arrays(inputs) for inputs in batches]
        generator = torch.Generator().manual_seed(0)
        for inputs, want in zip(batches, wanted, strict=True):
            errors = errors or [OutputError() for _ in want]
            for step, weight in TINY:
                for _ in range(2):
                    moved = self._arrays(tuple(_moved(x, step, generator) for x in inputs))
                    for error, got, one in zip(errors, moved, want, strict=True):
                        error.add(_farther(got, one, weight), one)
            yield errors
        for inputs, want in zip(batches, wanted, strict=True):
            operators = Rounded(generator)
            for _ in range(DRAWS):
                with operators:
                    moved = self._arrays(inputs)
                for error, got, one in zip(errors, moved, want, strict=True):
                    error.add(_farther(got, one, EXACT_WEIGHT), one)
            if not operators.met:
                break
            yield errors
        for inputs, want in zip(batches, wanted, strict=True):
            with EqualInOrder() as order:
                ordered = self._arrays(inputs)
            if not order.met:
                break
            for error, got, one in zip(errors, ordered, want, strict=True):
                error.add(_farther(got, one, EXACT_WEIGHT), one)
            yield errors
        for inputs, want in zip(batches, wanted, strict=True):  # takes several times as long
            for error, got, one in zip(errors, self._exact(inputs, want), want, strict=True):
                error.add(_farther(got, one, EXACT_WEIGHT), one)
            yield errors

    def _exact(self, inputs: tuple[Tensor, ...], otherwise: list[Array]) -> list[Array]:
        """The outputs in float64; `otherwise` where the model's own code knows float32 alone."""
        if self._precise is None:
            return otherwise
        try:
            wide = tuple(x.double() if x.is_floating_point() else x for x in inputs)
            exact = [o.numpy() for o in self._precise(wide)]
        except ModelRunError:
            return otherwise
        fits = [a.shape for a in exact] == [b.shape for b in otherwise]
        return exact if fits else otherwise

    def treats_samples_alone(self, inputs: tuple[Tensor, ...]) -> bool:
        """Whether every output has the batch in front, and none of a sample's depends on the
        others: only then may a batch be run in parts."""
        batch = inputs[0].shape[0]
        other = tuple(x.flip(0) * 0.5 if x.is_floating_point() else x.flip(0) for x in inputs)
        both = tuple(map(torch.cat, zip(inputs, other, strict=True)))
        try:
            joint = self._arrays(both)
        except Exception:  # the model's own: it takes no other batch
            return False
        alone = zip(self._arrays(inputs), self._arrays(other), strict=True)
        for whole, (first, second) in zip(joint, alone, strict=True):
            parts = whole.ndim > 0 and first.ndim > 0 and len(first) == batch
            if not parts or whole.shape != (2 * batch, *first.shape[1:]):
                return False
            error = OutputError()
            error.add(np.concatenate((first, second)), whole)
            if error.relative() > 1e-3:  # far above what rounds, far below what another sample does
                return False
        return True

    def _arrays(self, inputs: tuple[Tensor, ...]) -> list[Array]:
        return [o.numpy() for o in self.answer(inputs)]


def _farther(got: Array, want: Array, weight: float) -> Array:
    """`weight` times as far from `want`."""
    if want.dtype.kind != "f":
        return got
    with np.errstate(over="ignore", invalid="ignore"):
        return want + weight * (got - want)


def _moved(x: Tensor, step: float, generator: torch.Generator) -> Tensor:
    if not x.is_floating_point():
        return x
    return x * (1 + step * torch.randn(x.shape, generator=generator))
