"""What a format is: how a network becomes a model file, and how such a file is run.

A format of one's own derives from `Format` and is given to `Options.formats`: two methods are all
that it must have, the others are for formats that can do more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from torch import Tensor

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.onnx import DEFAULT_OPSET
from shrinkc.compiler.formats.boundary import Boundary
from shrinkc.compiler.formats.metadata.description import Description
from shrinkc.compiler.formats.runner import Array, Runner
from shrinkc.compiler.quantise.rounding import LEVELS, Grid
from shrinkc.compiler.quantise.simulate import Quantisation
from shrinkc.compiler.support.choices import Io, Precision
from shrinkc.compiler.support.difference import relative_error
from shrinkc.compiler.support.text import one_line
from shrinkc.compiler.tasks.detection.boxes import Suppression
from shrinkc.errors import ExportError, InputError, ShrinkcError

FILE_PRECISIONS: tuple[str, ...] = get_args(Precision)  # that files are written in
Batches = Sequence[tuple[Tensor, ...]]


@dataclass(frozen=True)
class Written:
    """A file, and what the report should say of how it came about."""

    data: bytes
    notes: tuple[str, ...] = ()


class Format(ABC):
    """A kind of model file.

    name        in reports, and what follows the dot: "onnx"
    precisions  that its files can be written in, of FILE_PRECISIONS
    runtimes    what runs its files: the names that devices have for it, then those that latency
                tables have
    magic       offset and bytes by which its files are known; None: by the suffix alone
    """

    name: str
    precisions: tuple[str, ...] = ("fp32",)
    runtimes: tuple[str, ...] = ()
    magic: tuple[int, bytes] | None = None

    @property
    def file(self) -> str:
        """The file's name in the output folder: "model.onnx"."""
        return f"model.{self.name}"

    @property
    def suffix(self) -> str:
        """With its dot."""
        return Path(self.file).suffix

    def marks(self, data: bytes) -> bool:
        """Whether a file's content says that it is of this format."""
        if self.magic is None:
            return False
        offset, mark = self.magic
        return data[offset : offset + len(mark)] == mark

    def runs_in(self, runtime: str) -> bool:
        """Whether a device's or a latency table's runtime runs files of this format."""
        return any(name.lower() in runtime.lower() for name in self.runtimes)

    # --- writing ---------------------------------------------------------------------------------

    @abstractmethod
    def encode(self, program: ops.Program, opset: int = DEFAULT_OPSET) -> bytes:
        """The program as a file, operator by operator. `opset`: of ONNX's operators.

        Raises UnsupportedOperatorError for what the format cannot express.
        """

    def write(self, program: ops.Program, opset: int = DEFAULT_OPSET) -> Written:
        """The file that is deployed. Raises as `encode` does."""
        return Written(self.encode(program, opset))

    def described(self, data: bytes, description: Description) -> bytes:
        """The file with what apps need to know of it, where the format has a place for that."""
        return data

    def with_suppression(self, data: bytes, suppression: Suppression) -> bytes | None:
        """A file of a detector that ends with the suppression of its boxes, where the format has
        that: `detections` (count, 7), image, left, top, right, bottom, score and class, the surest
        first; as `Suppression.detections`, but for how many boxes are looked at and kept."""
        return None

    def weight_levels(self, here: bool) -> int:
        """How many levels an int8 weight has on each side of zero; `here`: in files for this
        machine."""
        return LEVELS

    def quantise(self, data: bytes, quantisation: Quantisation, batches: Batches) -> Written:
        """The int8 version of a file written from `quantisation.program`; its inputs and outputs
        stay float32. `batches` are a few calibration inputs in PyTorch's layout, each at the
        captured batch size, for tensors that the ranges do not name.

        Raises InputError where what quantises it is not installed, ExportError where that fails.
        """
        raise NotImplementedError(f"{self.name} has no int8")

    def write_int8(
        self, quantisation: Quantisation, batches: Batches, opset: int = DEFAULT_OPSET
    ) -> Written:
        """The int8 file that is deployed, of a network that is ready for it."""
        written = self.write(quantisation.program, opset)
        return self.quantise(written.data, quantisation, batches)

    def with_io(self, data: bytes, io: Io, grids: Mapping[str, Grid]) -> bytes:
        """An int8 file whose inputs and outputs are integers of `io` where they are floats; those
        that count or compare stay as they are. `grids`, by the program's names, are for inputs and
        outputs that nothing in the file quantises, levels of int8."""
        raise InputError(f"`io` {io}: {self.file} reads and returns floats; leave it out")

    def boundary(self, data: bytes) -> Boundary:
        """What a file reads and returns, for those who feed it floats."""
        return Boundary()

    def encode_int8_operator(self, program: ops.Program, batch: tuple[Tensor, ...]) -> bytes:
        """A file of one operator as it is inside an int8 network, to be timed."""
        return self.quantise(self.encode(program), Quantisation(program, {}), (batch,)).data

    # --- running ---------------------------------------------------------------------------------

    def check(self, data: bytes) -> None:
        """Raise LoadError for a file of any origin that would end the process, not just fail."""
        return

    @abstractmethod
    def open(self, data: bytes, threads: int = 1) -> Runner:
        """Load a file into its runtime on this machine. Raises LoadError, and DeviceError where
        the runtime is not installed."""

    def open_apart(self, data: bytes, threads: int = 1) -> Runner:
        """As `open`, for a file of any origin: in a process of its own where what runs it could
        end this one. Outputs that are no arrays of numbers are None."""
        return self.open(data, threads)

    def open_to_judge(self, data: bytes, here: bool) -> Runner:
        """An int8 file, run so that it computes what it says even where this machine's kernels do
        not, unless it is written for this machine (`here`)."""
        return self.open(data)

    def takes_any_batch(self, program: ops.Program) -> bool:
        """Whether the program's file runs at other batch sizes than the captured one."""
        return False

    def run(self, runner: Runner, program: ops.Program, inputs: Sequence[Array]) -> list[Array]:
        """Inputs and outputs in the program's layout, whatever the file's is."""
        return runner.run(inputs)

    def inner_values(
        self, data: bytes, program: ops.Program, inputs: Sequence[Array], names: Sequence[str]
    ) -> dict[str, Array]:
        """Those of the program's values with these names that the runtime shows, for finding the
        first layer that differs."""
        return {}

    def inner_error(self, got: Array, want: Array) -> float:
        """The `relative_error` of one of the `inner_values`, in whatever layout it is."""
        return relative_error(got, want)

    def output_steps(self, data: bytes) -> tuple[float | None, ...] | None:
        """The quantisation step of each output, in the output's own unit (1 where it is an
        integer); None for an output that the file does not say it of, None altogether for a file
        that computes in float."""
        return None


@contextmanager
def quantiser(name: str) -> Generator[None]:
    """Around a library that quantises: whatever it raises becomes an ExportError."""
    try:
        yield
    except ShrinkcError:
        raise
    except Exception as error:
        raise ExportError(f"{name} cannot quantise the network: {one_line(error)}") from error


def tensors_of(program: ops.Program, operators: Collection[str]) -> list[str]:
    """What files call tensors and nodes of these operators: one of these names, alone or in front
    of a slash."""
    names = ((op.name, op.output.name) for op in program.ops if op.name in operators)
    return list(dict.fromkeys(name for pair in names for name in pair))
