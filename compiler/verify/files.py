"""Do the artefacts compute what the model computes? And if not, where do they part?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, fx

from shrinkc.compiler.export import ops
from shrinkc.compiler.formats.base import Format
from shrinkc.compiler.formats.boundary import Boundary
from shrinkc.compiler.formats.exported import Exported
from shrinkc.compiler.formats.runner import Array, Runner
from shrinkc.compiler.pipeline.run import node_values
from shrinkc.compiler.reference.differences import Differences
from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.reference.probes import Probe
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.tally import Tally
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.verify.data import Data
from shrinkc.errors import InputError, VerificationError
from shrinkc.passes.criteria.shared.data import Batch

Watch = Callable[[str, Sequence[Array], Sequence[Array]], None]  # file, its outputs, the original's


def artefacts(
    exported: Exported,
    graph_module: fx.GraphModule,
    formats: Sequence[Format],
    apart: bool,
    load: Callable[[Format, bytes], Runner] = lambda one, data: one.open(data),
) -> tuple[Artefact, ...]:
    """The files, loaded into their runtimes. `apart`: see `Artefact`."""
    program = exported.program or _shapes_only(graph_module)
    return tuple(
        Artefact(one, exported.files[one.name], program, load(one, exported.files[one.name]), apart)
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
    users: Original | None = None,
) -> dict[str, Comparison]:
    """Compare every fp32 artefact with the original, on images where given and on probes always,
    and judge it beside the user's network, which the original may have been made from. Raises
    VerificationError."""
    probes, task = data.probes(), data.options.task
    with progress.task("Verifying", data.evaluation_batches + len(probes)) as done:
        tallies = compare(
            *(original, files, _counted(data, done)), task=task, group=data.judged_on, users=users
        )
        for file in files:
            compare_on_probes(original, file, tallies[file.name], probes, done)
    for file in files:
        require_equal(original, final, file, tallies[file.name], FP32_TOLERANCE)
    return tallies


def judge(
    original: Original,
    files: Sequence[Artefact],
    data: Data,
    progress: Progress,
    watch: Watch,
    users: Original | None = None,
) -> dict[str, Comparison]:
    """Accuracy and agreement of files that are not expected to be equal (int8)."""
    with progress.task("Judging int8", data.evaluation_batches) as done:
        batches, task = _counted(data, done), data.options.task
        return compare(
            *(original, files, batches),
            task=task,
            group=data.judged_on,
            users=users,
            watch=watch,
        )


def _counted(data: Data, done: Callable[[], None]) -> Iterator[Batch]:
    for batch in data.batches():
        yield batch
        done()


FP32_TOLERANCE = 1e-4  # of the range of a channel


@dataclass(frozen=True)
class Artefact:
    """An exported file in memory, ready to run on PyTorch-layout arrays.

    apart  whether the network treats samples one by one, so that a file that is fixed to its batch
           can be run at every other in parts
    """

    format: Format
    data: bytes
    program: ops.Program
    runner: Runner
    apart: bool = True

    @property
    def name(self) -> str:
        """The format's."""
        return self.format.name

    def run(self, inputs: tuple[Tensor, ...]) -> list[Array]:
        """Outputs in PyTorch's layout for inputs in PyTorch's layout, in floats where the file
        quantises them. Raises InputError for a batch size that it cannot be run at."""
        captured, batch = self.program.inputs[0].shape[0], inputs[0].shape[0]
        if not self.takes(batch):
            raise InputError(
                f"{self.format.file} runs at batch {captured} only, `inputs` hold {batch} samples; "
                f"give {captured}"
            )
        if batch == captured or self.format.takes_any_batch(self.program):
            return self._run_once([x.numpy() for x in inputs])
        parts: list[list[Array]] = []
        for start in range(0, batch, captured):
            chunk = tuple(x[start : start + captured] for x in inputs)
            outputs = self._run_once(_filled(chunk, captured))
            parts.append([o[: len(chunk[0])] for o in outputs])
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def takes(self, batch: int) -> bool:
        """Whether it can be run at this batch size."""
        captured = self.program.inputs[0].shape[0]
        return self.apart or batch == captured or self.format.takes_any_batch(self.program)

    @cached_property
    def boundary(self) -> Boundary:
        """What the file itself reads and returns."""
        return self.format.boundary(self.data)

    def _run_once(self, inputs: list[Array]) -> list[Array]:
        stored = self.boundary.stored(inputs)
        return self.boundary.floats(self.format.run(self.runner, self.program, stored))


