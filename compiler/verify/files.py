"""Do the artefacts compute what the model computes? And if not, where do they part?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx

from shrinkc.compiler.export import ops
from shrinkc.compiler.formats.base import Format
from shrinkc.compiler.formats.exported import Exported
from shrinkc.compiler.formats.runner import Array, Runner
from shrinkc.compiler.pipeline.run import node_values
from shrinkc.compiler.support.difference import relative_error
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task, total
from shrinkc.compiler.verify.data import Batch, Data
from shrinkc.errors import VerificationError


def artefacts(
    exported: Exported,
    graph_module: fx.GraphModule,
    formats: Sequence[Format],
    load: Callable[[Format, bytes], Runner] = lambda one, data: one.open(data),
) -> tuple[Artefact, ...]:
    """The files, loaded into their runtimes."""
    program = exported.program or _shapes_only(graph_module)
    return tuple(
        Artefact(one, exported.files[one.name], program, load(one, exported.files[one.name]))
        for one in formats
        if one.name in exported.files
    )


def _shapes_only(graph_module: fx.GraphModule) -> ops.Program:
    """Inputs of a network that could not be lowered; its batch is fixed."""
    shapes = graph_module.meta["input_shapes"].items()
    return ops.Program(tuple(ops.Value(n, s, None) for n, s in shapes), (), ())


def verify(
    original: Original,
    final: fx.GraphModule,
    files: Sequence[Artefact],
    data: Data,
    progress: Progress,
) -> dict[str, Comparison]:
    """Compare every fp32 artefact with the original. Raises VerificationError."""
    with progress.task("Verifying", data.evaluation_batches) as done:
        tallies = compare(original, files, _counted(data, done), task=data.options.task)
    for file in files:
        require_equal(final, file, tallies[file.name], FP32_TOLERANCE)
    return tallies


def judge(
    original: Original, files: Sequence[Artefact], data: Data, progress: Progress
) -> dict[str, Comparison]:
    """Accuracy and agreement of files that are not expected to be equal (int8)."""
    with progress.task("Judging int8", data.evaluation_batches) as done:
        return compare(original, files, _counted(data, done), task=data.options.task)


def _counted(data: Data, done: Callable[[], None]) -> Iterator[Batch]:
    for batch in data.batches():
        yield batch
        done()


FP32_TOLERANCE = 1e-4  # of the output's range
KEPT_BYTES = 64 << 20  # of the original's outputs


@dataclass(frozen=True)
class Artefact:
    """An exported file in memory, ready to run on PyTorch-layout arrays."""

    format: Format
    data: bytes
    program: ops.Program
    runner: Runner

    @property
    def name(self) -> str:
        """The format's."""
        return self.format.name

    def run(self, inputs: tuple[Tensor, ...]) -> list[Array]:
        """Outputs in PyTorch's layout for inputs in PyTorch's layout, any batch size."""
        captured = self.program.inputs[0].shape[0]
        if self.format.takes_any_batch(self.program):
            return self._run_once([x.numpy() for x in inputs])
        parts: list[list[Array]] = []
        for start in range(0, inputs[0].shape[0], captured):
            chunk = tuple(x[start : start + captured] for x in inputs)
            outputs = self._run_once(_filled(chunk, captured))
            parts.append([o[: len(chunk[0])] for o in outputs])
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _run_once(self, inputs: list[Array]) -> list[Array]:
        return self.format.run(self.runner, self.program, inputs)


def artefact(form: Format, data: bytes, program: ops.Program) -> Artefact:
    """A file written from `program`, loaded. Raises LoadError."""
    return Artefact(form, data, program, form.open(data))


def _filled(inputs: tuple[Tensor, ...], batch: int) -> list[Array]:
    """A batch that is short is filled up with its last input."""
    short = batch - len(inputs[0])
    return [torch.cat((x, *(x[-1:],) * short)).numpy() if short else x.numpy() for x in inputs]


