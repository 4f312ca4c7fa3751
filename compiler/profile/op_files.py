"""One-operator model files for a runtime and precision, and what to take off their time."""

from __future__ import annotations

from dataclasses import dataclass

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


def tiny_file(precision: str, runtime: str) -> bytes:
    """A network of next to nothing."""
    return _file(format_of_device(runtime), tiny(), precision)


def _file(form: Format, program: ops.Program, precision: str) -> bytes:
    if precision == "fp32":
        return form.encode(program)
    generator = np.random.default_rng(0)
    arrays = [generator.standard_normal(v.shape, dtype=np.float32) for v in program.inputs]
    return form.encode_int8_operator(program, tuple(map(torch.as_tensor, arrays)))