def artefact(form: Format, data: bytes, program: ops.Program) -> Artefact:
    """A file written from `program`, loaded. Raises LoadError."""
    return Artefact(form, data, program, form.open(data))


def _filled(inputs: tuple[Tensor, ...], batch: int) -> list[Array]:
    """A batch that is short is filled up with its last input."""
    short = batch - len(inputs[0])
    return [torch.cat((x, *(x[-1:],) * short)).numpy() if short else x.numpy() for x in inputs]


@dataclass
class Comparison:
    """Running tally of an artefact: how far it is from the network that it was written from, and
    how it answers beside the user's.

    differences  of its outputs
    """

    tally: Tally
    differences: Differences = field(default_factory=Differences, repr=False)

    def judge(
        self, got: list[Array], users: list[Array], labels: Tensor | None, count: int
    ) -> None:
        """Count the answers to one batch of `count` images."""
        answer, reference = (tuple(map(torch.as_tensor, outputs)) for outputs in (got, users))
        self.tally.add(answer, reference, labels, count)

    @property
    def max_relative_error(self) -> float:
        """The largest of any output's channel, as a share of the channel's range."""
        return self.differences.relative

    @property
    def largest_error(self) -> float:
        """The largest of any output, as a share of the output's whole range."""
        return self.differences.of_whole_range


def compare(
    original: Original,
    artefacts: Iterable[Artefact],
    batches: Iterable[Batch],
    *,
    task: Task = CLASSIFICATION,
    group: str = "the images",
    users: Original | None = None,
    watch: Watch | None = None,
) -> dict[str, Comparison]:
    """Run the original and every artefact on the same batches of (inputs, labels). `watch` is shown
    what every artefact gave and what the original did; `group`: what the batches hold.

    `users` is the network that all of them are judged beside; None: the original itself. The result
    has one entry per artefact, and "torch" for the original.
    """
    chosen, users = list(artefacts), users or original
    names = ("torch", *(a.name for a in chosen))
    tallies = {name: Comparison(Tally(task)) for name in names}
    for index, (inputs, labels) in enumerate(batches):
        want, beside = original.outputs(index, inputs), users.outputs(index, inputs)
        count = _samples(inputs, want)
        tallies["torch"].judge(want, beside, labels, count)
        for artefact in chosen:
            got, tally = artefact.run(inputs), tallies[artefact.name]
            tally.judge(got, beside, labels, count)
            tally.differences.add(group, inputs, got, want)
            if watch is not None:
                watch(artefact.name, got, want)
    return tallies


def _samples(inputs: tuple[Tensor, ...], outputs: Sequence[Array]) -> int:
    """How many samples were answered: as many as the inputs hold, unless their first dimension is
    no batch (a waveform alone, a sequence that has its steps in front)."""
    lengths = [len(output) for output in outputs if output.ndim]
    return len(inputs[0]) if len(inputs[0]) in lengths or not lengths else max(lengths)


def compare_on_probes(
    original: Original,
    artefact: Artefact,
    tally: Comparison,
    probes: Sequence[Probe],
    done: Callable[[], None],
) -> None:
    """Add the errors on those of `probes` whose batch size the file takes, and whose numbers the
    network takes: it runs on its example."""
    for probe in probes:
        if artefact.takes(len(probe.inputs[0])):
            want = original.on_probe(probe)
            if want is not None:
                got = artefact.run(probe.inputs)
                tally.differences.add(probe.group, probe.inputs, got, want)
        done()


def require_equal(
    original: Original,
    graph_module: fx.GraphModule,
    artefact: Artefact,
    tally: Comparison,
    limit: float,
) -> None:
    """Raise VerificationError with the first layer that differs, when the tally is over `limit`
    and float32 does not explain it; what it explains is taken out of the tally."""
    excess = tally.differences.excess(original, limit)
    if excess is None:
        return
    where = first_difference(graph_module, artefact, excess.inputs, limit)
    raise VerificationError(
        f"{artefact.name} differs from the model by {excess}, limit {limit:.0e}; first layer that "
        f"differs: {where}"
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
