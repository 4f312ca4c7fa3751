"""Everything shrinkc raises on purpose.

    ShrinkcError                what a user can cause: one line, the kind of failure, an exit code
    ├── InputError              usage: a parameter or option: a path, a shape, a number
    │   ├── ImageError          unreadable: an image, or a folder of them, that cannot be used
    │   └── UnreachableGoalError    unreachable: no network that fits meets the goal
    ├── LoadError               unreadable: a model file is missing, damaged, too large, unknown
    │   └── UnsafeFileError     … loading it would run code; says which parameter takes the risk
    ├── CaptureError            unsupported: the model cannot become a canonical graph
    │   └── ModelRunError       … the model itself fails on the input given, or is no function of it
    ├── IllegalGraphError       unsupported: a graph that is not in canonical form
    ├── ExportError             unsupported: a graph that cannot be written to a format
    │   └── UnsupportedOperatorError    … names node, operator and the format that lacks it
    ├── VerificationError       verification: a step changed what the network computes
    ├── TableError              unreadable: a latency table is damaged or lacks what was asked
    │   └── UnknownTargetError  usage: no latency table has that name
    ├── DataError               unreadable: images that cannot train or judge a network
    ├── TrainingError           training: it cannot start, go on or resume; says at which step
    ├── DeviceError             device: a runtime or device that is not there, or failed
    │   ├── UnknownDeviceError  usage: text that names no device
    │   └── DeviceLostError     … one that was there and is gone; names the model that ran
    ├── StoppedError            interrupted: Ctrl-C or SIGTERM; says what is kept
    └── InternalError           internal: a bug; the command line raises it, and keeps the traceback

The kinds, and what the command line exits with:

    kind          code  the failure
    usage            2  arguments that cannot be used: change the command
    unreadable       3  a file that is missing, damaged, unsafe or of another kind
    unsupported      4  a network that shrinkc cannot capture, or a format that lacks an operator
    verification     5  something does not compute what it must: do not use the files
    unreachable      6  no network meets the goal: ask for less
    device           7  a device or runtime that is absent or failed
    training         8  a training that cannot start, go on or resume
    internal        70  a bug of shrinkc's; the traceback is in a file that the message names
    interrupted    130  stopped by Ctrl-C or SIGTERM

Messages name parameters in backticks, as Python spells them: "`budget_ms` 0: give milliseconds
above 0". The command line turns them into its options. This module imports nothing of shrinkc, so
every package may use it.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Kind = Literal[
    "usage",
    "unreadable",
    "unsupported",
    "verification",
    "unreachable",
    "device",
    "training",
    "internal",
    "interrupted",
]

EXIT_CODES: dict[Kind, int] = {
    "usage": 2,
    "unreadable": 3,
    "unsupported": 4,
    "verification": 5,
    "unreachable": 6,
    "device": 7,
    "training": 8,
    "internal": 70,
    "interrupted": 130,
}


class ShrinkcError(Exception):
    """What is wrong and where, on one line; `hint` says what to do and follows behind "; "."""

    kind: ClassVar[Kind] = "usage"

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}; {hint}")
        self.message, self.hint = message, hint

    @property
    def exit_code(self) -> int:
        """What the command line exits with."""
        return EXIT_CODES[self.kind]


class InputError(ShrinkcError):
    """A parameter, or option of the command line, that cannot be used."""


class ImageError(InputError):
    """An image, or a folder of them, that cannot be used."""

    kind = "unreadable"


class UnreachableGoalError(InputError):
    """A budget, speedup or drop that no network shrinkc can make of this one meets.

    fastest_ms  the least that was reached in trying, where something was tried
    """

    kind = "unreachable"

    def __init__(
        self, message: str, hint: str | None = None, fastest_ms: float | None = None
    ) -> None:
        super().__init__(message, hint)
        self.fastest_ms = fastest_ms


class LoadError(ShrinkcError):
    """A model file that is missing, damaged, too large or of no known kind."""

    kind = "unreadable"


class UnsafeFileError(LoadError):
    """A model file whose loading would run code."""


class CaptureError(ShrinkcError):
    """A model that cannot become a canonical graph."""

    kind = "unsupported"


class ModelRunError(CaptureError):
    """A model that fails on the input it is given, or gives other outputs for it every time; said
    before anything is captured."""


class IllegalGraphError(ShrinkcError):
    """A graph that is not in canonical form (`shrinkc.passes.ir`)."""

    kind = "unsupported"


class ExportError(ShrinkcError):
    """A canonical graph that cannot be written to a format."""

    kind = "unsupported"


class UnsupportedOperatorError(ExportError):
    """One operator that a format does not have.

    Parameters: the node's name, the operator, the format ("ONNX", "TFLite", …) and the cause.
    """

    def __init__(self, node: str, operator: str, target_format: str, why: str = "") -> None:
        self.node, self.operator, self.target_format = node, operator, target_format
        super().__init__(
            f"{target_format} cannot express node '{node}' ({operator}){': ' + why if why else ''}"
        )


class VerificationError(ShrinkcError):
    """Two forms of the network that must compute the same do not."""

    kind = "verification"


class TableError(ShrinkcError):
    """A latency table that is unknown, damaged or lacks what was asked."""

    kind = "unreadable"


class UnknownTargetError(TableError):
    """A target that no latency table has."""

    kind = "usage"


class DataError(ShrinkcError):
    """Images that cannot train or judge a network: damaged, unlabelled, of another size."""

    kind = "unreadable"


class TrainingError(ShrinkcError):
    """A training, or a job beside it, that cannot start, go on or resume."""

    kind = "training"


class DeviceError(ShrinkcError):
    """A runtime or device that is not there, or failed."""

    kind = "device"


class UnknownDeviceError(DeviceError):
    """Text that is of no device's form."""

    kind = "usage"


class DeviceLostError(DeviceError):
    """A device, or the process on it, that was there and is gone.

    Parameters: the text, the name of the model that ran, and whether that crashed (rather than the
    connection).
    """

    def __init__(self, text: str, model: str, crashed: bool) -> None:
        super().__init__(text)
        self.model, self.crashed = model, crashed


class StoppedError(ShrinkcError):
    """A run that Ctrl-C or SIGTERM ended; the command line raises it."""

    kind = "interrupted"


class InternalError(ShrinkcError):
    """A bug: an exception that nobody expected; the command line raises it."""

    kind = "internal"
