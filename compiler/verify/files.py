"""Do the artefacts compute what the model computes? And if not, where do they part?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import onnx
import torch
from torch import Tensor, fx

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.write import boundary_order
from shrinkc.compiler.formats.exported import Exported
from shrinkc.compiler.formats.onnx import OnnxRunner
from shrinkc.compiler.formats.runner import Array, Runner
from shrinkc.compiler.formats.tflite import TfliteRunner
from shrinkc.compiler.pipeline.run import node_values
from shrinkc.compiler.support.difference import relative_error
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task, total
from shrinkc.compiler.verify.data import Batch, Data
from shrinkc.errors import VerificationError


def artefacts(
    exported: Exported, graph_module: fx.GraphModule, optimise: bool = True
) -> tuple[Artefact, ...]:
    """The files, loaded into their runtimes."""
    program = exported.program or _shapes_only(graph_module)
    loaded = [onnx_artefact(exported.onnx, program, optimise)]
    if exported.tflite is not None:
        loaded.append(tflite_artefact(exported.tflite, program))
    return tuple(loaded)


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

    name: str
    data: bytes
    program: ops.Program
    runner: Runner

    @property
    def is_tflite(self) -> bool:
        return isinstance(self.runner, TfliteRunner)

    def run(self, inputs: tuple[Tensor, ...]) -> list[Array]:
        """Outputs in PyTorch's layout for inputs in PyTorch's layout, any batch size."""
        captured = self.program.inputs[0].shape[0]
        if not self.is_tflite and self.program.dynamic_batch:
            return self.runner.run([x.numpy() for x in inputs])
        parts: list[list[Array]] = []
        for start in range(0, inputs[0].shape[0], captured):
            chunk = [x[start : start + captured].numpy() for x in inputs]
            short = captured - chunk[0].shape[0]
            if short:
                chunk = [np.concatenate((x, np.repeat(x[-1:], short, 0))) for x in chunk]
            outputs = self._run_once(chunk)
            parts.append([o[: captured - short] for o in outputs])
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _run_once(self, inputs: list[Array]) -> list[Array]:
        if not self.is_tflite:
            return self.runner.run(inputs)
        stored = [
            np.ascontiguousarray(x.transpose(boundary_order(v)))
            for x, v in zip(inputs, self.program.inputs, strict=True)
        ]
        return [
            y.transpose(np.argsort(boundary_order(v)))
            for y, v in zip(self.runner.run(stored), self.program.outputs, strict=True)
        ]


def onnx_artefact(model: bytes, program: ops.Program, optimise: bool = True) -> Artefact:
    return Artefact("onnx", model, program, OnnxRunner(model, optimise=optimise))


def tflite_artefact(model: bytes, program: ops.Program) -> Artefact:
    return Artefact("tflite", model, program, TfliteRunner(model))


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
    captured = artefact.program.inputs[0].shape[0]
    inputs = tuple(x[:captured] for x in inputs)
    names = [op.output.name for op in artefact.program.ops]
    values = _inner_values(artefact, inputs, names)
    for name, want in node_values(graph_module, inputs, set(names)):
        got = values.get(name)
        if got is not None and _differs(got, want.numpy(), limit, artefact.is_tflite):
            return f"'{name}'"
    return "none of those the runtime shows"


def _differs(got: Array, want: Array, limit: float, any_order: bool) -> bool:
    if any_order:  # TFLite stores tensors in another order of dimensions
        if got.size != want.size:
            return True
        got, want = np.sort(got, axis=None), np.sort(want, axis=None)
    return relative_error(got, want) > limit


def _inner_values(
    artefact: Artefact, inputs: tuple[Tensor, ...], names: list[str]
) -> dict[str, Array]:
    if artefact.is_tflite:
        runner = TfliteRunner(artefact.data, keep_all=True)
        replay = Artefact(artefact.name, artefact.data, artefact.program, runner)
        replay.run(inputs)
        found = ((n, runner.tensor(n)) for n in names)
        return {n: v for n, v in found if v is not None}
    model = onnx.load_model_from_string(artefact.data)
    made = {o for node in model.graph.node for o in node.output}
    shown = [n for n in names if n in made]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in shown)
    runner = OnnxRunner(model.SerializeToString())
    return dict(zip(shown, runner.run([x.numpy() for x in inputs]), strict=True))