@dataclass
class Comparison:
    """Running tally of an artefact against the original network. `agree`, `correct`: sums of the
    task's scores; `classes`: how many labels may name, where they are classes."""

    max_relative_error: float = 0.0
    images: int = 0
    agree: float = 0.0
    correct: float = 0.0
    labelled: int = 0
    classes: int | None = None
    task: Task = CLASSIFICATION
    worst_input: tuple[Tensor, ...] | None = field(default=None, repr=False)

    def add(self, got: list[Array], want: list[Array], labels: Tensor | None) -> float:
        """Count one batch; returns its largest relative error."""
        error = max((relative_error(g, w) for g, w in zip(got, want, strict=True)), default=0.0)
        self.max_relative_error = max(self.max_relative_error, error)
        self.images += len(got[0])
        answer, reference = (tuple(map(torch.as_tensor, outputs)) for outputs in (got, want))
        if self.task.judges(answer):
            self.agree += total(self.task.agree(answer, reference), len(got[0]))
            if labels is not None:
                self.labelled += len(labels)
                self.correct += total(self.task.correct(answer, labels), len(labels))
                self.classes = self.task.classes(answer)
        return error

    @property
    def top1(self) -> float | None:
        """Share of labelled images that the artefact is right on, by the task's score."""
        return self.correct / self.labelled if self.labelled else None

    @property
    def agreement(self) -> float | None:
        """Share of images on which it agrees with the original network, by the task's score."""
        return self.agree / self.images if self.images else None


class Original:
    """The original network, which remembers small outputs when it sees the same batches again."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self._graph_module = graph_module
        self._kept: dict[int, list[Array]] = {}
        self._bytes = 0

    def outputs(self, index: int, inputs: tuple[Tensor, ...]) -> list[Array]:
        """What it computes for the batch with this index."""
        known = self._kept.get(index)
        if known is None:
            with torch.no_grad():
                known = [o.numpy() for o in cast("tuple[Tensor, ...]", self._graph_module(*inputs))]
            self._bytes += sum(o.nbytes for o in known)
            if self._bytes < KEPT_BYTES:
                self._kept[index] = known
        return known


def compare(
    original: Original,
    artefacts: Iterable[Artefact],
    batches: Iterable[tuple[tuple[Tensor, ...], Tensor | None]],
    *,
    task: Task = CLASSIFICATION,
) -> dict[str, Comparison]:
    """Run the original and every artefact on the same batches of (inputs, labels).

    The result has one entry per artefact, and "torch" for the original itself.
    """
    chosen = list(artefacts)
    tallies = {name: Comparison(task=task) for name in ("torch", *(a.name for a in chosen))}
    for index, (inputs, labels) in enumerate(batches):
        want = original.outputs(index, inputs)
        tallies["torch"].add(want, want, labels)
        for artefact in chosen:
            tally = tallies[artefact.name]
            before = tally.max_relative_error
            error = tally.add(artefact.run(inputs), want, labels)
            if error > before or tally.worst_input is None:
                tally.worst_input = inputs
    return tallies


def require_equal(
    graph_module: fx.GraphModule, artefact: Artefact, tally: Comparison, limit: float
) -> None:
    """Raise VerificationError with the first layer that differs, when the tally is over `limit`."""
    if tally.max_relative_error <= limit:
        return
    where = first_difference(graph_module, artefact, cast(Any, tally.worst_input), limit)
    raise VerificationError(
        f"{artefact.name} differs from the model by {tally.max_relative_error:.1e} of the output "
        f"range, limit {limit:.0e}; first layer that differs: {where}"
    )


def first_difference(
    graph_module: fx.GraphModule, artefact: Artefact, inputs: tuple[Tensor, ...], limit: float
) -> str:
    """The first graph node whose value in the artefact is off by more than `limit`.

    `graph_module` is the graph that the artefact was written from.
    """
    form, program = artefact.format, artefact.program
    if not program.ops:  # not lowered by shrinkc: nothing is known of what lies inside
        return "not known"
    captured = program.inputs[0].shape[0]
    one_batch = _filled(tuple(x[:captured] for x in inputs), captured)
    names = [op.output.name for op in program.ops]
    values = form.inner_values(artefact.data, program, one_batch, names)
    tensors = tuple(map(torch.as_tensor, one_batch))
    for name, want in node_values(graph_module, tensors, set(names)):
        got = values.get(name)
        if got is not None and form.inner_error(got, want.numpy()) > limit:
            return f"'{name}'"
    return "none of those the runtime shows"
