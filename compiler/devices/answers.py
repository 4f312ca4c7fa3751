"""What a runner may answer. A board may say anything: types are strict, texts printable, numbers
finite, arrays as large as they claim."""

from __future__ import annotations

import base64
import math
from typing import Annotated, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from shrinkc.compiler.devices.jobs import Array
from shrinkc.compiler.support.text import one_line, placed


class NonsenseError(Exception):
    """An answer that no runner gives."""


def _printable(text: str) -> str:
    return one_line(text, 300)


Text = Annotated[str, AfterValidator(_printable)]
Bytes = Annotated[int, Field(ge=0, le=1 << 50)]


class _Answer(BaseModel):
    """Exact types, no NaN; what else it says is passed over."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)


class Conditions(_Answer):
    """As `runner.conditions`."""

    governor: Text | None
    frequency_mhz: float | None
    temperature_c: float | None
    load: float | None


class Version(_Answer):
    """Of a hello, whose rest may look different in another protocol."""

    event: Literal["hello"]
    protocol: int


class Hello(Conditions):
    """As `runner.describe`, `runner.conditions` and `runner.runtime_of`."""

    device: Text
    cpu: Text
    cores: Annotated[int, Field(ge=1, le=1 << 20)]
    machine: Text
    system: Text
    python: Text
    runtime: Text
    runtime_version: Text


class At(_Answer):
    event: Literal["at"]
    model: str
    doing: Literal["loading", "running"]


class FailedAnswer(_Answer):
    event: Literal["failed"]
    model: str
    error: Text


class MeasuredAnswer(_Answer):
    event: Literal["measured"]
    model: str
    times_us: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)]
    reference_us: tuple[Annotated[float, Field(gt=0)], ...]
    kernels: Annotated[int, Field(ge=0, le=1 << 20)]


class ArrayAnswer(_Answer):
    dtype: Annotated[str, Field(pattern=r"^(bool|u?int(8|16|32|64)|float(16|32|64))$")]
    shape: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=16)]
    data: str

    def array(self) -> Array:
        """Raises NonsenseError unless there are as many numbers as its shape says."""
        try:
            data = base64.b64decode(self.data, validate=True)
        except ValueError:
            raise NonsenseError("an array that is not base64") from None
        kind = np.dtype(self.dtype)
        if len(data) != math.prod(self.shape) * kind.itemsize:
            raise NonsenseError(f"an array of {len(data):,} bytes that claims another size")
        return np.frombuffer(data, kind).reshape(self.shape)


class RanAnswer(_Answer):
    event: Literal["ran"]
    inputs: tuple[ArrayAnswer, ...]
    outputs: tuple[ArrayAnswer, ...]
    idle_memory_bytes: Bytes | None
    peak_memory_bytes: Bytes | None
    runtime: Text
    runtime_version: Text


class Done(_Answer):
    event: Literal["done"]
    after: Conditions


class Refusal(_Answer):
    event: Literal["refused"]
    kind: str
    error: Text


Answer = Version | At | FailedAnswer | MeasuredAnswer | RanAnswer | Done | Refusal
_ANSWER: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Field(discriminator="event")])


MOST_CONTAINERS = 10_000  # of a line: pydantic copies what is wrong, seconds a megabyte of them


def _require_few(text: bytes) -> None:
    """No runner says a line of very many objects and lists. Raises NonsenseError."""
    if text.count(b"{") + text.count(b"[") > MOST_CONTAINERS:
        raise NonsenseError(f"a line of over {MOST_CONTAINERS:,} objects and lists")


def read_answer(text: bytes) -> Answer:
    """One line of a runner. Raises NonsenseError."""
    _require_few(text)
    try:
        return _ANSWER.validate_json(text)
    except ValidationError as error:
        raise NonsenseError(_reason(error)) from None


def read_hello(text: bytes) -> Hello:
    """What it says of itself, once the protocol is known to be ours. Raises NonsenseError."""
    _require_few(text)
    try:
        return Hello.model_validate_json(text)
    except ValidationError as error:
        raise NonsenseError(_reason(error)) from None


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return placed(first["loc"], first["msg"])
