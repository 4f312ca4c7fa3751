"""One-operator model files for a runtime and precision, and what to take off their time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from shrinkc.compiler.devices.jobs import TELLING_KERNELS
from shrinkc.compiler.export import ops
from shrinkc.compiler.formats.base import Format
from shrinkc.compiler.formats.registry import format_of_device
from shrinkc.compiler.profile.one_operator import one_operator, tiny, with_neighbours
from shrinkc.compiler.support.text import one_line
from shrinkc.errors import ExportError, InputError
from shrinkc.latency_tables.key import OpKey


class NoFileError(ExportError):
    """An operator that no file can be made of, in this precision for this runtime."""


@dataclass(frozen=True, eq=False)
class OpFile:
    """The operator costs `model`'s time less that of `base`; without a base, `model`'s."""

    model: bytes
    base: bytes | None = None


def op_file(key: OpKey, runtime: str) -> OpFile:
    """Raises NoFileError, and InputError where the quantiser for int8 is not installed."""
    form = format_of_device(runtime)
    try:
        # what a kernel costs depends on its neighbours only where kernels are timed
        context = with_neighbours(key) if runtime in TELLING_KERNELS else None
        programs = (one_operator(key),) if context is None else context
        return OpFile(*(_file(form, program, key.precision) for program in programs))
    except NotImplementedError as error:
        raise NoFileError(f"{key.op}: no file of this operator alone ({error})") from None
    except (InputError, NoFileError):
        raise
    except Exception as error:  # the writers' and quantisers' own
        raise NoFileError(f"{key.op}: {one_line(error)}") from error


class OpFiles:
    """Operators' files for devices that are measured side by side: what many of them want at a
    time is made once. Up to `most_bytes` are kept, those that were wanted last."""

    def __init__(self, most_bytes: int = 0) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[OpKey, str], OpFile | NoFileError] = OrderedDict()
        self._bytes = 0

    def get(self, keys: Sequence[OpKey], runtime: str) -> dict[OpKey, OpFile | NoFileError]:
        """What `op_file` gives for each, or why there is none. Raises InputError as it does."""
        with self._lock:
            found = {key: self._one(key, runtime) for key in keys}
            while self._bytes > self._most_bytes:
                self._bytes -= _size(self._kept.popitem(last=False)[1])
        return found

    def _one(self, key: OpKey, runtime: str) -> OpFile | NoFileError:
        file = self._kept.get((key, runtime))
        if file is None:
            try:
                file = op_file(key, runtime)
            except NoFileError as error:
                file = error
            self._kept[key, runtime] = file
            self._bytes += _size(file)
        self._kept.move_to_end((key, runtime))
        return file


def _size(file: OpFile | NoFileError) -> int:
    return 0 if isinstance(file, NoFileError) else len(file.model) + len(file.base or b"")


@lru_cache(maxsize=8)
def tiny_file(precision: str, runtime: str) -> bytes:
    """A network of next to nothing."""
    return _file(format_of_device(runtime), tiny(), precision)


def _file(form: Format, program: ops.Program, precision: str) -> bytes:
    if precision == "fp32":
        return form.encode(program)
    generator = np.random.default_rng(0)
    arrays = [generator.standard_normal(v.shape, dtype=np.float32) for v in program.inputs]
    return form.encode_int8_operator(program, tuple(map(torch.as_tensor, arrays)))
