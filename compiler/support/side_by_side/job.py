"""One job, what becomes of it, and how it travels to another process."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from shrinkc.compiler.support.apart.pickled import pickled
from shrinkc.compiler.support.text import named, one_line
from shrinkc.errors import ShrinkcError, TrainingError

T = TypeVar("T")


@dataclass(frozen=True)
class Job(Generic[T]):
    """Calls `function(*shared, *arguments)`; `name` says in errors which one it was."""

    name: str
    function: Callable[..., T]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Failure:
    """An exception as text: not every exception survives the way between processes."""

    message: str
    trace: str = ""


@dataclass(frozen=True)
class Outcome:
    """Of the job at `index`: its result, or a Failure."""

    index: int
    name: str
    result: Any


Outcomes = Generator[Outcome]  # as they come


def called(function: Callable[..., Any], shared: tuple[Any, ...], *arguments: Any) -> Any:
    try:
        return function(*shared, *arguments)
    except Exception as error:  # told to whoever asked
        message = one_line(error, 300) if isinstance(error, ShrinkcError) else named(error)
        return Failure(message, traceback.format_exc())


def packed(what: str, value: object) -> bytes:
    """Plain bytes: multiprocessing would hold a file open for every tensor, and Ray would send the
    code of graphs (`pickled`). Raises TrainingError."""
    try:
        return pickled(value)
    except Exception as error:  # pickling asks the objects
        raise TrainingError(
            f"{what} cannot be sent to another process ({named(error)}); "
            "use functions of modules and plain arguments"
        ) from error


def packed_result(result: object) -> bytes:
    """Or the failure that it cannot be sent."""
    try:
        return pickled(result)
    except Exception as error:  # as above
        return pickle.dumps(Failure(f"its result cannot be sent back ({named(error)})"))
