"""One-operator model files for a runtime and precision, and what to take off their time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
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
        self._places: OrderedDict[tuple[OpKey, str], _Place] = OrderedDict()
        self._bytes = 0

    def get(self, keys: Sequence[OpKey], runtime: str) -> dict[OpKey, OpFile | NoFileError]:
        """What `op_file` gives for each, or why there is none. Raises InputError as it does."""
        with self._lock:  # all at once: a hundred devices that wait wake up once, for the last
            missing = [key for key in keys if (key, runtime) not in self._places]
            wanted = {key: self._places.setdefault((key, runtime), _Place()) for key in keys}
            for key in wanted:
                self._places.move_to_end((key, runtime))
        try:
            for key in missing:
                wanted[key].make(key, runtime)
        finally:
            self._keep([(key, runtime) for key in missing])
        return {key: place.take(key, runtime) for key, place in reversed(wanted.items())}

    def _keep(self, made: Sequence[tuple[OpKey, str]]) -> None:
        with self._lock:
            for name in made:
                self._bytes += self._places[name].bytes
                if self._places[name].file is None:  # Ctrl-C, say: others try for themselves
                    self._places.pop(name).ready.set()
            for oldest in list(self._places) if self._bytes > self._most_bytes else ():
                if self._bytes > self._most_bytes and self._places[oldest].ready.is_set():
                    self._bytes -= self._places.pop(oldest).bytes


@dataclass(eq=False)
class _Place:
    """Of one file, for which all but the first wait until it is `ready`."""

    ready: threading.Event = field(default_factory=threading.Event)
    file: OpFile | NoFileError | None = None

    def make(self, key: OpKey, runtime: str) -> None:
        try:
            self.file = op_file(key, runtime)
        except NoFileError as error:
            self.file = error
        self.ready.set()

    def take(self, key: OpKey, runtime: str) -> OpFile | NoFileError:
        self.ready.wait()
        return self.file or op_file(key, runtime)

    @property
    def bytes(self) -> int:
        if not isinstance(self.file, OpFile):
            return 0
        return len(self.file.model) + len(self.file.base or b"")


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
