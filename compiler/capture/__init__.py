"""Capture: an `nn.Module` becomes a canonical graph (`shrinkc.passes.ir`) that computes the same.

Symbolic trace first: it trains like the module. Where Python control flow or writes into views
defeat it, `torch.export`, whose ATen nodes are lifted back into modules. The graph runs at any
batch size when the model does; shapes that the model computes from the input size are fixed to the
captured one. The result is compared with the model, on probes, before it is handed out.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, fx, nn

from shrinkc.compiler.capture.convert import convert
from shrinkc.compiler.capture.observe import observe, remove_unused
from shrinkc.compiler.capture.refused import packed_sequence
from shrinkc.compiler.capture.trace import export, symbolic_trace
from shrinkc.compiler.capture.writes import UnclearWrites
from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.reference.probes import at_batch, batch_sizes, probes
from shrinkc.compiler.reference.reference import Reference, translate
from shrinkc.compiler.reference.repeatable import beside_tensors, require_function
from shrinkc.compiler.reference.same import require_same
from shrinkc.compiler.support.quiet import quiet
from shrinkc.compiler.support.text import one_line
from shrinkc.errors import CaptureError, IllegalGraphError, ModelRunError
from shrinkc.passes import ir


def capture(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    reference: Reference | None = None,
    original: Original | None = None,
) -> fx.GraphModule:
    """The canonical graph of `model` for inputs of these shapes.

    The first dimension of every input is the batch. `graph_module.meta` holds `input_shapes`,
    `captured_by` ("symbolic_trace" or "torch.export"), `dynamic_batch` (the graph equals the model
    at every one of `batch_sizes`) and `notes`, what a user should know of the files. `reference`
    and `original` are those of the model where they exist already, which is then in eval mode, or
    of what the model is a translation of: the graph must equal that. The model is left as it was,
    whatever happens.

    Raises ModelRunError, in one line, for a model that fails on such inputs or is no function of
    them; CaptureError with the reason of the attempt that came furthest.
    """
    with _evaluating(model):
        if reference is None:
            translate(model, inputs)
        reference = reference or Reference(model)
        original = original or Original.of_model(reference)
        require_function(reference, inputs)
        own = reference if reference.model is model else Reference(model)
        return _Capture(own, reference, original, inputs).run()


@contextmanager
def _evaluating(model: nn.Module) -> Generator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


@dataclass(frozen=True)
class _Attempt:
    """One way to a raw graph; `trace` may give several, the later ones for writes that the first
    leaves unclear. `batches`: the sizes that the graph must be right at."""

    method: str
    trace: Callable[[], Iterator[fx.GraphModule]]
    batches: tuple[int, ...]


class _Capture:
    def __init__(
        self,
        own: Reference,
        reference: Reference,
        original: Original,
        inputs: tuple[Tensor, ...],
    ) -> None:
        """`own`: of the model that is traced, where `reference` is of what it must equal."""
        self.own, self.reference, self.original, self.inputs = own, reference, original, inputs
        self.model = own.model
        self.batch = len(inputs[0])

    def run(self) -> fx.GraphModule:
        reasons: list[tuple[_Attempt, Exception]] = []
        fixed = self._why_fixed()
        for attempt in self._attempts(free=fixed is None):
            try:
                with quiet():
                    graph_module = self._made(attempt)
            except Exception as error:  # the model's own Python may raise anything
                reasons.append((attempt, packed_sequence(self.model, error) or error))
                continue
            free = len(attempt.batches) > 1
            graph_module.meta["captured_by"] = attempt.method
            graph_module.meta["dynamic_batch"] = free
            graph_module.meta["notes"] = self._notes(None if free else fixed or _furthest(reasons))
            return graph_module.eval()
        raise CaptureError(f"cannot capture the model: {_furthest(reasons)}")

    def _attempts(self, free: bool) -> Iterator[_Attempt]:
        twice = at_batch(self.inputs, 2 * self.batch)
        if free:
            sizes = batch_sizes(self.inputs)
            yield _Attempt(SYMBOLIC, self._symbolic, sizes)
            yield _Attempt(EXPORT, lambda: export(self.model, twice, True), sizes)
        yield _Attempt(SYMBOLIC, self._symbolic, (self.batch,))
        yield _Attempt(EXPORT, lambda: export(self.model, self.inputs, False), (self.batch,))

    def _symbolic(self) -> Iterator[fx.GraphModule]:
        yield symbolic_trace(self.model, len(self.inputs))

    def _made(self, attempt: _Attempt) -> fx.GraphModule:
        """Its canonical graph, equal to the model. Raises whatever stands in the way."""
        unclear: UnclearWrites | None = None
        with self._settled():
            for raw in attempt.trace():
                try:
                    graph_module = self._canonical(raw, attempt.batches)
                except UnclearWrites as error:
                    unclear = error
                    continue
                break
            else:
                raise unclear or CaptureError("no graph")
        ir.check_legal(graph_module)
        require_same(graph_module, self.original, self.inputs, attempt.batches)
        return graph_module

    def _canonical(self, raw: fx.GraphModule, batches: tuple[int, ...]) -> fx.GraphModule:
        observed = batches[:2]
        seen = tuple(
            observe(raw, self.inputs if n == self.batch else at_batch(self.inputs, n))
            for n in observed
        )
        remove_unused(raw, seen)
        named = (*self.model.named_children(), *self.model.named_parameters())
        reserved = frozenset(name for name, _ in named)
        graph_module = convert(raw, seen, observed, reserved, self.inputs)
        graph_module.graph.eliminate_dead_code()
        graph_module.delete_all_unused_submodules()
        graph_module.recompile()
        return graph_module

    @contextmanager
    def _settled(self) -> Generator[None]:
        """What a forward does to parameters once and for all (weights that are renormalised) is
        done inside; everything is as before afterwards."""
        with self.own.preserved():
            self.own.run(self.inputs)
            parameters = {name for name, _ in self.model.named_parameters()}
            if not parameters & set(self.own.changed()):
                self.own.restore()
            yield

    def _why_fixed(self) -> str | None:
        """Why the model itself cannot follow the batch size, if it cannot."""
        sizes = batch_sizes(self.inputs)
        if len(sizes) < 2:
            return "its inputs have different first dimensions"
        for probe in probes(self.inputs, sizes):
            if self.original.on_probe(probe) is None:
                try:  # is it the size, or the numbers?
                    self.reference(at_batch(self.inputs, len(probe.inputs[0])))
                except ModelRunError as error:
                    return error.message
        return None

    def _notes(self, fixed: str | None) -> list[str]:
        notes: list[str] = []
        if fixed is not None:
            notes.append(f"the files take batches of {self.batch} only: {fixed}")
        beside = beside_tensors(self.reference, self.inputs)
        if beside:
            notes.append(f"the model also returns {', '.join(beside)}, which no file holds")
        return notes


SYMBOLIC, EXPORT = "symbolic_trace", "torch.export"


def _furthest(reasons: list[tuple[_Attempt, Exception]]) -> str:
    """The reason of the attempt that came furthest: tracing, converting, comparing. Of several,
    the one that asked for least, symbolic trace before export."""
    asked = [(_stage(error), -len(attempt.batches)) for attempt, error in reasons]
    attempt, error = reasons[asked.index(max(asked))]
    return f"{one_line(error, 300)} ({attempt.method})"


def _stage(error: Exception) -> int:
    if isinstance(error, IllegalGraphError):
        return 2
    return 1 if isinstance(error, CaptureError) and not isinstance(error, UnclearWrites) else 0
