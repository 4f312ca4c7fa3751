"""Everything shrinkc raises on purpose.

    ShrinkcError                what a user can cause: one line on stderr, exit code 2
    ├── InputError              the command's own arguments: a path, a shape, a flag
    │   └── ImageError          an image that cannot be used
    ├── LoadError               the model file is missing, damaged, too large or of no known kind
    │   └── UnsafeFileError     loading it would run code; says which flag takes the risk
    ├── CaptureError            the model cannot become a canonical graph; names the operator
    │   └── ModelRunError       the model itself fails on the input given
    ├── IllegalGraphError       a graph is not in canonical form; a bug in a pass, or a damaged file
    ├── ExportError
    │   └── UnsupportedOperatorError    names node, operator and the format that lacks it
    ├── VerificationError       a step changed what the network computes; names the first difference
    ├── TableError              a latency table is unknown, damaged or lacks what was asked
    ├── DataError               images that cannot train or judge a network: damaged, no labels, …
    ├── TrainingError           a training that cannot start, go on or resume; says at which step
    └── DeviceError             a runtime or device that is not there, or failed
        └── DeviceLostError     one that was there and is gone; names the model that ran

This module imports nothing of shrinkc, so every package may use it.
"""

from __future__ import annotations


class ShrinkcError(Exception):
    """The message is one line: what is wrong, where, and what to do."""


class InputError(ShrinkcError):
    """A command-line argument or API parameter that cannot be used."""


class ImageError(InputError):
    """An image, or a folder of them, that cannot be used."""


class LoadError(ShrinkcError):
    """A model file that is missing, damaged, too large or of no known kind."""


class UnsafeFileError(LoadError):
    """A model file whose loading would run code."""


class CaptureError(ShrinkcError):
    """A model that cannot become a canonical graph."""


class ModelRunError(CaptureError):
    """A model that fails on the input it is given, before anything is captured."""


class IllegalGraphError(ShrinkcError):
    """A graph that is not in canonical form (`shrinkc.passes.ir`)."""


class ExportError(ShrinkcError):
    """A canonical graph that cannot be written to a format."""


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


class TableError(ShrinkcError):
    """A latency table that is unknown, damaged or lacks what was asked."""


class DataError(ShrinkcError):
    """Images that cannot train or judge a network: damaged, unlabelled, of another size."""


class TrainingError(ShrinkcError):
    """A training, or a job beside it, that cannot start, go on or resume."""


class DeviceError(ShrinkcError):
    """A runtime or device that is not there, or failed."""


class DeviceLostError(DeviceError):
    """A device, or the process on it, that was there and is gone.

    Parameters: the text, the name of the model that ran, and whether that crashed (rather than the
    connection).
    """

    def __init__(self, text: str, model: str, crashed: bool) -> None:
        super().__init__(text)
        self.model, self.crashed = model, crashed
